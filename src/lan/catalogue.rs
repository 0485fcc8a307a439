//! Port 8000: documents and prices. Reads only, with entity tags, and a feed of changes to follow.
//!
//! Every answer of the box, on each port and a refusal too, says how the catalogue stands:
//! `Comptoir-Catalogue-Version` names the state of the catalogue, `Comptoir-Catalogue-Age` is the time in seconds since
//! the platform last confirmed it; without that header it never did.
//!
//! A document is handed on byte for byte as it came, in `data`. What the box adds stands beside it: `price` is the entry of
//! the document's `prices` that holds now, and is switched at its dates by the box's own clock.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::answer::{Answer, Answered, Body, json_text};
use super::auth;
use super::house::{House, blocking};
use super::problem::{Kind, Problem};
use super::request::Ask;
use crate::store::catalogue::{LIST_BOUND, PAGE_BYTES_BOUND};
use crate::store::{Change, Changes, FeedCursor, Stored};

/// Items of a page unless asked otherwise.
const DEFAULT_LIMIT: u64 = 100;

const MAX_LIMIT: u64 = LIST_BOUND as u64;

const AGE: HeaderName = HeaderName::from_static("comptoir-catalogue-age");
const VERSION: HeaderName = HeaderName::from_static("comptoir-document-version");
const CATALOGUE: HeaderName = HeaderName::from_static("comptoir-catalogue-version");

/// `GET /v1/documents/{collection}/{id}`
pub fn document(house: &House, ask: &Ask, collection: &str, id: &str) -> Answered {
    auth::device(house, ask)?;
    let stored = house
        .store
        .catalogue
        .document(collection, id)?
        .ok_or_else(|| not_found(format!("the box has no document {id} in {collection}")))?;
    let mut answer = tagged(ask, &stored.etag, || {
        let mut text = Vec::with_capacity(stored.body.len() + 128);
        write_document(&mut text, &stored);
        text
    })?;
    answer.headers_mut().insert(VERSION, stored.version.into());
    Ok(answer)
}

/// `GET /v1/barcodes/{code}`: a barcode may stand on several products.
pub fn barcode(house: &House, ask: &Ask, code: &str) -> Answered {
    auth::device(house, ask)?;
    let found = house.store.catalogue.by_barcode(code)?;
    let tag = match found.as_slice() {
        [] => return Err(not_found(format!("no product has the barcode {code}"))),
        [one] => one.etag.clone(),
        several => {
            let tags: Vec<_> = several
                .iter()
                .map(|one| one.etag.trim_matches('"'))
                .collect();
            format!("\"{}\"", tags.join("."))
        }
    };
    tagged(ask, &tag, || page_text(&found, write_document, ""))
}

/// `GET /v1/documents/{collection}?after=&limit=`
pub async fn documents(house: &Arc<House>, ask: &Ask, collection: &str) -> Answered {
    auth::device(house, ask)?;
    let limit = ask.query_number("limit", DEFAULT_LIMIT, MAX_LIMIT)?;
    let after = ask.query("after")?.unwrap_or_default();
    let limit = usize::try_from(limit).unwrap_or(LIST_BOUND);
    let (store, collection) = (house.store.clone(), collection.to_owned());
    let text = blocking(move || {
        let page = store.catalogue.list(&collection, &after, limit)?;
        let bytes: usize = page.iter().map(|stored| stored.body.len()).sum();
        let more = page.len() == limit || bytes >= PAGE_BYTES_BOUND;
        let next = page.last().filter(|_| more).map(|last| last.id.as_str());
        let end = format!(",\"next\":{}", json!(next));
        Ok::<_, Box<Problem>>(page_text(&page, write_document, &end))
    })
    .await??;
    page(house, text)
}

/// `GET /v1/changes?cursor=&limit=`: all documents without a cursor, then what changed.
pub async fn changes(house: &Arc<House>, ask: &Ask) -> Answered {
    auth::device(house, ask)?;
    let limit = ask.query_number("limit", DEFAULT_LIMIT, MAX_LIMIT)?;
    let limit = usize::try_from(limit).unwrap_or(LIST_BOUND);
    let cursor = match ask.query("cursor")? {
        None => None,
        Some(text) if text.is_empty() => None,
        // A cursor this firmware can't read may be one that another version gave out: start over, as with an old one.
        Some(text) => Some(text.parse::<FeedCursor>().map_err(|_| refetch())?),
    };
    let store = house.store.clone();
    let text = blocking(move || {
        let page = match store.catalogue.changes(cursor.as_ref(), limit)? {
            Changes::Page(page) => page,
            Changes::Refetch => return Err(refetch()),
        };
        let end = format!(
            ",\"next\":{},\"caught_up\":{},\"horizon\":{}",
            json!(page.next.to_string()),
            page.caught_up,
            json!(page.horizon)
        );
        Ok(page_text(&page.items, write_change, &end))
    })
    .await??;
    page(house, text)
}

fn refetch() -> Box<Problem> {
    Problem::new(
        Kind::Refetch,
        "the cursor is unknown or older than what the box remembers: ask again without a cursor",
    )
}

fn not_found(detail: String) -> Box<Problem> {
    Problem::new(Kind::NotFound, detail)
}

/// An answer with an entity tag, or 304 when the client has it already.
fn tagged(ask: &Ask, tag: &str, text: impl FnOnce() -> Vec<u8>) -> Answered {
    let mut answer = if is_known(&ask.head.headers, tag) {
        let mut answer = Answer::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        json_text(StatusCode::OK, text())
    };
    let value = HeaderValue::from_str(tag)
        .map_err(|_| Problem::new(Kind::Internal, "the store gave an unusable entity tag"))?;
    answer.headers_mut().insert(header::ETAG, value);
    uncached(answer.headers_mut());
    Ok(answer)
}

fn page(house: &House, text: Vec<u8>) -> Answered {
    let share = house.share(text.len())?;
    let mut answer = json_text(StatusCode::OK, text).map(|body| body.holding(share));
    uncached(answer.headers_mut());
    Ok(answer)
}

fn uncached(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// What every answer says of the catalogue.
pub fn stamp(house: &House) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    if let Ok(version) = HeaderValue::from_str(&house.store.catalogue.version().to_string()) {
        headers.insert(CATALOGUE, version);
    }
    if let Some(seconds) = house.catalogue_age_s() {
        headers.insert(AGE, seconds.into());
    }
    headers
}

/// Whether `If-None-Match` holds `tag` (RFC 9110 §13.1.2: weak comparison).
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn page_text<T>(items: &[T], write: impl Fn(&mut Vec<u8>, &T), end: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(items.len() * 256 + 128);
    text.extend_from_slice(b"{\"items\":[");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            text.push(b',');
        }
        write(&mut text, item);
    }
    text.push(b']');
    text.extend_from_slice(end.as_bytes());
    text.push(b'}');
    text
}

fn write_document(text: &mut Vec<u8>, stored: &Stored) {
    write_head(text, &stored.collection, &stored.id, stored.version);
    write_price(text, stored.price.as_deref());
    text.extend_from_slice(b",\"data\":");
    text.extend_from_slice(&stored.body);
    text.push(b'}');
}

fn write_change(text: &mut Vec<u8>, change: &Change) {
    write_head(text, &change.collection, &change.id, change.version);
    match &change.body {
        Some(body) => {
            text.extend_from_slice(b",\"deleted\":false");
            write_price(text, change.price.as_deref());
            text.extend_from_slice(b",\"data\":");
            text.extend_from_slice(body);
        }
        None => text.extend_from_slice(b",\"deleted\":true"),
    }
    text.push(b'}');
}

fn write_price(text: &mut Vec<u8>, price: Option<&[u8]>) {
    if let Some(price) = price {
        text.extend_from_slice(b",\"price\":");
        text.extend_from_slice(price);
    }
}

/// The document itself is kept as the text that came; only what stands around it is written here.
fn write_head(text: &mut Vec<u8>, collection: &str, id: &str, version: i64) {
    let head = format!(
        "{{\"collection\":{},\"id\":{},\"version\":{version}",
        json!(collection),
        json!(id)
    );
    text.extend_from_slice(head.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_tag_is_found_in_every_way_to_write_it() {
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            is_known(&headers, "\"g-1\"")
        };
        for value in [
            "\"g-1\"",
            "W/\"g-1\"",
            "\"a\", \"g-1\"",
            "*",
            "\"a\",W/\"g-1\"",
        ] {
            assert!(known(value), "{value}");
        }
        for value in ["\"g-10\"", "g-1", "\"a\""] {
            assert!(!known(value), "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"g-1\""));
    }

    #[test]
    fn names_are_escaped_and_documents_are_not_touched() {
        let stored = Stored {
            collection: "products".into(),
            id: "a\"b".into(),
            version: 3,
            seq: 9,
            etag: "\"g-9\"".into(),
            body: b"{\"x\": 1.10}".to_vec(),
            price: Some(b"{\"amount\": \"1\"}".to_vec()),
        };
        let text = page_text(&[stored.clone(), stored], write_document, ",\"next\":null");
        let one = r#"{"collection":"products","id":"a\"b","version":3,"price":{"amount": "1"},"data":{"x": 1.10}}"#;
        assert_eq!(
            String::from_utf8(text).unwrap(),
            format!("{{\"items\":[{one},{one}],\"next\":null}}")
        );
    }
}
