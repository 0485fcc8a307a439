//! What a port counts.

use std::time::Duration;

use hyper::StatusCode;

use super::wire::Deadline;
use crate::config::LanPort;
use crate::telemetry::{Counter, Gauge, Metrics};

/// Above this an answer was slow: the promise of the LAN side.
const SLOW: Duration = Duration::from_millis(20);

/// The numbers of one port.
#[derive(Debug, Clone)]
pub struct PortCount {
    /// Requests answered.
    pub requests: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// Clients turned away at the bound on connections.
    pub turned_away: Counter,
    /// Connections that could not be accepted.
    pub accept_failed: Counter,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Streams whose reader did not keep up.
    pub dropped_streams: Counter,
    microseconds: Counter,
    slow: Counter,
    classes: [Counter; 5],
    cut: [Counter; 3],
    malformed: Counter,
}

impl PortCount {
    /// The counters of `port`.
    #[must_use]
    pub fn of(port: LanPort, metrics: &Metrics) -> Self {
        let label = format!("port=\"{}\"", port.name());
        let of_class = |class: &str| {
            metrics.counter(
                "comptoir_lan_responses_total",
                &format!("{label},class=\"{class}\""),
                "Answers by class of status.",
            )
        };
        let of_deadline = |deadline: &str| {
            metrics.counter(
                "comptoir_lan_connections_cut_total",
                &format!("{label},deadline=\"{deadline}\""),
                "Connections cut by a deadline.",
            )
        };
        let counter = |name, help| metrics.counter(name, &label, help);
        Self {
            requests: counter("comptoir_lan_requests_total", "Requests answered."),
            connections: metrics.gauge("comptoir_lan_connections", &label, "Open connections."),
            turned_away: counter(
                "comptoir_lan_turned_away_total",
                "Clients turned away at the bound on connections.",
            ),
            accept_failed: counter(
                "comptoir_lan_accept_failed_total",
                "Connections that could not be accepted.",
            ),
            panics: counter("comptoir_lan_panics_total", "Handlers that panicked."),
            dropped_streams: counter(
                "comptoir_lan_streams_dropped_total",
                "Event streams whose reader did not keep up.",
            ),
            microseconds: counter(
                "comptoir_lan_request_microseconds_total",
                "Time from head to answer, of all requests together.",
            ),
            slow: counter(
                "comptoir_lan_slow_requests_total",
                "Requests answered after more than 20 ms.",
            ),
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(of_class),
            cut: ["idle", "header", "stall"].map(of_deadline),
            malformed: counter(
                "comptoir_lan_malformed_total",
                "Connections ended by something that is no HTTP/1.1 request.",
            ),
        }
    }

    /// A request was answered.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.requests.add_one();
        self.microseconds
            .add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if took > SLOW {
            self.slow.add_one();
        }
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.add_one();
        }
    }

    /// A deadline cut a connection.
    pub fn cut(&self, deadline: Deadline) {
        let place = match deadline {
            Deadline::Idle => 0,
            Deadline::Header => 1,
            Deadline::Stall => 2,
        };
        self.cut[place].add_one();
    }

    /// A client sent what is no HTTP/1.1.
    pub fn malformed(&self) {
        self.malformed.add_one();
    }
}
