//! Broker properties and custom properties, in and out.

use getrandom::fill;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::catalogue::hex;
use crate::platform::rfc1123;
use crate::store::messages::{Message, NewMessage};

/// Properties a sender may set, besides MessageId, TimeToLive and ScheduledEnqueueTimeUtc; others are ignored.
/// (ContentType is of batches only: assumed.)
const KEPT: [&str; 10] = [
    "CorrelationId",
    "ForcePersistence",
    "Label",
    "PartitionKey",
    "ReplyTo",
    "ReplyToSessionId",
    "SessionId",
    "To",
    "ViaPartitionKey",
    "ContentType",
];
/// Longest MessageId and SessionId.
const MAX_ID_CHARS: usize = 128;
/// What "for ever" looks like: the longest .NET TimeSpan, in seconds.
const INFINITE_S: f64 = 922_337_203_685.477_5;

/// Headers of a request that are not custom properties.
const STANDARD_HEADERS: [&str; 26] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "brokerproperties",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "user-agent",
    "via",
    "x-forwarded-for",
];

/// Reads broker properties into `message`; the error is a sentence for the sender.
pub fn read_broker(
    properties: &Map<String, Value>,
    message: &mut NewMessage,
    now_ms: i64,
) -> Result<(), String> {
    let text = |name: &str| properties.get(name).and_then(Value::as_str);
    message.message_id = match text("MessageId") {
        Some(id) if id.is_empty() || id.chars().count() > MAX_ID_CHARS => {
            return Err("MessageId must have 1 to 128 characters.".into());
        }
        Some(id) => id.to_owned(),
        None => guid().replace('-', ""),
    };
    if text("SessionId").is_some_and(|id| id.chars().count() > MAX_ID_CHARS) {
        return Err("SessionId has at most 128 characters.".into());
    }
    if let (Some(session), Some(partition)) = (text("SessionId"), text("PartitionKey"))
        && session != partition
    {
        return Err("SessionId and PartitionKey must be equal if both are given.".into());
    }
    message.ttl_ms = properties
        .get("TimeToLive")
        .map(time_to_live_ms)
        .transpose()?;
    message.visible_ms = match text("ScheduledEnqueueTimeUtc") {
        Some(date) => Some(
            jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(date)
                .map_err(|_| "ScheduledEnqueueTimeUtc is no RFC 1123 date.")?
                .as_millisecond(),
        )
        .filter(|at| *at > now_ms),
        None => None,
    };
    message.content_type = message
        .content_type
        .take()
        .or_else(|| text("ContentType").map(str::to_owned));
    let kept: Map<String, Value> = properties
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    message.broker = Value::Object(kept).to_string();
    Ok(())
}

/// Seconds, as a number or as text; saturates.
fn time_to_live_ms(value: &Value) -> Result<i64, String> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let seconds = seconds
        .filter(|seconds| *seconds > 0.0)
        .ok_or("TimeToLive must be a positive number of seconds.")?;
    // A float cast saturates; far beyond any date it makes no difference, and adding to it must not overflow.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturating is what is wanted"
    )]
    Ok(((seconds * 1000.0) as i64).min(i64::MAX / 4))
}

/// The custom properties among a request's headers.
pub fn custom_of_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| {
            !STANDARD_HEADERS.contains(&name.as_str()) && !name.as_str().starts_with("x-ms-")
        })
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

/// The custom properties of one message of a batch, as header text: strings quoted, others bare.
pub fn custom_of_batch(properties: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        other => other.to_string(),
    };
    properties
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// The BrokerProperties header of a delivered message.
pub fn broker_header(message: &Message) -> String {
    let mut properties: Map<String, Value> =
        serde_json::from_str(&message.broker).unwrap_or_default();
    #[expect(
        clippy::cast_precision_loss,
        reason = "times to live are far below 2^53 ms"
    )]
    let ttl = message
        .expires_ms
        .map_or(INFINITE_S, |at| (at - message.enqueued_ms) as f64 / 1000.0);
    let own = json!({
        "DeliveryCount": message.delivery_count,
        "EnqueuedSequenceNumber": 0,
        "EnqueuedTimeUtc": rfc1123(message.enqueued_ms),
        "MessageId": message.message_id,
        "SequenceNumber": message.seq,
        "State": "Active",
        "TimeToLive": ttl,
    });
    if let Value::Object(own) = own {
        properties.extend(own);
    }
    if let Some((token, until_ms)) = &message.lock {
        properties.insert("LockToken".into(), json!(token));
        properties.insert("LockedUntilUtc".into(), json!(rfc1123(*until_ms)));
    }
    ascii(&Value::Object(properties).to_string())
}

/// Puts a message's custom properties, and why it is dead, among an answer's headers.
pub fn set_custom(message: &Message, headers: &mut HeaderMap) {
    let mut custom: Vec<(String, String)> =
        serde_json::from_str(&message.custom).unwrap_or_default();
    if let Some(reason) = &message.dead_reason {
        custom.push(("DeadLetterReason".into(), format!("\"{reason}\"")));
    }
    for (name, value) in custom {
        let name = HeaderName::from_bytes(name.as_bytes());
        // What cannot be a header was never one: a name or value of a batch.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
}

/// JSON with every character beyond ASCII escaped, because it travels in a header.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out += &format!("\\u{unit:04x}");
            }
        }
    }
    out
}

/// A random GUID (version 4).
pub fn guid() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes).expect("the system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<NewMessage, String> {
        let mut message = NewMessage::default();
        read_broker(&serde_json::from_str(text).unwrap(), &mut message, 0).map(|()| message)
    }

    #[test]
    fn time_to_live_is_taken_as_number_and_as_text_and_saturates() {
        for (text, ms) in [
            ("90", 90_000),
            ("\"90\"", 90_000),
            ("0.5", 500),
            ("922337203685.47754", 922_337_203_685_477),
        ] {
            assert_eq!(
                read(&format!("{{\"TimeToLive\":{text}}}")).unwrap().ttl_ms,
                Some(ms),
                "{text}"
            );
        }
        assert_eq!(
            read("{\"TimeToLive\":1e300}").unwrap().ttl_ms,
            Some(i64::MAX / 4)
        );
        for text in ["0", "-1", "\"x\"", "[]"] {
            assert!(
                read(&format!("{{\"TimeToLive\":{text}}}")).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn broker_properties_keep_what_a_sender_may_set() {
        let message =
            read(r#"{"MessageId":"m","Label":"é","SequenceNumber":9,"Unknown":1}"#).unwrap();
        assert_eq!(
            (message.message_id.as_str(), message.broker.as_str()),
            ("m", "{\"Label\":\"é\"}")
        );
        assert_eq!(ascii(&message.broker), "{\"Label\":\"\\u00e9\"}");
        assert!(read(r#"{"SessionId":"a","PartitionKey":"b"}"#).is_err());
        assert!(read(&format!("{{\"MessageId\":\"{}\"}}", "x".repeat(129))).is_err());
        assert_eq!(read("{}").unwrap().message_id.len(), 32);
    }

    #[test]
    fn scheduled_time_is_an_rfc_1123_date() {
        let message =
            read(r#"{"ScheduledEnqueueTimeUtc":"Wed, 02 Jul 2014 01:32:27 GMT"}"#).unwrap();
        assert_eq!(message.visible_ms, Some(1_404_264_747_000));
        assert!(read(r#"{"ScheduledEnqueueTimeUtc":"tomorrow"}"#).is_err());
    }
}
