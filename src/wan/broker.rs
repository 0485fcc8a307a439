//! What a Service Bus says about a message beside its body: `BrokerProperties` and `Location`, read leniently
//! (learn.microsoft.com, "message-headers-and-properties": one JSON object whose numbers may also come as text).

use serde_json::Value;

use super::sas::percent_encoded;
use crate::digest::Digest;

/// A message under a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lock {
    /// The same on every redelivery.
    pub(super) message_id: String,
    /// Below the queue: how the message is settled.
    pub(super) settle_path: String,
    /// How often it was delivered, as far as known.
    pub(super) delivery_count: Option<u64>,
}

/// The broker's headers do not say how to settle the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message without lock: neither BrokerProperties nor Location says how to settle it")]
pub(super) struct NoLock;

/// Reads the headers of a peek-locked message.
pub(super) fn read_lock(
    properties: Option<&str>,
    location: Option<&str>,
    body: &[u8],
) -> Result<Lock, NoLock> {
    let properties: Value = properties
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let text = |name: &str| match property(&properties, name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let from_location = location.and_then(settle_segments);
    let sequence = text("SequenceNumber");
    let settle_path = match (text("LockToken"), &sequence, text("MessageId")) {
        (Some(token), Some(number), _) => {
            format!("{}/{}", percent_encoded(number), percent_encoded(&token))
        }
        (Some(token), None, Some(id)) => {
            format!("{}/{}", percent_encoded(&id), percent_encoded(&token))
        }
        // Only the last two segments are taken, never the host: credentials go to no address an answer names.
        _ => from_location.ok_or(NoLock)?,
    };
    // The service gives every message an id; a broker that does not is still told apart by number, or by content.
    let message_id = text("MessageId")
        .or_else(|| sequence.map(|number| format!("sequence-{number}")))
        .unwrap_or_else(|| format!("sha256-{}", Digest::of(body)));
    Ok(Lock {
        message_id,
        settle_path,
        delivery_count: text("DeliveryCount").and_then(|count| count.parse().ok()),
    })
}

/// Names of properties are written in several ways.
fn property<'a>(properties: &'a Value, name: &str) -> Option<&'a Value> {
    properties
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// `…/messages/{id}/{token}` as `{id}/{token}`.
fn settle_segments(location: &str) -> Option<String> {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let (_, tail) = path.rsplit_once("/messages/")?;
    let (id, token) = tail.split_once('/')?;
    let fits = |segment: &str| {
        !segment.is_empty()
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%{}".contains(&byte))
    };
    (fits(id) && fits(token)).then(|| format!("{id}/{token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_by_sequence_number_and_lock_token() {
        let properties = r#"{"DeliveryCount":2,"LockToken":"5e-1","MessageId":"m 1","SequenceNumber":31,
            "State":"Active","TimeToLive":922337203685.47754,"EnqueuedTimeUtc":"Wed, 02 Jul 2014 01:32:27 GMT"}"#;
        let lock = read_lock(Some(properties), None, b"").unwrap();
        assert_eq!(
            lock,
            Lock {
                message_id: "m 1".into(),
                settle_path: "31/5e-1".into(),
                delivery_count: Some(2),
            }
        );
    }

    #[test]
    fn takes_numbers_as_text_other_cases_and_a_missing_number() {
        let properties = r#"{"lockToken":"t","messageid":7,"deliverycount":"3"}"#;
        let lock = read_lock(Some(properties), None, b"").unwrap();
        assert_eq!(
            (lock.message_id.as_str(), lock.settle_path.as_str()),
            ("7", "7/t")
        );
        assert_eq!(lock.delivery_count, Some(3));
        let properties = r#"{"LockToken":"t","MessageId":"a/b c"}"#;
        let lock = read_lock(Some(properties), None, b"").unwrap();
        assert_eq!(lock.settle_path, "a%2Fb%20c/t");
    }

    #[test]
    fn falls_back_to_the_location_but_never_to_its_host() {
        let location = "https://evil.example/q/messages/31/5e-1?api-version=2016-07";
        let lock = read_lock(Some("no json"), Some(location), b"body").unwrap();
        assert_eq!(lock.settle_path, "31/5e-1");
        assert_eq!(lock.message_id, format!("sha256-{}", Digest::of(b"body")));
        assert_eq!(read_lock(None, Some("https://h/x/31/5e"), b""), Err(NoLock));
        assert_eq!(
            read_lock(None, Some("/messages/31/5e/../x"), b""),
            Err(NoLock)
        );
        assert_eq!(read_lock(None, None, b""), Err(NoLock));
    }
}
