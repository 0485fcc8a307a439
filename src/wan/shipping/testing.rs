//! For the tests of this folder.

use std::collections::BTreeMap;

use crate::telemetry::outgoing::{Level, Record, Scalar, Version, Word};

/// A record as the spool gives it back.
pub(super) fn record(id: &str) -> Record {
    Record {
        id: id.into(),
        at_ms: 0,
        time: Word::new("good").unwrap(),
        level: Level::Warn,
        event: Word::new("orders.order_received").unwrap(),
        version: Version::new("0.1.0").unwrap(),
        fields: BTreeMap::from([("items".into(), Scalar::Number(3))]),
    }
}
