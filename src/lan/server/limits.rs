//! The server's bounds.

use std::time::Duration;

use crate::config::{LanLimits, LanPort};

/// Body of a request on a port that takes no documents.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// Header fields of a request; more are answered 431.
pub const MAX_HEADER_FIELDS: usize = 64;

/// A source may take one in so many of a port's connections.
const SOURCE_SHARE: usize = 4;

/// Without a byte taken by the client for this long, a connection is cut.
const STALL: Duration = Duration::from_secs(30);

/// Longest wait a long poll may ask for; the port that answers them adds it to its request deadline.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// From the signal to end until open connections are cut.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Clients beyond the bound that are told so at a time; still more are cut without a word.
pub const MAX_TURNED_AWAY: usize = 32;

/// Time one of those has to take its answer.
pub const TURN_AWAY: Duration = Duration::from_secs(2);

/// What a port grants its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. Beyond: answered 503 and closed.
    pub connections: usize,
    /// Of them, those of one source, so that one broken device leaves room for the others. Beyond: the same.
    pub per_source: usize,
    /// From the first byte of a head to its last. Beyond: closed.
    pub header: Duration,
    /// Between requests, and before the first byte. Beyond: closed.
    pub idle: Duration,
    /// From the head to the answer's head, the body's arrival included. Beyond: 408 or 503.
    pub request: Duration,
    /// While an answer is written, without a byte taken. Beyond: closed.
    pub stall: Duration,
    /// A head. Beyond: 431 and closed.
    pub head_bytes: usize,
    /// A body. Beyond: 413.
    pub body_bytes: u64,
}

impl Limits {
    /// The bounds of `port` under the settings.
    #[must_use]
    pub fn of(port: LanPort, settings: &LanLimits) -> Self {
        let body_bytes = settings.max_body.as_u64();
        Self {
            connections: settings.max_connections,
            per_source: (settings.max_connections / SOURCE_SHARE).max(1),
            header: settings.header_timeout,
            idle: settings.idle_timeout,
            request: if port == LanPort::Events {
                settings.request_timeout + LONGEST_WAIT
            } else {
                settings.request_timeout
            },
            stall: STALL,
            head_bytes: settings.max_header.as_usize(),
            body_bytes: if port == LanPort::Orders {
                body_bytes
            } else {
                body_bytes.min(SMALL_BODY_BYTES)
            },
        }
    }
}
