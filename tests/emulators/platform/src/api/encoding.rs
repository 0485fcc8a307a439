//! Whether an answer may be compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Request;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};

use crate::serve::body::{self, Payload};
use crate::serve::reply::{self, Reply};

/// Answers shorter than this are not worth compressing.
const WORTH: usize = 512;

/// Whether the request accepts gzip.
pub fn accepts_gzip(request: &Request<Payload>) -> bool {
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

/// Puts `text` into `answer`, compressed if the client takes it and it is worth it.
pub fn fill(answer: &mut Reply, text: Vec<u8>, gzip: bool) {
    reply::set(answer, VARY, "Accept-Encoding");
    *answer.body_mut() = if gzip && text.len() >= WORTH {
        reply::set(answer, CONTENT_ENCODING, "gzip");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let packed = encoder.write_all(&text).and_then(|()| encoder.finish());
        body::full(packed.expect("memory takes every write"))
    } else {
        body::full(text)
    };
}
