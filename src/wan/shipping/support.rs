//! Support events: a queue or topic of Azure Service Bus, or an event hub, by REST in batches.
//!
//! `POST /{entity}/messages` with `application/vnd.microsoft.servicebus.json`, an array of `{Body, BrokerProperties,
//! UserProperties}`; 201. To an event hub the same under `/{hub}/publishers/{box}/messages`, without broker properties
//! (learn.microsoft.com, rest/api/servicebus/send-message-batch and rest/api/eventhub/send-batch-events).
//! A message carries its record's id as `MessageId`: a queue that detects duplicates takes what is sent again once.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use super::sink::{Letter, Limits, Sender, Sink, fields};
use crate::clock::rfc3339;
use crate::config::{HttpsUrl, SupportKind};
use crate::identity::Secret;
use crate::telemetry::outgoing::Record;
use crate::wan::contract::FlowId;
use crate::wan::credentials::{BusAccess, Credentials, entity_url};
use crate::wan::egress::{Answer, Client, EgressError, Request, no_credentials};
use crate::wan::sas;
use crate::wan::time::PlatformTime;

/// The services take 256 KB at once in their usual tiers; wrapped, a batch is at most twice this.
const LIMITS: Limits = Limits {
    records: 100,
    bytes: 64 * 1024,
};
/// How long a refused batch waits for the hosts to be asked for the time.
const CLOCK_WAIT: Duration = Duration::from_secs(10);
/// A signature of the box's own is valid this long; each batch has a new one.
const SIGNATURE_LIFE_S: i64 = 20 * 60;

/// The support bus.
pub(super) struct SupportBus {
    pub(super) client: Client,
    pub(super) url: HttpsUrl,
    pub(super) kind: SupportKind,
    pub(super) box_id: String,
    pub(super) credentials: Credentials,
    pub(super) time: PlatformTime,
}

impl SupportBus {
    /// The answer, and whether it says that our time is far off.
    fn send_once(&self, letter: &Letter) -> Result<(Answer, bool), EgressError> {
        let access = self.credentials.support();
        let access = access.ok_or_else(|| no_credentials(FlowId::Support))?;
        let entity_url = entity_url(self.url.as_str(), &self.credentials.support_entity());
        let signature = match access {
            BusAccess::Sas { token, .. } => token,
            BusAccess::Key { name, key } => self.sign(&entity_url, &name, &key),
        };
        let url = match self.kind {
            SupportKind::Bus => format!("{entity_url}/messages"),
            SupportKind::Hub => format!(
                "{entity_url}/publishers/{}/messages?timeout=60&api-version=2014-01",
                sas::percent_encoded(&self.box_id)
            ),
        };
        let asked = self.time.asked();
        let answer = self.client.send(&Request {
            method: Method::POST,
            url: &url,
            headers: &[
                ("authorization", signature.expose()),
                ("content-type", "application/vnd.microsoft.servicebus.json"),
            ],
            body: Some(&letter.body),
            hold: Duration::ZERO,
        })?;
        let is_off = self.time.observe(FlowId::Support, &answer, asked);
        Ok((answer, is_off))
    }

    fn sign(&self, entity_url: &str, name: &str, key: &Secret) -> Secret {
        let expiry = self.time.now_ms() / 1000 + SIGNATURE_LIFE_S;
        sas::sign(entity_url, name, key, u64::try_from(expiry).unwrap_or(0))
    }
}

impl Sink for SupportBus {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn write(&self, sender: &Sender, records: &[Record], _: i64) -> Letter {
        let messages: Vec<Value> = records
            .iter()
            .map(|record| message(self.kind, sender, record))
            .collect();
        let text = Value::Array(messages).to_string();
        Letter {
            body: text.clone().into_bytes(),
            text,
        }
    }

    fn send(&mut self, letter: &Letter) -> Result<Answer, EgressError> {
        let mark = self.time.mark();
        let (answer, is_off) = self.send_once(letter)?;
        if answer.status() == 401 && self.time.moved_since(mark, is_off, CLOCK_WAIT) {
            return Ok(self.send_once(letter)?.0);
        }
        Ok(answer)
    }
}

fn message(kind: SupportKind, sender: &Sender, record: &Record) -> Value {
    let body = json!({
        "id": record.id,
        "event": record.event,
        "at": rfc3339(record.at_ms),
        "time": record.time,
        "level": record.level,
        "box": sender.box_id,
        "site": sender.site_id,
        "version": record.version,
        "fields": fields(record),
    });
    let mut message = json!({
        "Body": body.to_string(),
        "UserProperties": { "event": record.event, "site": sender.site_id, "box": sender.box_id },
    });
    if kind == SupportKind::Bus {
        message["BrokerProperties"] = json!({ "MessageId": record.id, "Label": record.event });
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::testing::record;
    use super::*;

    #[test]
    fn a_message_carries_its_record_as_text_and_its_id_where_the_service_knows_ids() {
        let sender = Sender {
            box_id: "b1".into(),
            site_id: "s1".into(),
        };
        let to_bus = message(SupportKind::Bus, &sender, &record("r-1"));
        assert_eq!(to_bus["BrokerProperties"]["MessageId"], "r-1");
        let body: Value = serde_json::from_str(to_bus["Body"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&body["box"], &body["level"]),
            (&json!("b1"), &json!("warn"))
        );
        let to_hub = message(SupportKind::Hub, &sender, &record("r-1"));
        assert_eq!(to_hub.get("BrokerProperties"), None);
        assert_eq!(to_hub["Body"], to_bus["Body"]);
    }
}
