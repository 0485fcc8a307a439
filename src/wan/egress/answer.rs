//! What a host answered.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use ureq::Body;
use ureq::http;

use super::{Cause, EgressError};
use crate::units::ByteSize;

/// `Retry-After` beyond this is cut: a wrong header must not silence a box for days.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);
/// Of an error's body, read so that the connection can be used again.
const MAX_DRAINED_BYTES: u64 = 64 * 1024;

/// An answer, its body not read yet.
pub struct Answer {
    host: String,
    response: http::Response<Body>,
}

impl Answer {
    pub(super) fn new(host: String, response: http::Response<Body>) -> Self {
        Self { host, response }
    }

    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header's text; `None` when it is absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// When the host answered, by its own clock: `Date`, RFC 9110 section 6.6.1.
    #[must_use]
    pub fn date(&self) -> Option<SystemTime> {
        let date = jiff::fmt::rfc2822::parse(self.header("date")?).ok()?;
        Some(SystemTime::from(date.timestamp()))
    }

    /// How long the host asks to wait, in seconds form; cut at a quarter of an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }

    /// The answer when its status is a success, otherwise the error it stands for.
    ///
    /// # Errors
    /// Any status outside 200 to 299.
    pub fn success(self) -> Result<Self, EgressError> {
        match Cause::of_status(self.status()) {
            None => Ok(self),
            Some(cause) => Err(self.into_error(cause)),
        }
    }

    /// The error this answer stands for.
    #[must_use]
    pub fn into_error(mut self, cause: Cause) -> EgressError {
        let retry_after = self.retry_after();
        let status = self.status();
        let mut error = EgressError::new(cause, &self.host, format!("HTTP {status}"));
        error.retry_after = retry_after;
        // Drained, a connection can be used again; a long body is not worth it.
        let _ = io::copy(
            &mut self.response.body_mut().as_reader().take(MAX_DRAINED_BYTES),
            &mut io::sink(),
        );
        error
    }

    /// Whether the body is of media type `expected`; networks' login pages and proxies answer with HTML.
    #[must_use]
    pub fn is_of_type(&self, expected: &str) -> bool {
        self.header("content-type").is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case(expected)
        })
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Cause::TooLarge`] beyond `limit`; whatever breaks the transfer.
    pub fn bytes(mut self, limit: ByteSize) -> Result<Vec<u8>, EgressError> {
        let mut bytes = Vec::new();
        let mut reader = self
            .response
            .body_mut()
            .as_reader()
            .take(limit.as_u64().saturating_add(1));
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| EgressError::sort_body(error, &self.host))?;
        if bytes.len() > limit.as_usize() {
            let detail = format!("more than {limit}");
            return Err(EgressError::new(Cause::TooLarge, &self.host, detail));
        }
        Ok(bytes)
    }

    /// The body as a stream; an error of its reader becomes an [`EgressError`] by the second part.
    pub fn into_reader(self) -> (impl Read, impl Fn(io::Error) -> EgressError) {
        let host = self.host;
        let sort = move |error| EgressError::sort_body(error, &host);
        (self.response.into_body().into_reader(), sort)
    }
}
