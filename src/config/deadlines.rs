//! `[wan.deadlines]`: how long every part of an outbound request may take.

use std::time::Duration;

use super::reader::Reader;
use crate::units::ByteSize;

/// Of every outbound request.
#[derive(Debug, Clone)]
pub struct Deadlines {
    /// Name to address.
    pub resolve: Duration,
    /// TCP to the next hop; and once more, the proxy's answer to CONNECT.
    pub connect: Duration,
    /// One handshake: with the host, and before it with a proxy that speaks TLS.
    pub tls: Duration,
    /// The request's head, and its body.
    pub send: Duration,
    /// From the request sent to the answer's whole head (a long poll adds its own wait).
    pub first_byte: Duration,
    /// Without a byte within a body.
    pub stall: Duration,
    /// All of it, with an answer that is read as a whole (a long poll adds its own wait). A body that streams goes on as
    /// long as it keeps its pace.
    pub total: Duration,
    /// A body that streams is judged by what comes in this much waiting.
    pub pace_stretch: Duration,
    /// The least that has to come in it.
    pub pace_least: ByteSize,
}

/// The pace is set by the minute.
const PACE_STRETCH: Duration = Duration::from_secs(60);

pub(super) fn check(reader: &mut Reader) -> Deadlines {
    Deadlines {
        resolve: reader.seconds("wan.deadlines.resolve_s", 1..=60),
        connect: reader.seconds("wan.deadlines.connect_s", 1..=120),
        tls: reader.seconds("wan.deadlines.tls_s", 1..=120),
        send: reader.seconds("wan.deadlines.send_s", 1..=240),
        first_byte: reader.seconds("wan.deadlines.first_byte_s", 1..=120),
        stall: reader.seconds("wan.deadlines.stall_s", 1..=120),
        // Shorter than a worker's silence that its watchdog ends (wan::LIFE_SIGN), with the longest poll added.
        total: reader.seconds("wan.deadlines.total_s", 1..=240),
        pace_stretch: PACE_STRETCH,
        pace_least: reader.kib("wan.deadlines.slowest_kib_per_minute", 1..=60_000),
    }
}
