//! Shared access signatures (Microsoft Learn: service-bus-sas; protocols seen from the legacy clients).
//!
//! The signed text is the `sr` value *as it came*, a line feed, and the expiry; the key is the UTF-8 text of the
//! rule's key, not base64-decoded. What `sr` covers is judged after decoding, without scheme, port and query, in
//! any case: old clients sign the whole request URL, others the namespace.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::percent;

/// Why a token is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifySasError {
    /// There is none, or it is no shared access signature.
    #[error("MissingToken: The security token is missing or malformed.")]
    Malformed,
    /// The rule is not known.
    #[error("InvalidIssuer: The token names an unknown rule.")]
    UnknownRule,
    /// The signature does not fit.
    #[error("InvalidSignature: The token has an invalid signature.")]
    Signature,
    /// It is over.
    #[error("ExpiredToken: The token is expired. Expiration time: {0}")]
    Expired(i64),
    /// It is for something else.
    #[error("InvalidAudience: The token does not cover the requested resource.")]
    Scope,
}

/// A rule that may sign.
#[derive(Clone, Copy)]
pub struct Rule<'a> {
    /// Its name (`skn`).
    pub name: &'a str,
    /// Its key, as shown.
    pub key: &'a str,
}

/// Checks the Authorization header `token` for a request to `path` on `host`.
pub fn verify(
    token: Option<&str>,
    rule: Rule<'_>,
    (host, path): (&str, &str),
    now_s: i64,
) -> Result<(), VerifySasError> {
    let fields = token
        .and_then(|token| token.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("SharedAccessSignature"))
        .map(|(_, fields)| fields)
        .ok_or(VerifySasError::Malformed)?;
    let field = |name: &str| {
        let mut pairs = fields
            .split('&')
            .filter_map(|pair| pair.trim().split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .ok_or(VerifySasError::Malformed)
    };
    let (resource, signature, expiry) =
        (field("sr")?, percent::decode(field("sig")?), field("se")?);
    let expiry_s: i64 = expiry.parse().map_err(|_| VerifySasError::Malformed)?;
    if percent::decode(field("skn")?) != rule.name {
        return Err(VerifySasError::UnknownRule);
    }
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| VerifySasError::Signature)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(rule.key.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    mac.verify_slice(&signature)
        .map_err(|_| VerifySasError::Signature)?;
    if expiry_s <= now_s {
        return Err(VerifySasError::Expired(expiry_s));
    }
    if covers(&percent::decode(resource), host, path) {
        Ok(())
    } else {
        Err(VerifySasError::Scope)
    }
}

fn covers(resource: &str, host: &str, path: &str) -> bool {
    let resource = resource
        .split_once("://")
        .map_or(resource, |(_, rest)| rest);
    let resource = resource.split('?').next().unwrap_or_default();
    let (authority, prefix) = resource.split_once('/').unwrap_or((resource, ""));
    if !without_port(authority).eq_ignore_ascii_case(without_port(host)) {
        return false;
    }
    let (prefix, path) = (
        prefix.trim_matches('/').to_lowercase(),
        path.trim_matches('/').to_lowercase(),
    );
    // Below means whole segments: "q" covers "q/messages", not "q2".
    prefix.is_empty()
        || path
            .strip_prefix(&prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host alone. The Python client writes two ports if its host has one already: all of them go.
fn without_port(mut authority: &str) -> &str {
    while let Some((host, port)) = authority.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        authority = host;
    }
    authority
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule<'static> = Rule {
        name: "Root",
        key: "a2V5",
    };
    const UPPER: &str = "sr=https%3A%2F%2Ftestns.servicebus.windows.net%2Fq1&sig=AkRI8to12xjC7fXJlHtAKOa5cpU7BrxNWp2rkCom6rk%3D";
    const LOWER: &str = "sr=https%3a%2f%2ftestns.servicebus.windows.net%2fq1&sig=91P%2B3i5vSXZLHJjTH4ZTCtlnThhYiS5Z153ZpeWkN8U%3D";
    const NAMESPACE: &str = "sr=https%3A%2F%2Ftestns.servicebus.windows.net%2F&sig=j2Pstby6ow%2BR15gtohj9uDQdeDm1N%2FUM9zhqvjOAPOM%3D";

    fn check(fields: &str, host: &str, path: &str, now_s: i64) -> Result<(), VerifySasError> {
        let token = format!("SharedAccessSignature {fields}&se=1700000000&skn=Root");
        verify(Some(&token), RULE, (host, path), now_s)
    }

    #[test]
    fn published_vectors_verify() {
        for fields in [UPPER, LOWER, NAMESPACE] {
            assert_eq!(
                check(
                    fields,
                    "testns.servicebus.windows.net",
                    "/q1/messages/head",
                    1_699_999_999
                ),
                Ok(())
            );
        }
    }

    #[test]
    fn token_ends_at_its_expiry() {
        let expired = check(
            UPPER,
            "testns.servicebus.windows.net",
            "/q1/messages",
            1_700_000_000,
        );
        assert_eq!(expired, Err(VerifySasError::Expired(1_700_000_000)));
    }

    #[test]
    fn token_covers_whole_segments_of_its_own_host() {
        let host = "testns.servicebus.windows.net:443";
        assert_eq!(check(LOWER, host, "/Q1/Messages/Head", 1), Ok(()));
        assert_eq!(
            check(LOWER, host, "/q12/messages", 1),
            Err(VerifySasError::Scope)
        );
        assert_eq!(check(NAMESPACE, host, "/q12/messages", 1), Ok(()));
        assert_eq!(
            check(NAMESPACE, "other.net", "/q1/messages", 1),
            Err(VerifySasError::Scope)
        );
    }

    #[test]
    fn ports_are_no_part_of_the_host() {
        for authority in ["h", "h:443", "h:9443:443", "h:"] {
            assert_eq!(without_port(authority), "h");
        }
        assert_eq!(without_port("[::1]:443"), "[::1]");
    }

    #[test]
    fn changed_or_foreign_tokens_are_refused() {
        let target = ("testns.servicebus.windows.net", "/q1/messages");
        let changed = UPPER.replace("q1", "q2");
        assert_eq!(
            check(&changed, target.0, target.1, 1),
            Err(VerifySasError::Signature)
        );
        for token in [
            None,
            Some(""),
            Some("Bearer x"),
            Some("SharedAccessSignature sr=a&sig=b"),
        ] {
            assert_eq!(
                verify(token, RULE, target, 1),
                Err(VerifySasError::Malformed)
            );
        }
        let other = format!("SharedAccessSignature {UPPER}&se=1700000000&skn=Other");
        assert_eq!(
            verify(Some(&other), RULE, target, 1),
            Err(VerifySasError::UnknownRule)
        );
    }
}
