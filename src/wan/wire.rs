//! Shapes of the platform's API, read leniently: unknown fields are ignored, a document's own fields are kept untouched.
//!
//! One item that does not fit never costs the rest: it is an [`UnreadableItem`], counted and told by the caller.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::store::catalogue::checksum::Sum;
use crate::store::catalogue::{DocumentChange, SnapshotPlan};

/// Names and ids longer than this are refused: they are keys, not texts.
const MAX_KEY_BYTES: usize = 256;

/// An item that is not what was agreed. It says what is missing, never what was in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnreadableItem {
    /// Not a JSON object of the agreed fields' types.
    #[error("not an item: {0}")]
    Shape(String),
    /// Collection or id is absent, empty or far too long.
    #[error("no usable {0}")]
    Key(&'static str),
    /// Without a version nobody can say what is newer.
    #[error("no version")]
    Version,
    /// Neither content nor a deletion.
    #[error("no data")]
    Data,
    /// A line longer than a document may be.
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
}

#[derive(Deserialize)]
struct RawItem<'a> {
    collection: Option<String>,
    id: Option<String>,
    version: Option<i64>,
    #[serde(default)]
    deleted: bool,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// Absent is `None`; `null` is a value like any other.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    value: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// One change of a feed page, or one document of a snapshot.
///
/// # Errors
/// When it lacks what the store needs to keep it.
pub fn read_item(text: &[u8]) -> Result<DocumentChange, UnreadableItem> {
    let item: RawItem<'_> = serde_json::from_slice(text).map_err(|error| shape(&error))?;
    let key = |name, value: Option<String>| {
        value
            .filter(|text| !text.is_empty() && text.len() <= MAX_KEY_BYTES)
            .ok_or(UnreadableItem::Key(name))
    };
    let data = match (item.deleted, item.data) {
        (true, _) => None,
        (false, Some(data)) => Some(data.to_owned()),
        (false, None) => return Err(UnreadableItem::Data),
    };
    Ok(DocumentChange {
        collection: key("collection", item.collection)?,
        id: key("id", item.id)?,
        version: item.version.ok_or(UnreadableItem::Version)?,
        data,
    })
}

/// serde's message without the value it stumbled over: that may be a customer's.
fn shape(error: &serde_json::Error) -> UnreadableItem {
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "no JSON",
        serde_json::error::Category::Data => "a field of another type",
        serde_json::error::Category::Io => "unreadable",
    };
    UnreadableItem::Shape(format!("{kind} at column {}", error.column()))
}

/// A line of a snapshot.
#[derive(Debug)]
pub enum SnapshotLine {
    /// A document.
    Document(DocumentChange),
    /// The last line: all `count` documents were sent.
    End {
        /// Documents before this line, readable or not.
        count: u64,
    },
}

/// Reads one line of a snapshot.
///
/// # Errors
/// As [`read_item`].
pub fn read_snapshot_line(text: &[u8]) -> Result<SnapshotLine, UnreadableItem> {
    #[derive(Deserialize)]
    struct End {
        end: bool,
        count: u64,
    }
    // Documents have no field "end" beside "count"; trying this first costs little, as the end line is short.
    if text.len() < 256
        && let Ok(End { end: true, count }) = serde_json::from_slice(text)
    {
        return Ok(SnapshotLine::End { count });
    }
    read_item(text).map(SnapshotLine::Document)
}

/// A page of the change feed.
#[derive(Debug)]
pub struct FeedPage<'a> {
    /// Readable changes, in their order.
    pub changes: Vec<DocumentChange>,
    /// The others, with what came.
    pub unreadable: Vec<(UnreadableItem, &'a RawValue)>,
    /// Opaque cursor after this page.
    pub next: String,
    /// Nothing newer is there now.
    pub caught_up: bool,
    /// When the oldest change still in the feed was made, milliseconds since 1970.
    pub horizon_ms: Option<i64>,
}

/// Reads a page; items that do not fit, or have more than `max_item` bytes, are set aside.
///
/// # Errors
/// When the page itself is none.
pub fn read_feed_page(text: &[u8], max_item: usize) -> Result<FeedPage<'_>, UnreadableItem> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
        next: String,
        #[serde(default)]
        caught_up: bool,
        horizon: Option<String>,
    }
    let page: Page<'_> = serde_json::from_slice(text).map_err(|error| shape(&error))?;
    if page.next.is_empty() {
        return Err(UnreadableItem::Key("next"));
    }
    let mut changes = Vec::with_capacity(page.items.len());
    let mut unreadable = Vec::new();
    for item in page.items {
        let read = match item.get().as_bytes() {
            text if text.len() > max_item => Err(UnreadableItem::TooLong(max_item)),
            text => read_item(text),
        };
        match read {
            Ok(change) => changes.push(change),
            Err(why) => unreadable.push((why, item)),
        }
    }
    Ok(FeedPage {
        changes,
        unreadable,
        next: page.next,
        caught_up: page.caught_up,
        horizon_ms: page
            .horizon
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map(Timestamp::as_millisecond),
    })
}

/// Parts of a snapshot at most; a plan with more is refused.
const MAX_PARTS: usize = 64;

/// The classes of the contract, the most urgent first. One that it does not name comes before history.
const CLASSES: [&str; 2] = ["prices", "descriptions"];
const LAST_CLASS: &str = "history";

fn urgency(class: &str) -> usize {
    let named = CLASSES.iter().position(|known| *known == class);
    named.unwrap_or(CLASSES.len() + usize::from(class == LAST_CLASS))
}

/// What a snapshot consists of, its parts by their urgency, whatever order the platform gives them in.
///
/// # Errors
/// When it is no plan, or one with too many parts.
pub fn read_snapshot_plan(text: &[u8]) -> Result<SnapshotPlan, UnreadableItem> {
    let mut plan: SnapshotPlan = serde_json::from_slice(text).map_err(|error| shape(&error))?;
    let named = |text: &str| (1..=MAX_KEY_BYTES).contains(&text.len());
    if !named(&plan.snapshot) {
        return Err(UnreadableItem::Key("snapshot"));
    }
    if !named(&plan.cursor) {
        return Err(UnreadableItem::Key("cursor"));
    }
    if plan.parts.len() > MAX_PARTS || !plan.parts.iter().all(|part| named(&part.part)) {
        return Err(UnreadableItem::Key("parts"));
    }
    plan.parts.sort_by_key(|part| urgency(&part.class));
    Ok(plan)
}

/// What the platform's documents add up to.
#[derive(Debug, Deserialize)]
pub struct Checksums {
    /// The place in the feed they are true at.
    pub cursor: String,
    /// Of each collection, or of each bucket of one.
    #[serde(alias = "collections", alias = "buckets")]
    pub sums: Vec<Checksum>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub struct Checksum {
    /// Which collection; empty in a list of buckets.
    #[serde(default)]
    pub collection: String,
    /// Which bucket; 0 in a list of collections.
    #[serde(default)]
    pub bucket: u8,
    /// Documents.
    pub count: i64,
    /// Their numbers added, sixteen hexadecimal digits.
    pub sum: String,
}

impl Checksum {
    /// As the store keeps it; `None` when the digits are none.
    #[must_use]
    pub fn sum(&self) -> Option<Sum> {
        Some(Sum {
            count: self.count,
            sum: u64::from_str_radix(&self.sum, 16).ok()?,
        })
    }
}

/// Reads what the platform's documents add up to.
///
/// # Errors
/// When it is something else.
pub fn read_checksums(text: &[u8]) -> Result<Checksums, UnreadableItem> {
    serde_json::from_slice(text).map_err(|error| shape(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documents_own_fields_are_kept_byte_for_byte() {
        let line = br#"{"collection":"products","id":"p1","version":17,"data":{"b" : 1.10, "a":[null]},"new":1}"#;
        let change = read_item(line).unwrap();
        assert_eq!(change.collection, "products");
        assert_eq!((change.id.as_str(), change.version), ("p1", 17));
        assert_eq!(change.data.unwrap().get(), r#"{"b" : 1.10, "a":[null]}"#);
    }

    #[test]
    fn data_of_any_shape_is_a_document() {
        for data in ["null", "[]", "\"text\"", "0.1e-7"] {
            let line = format!(r#"{{"collection":"new","id":"1","version":1,"data":{data}}}"#);
            let change = read_item(line.as_bytes()).unwrap();
            assert_eq!(change.data.unwrap().get(), data);
        }
    }

    #[test]
    fn what_lacks_a_key_or_version_is_named_without_its_content() {
        let cases = [
            (
                r#"{"id":"1","version":1,"data":{}}"#,
                UnreadableItem::Key("collection"),
            ),
            (
                r#"{"collection":"a","id":"","version":1,"data":{}}"#,
                UnreadableItem::Key("id"),
            ),
            (
                r#"{"collection":"a","id":"1","data":{}}"#,
                UnreadableItem::Version,
            ),
            (
                r#"{"collection":"a","id":"1","version":1}"#,
                UnreadableItem::Data,
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(read_item(line.as_bytes()).unwrap_err(), expected, "{line}");
        }
        let wrong = br#"{"collection":"a","id":"1","version":"Mr Secret","data":{}}"#;
        let error = read_item(wrong).unwrap_err().to_string();
        assert!(
            error.contains("another type") && !error.contains("Secret"),
            "{error}"
        );
        assert!(matches!(
            read_item(b"\xff\xfe"),
            Err(UnreadableItem::Shape(_))
        ));
    }

    #[test]
    fn a_deletion_needs_no_data_and_keeps_none() {
        let line = br#"{"collection":"a","id":"1","version":2,"deleted":true}"#;
        assert!(read_item(line).unwrap().data.is_none());
    }

    #[test]
    fn the_end_line_is_told_from_a_document_that_speaks_of_an_end() {
        let end = read_snapshot_line(br#"{"end":true,"count":3}"#).unwrap();
        assert!(matches!(end, SnapshotLine::End { count: 3 }));
        let line = br#"{"collection":"a","id":"1","version":1,"data":{"end":true,"count":1}}"#;
        let document = read_snapshot_line(line).unwrap();
        assert!(matches!(document, SnapshotLine::Document(_)));
    }

    #[test]
    fn one_bad_item_of_a_page_costs_only_itself() {
        let page = br#"{"items":[{"collection":"a","id":"1","version":1,"data":1},7,{"collection":"a"},
            {"collection":"a","id":"2","version":1,"deleted":true},
            {"collection":"a","id":"3","version":1,"data":"0123456789012345678901234567890123456789012345678901234567"}],
            "next":"c","caught_up":true,"horizon":"x"}"#;
        let page = read_feed_page(page, 100).unwrap();
        assert_eq!((page.changes.len(), page.unreadable.len()), (2, 3));
        assert_eq!((page.next.as_str(), page.caught_up), ("c", true));
        assert!(read_feed_page(b"<html>", 100).is_err());
        assert!(read_feed_page(br#"{"items":[],"next":""}"#, 100).is_err());
    }
}
