//! A document of collection `media`: an entry of the platform's manifest. Which blob, how large, where to fetch it, when
//! it is needed. Only from the configured host: a document comes from outside and must not send the box (or its proxy)
//! anywhere else. Fields that are not named here are kept in the document and passed on to devices.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use crate::config::HttpsUrl;
use crate::digest::Digest;
use crate::identity::Secret;
use crate::units::ByteSize;
use crate::wan::egress::{OutsideContract, within};

/// Of documents that name none.
const PRIORITY: u8 = 5;
/// The highest there is.
const MAX_PRIORITY: u8 = 9;
/// Characters of a media type at most; a longer one is taken for none.
const MAX_TYPE: usize = 100;

/// What a document announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// With its query as it came: a signature in it must not be encoded anew.
    pub(super) url: String,
    /// Empty: unknown.
    pub(super) content_type: String,
    /// 0 to 9, the highest first.
    pub(super) priority: u8,
    pub(super) urgent: bool,
    /// Milliseconds since 1970.
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
}

/// A media document that can't be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RefuseMediaError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("not a media document: {0}")]
    Shape(String),
    /// Not on the media host.
    #[error("its address is refused: {0}")]
    Outside(#[from] OutsideContract),
    /// Larger than one blob may be.
    #[error("it has {size}, more than {limit}")]
    TooLarge { size: ByteSize, limit: ByteSize },
    /// Outside 0 to 9.
    #[error("its priority is {0}, not one from 0 to 9")]
    Priority(u8),
    /// Not a time, or an end before the beginning.
    #[error("{0}")]
    Validity(&'static str),
    /// Another document says something else of the same blob.
    #[error("another document announces the same file with another size")]
    Contradiction,
    /// The box follows so many.
    #[error("there are more than {0} media files")]
    TooMany(usize),
}

/// Reads and checks a media document.
pub(super) fn read(
    body: &[u8],
    media_url: &HttpsUrl,
    limit: ByteSize,
) -> Result<Announced, RefuseMediaError> {
    #[derive(Deserialize)]
    struct Document {
        url: String,
        sha256: Digest,
        size: u64,
        #[serde(default)]
        content_type: Option<String>,
        #[serde(default)]
        priority: Option<u8>,
        #[serde(default)]
        urgent: Option<bool>,
        #[serde(default)]
        valid_from: Option<String>,
        #[serde(default)]
        valid_until: Option<String>,
    }
    let document: Document = serde_json::from_slice(body).map_err(|error| shape(&error))?;
    within(&document.url, media_url)?;
    if document.size > limit.as_u64() {
        return Err(RefuseMediaError::TooLarge {
            size: ByteSize::bytes(document.size),
            limit,
        });
    }
    let priority = document.priority.unwrap_or(PRIORITY);
    if priority > MAX_PRIORITY {
        return Err(RefuseMediaError::Priority(priority));
    }
    let from_ms = at_ms(document.valid_from.as_deref())?.unwrap_or(i64::MIN);
    let until_ms = at_ms(document.valid_until.as_deref())?.unwrap_or(i64::MAX);
    if until_ms <= from_ms {
        let text = "its time ends before it begins";
        return Err(RefuseMediaError::Validity(text));
    }
    let content_type = document.content_type.unwrap_or_default();
    Ok(Announced {
        digest: document.sha256,
        size: document.size,
        url: document.url,
        content_type: Some(content_type)
            .filter(|kind| kind.len() <= MAX_TYPE)
            .unwrap_or_default(),
        priority,
        urgent: document.urgent.unwrap_or(false),
        from_ms,
        until_ms,
    })
}

/// RFC 3339, as in `2026-11-25T08:00:00+01:00`.
fn at_ms(text: Option<&str>) -> Result<Option<i64>, RefuseMediaError> {
    let parse = |text: &str| text.parse::<Timestamp>();
    let at = text.map(parse).transpose();
    at.map(|at| at.map(Timestamp::as_millisecond))
        .map_err(|_| RefuseMediaError::Validity("its time is no RFC 3339 date and time"))
}

/// What the parser says, on one line and never with a piece of the document.
fn shape(error: &serde_json::Error) -> RefuseMediaError {
    let text = error.to_string();
    let text = match text.split_once('`') {
        // "missing field `url` at …", "invalid type: string "…", expected …": the first is of use, the second may quote.
        Some(("missing field ", rest)) => {
            let field = rest.split('`').next().unwrap_or_default();
            format!("{field} is missing")
        }
        _ => format!("line {}, column {}", error.line(), error.column()),
    };
    RefuseMediaError::Shape(text)
}

/// The address with this site's signature; one that brings its own keeps it byte for byte.
pub(in crate::wan) fn signed<'a>(url: &'a str, signature: Option<&Secret>) -> Cow<'a, str> {
    match signature {
        Some(signature) if !has_signature(url) => {
            let separator = if url.contains('?') { '&' } else { '?' };
            Cow::Owned(format!("{url}{separator}{}", signature.expose()))
        }
        _ => Cow::Borrowed(url),
    }
}

/// Whether an address brings its own signature.
pub(super) fn has_signature(url: &str) -> bool {
    url.split_once('?')
        .is_some_and(|(_, query)| query.split('&').any(|pair| pair.starts_with("sig=")))
}

/// The address without its query, which may hold a signature.
pub(super) fn bare(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn check_text(text: &str) -> Result<Announced, RefuseMediaError> {
        let media_url = HttpsUrl::parse("https://media.example").unwrap();
        read(text.as_bytes(), &media_url, ByteSize::bytes(10))
    }

    fn check(url: &str, size: u64) -> Result<Announced, RefuseMediaError> {
        check_with(url, size, "")
    }

    fn check_with(url: &str, size: u64, more: &str) -> Result<Announced, RefuseMediaError> {
        check_text(&format!(
            r#"{{"url":"{url}","sha256":"{DIGEST}","size":{size},"content_type":"image/png"{more}}}"#
        ))
    }

    fn check_more(more: &str) -> Result<Announced, RefuseMediaError> {
        check_with("https://media.example/a", 1, &format!(",{more}"))
    }

    #[test]
    fn an_address_on_the_media_host_is_taken_as_it_is() {
        let url = "https://media.example:443/images/a%20b.png?sv=1&sig=a%2Fb%3D";
        let announced = check(url, 10).unwrap();
        assert_eq!((announced.url.as_str(), announced.size), (url, 10));
        assert_eq!((announced.priority, announced.urgent), (5, false));
        assert!(check("https://MEDIA.example/a", 1).is_ok());
        assert!(has_signature(url));
        assert_eq!(bare(url), "https://media.example:443/images/a%20b.png");
    }

    #[test]
    fn the_sites_signature_is_added_only_where_there_is_none() {
        let signature = Secret::new("sv=1&sig=a%2Fb");
        let signed = |url| signed(url, Some(&signature)).into_owned();
        let host = "https://media.example";
        assert_eq!(
            signed("https://media.example/a"),
            format!("{host}/a?sv=1&sig=a%2Fb")
        );
        assert_eq!(
            signed("https://media.example/a?x=1"),
            format!("{host}/a?x=1&sv=1&sig=a%2Fb")
        );
        let own = "https://media.example/a?sv=2&sig=c%2Fd";
        assert_eq!(signed(own), own);
        assert_eq!(
            super::signed("https://media.example/a", None),
            "https://media.example/a"
        );
    }

    #[test]
    fn any_other_address_is_refused() {
        for url in [
            "http://media.example/a",
            "https://other.example/a",
            "https://media.example:8443/a",
            "https://media.example@evil.example/a",
            "https://user@media.example/a",
            "https://media.example.evil.example/a",
            "/a",
            "file:///etc/passwd",
        ] {
            let refused = check(url, 1);
            assert!(
                matches!(refused, Err(RefuseMediaError::Outside(_))),
                "{url}"
            );
        }
    }

    #[test]
    fn priority_and_validity_are_read_and_unknown_fields_pass() {
        let announced = check_more(
            r#""priority":9,"urgent":true,"valid_from":"2026-11-25T08:00:00+01:00",
               "valid_until":"2026-11-25T08:00:00Z","campaign":{"name":"Noël"}"#,
        )
        .unwrap();
        assert_eq!((announced.priority, announced.urgent), (9, true));
        assert_eq!(announced.until_ms - announced.from_ms, 3_600_000);
        assert!(check_more(r#""valid_from":null,"priority":null,"urgent":null"#).is_ok());
    }

    #[test]
    fn a_document_that_can_not_be_followed_is_refused_with_a_sentence() {
        for (more, sentence) in [
            (
                r#""priority":10"#,
                "its priority is 10, not one from 0 to 9",
            ),
            (
                r#""valid_from":"tomorrow""#,
                "its time is no RFC 3339 date and time",
            ),
            (
                r#""valid_from":"2026-01-02T00:00:00Z","valid_until":"2026-01-02T00:00:00Z""#,
                "its time ends before it begins",
            ),
        ] {
            assert_eq!(check_more(more).unwrap_err().to_string(), sentence);
        }
        let refused = check("https://media.example/a", 11);
        assert!(matches!(refused, Err(RefuseMediaError::TooLarge { .. })));
        let without = check_text(r#"{"size":1,"sha256":"x"}"#).unwrap_err();
        assert!(without.to_string().starts_with("not a media document"));
        let without = check_text(&format!(r#"{{"size":1,"sha256":"{DIGEST}"}}"#));
        let text = without.unwrap_err().to_string();
        assert_eq!(text, "not a media document: url is missing");
        let quoting = check_more(r#""urgent":"Madame Dupont""#).unwrap_err();
        assert!(!quoting.to_string().contains("Dupont"), "{quoting}");
        assert!(matches!(check_text("[]"), Err(RefuseMediaError::Shape(_))));
    }
}
