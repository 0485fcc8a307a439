//! The `[wan]` section: hosts, proxy, trust, and one part per flow.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deadlines::{self, Deadlines};
use super::media::MediaConfig;
use super::proxy::{self, ProxySettings};
use super::reader::Reader;
use super::rollouts::RolloutsConfig;
use super::shipping::{LogsConfig, SupportConfig};
use crate::backoff::Backoff;
use crate::identity::Secret;

/// An `https://` address of a host, without path: `https://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsUrl {
    text: String,
}

impl HttpsUrl {
    /// Checks `text`; a trailing slash is dropped.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim_end_matches('/');
        let authority = trimmed
            .strip_prefix("https://")
            .ok_or_else(|| format!("\"{text}\" does not begin with https://"))?;
        check_authority(authority).map_err(|what| format!("\"{text}\": {what}"))?;
        Ok(Self {
            text: trimmed.to_owned(),
        })
    }

    /// `https://HOST[:PORT]`, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `HOST[:PORT]`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.text["https://".len()..]
    }

    /// The host alone.
    #[must_use]
    pub fn host(&self) -> &str {
        split_port(self.authority()).0
    }

    /// The port, 443 unless said otherwise.
    #[must_use]
    pub fn port(&self) -> u16 {
        split_port(self.authority())
            .1
            .and_then(|port| port.parse().ok())
            .unwrap_or(443)
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

pub(super) fn check_authority(authority: &str) -> Result<(), &'static str> {
    let (host, port) = split_port(authority);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if host.is_empty() || !host.chars().all(fits) {
        return Err("a host name or address, and nothing but it, is expected after the scheme");
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        Some(_) => Err("the port is not a number between 1 and 65535"),
    }
}

/// Everything that leaves the shop.
#[derive(Debug, Clone)]
pub struct WanConfig {
    /// Data synchronisation, roll-outs, time, enrolment.
    pub api_url: HttpsUrl,
    /// Orders by Azure Service Bus.
    pub bus_url: HttpsUrl,
    /// Azure Blob storage.
    pub media_url: HttpsUrl,
    /// Log input.
    pub logs_url: HttpsUrl,
    /// Support events.
    pub support_url: HttpsUrl,
    /// The site's token for the API; empty while the box is not enrolled.
    pub token: Secret,
    /// After failures.
    pub retry: Backoff,
    /// Between two tries for the document of a parked order.
    pub claim_retry: Backoff,
    /// The shop's proxy, if it has one, and who goes another way.
    pub proxy: ProxySettings,
    /// The shop's own certificate authorities, PEM.
    pub ca_files: Vec<PathBuf>,
    /// Of every request.
    pub deadlines: Deadlines,
    /// Platform to store.
    pub pull: PullConfig,
    /// Orders by the bus.
    pub bus: BusConfig,
    /// Orders by the API.
    pub orders_feed: OrdersFeedConfig,
    /// Store to platform.
    pub push: PushConfig,
    /// Images, videos, documents.
    pub media: MediaConfig,
    /// New versions.
    pub rollouts: RolloutsConfig,
    /// Logs for support.
    pub logs: LogsConfig,
    /// Events for support.
    pub support: SupportConfig,
}

/// Platform to store.
#[derive(Debug, Clone)]
pub struct PullConfig {
    /// Off: nothing is asked.
    pub enabled: bool,
    /// Changes a page.
    pub page_items: u32,
    /// Between two comparisons of checksums.
    pub verify: Duration,
    /// Long poll.
    pub wait: Duration,
}

/// Orders by the bus.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// Off: orders come through the API only.
    pub enabled: bool,
    /// Queue, or `TOPIC/subscriptions/NAME`; empty: `site-SITE_ID`.
    pub queue: String,
    /// The SAS rule's name.
    pub key_name: String,
    /// The SAS rule's key as shown.
    pub key: Secret,
    /// Long poll.
    pub wait: Duration,
}

/// Orders by the API.
#[derive(Debug, Clone)]
pub struct OrdersFeedConfig {
    /// Off: orders come by the bus only.
    pub enabled: bool,
    /// Long poll, while the bus does not work.
    pub wait: Duration,
    /// From one look to the next while it does.
    pub period: Duration,
}

/// Store to platform.
#[derive(Debug, Clone)]
pub struct PushConfig {
    /// Off: the outbox fills and waits.
    pub enabled: bool,
    /// Events sent in one request at most.
    pub batch_items: u32,
    /// From one telling of how the box is to the next; `None`: never.
    pub telemetry_period: Option<Duration>,
}

/// Below this the telling itself would be what happens.
const SHORTEST_TELEMETRY: Duration = Duration::from_secs(60);

impl PushConfig {
    fn check(reader: &mut Reader) -> Self {
        let key = "wan.push.telemetry_period_s";
        let period = reader.seconds(key, 0..=86_400);
        if !period.is_zero() && period < SHORTEST_TELEMETRY {
            reader.refuse(key, "is neither 0 nor at least 60");
        }
        Self {
            enabled: reader.flag("wan.push.enabled"),
            batch_items: reader.number("wan.push.batch_items", 1..=200),
            telemetry_period: Some(period).filter(|period| !period.is_zero()),
        }
    }
}

impl WanConfig {
    pub(super) fn check(reader: &mut Reader, base_dir: &Path) -> Self {
        let first = reader.milliseconds("wan.retry_first_ms", 100..=60_000);
        let max = reader.seconds("wan.retry_max_s", 1..=3600);
        let retry = Backoff::new(first, max.max(first)).expect("both bounds are above zero");
        if max < first {
            reader.refuse("wan.retry_max_s", "is shorter than wan.retry_first_ms");
        }
        let first = reader.seconds("wan.claim_retry_first_s", 1..=3600);
        let max = reader.seconds("wan.claim_retry_max_s", 1..=86_400);
        let claim_retry = Backoff::new(first, max.max(first)).expect("both bounds are above zero");
        if max < first {
            let why = "is shorter than wan.claim_retry_first_s";
            reader.refuse("wan.claim_retry_max_s", why);
        }
        let ca_files = reader.texts("wan.trust.ca_files");
        Self {
            api_url: url(reader, "wan.api_url"),
            bus_url: url(reader, "wan.bus_url"),
            media_url: url(reader, "wan.media_url"),
            logs_url: url(reader, "wan.logs_url"),
            support_url: url(reader, "wan.support_url"),
            token: reader.secret("wan.token"),
            retry,
            claim_retry,
            proxy: proxy::check(reader),
            ca_files: ca_files.iter().map(|file| base_dir.join(file)).collect(),
            deadlines: deadlines::check(reader),
            pull: PullConfig {
                enabled: reader.flag("wan.pull.enabled"),
                page_items: reader.number("wan.pull.page_items", 1..=10_000),
                verify: reader.seconds("wan.pull.verify_s", 1..=604_800),
                wait: reader.seconds("wan.pull.wait_s", 0..=60),
            },
            bus: BusConfig {
                enabled: reader.flag("wan.bus.enabled"),
                queue: bus_entity(reader),
                key_name: reader.text("wan.bus.key_name"),
                key: reader.secret("wan.bus.key"),
                wait: reader.seconds("wan.bus.wait_s", 0..=60),
            },
            orders_feed: OrdersFeedConfig {
                enabled: reader.flag("wan.orders_feed.enabled"),
                wait: reader.seconds("wan.orders_feed.wait_s", 0..=60),
                period: reader.seconds("wan.orders_feed.period_s", 1..=3600),
            },
            push: PushConfig::check(reader),
            media: MediaConfig::check(reader),
            rollouts: RolloutsConfig::check(reader),
            logs: LogsConfig::check(reader),
            support: SupportConfig::check(reader),
        }
    }
}

/// A queue, or a topic and its subscription as `TOPIC/subscriptions/NAME`.
fn bus_entity(reader: &mut Reader) -> String {
    let queue = reader.text("wan.bus.queue");
    let topic = reader.text("wan.bus.topic");
    let subscription = reader.text("wan.bus.subscription");
    for (key, name) in [
        ("wan.bus.queue", &queue),
        ("wan.bus.topic", &topic),
        ("wan.bus.subscription", &subscription),
    ] {
        if name.contains('/') {
            reader.refuse(key, "a name without slashes is expected");
        }
    }
    match (queue.is_empty(), topic.is_empty(), subscription.is_empty()) {
        (_, true, true) => queue,
        (true, false, false) => format!("{topic}/subscriptions/{subscription}"),
        (false, false, _) => {
            reader.refuse(
                "wan.bus.topic",
                "orders come from a queue or from a topic, not from both",
            );
            queue
        }
        (_, true, false) => {
            reader.refuse(
                "wan.bus.subscription",
                "a subscription is set, but no topic",
            );
            queue
        }
        (true, false, true) => {
            reader.refuse(
                "wan.bus.topic",
                "a topic is read through wan.bus.subscription",
            );
            queue
        }
    }
}

fn url(reader: &mut Reader, key: &str) -> HttpsUrl {
    HttpsUrl::parse(&reader.text(key)).unwrap_or_else(|what| {
        reader.refuse(key, what);
        HttpsUrl {
            text: "https://refused.invalid".to_owned(),
        }
    })
}
