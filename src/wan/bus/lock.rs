//! What a Service Bus says about a message beside its body: `BrokerProperties` and `Location`, read leniently
//! (learn.microsoft.com, "message-headers-and-properties": one JSON object whose numbers may also come as text).

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::digest::Digest;
use crate::wan::sas::percent_encoded;

/// A lock whose end the broker does not tell holds this long; the service's default by its documentation.
const USUAL_LOCK: Duration = Duration::from_secs(30);
/// No lock is believed to be shorter, or longer (the service's maximum).
const LOCK_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// A message under a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lock {
    /// The same on every redelivery.
    pub(super) message_id: String,
    /// Below the queue: how the message is settled.
    pub(super) settle_path: String,
    /// How often it was delivered, as far as known.
    pub(super) delivery_count: Option<u64>,
    /// How long the lock holds from when the broker answered, by the broker's own clock.
    pub(super) holds: Duration,
}

/// The broker's headers do not say how to settle the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message without lock: neither BrokerProperties nor Location says how to settle it")]
pub(super) struct NoLock;

/// Reads the headers of a peek-locked message that the broker sent at `date`. `body` as far as it was read.
pub(super) fn read_lock(
    properties: Option<&str>,
    location: Option<&str>,
    date: Option<SystemTime>,
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
        holds: holds(text("LockedUntilUtc").as_deref(), date),
    })
}

/// From the answer's `Date` to the lock's end, both by the broker's clock: the box's own may be years away.
fn holds(until: Option<&str>, date: Option<SystemTime>) -> Duration {
    let until = until.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    let until = until.map(|until| SystemTime::from(until.timestamp()));
    let (shortest, longest) = LOCK_RANGE;
    until
        .zip(date)
        .map_or(USUAL_LOCK, |(until, date)| {
            until.duration_since(date).unwrap_or(shortest)
        })
        .clamp(shortest, longest)
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
        let lock = read_lock(Some(properties), None, None, b"").unwrap();
        assert_eq!(
            lock,
            Lock {
                message_id: "m 1".into(),
                settle_path: "31/5e-1".into(),
                delivery_count: Some(2),
                holds: USUAL_LOCK,
            }
        );
    }

    #[test]
    fn takes_numbers_as_text_other_cases_and_a_missing_number() {
        let properties = r#"{"lockToken":"t","messageid":7,"deliverycount":"3"}"#;
        let lock = read_lock(Some(properties), None, None, b"").unwrap();
        assert_eq!(
            (lock.message_id.as_str(), lock.settle_path.as_str()),
            ("7", "7/t")
        );
        assert_eq!(lock.delivery_count, Some(3));
        let properties = r#"{"LockToken":"t","MessageId":"a/b c"}"#;
        let lock = read_lock(Some(properties), None, None, b"").unwrap();
        assert_eq!(lock.settle_path, "a%2Fb%20c/t");
    }

    #[test]
    fn falls_back_to_the_location_but_never_to_its_host() {
        let location = "https://evil.example/q/messages/31/5e-1?api-version=2016-07";
        let lock = read_lock(Some("no json"), Some(location), None, b"body").unwrap();
        assert_eq!(lock.settle_path, "31/5e-1");
        assert_eq!(lock.message_id, format!("sha256-{}", Digest::of(b"body")));
        assert_eq!(
            read_lock(None, Some("https://h/x/31/5e"), None, b""),
            Err(NoLock)
        );
        assert_eq!(
            read_lock(None, Some("/messages/31/5e/../x"), None, b""),
            Err(NoLock)
        );
        assert_eq!(read_lock(None, None, None, b""), Err(NoLock));
    }

    #[test]
    fn a_lock_is_measured_by_the_brokers_clock_alone() {
        let properties = r#"{"LockToken":"t","SequenceNumber":1,"LockedUntilUtc":"Wed, 02 Jul 2014 01:32:27 GMT"}"#;
        let date = |text| {
            let date = jiff::fmt::rfc2822::parse(text).unwrap();
            Some(SystemTime::from(date.timestamp()))
        };
        let holds = |date| read_lock(Some(properties), None, date, b"").unwrap().holds;
        let seconds = Duration::from_secs;
        assert_eq!(holds(date("Wed, 02 Jul 2014 01:31:37 GMT")), seconds(50));
        assert_eq!(holds(date("Wed, 02 Jul 2014 00:00:00 GMT")), seconds(300));
        assert_eq!(holds(date("Wed, 02 Jul 2014 02:00:00 GMT")), seconds(1));
        assert_eq!(holds(None), USUAL_LOCK);
    }
}
