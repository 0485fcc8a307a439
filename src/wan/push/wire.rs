//! What events look like on the way to the platform, one alone or several in a request.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::verdict::{Verdict, verdict};
use crate::clock::rfc3339;
use crate::store::orders::OutboxItem;

/// Body of `POST /events`.
#[derive(Debug, Serialize)]
struct Event<'a> {
    /// Only in a batch; alone it is a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// As in `order.advanced`.
    kind: &'a str,
    /// RFC 3339.
    occurred_at: String,
    /// The event's own content.
    body: &'a RawValue,
}

impl<'a> Event<'a> {
    fn of(item: &'a OutboxItem, in_batch: bool) -> Self {
        Self {
            key: in_batch.then_some(&item.key),
            kind: &item.kind,
            occurred_at: rfc3339(item.occurred_at_ms).unwrap_or_default(),
            body: &item.body,
        }
    }
}

/// An event alone.
pub(super) fn alone(item: &OutboxItem) -> Vec<u8> {
    serde_json::to_vec(&Event::of(item, false)).expect("an event of JSON parts is JSON")
}

/// Body of `POST /events/batch`: as many of `items` as fit into `max_bytes`, at least one; how many.
pub(super) fn batch(items: &[OutboxItem], max_bytes: usize) -> (Vec<u8>, usize) {
    let mut body = b"{\"events\":[".to_vec();
    let mut count = 0;
    for item in items {
        let event = serde_json::to_vec(&Event::of(item, true)).expect("JSON parts are JSON");
        if count > 0 && body.len() + event.len() + 3 > max_bytes {
            break;
        }
        if count > 0 {
            body.push(b',');
        }
        body.extend(event);
        count += 1;
    }
    body.extend(b"]}");
    (body, count)
}

/// Reads the answer to a batch of `sent` events: a verdict for each that the platform looked at, in their order. It stops
/// at the first one it stumbles over, so those behind may have none.
///
/// # Errors
/// When the answer is none.
pub(super) fn read_results(body: &[u8], sent: usize) -> Result<Vec<Verdict>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Results {
        results: Vec<OneResult>,
    }
    #[derive(Deserialize)]
    struct OneResult {
        status: u16,
    }
    let Results { results } = serde_json::from_slice(body)?;
    Ok(results
        .iter()
        .take(sent)
        .map(|result| verdict(result.status))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::orders::Lane;

    fn item(id: i64, body: &str) -> OutboxItem {
        OutboxItem {
            id,
            key: format!("k-{id}"),
            lane: Lane::Orders,
            kind: "test".into(),
            subject: None,
            occurred_at_ms: 0,
            attempts: 0,
            error: None,
            body: RawValue::from_string(body.into()).unwrap(),
        }
    }

    #[test]
    fn a_batch_holds_what_fits_and_at_least_one() {
        let items = [item(1, "{\"price\":1.10}"), item(2, "{}"), item(3, "{}")];
        let (body, count) = batch(&items, 1 << 20);
        assert_eq!(count, 3);
        let expected = "{\"key\":\"k-1\",\"kind\":\"test\",\"occurred_at\":\"1970-01-01T00:00:00Z\",\"body\":{\"price\":1.10}}";
        let text = String::from_utf8(body).unwrap();
        assert!(
            text.starts_with(&format!("{{\"events\":[{expected},")),
            "{text}"
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        assert_eq!(batch(&items, 1).1, 1);
        let (body, count) = batch(&items, text.len() - 1);
        assert!(count == 2 && body.len() < text.len());
        assert!(!String::from_utf8(alone(&items[0])).unwrap().contains("key"));
    }

    #[test]
    fn results_may_be_fewer_than_events_and_never_more() {
        let answer =
            br#"{"results":[{"status":201,"event":1},{"status":422,"detail":"x"},{"status":500}]}"#;
        let results = read_results(answer, 9).unwrap();
        assert_eq!(results.len(), 3);
        assert_eq!(results[0], Verdict::Sent);
        assert!(matches!(results[1], Verdict::Park(_)));
        assert!(matches!(results[2], Verdict::RetryItem(_)));
        assert_eq!(read_results(answer, 2).unwrap().len(), 2);
        assert!(read_results(b"<html>", 1).is_err());
    }
}
