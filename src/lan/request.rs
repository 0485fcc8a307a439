//! Reading what clients send: path parameters, queries, headers, bounded bodies.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderName};
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;

use super::problem::{Kind, Problem};

/// What is still read of a body that is too large, so that its sender gets to see the answer instead of a reset.
const DRAIN_BYTES: u64 = 1024 * 1024;

/// A body beyond this needs one of the port's places for large bodies.
const SMALL_BODY: usize = 16 * 1024;

/// Large bodies a port reads at a time. Beyond: they wait, within their request's deadline. Small ones never do.
pub const LARGE_BODIES: usize = 32;

/// A request whose head was read.
#[derive(Debug)]
pub struct Ask {
    /// Method, path, query and headers.
    pub head: Parts,
    /// Who asks.
    pub peer: SocketAddr,
    body: Incoming,
    max_body: u64,
    large_bodies: Arc<Semaphore>,
}

impl Ask {
    /// Puts the parts together; the body may have `max_body` bytes, and takes a place of `large_bodies` if it is one.
    #[must_use]
    pub fn new(
        head: Parts,
        body: Incoming,
        peer: SocketAddr,
        max_body: u64,
        large_bodies: Arc<Semaphore>,
    ) -> Self {
        Self {
            head,
            peer,
            body,
            max_body,
            large_bodies,
        }
    }

    /// The one value of the query's parameter `name`, decoded; `None` when absent.
    ///
    /// # Errors
    /// When it stands twice or is no UTF-8.
    pub fn query(&self, name: &str) -> Result<Option<String>, Box<Problem>> {
        let mut found = None;
        for pair in self.head.uri.query().unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key != name {
                continue;
            }
            let value = decode(&value.replace('+', " ")).map(Cow::into_owned);
            match value {
                Some(value) if found.is_none() => found = Some(value),
                Some(_) => {
                    return Err(bad(format!("the parameter {name} stands twice")));
                }
                None => return Err(bad(format!("the parameter {name} is no UTF-8 text"))),
            }
        }
        Ok(found)
    }

    /// A whole number of the query, from 1 to `max`; `default` when absent.
    ///
    /// # Errors
    /// When it is no such number.
    pub fn query_number(&self, name: &str, default: u64, max: u64) -> Result<u64, Box<Problem>> {
        let Some(text) = self.query(name)? else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(bad(format!(
                "the parameter {name} must be a whole number from 1 to {max}"
            ))),
        }
    }

    /// The one value of a header as text; `None` when absent, twice or not text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// The whole body. Its place, if it is large, is given back when all of it is here.
    ///
    /// # Errors
    /// 413 above the port's bound, 400 when it ends early. The request's own deadline bounds the time.
    pub async fn body(&mut self) -> Result<Bytes, Box<Problem>> {
        let max = self.max_body;
        if self.body.size_hint().lower() > max {
            self.drain().await;
            return Err(too_large(max));
        }
        let (mut first, mut rest) = (Bytes::new(), Vec::new());
        let mut place = None;
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|_| bad("the body ended early or is badly framed"))?;
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            if (first.len() + rest.len() + piece.len()) as u64 > max {
                self.drain().await;
                return Err(too_large(max));
            }
            if place.is_none() && first.len() + rest.len() + piece.len() > SMALL_BODY {
                let taken = Arc::clone(&self.large_bodies).acquire_owned().await;
                place = Some(taken.map_err(|_| bad("the port has ended"))?);
            }
            // Nearly every body arrives in one piece, which then is not copied.
            if first.is_empty() && rest.is_empty() {
                first = piece;
            } else {
                if rest.is_empty() {
                    rest = std::mem::take(&mut first).to_vec();
                }
                rest.extend_from_slice(&piece);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.into() })
    }

    /// The body as a JSON object of a known shape.
    ///
    /// # Errors
    /// 415, 413, 400 (no JSON) or 422 (another shape), with the reason and the place.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Box<Problem>> {
        self.expect_json()?;
        object(&self.body().await?)
    }

    /// Refuses a body that says it is something other than JSON.
    ///
    /// # Errors
    /// 415.
    pub fn expect_json(&self) -> Result<(), Box<Problem>> {
        let Some(value) = self.head.headers.get(header::CONTENT_TYPE) else {
            return Ok(());
        };
        let kind = value.to_str().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json") {
            Ok(())
        } else {
            Err(Problem::new(
                Kind::UnsupportedMediaType,
                "the body must be application/json",
            ))
        }
    }

    async fn drain(&mut self) {
        let mut drained = 0;
        if self.body.size_hint().lower() > DRAIN_BYTES {
            return;
        }
        while let Some(Ok(frame)) = self.body.frame().await {
            drained += frame.data_ref().map_or(0, |piece| piece.len() as u64);
            if drained > DRAIN_BYTES {
                return;
            }
        }
    }
}

/// A JSON object of a known shape. A list of its values, which serde would take too, is none.
///
/// # Errors
/// 400 (no JSON) or 422 (another shape), with the reason and the place.
pub fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, Box<Problem>> {
    let parsed = serde_json::from_slice(text);
    let is_list = text.trim_ascii_start().starts_with(b"[");
    match parsed {
        Ok(_) if is_list => Err(Problem::new(
            Kind::Unprocessable,
            "the body must be a JSON object, not a list",
        )),
        Ok(value) => Ok(value),
        Err(error) => {
            let kind = if error.is_data() {
                Kind::Unprocessable
            } else {
                Kind::BadRequest
            };
            let place = json!({"line": error.line(), "column": error.column()});
            Err(
                Problem::new(kind, format!("the body is not as expected: {error}"))
                    .with("where", place),
            )
        }
    }
}

/// A 400.
pub fn bad(detail: impl Into<String>) -> Box<Problem> {
    Problem::new(Kind::BadRequest, detail)
}

fn too_large(max: u64) -> Box<Problem> {
    Problem::new(
        Kind::TooLarge,
        format!("this port takes bodies of at most {max} bytes"),
    )
    .with("max_bytes", max)
    .header(
        header::CONNECTION,
        header::HeaderValue::from_static("close"),
    )
}

/// Undoes percent-encoding (RFC 3986 §2.1); `None` for a broken escape or what is no UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let value = |digit: u8| char::from(digit).to_digit(16);
            let byte = value(digits[0])? * 16 + value(digits[1])?;
            bytes.push(u8::try_from(byte).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_broken_ones_refused() {
        assert_eq!(decode("plain").as_deref(), Some("plain"));
        assert_eq!(decode("a%2Fb%C3%A9").as_deref(), Some("a/bé"));
        for broken in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
