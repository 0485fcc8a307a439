//! Where a stream goes: one type a kind of host.

use std::time::Duration;

use serde_json::Value;

use crate::telemetry::outgoing::Record;
use crate::wan::egress::{Answer, EgressError};

/// A batch at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Records.
    pub(super) records: usize,
    /// Bytes of their JSON as they wait; what goes over the line is wrapped, but no more than doubled by it.
    pub(super) bytes: usize,
}

/// Who speaks.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) box_id: String,
    pub(super) site_id: String,
}

/// A batch as it goes over the line.
pub(super) struct Letter {
    /// The body.
    pub(super) body: Vec<u8>,
    /// The same for people, before it was compressed.
    pub(super) text: String,
}

/// A host that takes records.
pub(super) trait Sink: Send {
    /// What it takes at once.
    fn limits(&self) -> Limits;

    /// The batch in the host's form. `now_ms` is now.
    fn write(&self, sender: &Sender, records: &[Record], now_ms: i64) -> Letter;

    /// Sends it.
    fn send(&mut self, letter: &Letter) -> Result<Answer, EgressError>;

    /// How long the host asks to wait beside what `Retry-After` says.
    fn asked_wait(&self, _: &Answer) -> Option<Duration> {
        None
    }
}

/// The records' own fields, as an object.
pub(super) fn fields(record: &Record) -> Value {
    serde_json::to_value(&record.fields).unwrap_or(Value::Null)
}
