//! `GET …/checksums`, `…/checksums/{collection}`, `…/buckets/{collection}/{bucket}`: what the documents add up to, and
//! the documents of one bucket. The sums are made anew at each place of the feed, and kept until the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::encoding::{accepts_gzip, fill};
use super::{bad_request, cursor};
use crate::platform::Platform;
use crate::serve::body::Payload;
use crate::serve::reply::{self, Reply};
use crate::store::feed::{self, Position};
use crate::store::{StoreError, documents};

const FEED_CURSOR: HeaderName = HeaderName::from_static("feed-cursor");

/// Count and sum of a bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    sum: u64,
}

/// The sums at a place of the feed.
#[derive(Debug)]
pub struct Sums {
    position: Position,
    buckets: BTreeMap<(String, u8), Sum>,
}

pub async fn totals(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let sums = sums(platform).await?;
    let mut totals: BTreeMap<&str, Sum> = BTreeMap::new();
    for ((collection, _), sum) in &sums.buckets {
        let total = totals.entry(collection).or_default();
        total.count += sum.count;
        total.sum = total.sum.wrapping_add(sum.sum);
    }
    let list: Vec<Value> = totals
        .iter()
        .map(|(collection, sum)| {
            json!({"collection": collection, "count": sum.count, "sum": digits(sum.sum)})
        })
        .collect();
    let answer = json!({"cursor": at(&sums.position), "collections": list});
    Ok(packed(request, &answer))
}

pub async fn of_collection(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
    collection: &str,
) -> Result<Reply, StoreError> {
    if !is_collection(collection) {
        return Ok(bad_request("this is no name of a collection"));
    }
    let sums = sums(platform).await?;
    let list: Vec<Value> = sums
        .buckets
        .iter()
        .filter(|((name, _), _)| name == collection)
        .map(|((_, bucket), sum)| {
            json!({"bucket": bucket, "count": sum.count, "sum": digits(sum.sum)})
        })
        .collect();
    let answer = json!({"cursor": at(&sums.position), "buckets": list});
    Ok(packed(request, &answer))
}

pub async fn documents(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
    collection: &str,
    wanted: &str,
) -> Result<Reply, StoreError> {
    let Ok(wanted) = wanted.parse::<u8>() else {
        return Ok(bad_request("a bucket is a number from 0 to 255"));
    };
    if !is_collection(collection) {
        return Ok(bad_request("this is no name of a collection"));
    }
    let collection = collection.to_owned();
    let (position, text) = platform
        .store
        .call(move |connection| {
            let state = connection.transaction()?;
            let (mut text, mut count) = (String::new(), 0);
            documents::each(
                &state,
                &collection,
                |id, _| Ok(bucket(id) == wanted),
                |document| {
                    text += &document.line();
                    text.push('\n');
                    count += 1;
                },
            )?;
            text += &format!("{{\"end\":true,\"count\":{count}}}\n");
            Ok((feed::position(&state)?, text))
        })
        .await?;
    let mut answer = reply::empty(StatusCode::OK);
    reply::set(&mut answer, CONTENT_TYPE, "application/x-ndjson");
    reply::set(&mut answer, FEED_CURSOR, &at(&position));
    fill(&mut answer, text.into_bytes(), accepts_gzip(request));
    Ok(answer)
}

/// As the contract has it: a small letter, then small letters, digits, `_` and `-`, 64 at most.
fn is_collection(name: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(fits)
}

fn packed(request: &Request<Payload>, value: &Value) -> Reply {
    let mut answer = reply::json(StatusCode::OK, value);
    let text = serde_json::to_vec(value).expect("a value is JSON");
    fill(&mut answer, text, accepts_gzip(request));
    answer
}

fn at(position: &Position) -> String {
    cursor::encode(position, position.last_seq)
}

fn digits(sum: u64) -> String {
    format!("{sum:016x}")
}

fn bucket(id: &str) -> u8 {
    Sha256::digest(id.as_bytes())[0]
}

fn number(id: &str, version: i64) -> u64 {
    let digest = Sha256::digest(format!("{id}\0{version}").as_bytes());
    digest[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

async fn sums(platform: &Arc<Platform>) -> Result<Arc<Sums>, StoreError> {
    let this = Arc::clone(platform);
    platform
        .store
        .call(move |connection| {
            let state = connection.transaction()?;
            let position = feed::position(&state)?;
            let mut kept = this.sums.lock().expect("no holder of this lock panics");
            if let Some(sums) = &*kept
                && sums.position.last_seq == position.last_seq
            {
                return Ok(Arc::clone(sums));
            }
            let mut buckets: BTreeMap<(String, u8), Sum> = BTreeMap::new();
            for collection in documents::collections(&state)? {
                documents::each(
                    &state,
                    &collection,
                    |id, version| {
                        let sum = buckets.entry((collection.clone(), bucket(id))).or_default();
                        sum.count += 1;
                        sum.sum = sum.sum.wrapping_add(number(id, version));
                        Ok(false)
                    },
                    |_| {},
                )?;
            }
            let sums = Arc::new(Sums { position, buckets });
            *kept = Some(Arc::clone(&sums));
            Ok(sums)
        })
        .await
}
