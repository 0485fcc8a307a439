//! The layer under the log: it sees every event and hands on what may leave.

use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;

use super::Tell;
use super::allowed::{Collected, SUPPORT_EVENTS};
use super::record::Level;

/// Only our own events are looked at; libraries speak of headers and bodies.
const OURS: &str = "comptoir";

/// Takes events to the streams.
pub struct OutgoingLayer {
    logs: Option<(Tell, Level)>,
    support: Option<Tell>,
}

impl OutgoingLayer {
    /// `logs`: where events of this level and graver go; `support`: where those of [`SUPPORT_EVENTS`] go.
    #[must_use]
    pub const fn new(logs: Option<(Tell, Level)>, support: Option<Tell>) -> Self {
        Self { logs, support }
    }

    /// The finest level it takes anything of. Support's events are all written at "info" or graver.
    #[must_use]
    pub fn finest(&self) -> LevelFilter {
        match &self.logs {
            Some((_, Level::Debug)) => LevelFilter::DEBUG,
            _ => LevelFilter::INFO,
        }
    }
}

/// Whoever filters in front of this layer, only events of our own code pass.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target == OURS || target.starts_with("comptoir::")
}

const fn level(level: &tracing::Level) -> Level {
    match *level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

impl<S: Subscriber> Layer<S> for OutgoingLayer {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.finest())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !is_ours(event.metadata()) {
            return;
        }
        let mut collected = Collected::default();
        event.record(&mut collected);
        let Some(name) = collected.event else { return };
        let level = level(event.metadata().level());
        if let Some(support) = &self.support
            && SUPPORT_EVENTS.binary_search(&name.as_str()).is_ok()
        {
            support.tell(level, name.clone(), collected.fields.clone());
        }
        if let Some((logs, finest)) = &self.logs
            && level <= *finest
        {
            logs.tell(level, name, collected.fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::{CHANNEL_BOUND, Stream};
    use super::*;
    use crate::identity::Secret;

    fn told(stream: &Stream) -> Vec<String> {
        let all = stream.receiver.try_iter();
        all.map(|fresh| format!("{:?} {:?}", fresh.event, fresh.fields))
            .collect()
    }

    #[test]
    fn only_allowed_fields_of_the_right_shape_leave() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, stream) = Stream::new(dir.path());
        let (support, support_stream) = Stream::new(dir.path());
        let layer = OutgoingLayer::new(Some((logs, Level::Debug)), Some(support));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let customer = "Madame Dupont";
            let secret = Secret::new("hunter2");
            tracing::info!(
                event = "orders.order_received",
                worker = "bus",
                cause = customer,
                code = ?secret,
                detail = customer,
                order_id = "o-1",
                kind = %customer,
                items = 3,
                bytes = u64::MAX,
                port = %8000,
                name = customer,
                "and {customer} in the message"
            );
            tracing::warn!(event = "Madame Dupont", items = 1);
            tracing::warn!(items = 1, "no event name");
            tracing::warn!(target: "ureq", event = "ureq.header", items = 1);
            tracing::trace!(event = "bus.too_fine", items = 1);
            tracing::warn!(event = "conditions.raised", code = "wan.api_unreachable");
        });
        let told = told(&stream);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("orders.order_received "), "{told:?}");
        for part in ["worker", "items", "Number(3)", "Number(8000)"] {
            assert!(told[0].contains(part), "{part} in {told:?}");
        }
        for part in [
            "Dupont", "dupont", "hunter2", "secret", "o-1", "cause", "kind",
        ] {
            assert!(!told[0].contains(part), "{part} in {told:?}");
        }
        let support = self::told(&support_stream);
        assert_eq!(support.len(), 1);
        assert!(support[0].contains("wan.api_unreachable"), "{support:?}");
    }

    #[test]
    fn at_the_bound_an_event_is_dropped_and_counted_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, stream) = Stream::new(dir.path());
        let layer = OutgoingLayer::new(Some((logs, Level::Info)), None);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            for items in 0..CHANNEL_BOUND + 5 {
                tracing::info!(event = "orders.order_received", items);
            }
            stream.set_open(false);
            tracing::info!(event = "orders.order_received", items = 0);
        });
        assert_eq!(stream.dropped.load(Ordering::Relaxed), 5);
        assert_eq!(told(&stream).len(), CHANNEL_BOUND);
    }
}
