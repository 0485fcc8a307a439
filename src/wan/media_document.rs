//! A document of collection `media`: which blob, how large, and where to fetch it. Only from the configured host: a
//! document comes from outside and must not send the box (or its proxy) anywhere else.

use std::borrow::Cow;

use serde::Deserialize;

use crate::config::HttpsUrl;
use crate::digest::Digest;
use crate::identity::Secret;
use crate::units::ByteSize;

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// With its query as it came: a signature in it must not be encoded anew.
    pub(super) url: String,
}

/// A media document that can't be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RefuseMediaError {
    /// Not the agreed fields.
    #[error("not a media document")]
    Shape,
    /// The id is the digest.
    #[error("its id is not its digest")]
    Id,
    /// Not below the media host.
    #[error("its address is not on the media host")]
    Host,
    /// Larger than one blob may be.
    #[error("it has {size}, more than {limit}")]
    TooLarge { size: ByteSize, limit: ByteSize },
}

/// Reads and checks a media document.
pub(super) fn read(
    id: &str,
    body: &[u8],
    media_url: &HttpsUrl,
    limit: ByteSize,
) -> Result<Wanted, RefuseMediaError> {
    #[derive(Deserialize)]
    struct Document {
        url: String,
        sha256: Digest,
        size: u64,
    }
    let document: Document = serde_json::from_slice(body).map_err(|_| RefuseMediaError::Shape)?;
    if id.parse() != Ok(document.sha256) {
        return Err(RefuseMediaError::Id);
    }
    if !is_below(&document.url, media_url) {
        return Err(RefuseMediaError::Host);
    }
    if document.size > limit.as_u64() {
        return Err(RefuseMediaError::TooLarge {
            size: ByteSize::bytes(document.size),
            limit,
        });
    }
    Ok(Wanted {
        digest: document.sha256,
        size: document.size,
        url: document.url,
    })
}

/// The address with this site's signature; one that brings its own keeps it byte for byte.
pub(super) fn signed<'a>(url: &'a str, signature: Option<&Secret>) -> Cow<'a, str> {
    let query = url.split_once('?').map(|(_, query)| query);
    let has_its_own =
        query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("sig=")));
    match signature {
        Some(signature) if !has_its_own => {
            let separator = if query.is_some() { '&' } else { '?' };
            Cow::Owned(format!("{url}{separator}{}", signature.expose()))
        }
        _ => Cow::Borrowed(url),
    }
}

fn is_below(url: &str, media_url: &HttpsUrl) -> bool {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else {
        return false;
    };
    let Some(authority) = uri.authority() else {
        return false;
    };
    uri.scheme_str() == Some("https")
        && !authority.as_str().contains('@')
        && authority.host().eq_ignore_ascii_case(media_url.host())
        && authority.port_u16().unwrap_or(443) == media_url.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn document(url: &str, size: u64) -> Vec<u8> {
        format!(r#"{{"url":"{url}","sha256":"{DIGEST}","size":{size},"content_type":"image/png"}}"#)
            .into_bytes()
    }

    fn check(id: &str, url: &str, size: u64) -> Result<Wanted, RefuseMediaError> {
        let media_url = HttpsUrl::parse("https://media.example").unwrap();
        read(id, &document(url, size), &media_url, ByteSize::bytes(10))
    }

    #[test]
    fn an_address_on_the_media_host_is_taken_as_it_is() {
        let url = "https://media.example:443/images/a%20b.png?sv=1&sig=a%2Fb%3D";
        let wanted = check(DIGEST, url, 10).unwrap();
        assert_eq!((wanted.url.as_str(), wanted.size), (url, 10));
        assert!(check(DIGEST, "https://MEDIA.example/a", 1).is_ok());
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
            assert_eq!(check(DIGEST, url, 1), Err(RefuseMediaError::Host), "{url}");
        }
    }

    #[test]
    fn a_false_id_a_large_file_and_another_shape_are_refused() {
        let url = "https://media.example/a";
        assert_eq!(check("other", url, 1), Err(RefuseMediaError::Id));
        assert!(matches!(
            check(DIGEST, url, 11),
            Err(RefuseMediaError::TooLarge { .. })
        ));
        let media_url = HttpsUrl::parse(url.trim_end_matches("/a")).unwrap();
        let shape = read(DIGEST, b"[]", &media_url, ByteSize::kib(1));
        assert_eq!(shape, Err(RefuseMediaError::Shape));
    }
}
