//! The `[wan.logs]` and `[wan.support]` sections: what may leave for support.

use std::time::Duration;

use super::reader::Reader;
use crate::identity::Secret;
use crate::units::ByteSize;

/// How much of a stream may leave, wait and linger.
#[derive(Debug, Clone, Copy)]
pub struct ShippingBounds {
    /// Sent a day at most.
    pub daily_budget: ByteSize,
    /// Waiting on disk at most; then the oldest go.
    pub disk: ByteSize,
    /// How long a record waits for company.
    pub linger: Duration,
}

impl ShippingBounds {
    fn check(reader: &mut Reader, section: &str) -> Self {
        Self {
            daily_budget: reader.kib(&format!("{section}.daily_budget_kib"), 16..=1_048_576),
            disk: reader.kib(&format!("{section}.disk_kib"), 256..=65_536),
            linger: reader.seconds(&format!("{section}.linger_s"), 0..=3600),
        }
    }
}

/// How the log input is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDialect {
    /// Logmatic's HTTP input: the key in the path, an array of objects.
    Logmatic,
    /// Datadog's log intake, version 2: the key in a header, gzip.
    Datadog,
}

/// Logs for faster support.
#[derive(Debug, Clone)]
pub struct LogsConfig {
    /// Off: nothing is collected and nothing leaves.
    pub enabled: bool,
    /// Of the host at `wan.logs_url`.
    pub dialect: LogDialect,
    /// The input's key; empty: the one that enrolment brought, or none, and then nothing leaves.
    pub key: Secret,
    /// `error` to `debug`.
    pub level: String,
    /// Bounds.
    pub bounds: ShippingBounds,
}

impl LogsConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        Self {
            enabled: reader.flag("wan.logs.enabled"),
            dialect: match reader
                .choice("wan.logs.dialect", &["logmatic", "datadog"])
                .as_str()
            {
                "datadog" => LogDialect::Datadog,
                _ => LogDialect::Logmatic,
            },
            key: reader.secret("wan.logs.key"),
            level: reader.choice("wan.logs.level", &["error", "warn", "info", "debug"]),
            bounds: ShippingBounds::check(reader, "wan.logs"),
        }
    }
}

/// What takes support events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupportKind {
    /// A queue or topic of Azure Service Bus.
    Bus,
    /// An event hub of Azure Event Hubs.
    Hub,
}

/// Support events.
#[derive(Debug, Clone)]
pub struct SupportConfig {
    /// Off: nothing is collected and nothing leaves.
    pub enabled: bool,
    /// Of the namespace at `wan.support_url`.
    pub kind: SupportKind,
    /// Queue, topic or hub; empty: what enrolment names, or `support-events`.
    pub entity: String,
    /// The SAS rule's name.
    pub key_name: String,
    /// The SAS rule's key as shown; empty: what enrolment brought, or nothing leaves.
    pub key: Secret,
    /// Bounds.
    pub bounds: ShippingBounds,
}

impl SupportConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        Self {
            enabled: reader.flag("wan.support.enabled"),
            kind: match reader.choice("wan.support.kind", &["bus", "hub"]).as_str() {
                "hub" => SupportKind::Hub,
                _ => SupportKind::Bus,
            },
            entity: reader.text("wan.support.entity"),
            key_name: reader.text("wan.support.key_name"),
            key: reader.secret("wan.support.key"),
            bounds: ShippingBounds::check(reader, "wan.support"),
        }
    }
}
