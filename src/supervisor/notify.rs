//! What systemd is told: READY, WATCHDOG, STATUS, STOPPING. Where no systemd listens, nothing is sent.
//!
//! Protocol: sd_notify(3). The watchdog's period comes from the unit (`WatchdogSec`); it must be longer than
//! `supervisor.hang_s`, so that the supervisor acts first and systemd only when the supervisor itself is gone.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Watchdog messages are at least this far apart, however often the policy asks.
const FEED_EVERY: Duration = Duration::from_secs(1);

/// While the first start takes its time, systemd is asked for this much more, again and again.
const EXTEND_BY: Duration = Duration::from_secs(30);

/// The voice towards systemd.
#[derive(Debug, Default)]
pub struct Notifier {
    ready: bool,
    fed_at: Option<Duration>,
    status: String,
}

impl Notifier {
    /// The server serves. Said once; later restarts of the server are none of systemd's business.
    pub fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            send(&[NotifyState::Ready]);
        }
    }

    /// Work was proved; before READY this asks for more time instead.
    pub fn feed(&mut self, now: Duration) {
        let due = self
            .fed_at
            .is_none_or(|at| now.saturating_sub(at) >= FEED_EVERY);
        if !due {
            return;
        }
        self.fed_at = Some(now);
        if self.ready {
            send(&[NotifyState::Watchdog]);
        } else {
            let more_us = u32::try_from(EXTEND_BY.as_micros()).unwrap_or(u32::MAX);
            send(&[NotifyState::ExtendTimeoutUsec(more_us)]);
        }
    }

    /// One line for people, sent when it changed.
    pub fn status(&mut self, line: &str) {
        if self.status != line {
            line.clone_into(&mut self.status);
            send(&[NotifyState::Status(line)]);
        }
    }

    /// The end was asked for.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

fn send(states: &[NotifyState]) {
    let sent: io::Result<()> = sd_notify::notify(states);
    if let Err(error) = sent {
        debug!(event = "supervisor.notify_failed", %error);
    }
}
