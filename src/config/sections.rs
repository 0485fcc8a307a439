//! The checked sections, one type each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::reader::Reader;
use crate::identity::Secret;
use crate::units::ByteSize;

/// Which shop this is.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    /// Given by the platform; empty while the box is not enrolled.
    pub site_id: String,
    /// For people.
    pub name: String,
    /// Pairs devices; empty: made at first start.
    pub claim_code: Secret,
    /// Whom the shop calls.
    pub support_contact: String,
    /// The shop's local time.
    pub time_zone: TimeZone,
}

impl SiteConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        let claim_code = reader.secret("site.claim_code");
        if !claim_code.is_empty() && claim_code.expose().len() < 8 {
            reader.refuse("site.claim_code", "a claim code has at least 8 characters");
        }
        Self {
            site_id: reader.name("site.site_id", 64),
            name: reader.text("site.name"),
            claim_code,
            support_contact: reader.text("site.support_contact"),
            time_zone: reader.zone("site.time_zone"),
        }
    }
}

/// The LAN ports. Which port has which role is fixed by the network contract.
#[derive(Debug, Clone)]
pub struct LanConfig {
    /// Address all ports bind to.
    pub bind: IpAddr,
    /// Added to every port; 0 on a box.
    pub port_offset: u16,
    /// Port 80.
    pub front: bool,
    /// Port 8000.
    pub catalogue: bool,
    /// Port 8001.
    pub orders: bool,
    /// Port 8002.
    pub events: bool,
    /// Port 8003.
    pub media: bool,
    /// Port 8004.
    pub care: bool,
    /// Port 8005.
    pub support: bool,
    /// Bounds on what a peer may take.
    pub limits: LanLimits,
}

/// Bounds on what a LAN peer may take, per port.
#[derive(Debug, Clone)]
pub struct LanLimits {
    /// Connections at a time.
    pub max_connections: usize,
    /// Until the request's head is complete.
    pub header_timeout: Duration,
    /// Between requests of one connection.
    pub idle_timeout: Duration,
    /// A whole request with its body.
    pub request_timeout: Duration,
    /// The request's head.
    pub max_header: ByteSize,
    /// The request's body.
    pub max_body: ByteSize,
}

impl LanConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        Self {
            bind: reader.address("lan.bind"),
            // 8005 + offset and 57854 + offset must stay below 65536.
            port_offset: u16::try_from(reader.number("lan.port_offset", 0..=7000)).unwrap_or(0),
            front: reader.flag("lan.front.enabled"),
            catalogue: reader.flag("lan.catalogue.enabled"),
            orders: reader.flag("lan.orders.enabled"),
            events: reader.flag("lan.events.enabled"),
            media: reader.flag("lan.media.enabled"),
            care: reader.flag("lan.care.enabled"),
            support: reader.flag("lan.support.enabled"),
            limits: LanLimits {
                max_connections: usize::try_from(
                    reader.number("lan.limits.max_connections", 8..=8192),
                )
                .unwrap_or(usize::MAX),
                header_timeout: reader.seconds("lan.limits.header_timeout_s", 1..=60),
                idle_timeout: reader.seconds("lan.limits.idle_timeout_s", 1..=600),
                request_timeout: reader.seconds("lan.limits.request_timeout_s", 1..=600),
                max_header: reader.kib("lan.limits.max_header_kib", 4..=64),
                max_body: reader.kib("lan.limits.max_body_kib", 4..=4096),
            },
        }
    }
}

/// Finding and being found over UDP.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// Off: the port stays closed.
    pub enabled: bool,
    /// 57854 by the contract; `lan.port_offset` is added.
    pub port: u16,
}

impl DiscoveryConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        Self {
            enabled: reader.flag("discovery.enabled"),
            port: reader.port("discovery.port"),
        }
    }
}

/// Commands to devices.
#[derive(Debug, Clone)]
pub struct DevicesConfig {
    /// Where devices listen, 8081 by the contract.
    pub command_port: u16,
    /// Who gets an order that names no role.
    pub order_role: String,
    /// From issue to expiry of a command.
    pub command_ttl: Duration,
    /// Until a device says "accepted".
    pub accept_timeout: Duration,
    /// From "accepted" to "done".
    pub done_timeout: Duration,
    /// Paired devices at most; further pairings are refused.
    pub max_devices: usize,
}

impl DevicesConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        let order_role = reader.name("devices.order_role", 32);
        if order_role.is_empty() {
            reader.refuse(
                "devices.order_role",
                "a role is needed for orders that name none",
            );
        }
        Self {
            command_port: reader.port("devices.command_port"),
            order_role,
            command_ttl: reader.seconds("devices.command_ttl_s", 10..=30 * 24 * 3600),
            accept_timeout: reader.seconds("devices.accept_timeout_s", 1..=120),
            done_timeout: reader.seconds("devices.done_timeout_s", 1..=3600),
            max_devices: usize::try_from(reader.number("devices.max_devices", 1..=4096))
                .unwrap_or(usize::MAX),
        }
    }
}

/// The data partition.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Everything the box keeps lives below this folder.
    pub data_dir: PathBuf,
    /// SQLite's page cache of the catalogue.
    pub catalogue_cache: ByteSize,
    /// All blobs together.
    pub blob_quota: ByteSize,
    /// Free space that media leave to orders.
    pub orders_reserve: ByteSize,
}

impl StoreConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        let data_dir = reader.text("store.data_dir");
        if data_dir.is_empty() {
            reader.refuse("store.data_dir", "a folder is needed");
        }
        Self {
            data_dir: data_dir.into(),
            catalogue_cache: reader.mib("store.catalogue_cache_mib", 1..=1024),
            blob_quota: reader.mib("store.blob_quota_mib", 1..=1_048_576),
            orders_reserve: reader.mib("store.orders_reserve_mib", 8..=65536),
        }
    }
}

/// Keeping the server alive.
#[derive(Debug, Clone)]
pub struct SupervisorConfig {
    /// No work for this long is a hang.
    pub hang: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// A server that grew beyond this is restarted.
    pub max_rss: ByteSize,
    /// Whether a crash loop ends in a reboot.
    pub reboot_on_crash_loop: bool,
}

impl SupervisorConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        Self {
            hang: reader.seconds("supervisor.hang_s", 2..=120),
            stop_grace: reader.seconds("supervisor.stop_grace_s", 1..=60),
            max_rss: reader.mib("supervisor.max_rss_mib", 32..=8192),
            reboot_on_crash_loop: reader.flag("supervisor.reboot_on_crash_loop"),
        }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// `error` to `trace`.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

impl TelemetryConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        Self {
            level: reader.choice(
                "telemetry.level",
                &["error", "warn", "info", "debug", "trace"],
            ),
            format: match reader
                .choice("telemetry.format", &["text", "json"])
                .as_str()
            {
                "text" => LogFormat::Text,
                _ => LogFormat::Json,
            },
        }
    }
}
