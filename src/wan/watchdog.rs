//! Watches the workers: one that shows no life loses its connections, so that no wait lasts for ever; and the network's link,
//! whose return no back-off would notice.

use std::time::Duration;

use super::egress::{Client, Heard};
use super::outcome::Worker;
use super::worker::Life;
use crate::clock::Clock;
use crate::shutdown::Shutdown;
use crate::telemetry::{Code, Conditions};

/// The watchdog looks this often, also whether the network has a link.
pub(super) const WATCH_PERIOD: Duration = Duration::from_secs(5);

/// Tells the waiting workers when the network's link is back: no back-off knows of a cable that was plugged in.
pub(super) struct LinkWatch {
    heard: Heard,
    was_up: bool,
}

impl LinkWatch {
    pub(super) const fn new(heard: Heard) -> Self {
        Self {
            heard,
            was_up: true,
        }
    }

    pub(super) fn look(&mut self, is_up: bool) {
        if is_up && !self.was_up {
            tracing::info!(event = "wan.link_back");
            self.heard.way_is_back();
        }
        self.was_up = is_up;
    }
}

/// Ends the connections of workers that show no life, and of all at the shutdown; `look` is done as often.
pub(super) fn watch(
    watched: &[(Worker, Client, Life)],
    conditions: &Conditions,
    clock: &dyn Clock,
    period: Duration,
    mut look: impl FnMut(),
    shutdown: &Shutdown,
) {
    while !shutdown.wait(period) {
        look();
        let mut stuck = Vec::new();
        for (worker, client, life) in watched {
            if life.is_overdue() {
                tracing::warn!(event = "wan.worker_stuck", worker = worker.name());
                stuck.push(worker.name());
                client.interrupt();
            }
        }
        if stuck.is_empty() {
            conditions.clear(Code::WanStuck);
        } else {
            conditions.raise(Code::WanStuck, stuck.join(", "), clock.wall_ms());
        }
    }
    for (_, client, _) in watched {
        client.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::Config;
    use crate::wan::contract::FlowId;
    use crate::wan::egress::{Egress, Method, Request};
    use crate::wan::time::PlatformTime;
    use crate::wan::tls_host::{Certificate, TlsHost};
    use crate::wan::worker::LIFE_SIGN;

    fn reaches(level: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !level() {
            assert!(std::time::Instant::now() < deadline, "not reached in time");
            thread::yield_now();
        }
    }

    #[test]
    fn a_link_that_is_back_is_told_once() {
        let heard = Heard::default();
        let mut link = LinkWatch::new(heard.clone());
        for is_up in [true, false, false] {
            link.look(is_up);
        }
        assert_eq!(heard.returns(), 0);
        link.look(true);
        link.look(true);
        assert_eq!(heard.returns(), 1);
    }

    #[test]
    fn a_worker_without_life_loses_its_connections_and_the_condition_ends_with_its_next_sign() {
        let host = TlsHost::start(&Certificate::default(), "");
        let mut config = Config::from_layers(&[]).unwrap().wan;
        config.ca_files = vec![host.ca_file.clone()];
        config.api_url = host.https();
        let client = Egress::new(&config, &PlatformTime::of_system())
            .0
            .client(FlowId::Api);
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let life = Life::new(clock.clone());
        let (conditions, shutdown) = (Conditions::default(), Shutdown::default());
        let watchdog = thread::spawn({
            let watched = [(Worker::Pull, client.clone(), life.clone())];
            let (conditions, shutdown) = (conditions.clone(), shutdown.clone());
            let clock = clock.clone();
            move || {
                let period = Duration::from_millis(10);
                watch(&watched, &conditions, &*clock, period, || (), &shutdown);
            }
        });
        let hanging = thread::spawn({
            let url = host.url.clone();
            move || {
                let request = Request {
                    method: Method::GET,
                    url: &url,
                    headers: &[],
                    body: None,
                    hold: Duration::from_secs(60),
                };
                client.send(&request).is_err()
            }
        });
        host.requests.recv().unwrap();
        clock.advance(LIFE_SIGN + Duration::from_secs(1));
        assert!(hanging.join().unwrap(), "the request was ended");
        reaches(|| conditions.holds(Code::WanStuck));
        life.sign();
        reaches(|| !conditions.holds(Code::WanStuck));
        shutdown.trigger();
        watchdog.join().unwrap();
    }
}
