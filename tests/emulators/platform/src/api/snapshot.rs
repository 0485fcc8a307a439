//! `GET /v1/sites/{site}/snapshot`: every document, streamed as NDJSON while the feed goes on.
//!
//! The cursor is taken before the first page is read and the pages are read one by one, not from one
//! transaction: a change made meanwhile may or may not show in the snapshot, and comes in the feed in any case.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, VARY,
};
use hyper::{Request, StatusCode};
use serde_json::to_string;

use super::cursor;
use crate::platform::Platform;
use crate::serve::body::{self, ChunkSender, Payload};
use crate::serve::reply::{self, Reply};
use crate::store::{Store, StoreError, documents, feed};

/// Documents read at once.
const PAGE: usize = 500;
/// Bytes gathered before they are sent.
const CHUNK: usize = 64 * 1024;

const FEED_CURSOR: HeaderName = HeaderName::from_static("feed-cursor");

pub async fn answer(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let position = platform
        .store
        .call(|connection| feed::position(connection))
        .await?;
    let gzip = accepts_gzip(request);
    let (sender, body) = body::streamed();
    let store = platform.store.clone();
    tokio::task::spawn_blocking(move || produce(&store, sender, gzip));
    let mut answer = reply::with_body(StatusCode::OK, body);
    reply::set(&mut answer, CONTENT_TYPE, "application/x-ndjson");
    reply::set(&mut answer, CACHE_CONTROL, "no-store");
    reply::set(&mut answer, VARY, "Accept-Encoding");
    reply::set(
        &mut answer,
        FEED_CURSOR,
        &cursor::encode(&position, position.last_seq),
    );
    if gzip {
        reply::set(&mut answer, CONTENT_ENCODING, "gzip");
    }
    Ok(answer)
}

/// The start of a document's line or a change's item, up to and with its version.
pub fn head(collection: &str, id: &str, version: i64) -> String {
    let (collection, id) = (to_string(collection), to_string(id));
    let text = "a string is JSON";
    format!(
        "{{\"collection\":{},\"id\":{},\"version\":{version}",
        collection.expect(text),
        id.expect(text)
    )
}

fn accepts_gzip(request: &Request<Payload>) -> bool {
    let accepted = request
        .headers()
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let refused = matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        matches!(name.trim(), "gzip" | "*") && !refused
    })
}

fn produce(store: &Store, sender: ChunkSender, gzip: bool) {
    let mut chunks = Chunks {
        buffer: Vec::with_capacity(CHUNK),
        sender,
    };
    let result = if gzip {
        let mut encoder = GzEncoder::new(&mut chunks, Compression::fast());
        write_lines(store, &mut encoder).and_then(|()| encoder.finish().map(drop))
    } else {
        write_lines(store, &mut chunks)
    };
    match result.and_then(|()| chunks.flush()) {
        Ok(()) => {}
        // The client went away: nobody is left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            tracing::error!(event = "api.snapshot_failed", %error);
            chunks.sender.fail(error);
        }
    }
}

fn write_lines(store: &Store, out: &mut impl Write) -> io::Result<()> {
    let reader = store.reader().map_err(io::Error::other)?;
    let (mut after, mut count) = ((String::new(), String::new()), 0_u64);
    loop {
        let page =
            documents::page_after(&reader, (&after.0, &after.1), PAGE).map_err(io::Error::other)?;
        let Some(last) = page.last() else { break };
        after = (last.collection.clone(), last.id.clone());
        for document in page {
            let head = head(&document.collection, &document.id, document.version);
            writeln!(out, "{head},\"data\":{}}}", document.data)?;
            count += 1;
        }
    }
    writeln!(out, "{{\"end\":true,\"count\":{count}}}")
}

/// Gathers what is written into chunks of a body.
struct Chunks {
    buffer: Vec<u8>,
    sender: ChunkSender,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        if chunk.is_empty() || self.sender.send(Bytes::from(chunk)) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}
