//! What a host answered.

use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime};

use ureq::Body;
use ureq::http;

use super::evidence::{host_of_location, one_line};
use super::pace::{Pace, Paced};
use super::total;
use super::{Cause, EgressError, Evidence, Phase, http_date};
use crate::units::ByteSize;

/// `Retry-After` beyond this is cut: a wrong header must not silence a box for days.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);
/// Of an error's body, read so that the connection can be used again.
const MAX_DRAINED_BYTES: u64 = 64 * 1024;
/// Of an error's body, looked through for the host's own reason.
const MAX_WORDS_BYTES: u64 = 4 * 1024;
/// An error's body is waited for this long at most, however it drips: the status is known already.
const WORDS_WAIT: Duration = Duration::from_secs(5);
/// Clocks this near each other are right enough; `Date` has whole seconds and the answer took its time.
const SKEW_WORTH_TELLING_S: i64 = 60;

/// An answer, its body not read yet.
pub struct Answer {
    host: String,
    response: http::Response<Body>,
    /// Of the whole request.
    end: Instant,
    pace: Pace,
}

impl Answer {
    pub(super) fn new(
        host: String,
        response: http::Response<Body>,
        end: Instant,
        pace: Pace,
    ) -> Self {
        Self {
            host,
            response,
            end,
            pace,
        }
    }

    /// The whole request should have ended by now.
    #[cfg(test)]
    pub(super) fn end_now(&mut self) {
        self.end = Instant::now();
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
        http_date::parse(self.header("date")?).map(SystemTime::from)
    }

    /// How long the host asks to wait (`Retry-After`, RFC 9110 section 10.2.3: seconds, or a date by the host's own clock);
    /// cut at a quarter of an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let now = self.date().unwrap_or_else(SystemTime::now);
        wait_asked(self.header("retry-after")?, now)
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

    /// The error this answer stands for: `cause`, unless the host's own words say more exactly what is wrong.
    #[must_use]
    pub fn into_error(mut self, cause: Cause) -> EgressError {
        let retry_after = self.retry_after();
        let status = self.status();
        let mut evidence = Evidence::at(Phase::Exchange);
        evidence.status = Some(status);
        evidence.host_code = self.header("x-ms-error-code").and_then(one_line);
        evidence.led_to = self.header("location").and_then(host_of_location);
        evidence.skew_s = self.date().and_then(|date| skew_s(SystemTime::now(), date));
        let words = self.last_words();
        let cause = words_cause(status, &words).unwrap_or(cause);
        let mut error = EgressError::new(cause, &self.host, format!("HTTP {status}"));
        error.retry_after = retry_after;
        error.with(evidence)
    }

    /// The beginning of an error's body, as far as it comes in time. The rest is read, too, if it is short: drained, the
    /// connection can be used again.
    fn last_words(&mut self) -> String {
        let end = self.end.min(Instant::now() + WORDS_WAIT);
        let mut reader = self.response.body_mut().as_reader().take(MAX_DRAINED_BYTES);
        let mut words = Vec::new();
        total::ending(Some(end), || {
            let mut beginning = reader.by_ref().take(MAX_WORDS_BYTES);
            // The words are evidence, not the answer: without them the status says what is wrong.
            let read = beginning.read_to_end(&mut words);
            read.and_then(|_| io::copy(&mut reader, &mut io::sink()))
        })
        .ok();
        String::from_utf8_lossy(&words).into_owned()
    }

    /// Whether the body is of media type `expected`; networks' login pages and proxies answer with HTML.
    #[must_use]
    pub fn is_of_type(&self, expected: &str) -> bool {
        self.header("content-type").is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case(expected)
        })
    }

    /// The whole body, before the end of the whole request.
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
        total::ending(Some(self.end), || reader.read_to_end(&mut bytes))
            .map_err(|error| EgressError::sort_body(error, &self.host))?;
        if bytes.len() > limit.as_usize() {
            let detail = format!("more than {limit}");
            return Err(EgressError::new(Cause::TooLarge, &self.host, detail));
        }
        Ok(bytes)
    }

    /// The body as a stream, however long it takes as long as it is not too slow; an error of its reader becomes an
    /// [`EgressError`] by the second part.
    pub fn into_reader(self) -> (impl Read, impl Fn(io::Error) -> EgressError) {
        let host = self.host;
        let sort = move |error| EgressError::sort_body(error, &host);
        let reader = Paced {
            reader: self.response.into_body().into_reader(),
            pace: self.pace,
        };
        (reader, sort)
    }
}

/// `Retry-After` as a wait from `now`, the host's time.
fn wait_asked(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => SystemTime::from(http_date::parse(text)?)
            .duration_since(now)
            .unwrap_or(Duration::ZERO),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// How far `here` is ahead of `there`, when it is worth telling.
fn skew_s(here: SystemTime, there: SystemTime) -> Option<i64> {
    let ahead = match here.duration_since(there) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok()?,
        Err(behind) => -i64::try_from(behind.duration().as_secs()).ok()?,
    };
    (ahead.abs() > SKEW_WORTH_TELLING_S).then_some(ahead)
}

/// What a refusal's text says more exactly than its status. Azure tells an expired signature (Service Bus: 401
/// "ExpiredToken"; Blob: 403 "Signature not valid in the specified time frame") and a full entity (403 "quota exceeded",
/// "maximum entity size") by words only (learn.microsoft.com, "Send message", "Blob service error codes").
fn words_cause(status: u16, words: &str) -> Option<Cause> {
    if !matches!(status, 401 | 403) {
        return None;
    }
    let words = words.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    if says(&["expiredtoken", "not valid in the specified time frame"]) {
        Some(Cause::SasExpired)
    } else if says(&[
        "quotaexceeded",
        "quota exceeded",
        "quota has been exceeded",
        "maximum entity size",
    ]) {
        Some(Cause::Quota)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date_of_the_hosts_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |text| wait_asked(text, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sunday, 06-Nov-94 08:50:07 GMT"), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("Mon, 07 Nov 1994 08:00:00 GMT"), Some(900));
        assert_eq!(wait("99999999"), Some(900));
        assert_eq!(wait("-1"), None);
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_refusals_words_tell_expiry_and_fullness_from_refusal() {
        for (status, words, expected) in [
            (
                401,
                "<Detail>ExpiredToken: The token is expired.</Detail>",
                Some(Cause::SasExpired),
            ),
            (
                403,
                "Signature not valid in the specified time frame: Start",
                Some(Cause::SasExpired),
            ),
            (
                403,
                "The maximum entity size has been reached or exceeded",
                Some(Cause::Quota),
            ),
            (403, "QuotaExceeded", Some(Cause::Quota)),
            (
                401,
                "InvalidSignature: The token has an invalid signature.",
                None,
            ),
            (500, "ExpiredToken", None),
        ] {
            assert_eq!(words_cause(status, words), expected, "{words}");
        }
    }

    #[test]
    fn a_skew_is_told_with_its_direction_when_it_matters() {
        let there = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |offset: i64| {
            let step = Duration::from_secs(offset.unsigned_abs());
            if offset < 0 {
                there - step
            } else {
                there + step
            }
        };
        assert_eq!(skew_s(at(59), there), None);
        assert_eq!(skew_s(at(3600), there), Some(3600));
        assert_eq!(skew_s(at(-86_400), there), Some(-86_400));
    }
}
