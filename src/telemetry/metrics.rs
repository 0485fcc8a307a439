//! Counters and gauges, and their text in Prometheus' exposition format (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A count that only rises.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `change`, which may be negative.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Name and labels.
type Series = (&'static str, String);

#[derive(Debug)]
enum Kind {
    Counter(Counter),
    Gauge(Gauge),
}

/// Every counter and gauge by name. Clones share one table; names are constants of the code, so it is bounded by it.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    table: Arc<Mutex<BTreeMap<Series, (&'static str, Kind)>>>,
}

impl Metrics {
    /// The counter `name` (snake case, ends in `_total`) with `labels` as in `port="8000"`; made at the first call.
    ///
    /// # Panics
    /// When the name is a gauge's already: a mistake in the code.
    #[must_use]
    pub fn counter(&self, name: &'static str, labels: &str, help: &'static str) -> Counter {
        let mut table = self.table.lock().expect("no holder of this lock panics");
        let entry = table
            .entry((name, labels.to_owned()))
            .or_insert_with(|| (help, Kind::Counter(Counter::default())));
        match &entry.1 {
            Kind::Counter(counter) => counter.clone(),
            Kind::Gauge(_) => unreachable!("{name} is a gauge"),
        }
    }

    /// The gauge `name` with `labels`; made at the first call.
    ///
    /// # Panics
    /// When the name is a counter's already: a mistake in the code.
    #[must_use]
    pub fn gauge(&self, name: &'static str, labels: &str, help: &'static str) -> Gauge {
        let mut table = self.table.lock().expect("no holder of this lock panics");
        let entry = table
            .entry((name, labels.to_owned()))
            .or_insert_with(|| (help, Kind::Gauge(Gauge::default())));
        match &entry.1 {
            Kind::Gauge(gauge) => gauge.clone(),
            Kind::Counter(_) => unreachable!("{name} is a counter"),
        }
    }

    /// All of them as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut last_name = "";
        for ((name, labels), (help, kind)) in self
            .table
            .lock()
            .expect("no holder of this lock panics")
            .iter()
        {
            let (kind, value) = match kind {
                Kind::Counter(counter) => ("counter", counter.value().to_string()),
                Kind::Gauge(gauge) => ("gauge", gauge.value().to_string()),
            };
            if *name != last_name {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
                last_name = name;
            }
            let _ = if labels.is_empty() {
                writeln!(text, "{name} {value}")
            } else {
                writeln!(text, "{name}{{{labels}}} {value}")
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_one_head_for_all_labels_of_a_name() {
        let metrics = Metrics::default();
        metrics.counter("a_total", "port=\"80\"", "Asked.").add(2);
        metrics
            .counter("a_total", "port=\"8000\"", "Asked.")
            .add_one();
        metrics
            .counter("a_total", "port=\"80\"", "Asked.")
            .add_one();
        metrics.gauge("b", "", "Now.").set(-1);
        assert_eq!(
            metrics.render(),
            "# HELP a_total Asked.\n# TYPE a_total counter\na_total{port=\"80\"} 3\na_total{port=\"8000\"} 1\n\
             # HELP b Now.\n# TYPE b gauge\nb -1\n"
        );
    }
}
