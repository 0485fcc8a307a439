//! Asks the contract's hosts what time it is, every few hours, or when something does not fit.
//!
//! ```text
//!  HEAD https://host/ with its certificate judged at: best time, then floor, then the certificate's own beginning
//!    Date near the judged time ------------------------------------------> vote
//!    Date elsewhere: once more, certificate judged at that Date ---------> vote | the host is not believed
//!  vote far from our time: stamps of the store move first, then the time, then what was stamped meanwhile
//!  the machine's clock off by more than a second: a note for who may set it
//! ```
//! Nothing but the `Date` of an authenticated answer is asked for, so no request here carries a secret.

use std::path::Path;
use std::time::Duration;

use ureq::http::Method;

use super::floor::Keeper;
use super::hand_over::{self, Note, WORTH_SETTING_MS};
use super::vote::{AGREE_MS, Sample};
use super::{MAX_ROUND_TRIP, PlatformTime, Quality, Step, read};
use crate::clock::{BootStamp, Clock};
use crate::identity::dice;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::store::restamp::Restamp;
use crate::telemetry::{Code, Telemetry, chain};
use crate::wan::contract::FlowId;
use crate::wan::credentials::Credentials;
use crate::wan::egress::{Cause, Client, EgressError, Request};
use crate::wan::outcome::Worker;
use crate::wan::worker::{Life, Next, StepError, Work};

/// From one round to the next at least, and at most, once the time is as good as it gets.
const REFRESH: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(6 * 3600)];
/// The same while a second host has not confirmed it.
const REFRESH_WEAK: Duration = Duration::from_secs(600);
/// Rounds that something else asks for come this seldom.
const WISH_PAUSE: Duration = Duration::from_secs(30);
/// The floor is written this often at most: flash wears out.
const KEEP_PERIOD: Duration = Duration::from_secs(600);
/// A time nobody vouches for is told after this.
const UNSURE_SHOWS: Duration = Duration::from_secs(600);
/// Times a certificate is judged at for one host, in one round.
const MAX_CANDIDATES: usize = 4;
/// The end is looked for this often.
const REST_SLICE: Duration = Duration::from_millis(250);
/// Corrections below this move no stamps.
const RESTAMP_FROM_MS: i64 = 60_000;

/// What the worker works with.
pub(in crate::wan) struct AskTimeParts {
    pub(in crate::wan) time: PlatformTime,
    /// Of each flow that is switched on; the required one first.
    pub(in crate::wan) hosts: Vec<(Client, String)>,
    pub(in crate::wan) credentials: Credentials,
    pub(in crate::wan) store: Store,
    pub(in crate::wan) telemetry: Telemetry,
    pub(in crate::wan) shutdown: Shutdown,
}

/// The worker.
pub(in crate::wan) struct AskTime {
    parts: AskTimeParts,
    keeper: Keeper,
    kept_at: Option<Duration>,
    kept_as: Option<Quality>,
    started_at: Duration,
}

impl AskTime {
    pub(in crate::wan) fn new(parts: AskTimeParts, data_dir: &Path) -> Self {
        Self {
            keeper: Keeper::new(data_dir),
            kept_at: None,
            kept_as: None,
            started_at: parts.time.monotonic(),
            parts,
        }
    }

    /// The hosts that may be asked now. Nothing leaves for support before there is a key, not even this; a host that carries
    /// two flows has one voice.
    fn hosts(&self) -> Vec<&(Client, String)> {
        let mut hosts: Vec<&(Client, String)> = Vec::new();
        for host in &self.parts.hosts {
            let needs_key = match host.0.flow() {
                FlowId::Logs => Some(Worker::Logs),
                FlowId::Support => Some(Worker::Support),
                FlowId::Api | FlowId::Bus | FlowId::Media => None,
            };
            let may_be_asked =
                needs_key.is_none_or(|worker| self.parts.credentials.missing_for(worker).is_none());
            if may_be_asked && hosts.iter().all(|(_, url)| *url != host.1) {
                hosts.push(host);
            }
        }
        hosts
    }

    /// What the host behind `client` says; `None` when it is nothing to go by.
    fn ask_host(&self, client: &Client, url: &str) -> Result<Option<Sample>, EgressError> {
        let time = &self.parts.time;
        let mut candidates = vec![time.now_s()];
        if time.quality() < Quality::Weak {
            candidates.push(time.floor_ms().div_euclid(1000));
        }
        let mut next = 0;
        loop {
            let candidate_s = candidates[next];
            next += 1;
            let error = match ask(time, client, url, candidate_s) {
                Ok(None) => return Ok(None),
                Ok(Some(sample)) => return self.confirm(client, url, candidate_s, sample),
                Err(error) => error,
            };
            let begins_s = error.evidence().valid_from_s;
            if time.quality() < Quality::Weak
                && let Some(begins_s) = begins_s.filter(|begins_s| *begins_s > candidate_s)
                && !candidates.contains(&begins_s)
            {
                candidates.push(begins_s);
            }
            let is_about_time = matches!(error.cause, Cause::TlsExpired | Cause::TlsNotYetValid);
            let is_spent = next == candidates.len() || next == MAX_CANDIDATES;
            if !is_about_time || is_spent || self.parts.shutdown.is_triggered() {
                return Err(error);
            }
        }
    }

    /// Believes a `Date` only when the certificate holds at that time, too.
    fn confirm(
        &self,
        client: &Client,
        url: &str,
        candidate_s: i64,
        sample: Sample,
    ) -> Result<Option<Sample>, EgressError> {
        let time = &self.parts.time;
        let said_ms = sample.base_ms.saturating_add(time.monotonic_ms());
        let said_s = said_ms.div_euclid(1000);
        if said_s.abs_diff(candidate_s) <= AGREE_MS.unsigned_abs() / 1000 {
            return Ok(Some(sample));
        }
        if said_ms.saturating_add(AGREE_MS) < time.floor_ms() {
            let host = sample.flow.flow().name;
            tracing::warn!(event = "time.host_below_floor", host, said_s);
            return Ok(None);
        }
        let again = ask(time, client, url, said_s)?;
        Ok(again.filter(|again| again.base_ms.abs_diff(sample.base_ms) <= AGREE_MS.unsigned_abs()))
    }

    /// A large correction: what was stamped by the wrong time moves with it.
    fn step_over(&self, step: Step) -> Result<(), StepError> {
        let (time, store) = (&self.parts.time, &self.parts.store);
        let restamp = Restamp {
            since_ms: step.since_ms,
            until_ms: time.now_ms(),
            delta_ms: step.delta_ms,
        };
        let is_worth_it = step.delta_ms.abs() >= RESTAMP_FROM_MS;
        // Forward, the deadlines go ahead; backward, the time does: nothing looks overdue in between.
        if is_worth_it && step.delta_ms > 0 {
            store.restamp(restamp)?;
        }
        let until_ms = time.now_ms();
        time.take(step);
        if is_worth_it {
            // Backward, all; forward, what was stamped since the first pass.
            let since_ms = if step.delta_ms > 0 {
                restamp.until_ms.saturating_add(1)
            } else {
                step.since_ms
            };
            store.restamp(Restamp {
                since_ms,
                until_ms,
                delta_ms: step.delta_ms,
            })?;
            self.parts
                .telemetry
                .conditions
                .restamp(step.since_ms, until_ms, step.delta_ms);
        }
        Ok(())
    }

    fn keep_floor(&mut self) {
        let (now, quality) = (self.parts.time.monotonic(), self.parts.time.quality());
        let is_due = self.kept_at.is_none_or(|at| now >= at + KEEP_PERIOD);
        if !is_due && self.kept_as == Some(quality) {
            return;
        }
        // Told once a period, not at every try: a full disk says so elsewhere.
        if let Err(error) = self.keeper.keep(self.parts.time.to_keep()) {
            tracing::warn!(event = "time.floor_not_kept", error = chain(&error));
        }
        (self.kept_at, self.kept_as) = (Some(now), Some(quality));
    }

    fn tell_quality(&self) {
        let time = &self.parts.time;
        let unsure_for = time.monotonic().saturating_sub(self.started_at);
        if time.quality() >= Quality::Weak {
            self.parts.telemetry.conditions.clear(Code::ClockUnsure);
        } else if unsure_for >= UNSURE_SHOWS {
            let detail = format!("{:?}", time.quality()).to_lowercase();
            self.parts
                .telemetry
                .conditions
                .raise(Code::ClockUnsure, detail, time.now_ms());
        }
    }

    /// Leaves a note for who may set the machine's clock.
    fn hand_over(&self) {
        let time = &self.parts.time;
        let Some(dir) = hand_over::runtime_dir() else {
            return;
        };
        if time.quality() < Quality::Weak || time.machine_ahead_ms().abs() <= WORTH_SETTING_MS {
            return;
        }
        let note = BootStamp::now().map(|at| Note {
            wall_ms: time.now_ms(),
            at,
        });
        match note {
            Ok(note) => match hand_over::write(&dir, &note) {
                Ok(()) => tracing::info!(
                    event = "time.machine_clock_off",
                    ahead_ms = time.machine_ahead_ms()
                ),
                Err(error) => {
                    tracing::warn!(event = "time.note_not_written", error = chain(&error));
                }
            },
            Err(error) => tracing::warn!(event = "time.note_not_written", %error),
        }
    }

    fn next_round_in(&self) -> Duration {
        if self.parts.time.quality() < Quality::Good && self.hosts().len() > 1 {
            return REFRESH_WEAK;
        }
        let [least, most] = REFRESH;
        let span_s = u32::try_from((most - least).as_secs()).unwrap_or(1);
        least + Duration::from_secs(u64::from(dice() % span_s))
    }
}

impl Work for AskTime {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        self.keep_floor();
        let (mut required, mut has_stepped) = (Ok(()), false);
        for (client, url) in self.hosts() {
            if self.parts.shutdown.is_triggered() {
                return Ok(Next::Again);
            }
            life.sign();
            let flow = client.flow();
            match self.ask_host(client, url) {
                Ok(Some(sample)) => {
                    if let Some(step) = self.parts.time.consider(sample) {
                        self.step_over(step)?;
                        has_stepped = true;
                    }
                }
                Ok(None) => {
                    tracing::info!(event = "time.host_says_nothing", host = flow.flow().name);
                }
                Err(error) => {
                    tracing::debug!(event = "time.host_not_asked", error = chain(&error));
                    if flow == FlowId::Api {
                        required = Err(error);
                    }
                }
            }
        }
        if has_stepped {
            self.kept_at = None;
        }
        self.keep_floor();
        self.tell_quality();
        self.hand_over();
        self.parts.time.round_ended();
        required?;
        Ok(Next::Rest(self.next_round_in()))
    }

    /// Waits for the next round; the floor is kept meanwhile, and a wish brings the round forward.
    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        let time = self.parts.time.clone();
        let began = time.monotonic();
        let rested = || time.monotonic().saturating_sub(began);
        while !shutdown.is_triggered() && rested() < wait {
            if rested() >= WISH_PAUSE && time.wait_for_wish(REST_SLICE) {
                break;
            }
            if rested() < WISH_PAUSE && shutdown.wait(REST_SLICE) {
                break;
            }
            self.keep_floor();
        }
        shutdown.is_triggered()
    }
}

/// One host's `Date`, its certificate judged at `at_s`. The first answer on a new connection may have taken too long to be
/// of use; the second has the connection ready.
fn ask(
    time: &PlatformTime,
    client: &Client,
    url: &str,
    at_s: i64,
) -> Result<Option<Sample>, EgressError> {
    let judging = client.judging_at(at_s);
    let mut sample = None;
    for _ in 0..2 {
        let asked = time.asked();
        let answer = judging.send(&Request {
            method: Method::HEAD,
            url,
            headers: &[("cache-control", "no-cache")],
            body: None,
            hold: Duration::ZERO,
        })?;
        let answered = time.monotonic();
        sample = read(client.flow(), &answer, asked, answered);
        if sample.is_some() || answered.saturating_sub(asked) <= MAX_ROUND_TRIP {
            break;
        }
    }
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::Timestamp;

    use super::*;
    use crate::clock::{ManualClock, Reckoning, SystemClock};
    use crate::config::Config;
    use crate::identity::Secret;
    use crate::store::orders::{InboxMessage, Source};
    use crate::wan::credentials::{BusAccess, Granted};
    use crate::wan::egress::Egress;
    use crate::wan::time::floor::Floor;
    use crate::wan::tls_host::{Certificate, TlsHost};

    const DAY_MS: i64 = 24 * 3_600_000;

    /// A host that tells real time and what `lie_ms` adds to it.
    struct Host {
        host: TlsHost,
        lie_ms: Arc<AtomicI64>,
    }

    fn host(certificate: &Certificate, head: &'static str) -> Host {
        let lie_ms = Arc::new(AtomicI64::new(0));
        let lies = Arc::clone(&lie_ms);
        let host = TlsHost::start_with(certificate, move |_| {
            let now_ms = Timestamp::now().as_millisecond() + lies.load(Ordering::Relaxed);
            let now = Timestamp::from_millisecond(now_ms).unwrap();
            let date = jiff::fmt::rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&now)
                .unwrap();
            format!("HTTP/1.1 {head}\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        });
        Host { host, lie_ms }
    }

    struct Bench {
        work: AskTime,
        store: Store,
        life: Life,
        dir: tempfile::TempDir,
    }

    /// A box whose machine's clock stands at `machine`, with a floor of `floor_days` ago.
    fn bench(machine: &str, floor_days: i64, hosts: &[(FlowId, &Host)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::from_layers(&[]).unwrap();
        config.store.data_dir = dir.path().to_owned();
        config.wan.ca_files = hosts
            .iter()
            .map(|(_, host)| host.host.ca_file.clone())
            .collect();
        for (flow, host) in hosts {
            let url = match flow {
                FlowId::Api => &mut config.wan.api_url,
                FlowId::Bus => &mut config.wan.bus_url,
                FlowId::Media => &mut config.wan.media_url,
                FlowId::Logs => &mut config.wan.logs_url,
                FlowId::Support => &mut config.wan.support_url,
            };
            *url = host.host.https();
        }
        let floor = Floor {
            at_ms: Timestamp::now().as_millisecond() - floor_days * DAY_MS,
            unsure_since_ms: None,
        };
        let machine = Arc::new(ManualClock::at(machine.parse().unwrap()));
        let time = PlatformTime::above(floor, machine);
        let store = Store::open(&config.store, Arc::new(time.clone())).unwrap();
        let (egress, _) = Egress::new(&config.wan, &time);
        let hosts = hosts
            .iter()
            .map(|(flow, host)| (egress.client(*flow), format!("{}/", host.host.url)))
            .collect();
        let life = Life::new(Arc::new(SystemClock::default()));
        let parts = AskTimeParts {
            time,
            hosts,
            credentials: Credentials::from_settings("shop-1", &config.wan),
            store: store.clone(),
            telemetry: Telemetry::default(),
            shutdown: Shutdown::default(),
        };
        Bench {
            work: AskTime::new(parts, dir.path()),
            store,
            life,
            dir,
        }
    }

    impl Bench {
        fn round(&mut self) -> Result<Next, StepError> {
            self.work.step(&self.life)
        }

        /// How far our time is from the real one.
        fn off_ms(&self) -> i64 {
            self.work.parts.time.now_ms() - Timestamp::now().as_millisecond()
        }

        fn quality(&self) -> Quality {
            self.work.parts.time.quality()
        }
    }

    #[test]
    fn a_box_of_1970_finds_the_time_though_every_certificate_is_newer_than_its_floor() {
        let year = Timestamp::now().strftime("%Y").to_string().parse().unwrap();
        let new = Certificate {
            valid_from: Some((year, 1, 1)),
            ..Certificate::default()
        };
        let (api, bus) = (host(&new, "200 OK"), host(&new, "404 Not Found"));
        let mut bench = bench(
            "1970-01-01T00:00:00Z",
            2 * 365,
            &[(FlowId::Api, &api), (FlowId::Bus, &bus)],
        );
        assert_eq!(bench.quality(), Quality::Floor);
        let next = bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Good);
        assert!(bench.off_ms().abs() < 2000, "{}", bench.off_ms());
        assert!(matches!(next, Next::Rest(rest) if rest >= REFRESH[0] && rest <= REFRESH[1]));
        let kept = Floor::of(0, bench.dir.path());
        assert!((kept.at_ms - Timestamp::now().as_millisecond()).abs() < 5000);
        assert_eq!(kept.unsure_since_ms, None);
        while let Ok(request) = api.host.requests.try_recv() {
            assert!(request.starts_with("HEAD / "), "{request}");
            assert!(!request.to_lowercase().contains("authorization"));
        }
    }

    #[test]
    fn a_clock_years_ahead_at_which_certificates_look_expired_comes_back() {
        let usual = Certificate {
            valid_from: Some((2020, 1, 1)),
            valid_until: Some((2049, 1, 1)),
            ..Certificate::default()
        };
        let (api, bus) = (host(&usual, "200 OK"), host(&usual, "400 Bad Request"));
        let hosts = [(FlowId::Api, &api), (FlowId::Bus, &bus)];
        let mut bench = bench("2060-01-01T00:00:00Z", 30, &hosts);
        assert_eq!(bench.quality(), Quality::Unset);
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Good);
        assert!(bench.off_ms().abs() < 2000, "{}", bench.off_ms());
    }

    #[test]
    fn a_date_at_which_the_hosts_own_certificate_does_not_hold_is_not_believed() {
        let short = Certificate {
            valid_from: Some((2020, 1, 1)),
            valid_until: Some((2049, 1, 1)),
            ..Certificate::default()
        };
        let api = host(&short, "200 OK");
        api.lie_ms.store(40 * 365 * DAY_MS, Ordering::Relaxed);
        let mut bench = bench("1970-01-01T00:00:00Z", 30, &[(FlowId::Api, &api)]);
        let error = bench.round().unwrap_err().to_string();
        assert!(error.contains("expired"), "{error}");
        assert_eq!(bench.quality(), Quality::Floor);
        // Nor one before the floor, at which it would hold.
        api.lie_ms.store(-400 * DAY_MS, Ordering::Relaxed);
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Floor);
    }

    #[test]
    fn pages_caches_and_hosts_nobody_vouches_for_are_no_source_of_time() {
        let plain = Certificate::default();
        for head in [
            "302 Found\r\nLocation: https://login.example/",
            "200 OK\r\nContent-Type: text/html; charset=utf-8",
            "200 OK\r\nAge: 3",
        ] {
            let page = host(&plain, head);
            let mut bench = bench("1970-01-01T00:00:00Z", 30, &[(FlowId::Api, &page)]);
            bench.round().unwrap();
            assert_eq!(bench.quality(), Quality::Floor, "{head}");
        }
        // A router's own certificate: its authority is not ours, at whatever time.
        let (ours, mut router) = (host(&plain, "200 OK"), host(&plain, "200 OK"));
        router.host.ca_file.clone_from(&ours.host.ca_file);
        let mut bench = bench("1970-01-01T00:00:00Z", 30, &[(FlowId::Bus, &router)]);
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Floor);
        assert!(
            router.host.requests.try_recv().is_err(),
            "nothing was said to it"
        );
    }

    #[test]
    fn a_lying_host_is_outvoted_and_alone_it_is_weak_until_another_speaks() {
        let plain = Certificate::default();
        let hosts = [
            host(&plain, "200 OK"),
            host(&plain, "200 OK"),
            host(&plain, "200 OK"),
        ];
        hosts[0].lie_ms.store(300 * DAY_MS, Ordering::Relaxed);
        let mut bench = bench(
            "1970-01-01T00:00:00Z",
            30,
            &[
                (FlowId::Api, &hosts[0]),
                (FlowId::Bus, &hosts[1]),
                (FlowId::Media, &hosts[2]),
            ],
        );
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Good);
        assert!(bench.off_ms().abs() < 2000, "{}", bench.off_ms());
        let alone = [(FlowId::Api, &hosts[0])];
        let mut bench = tests::bench("1970-01-01T00:00:00Z", 30, &alone);
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Weak);
        let kept = Floor::of(0, bench.dir.path());
        assert!(
            kept.at_ms < Timestamp::now().as_millisecond(),
            "one host's word is no floor"
        );
    }

    #[test]
    fn a_shop_without_bus_and_media_knows_the_time_by_two_hosts_once_it_has_a_key_for_logs() {
        let plain = Certificate::default();
        let (api, logs) = (host(&plain, "200 OK"), host(&plain, "200 OK"));
        let hosts = [
            (FlowId::Api, &api),
            (FlowId::Logs, &logs),
            (FlowId::Support, &api),
        ];
        let mut bench = bench("1970-01-01T00:00:00Z", 30, &hosts);
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Weak);
        assert!(
            logs.host.requests.try_recv().is_err(),
            "no key, no question"
        );
        bench.work.parts.credentials.grant(Some(Granted {
            site_id: "shop-1".into(),
            logs_key: Some(Secret::new("key")),
            support: Some(BusAccess::Key {
                name: "box".into(),
                key: Secret::new("key"),
            }),
            ..Granted::default()
        }));
        assert_eq!(bench.work.hosts().len(), 2, "one host has one voice");
        bench.round().unwrap();
        assert_eq!(bench.quality(), Quality::Good);
    }

    #[test]
    fn a_forward_step_expires_no_open_command_and_forgets_nothing() {
        let (api, bus) = (
            host(&Certificate::default(), "200 OK"),
            host(&Certificate::default(), "200 OK"),
        );
        let hosts = [(FlowId::Api, &api), (FlowId::Bus, &bus)];
        let mut bench = bench("1970-01-01T00:00:00Z", 300, &hosts);
        let order = r#"{"order_id":"o1","placed_at":"2026-05-01T09:59:00Z","lines":[]}"#;
        let message = || InboxMessage {
            message_id: "m1".into(),
            source: Source::Bus,
            body: order.into(),
        };
        bench.store.orders.receive(message()).wait().unwrap();
        let time = bench.work.parts.time.clone();
        let before = bench.store.orders.list(0, None, 10).unwrap().remove(0);
        bench.round().unwrap();
        assert!(bench.off_ms().abs() < 2000, "{}", bench.off_ms());
        let expired = bench.store.orders.expire_commands(time.reckoning());
        assert_eq!(expired.wait().unwrap(), 0);
        let after = bench.store.orders.list(0, None, 10).unwrap().remove(0);
        let moved_ms = after.received_at_ms - before.received_at_ms;
        assert!((moved_ms - 300 * DAY_MS).abs() < 5000, "{moved_ms}");
        // In four hours it does expire: the stamps moved, they did not vanish.
        let expired = bench
            .store
            .orders
            .expire_commands(Reckoning::by(time.now_ms() + DAY_MS));
        assert_eq!(expired.wait().unwrap(), 1);
    }

    #[test]
    fn a_time_nobody_vouches_for_becomes_a_condition_that_ends_with_the_first_host() {
        let api = host(&Certificate::default(), "302 Found");
        let mut bench = bench("1970-01-01T00:00:00Z", 30, &[(FlowId::Api, &api)]);
        bench.round().unwrap();
        let conditions = bench.work.parts.telemetry.conditions.clone();
        assert!(!conditions.holds(Code::ClockUnsure), "not at once");
        bench.work.started_at = Duration::ZERO;
        let late = Duration::from_secs(601);
        let floor = Floor {
            at_ms: Timestamp::now().as_millisecond() - DAY_MS,
            unsure_since_ms: None,
        };
        let machine = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        machine.advance(late);
        bench.work.parts.time = PlatformTime::above(floor, machine);
        bench.round().unwrap();
        assert!(conditions.holds(Code::ClockUnsure));
        let sample = Sample {
            flow: FlowId::Api,
            base_ms: Timestamp::now().as_millisecond() - 601_000,
            at: late,
        };
        if let Some(step) = bench.work.parts.time.consider(sample) {
            bench.work.step_over(step).unwrap();
        }
        bench.round().unwrap();
        assert!(!conditions.holds(Code::ClockUnsure));
    }
}
