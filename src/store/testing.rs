//! What the tests of this room share.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{DocumentChange, Store};
use crate::clock::{Clock, ManualClock};
use crate::config::StoreConfig;
use crate::units::ByteSize;

/// A store in a folder of its own, with a clock that moves only when told.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let start: Timestamp = "2026-05-01T10:00:00Z".parse().unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::at(start)),
        }
    }

    pub(super) fn config(&self) -> StoreConfig {
        StoreConfig {
            data_dir: self.dir.path().to_path_buf(),
            catalogue_cache: ByteSize::mib(8),
            blob_quota: ByteSize::mib(1),
            orders_reserve: ByteSize::bytes(0),
        }
    }

    pub(super) fn open(&self) -> Store {
        Store::open(&self.config(), self.clock.clone()).unwrap()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    pub(super) fn days(&self, days: u64) {
        self.clock.advance(Duration::from_secs(days * 86_400));
    }
}

pub(super) fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

pub(super) fn product(id: &str, version: i64, data: &str) -> DocumentChange {
    DocumentChange {
        collection: "products".to_owned(),
        id: id.to_owned(),
        version,
        data: Some(json(data)),
    }
}

pub(super) fn deleted(id: &str, version: i64) -> DocumentChange {
    DocumentChange {
        collection: "products".to_owned(),
        id: id.to_owned(),
        version,
        data: None,
    }
}

pub(super) fn order_json(order_id: &str) -> String {
    format!(
        r#"{{"order_id":"{order_id}","placed_at":"2026-05-01T09:59:00Z","lines":[{{"sku":"p1","n":2}}],"note":"x"}}"#
    )
}
