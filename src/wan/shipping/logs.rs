//! Logs: Logmatic's HTTP input, and Datadog's log intake as its second dialect.
//!
//! Logmatic (from the vendor's own clients, github logmatic/logmatic-rum-js and others): `POST /v1/input/{KEY}`, a JSON array of
//! objects, at most 10 events and 200 KB at once; the key is in the path, so no address of this flow is ever logged.
//! Datadog (the text in its API client): `POST /api/v2/logs`, key in `DD-API-KEY`, gzip, at most 1000 entries and 5 MB; 202.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use ureq::http::Method;

use super::sink::{Letter, Limits, Sender, Sink, fields};
use crate::clock::rfc3339;
use crate::config::{HttpsUrl, LogDialect};
use crate::telemetry::outgoing::Record;
use crate::wan::contract::FlowId;
use crate::wan::credentials::Credentials;
use crate::wan::egress::{Answer, Client, EgressError, Request, no_credentials};
use crate::wan::sas::percent_encoded;
use crate::wan::time::PlatformTime;

/// Logmatic's own clients send no more at once.
const LOGMATIC: Limits = Limits {
    records: 10,
    bytes: 100 * 1024,
};
/// Datadog takes five times that; a box has no memory to spare.
const DATADOG: Limits = Limits {
    records: 1000,
    bytes: 256 * 1024,
};
/// Datadog takes no time further back than 18 hours: then it gets none, and the true one stands beside.
const OLDEST_MS: i64 = 17 * 3600 * 1000;
/// `X-RateLimit-Reset` beyond this is cut.
const MAX_RESET: Duration = Duration::from_secs(15 * 60);

/// The log input.
pub(super) struct LogInput {
    pub(super) client: Client,
    pub(super) url: HttpsUrl,
    pub(super) dialect: LogDialect,
    pub(super) credentials: Credentials,
    pub(super) time: PlatformTime,
}

impl Sink for LogInput {
    fn limits(&self) -> Limits {
        match self.dialect {
            LogDialect::Logmatic => LOGMATIC,
            LogDialect::Datadog => DATADOG,
        }
    }

    fn write(&self, sender: &Sender, records: &[Record], now_ms: i64) -> Letter {
        let entries: Vec<Value> = records
            .iter()
            .map(|record| match self.dialect {
                LogDialect::Logmatic => logmatic(sender, record),
                LogDialect::Datadog => datadog(sender, record, now_ms),
            })
            .collect();
        let text = Value::Array(entries).to_string();
        let body = match self.dialect {
            LogDialect::Logmatic => text.clone().into_bytes(),
            LogDialect::Datadog => gzip(text.as_bytes()),
        };
        Letter { body, text }
    }

    fn send(&mut self, letter: &Letter) -> Result<Answer, EgressError> {
        let missing = || no_credentials(FlowId::Logs);
        let key = self.credentials.logs_key().ok_or_else(missing)?;
        let (url, key_header, encoding);
        let mut headers = vec![("content-type", "application/json")];
        match self.dialect {
            LogDialect::Logmatic => {
                url = format!("{}/v1/input/{}", self.url, percent_encoded(key.expose()));
            }
            LogDialect::Datadog => {
                url = format!("{}/api/v2/logs", self.url);
                (key_header, encoding) = (key, "gzip");
                headers.push(("dd-api-key", key_header.expose()));
                headers.push(("content-encoding", encoding));
            }
        }
        let asked = self.time.asked();
        let answer = self.client.send(&Request {
            method: Method::POST,
            url: &url,
            headers: &headers,
            body: Some(&letter.body),
            hold: Duration::ZERO,
        })?;
        let _ = self.time.observe(FlowId::Logs, &answer, asked);
        Ok(answer)
    }

    /// Datadog says when its limit is over in seconds, in a header of its own.
    fn asked_wait(&self, answer: &Answer) -> Option<Duration> {
        let seconds = answer.header("x-ratelimit-reset")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_RESET))
    }
}

fn logmatic(sender: &Sender, record: &Record) -> Value {
    json!({
        "message": record.event,
        "timestamp": rfc3339(record.at_ms),
        "time": record.time,
        "severity": record.level,
        "appname": "comptoir",
        "hostname": sender.box_id,
        "site": sender.site_id,
        "version": record.version,
        "id": record.id,
        "fields": fields(record),
        "@marker": ["comptoir"],
    })
}

fn datadog(sender: &Sender, record: &Record, now_ms: i64) -> Value {
    let mut entry = json!({
        "message": record.event,
        "told_at": rfc3339(record.at_ms),
        "time": record.time,
        "status": record.level,
        "ddsource": "comptoir",
        "ddtags": format!("site:{}", sender.site_id),
        "service": "comptoir",
        "hostname": sender.box_id,
        "version": record.version,
        "id": record.id,
        "fields": fields(record),
    });
    if now_ms.saturating_sub(record.at_ms) < OLDEST_MS {
        entry["timestamp"] = entry["told_at"].clone();
    }
    entry
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::super::testing::record;
    use super::*;

    const HOUR_MS: i64 = 3600 * 1000;

    fn sender() -> Sender {
        Sender {
            box_id: "b1".into(),
            site_id: "s1".into(),
        }
    }

    #[test]
    fn a_record_says_who_when_and_what_in_both_dialects() {
        let mut record = record("r-1");
        record.at_ms = 24 * HOUR_MS;
        let entry = logmatic(&sender(), &record);
        assert_eq!(entry["timestamp"], "1970-01-02T00:00:00Z");
        assert_eq!(
            (&entry["hostname"], &entry["site"], &entry["severity"]),
            (&json!("b1"), &json!("s1"), &json!("warn"))
        );
        assert_eq!(entry["fields"], json!({"items": 3}));
        let entry = datadog(&sender(), &record, 30 * HOUR_MS);
        assert_eq!(entry["timestamp"], entry["told_at"]);
        assert_eq!(entry["ddtags"], "site:s1");
    }

    #[test]
    fn what_is_too_old_for_datadog_keeps_its_time_beside() {
        let mut record = record("r-1");
        record.at_ms = 0;
        let entry = datadog(&sender(), &record, 18 * HOUR_MS);
        assert_eq!(entry.get("timestamp"), None);
        assert_eq!(entry["told_at"], "1970-01-01T00:00:00Z");
    }
}
