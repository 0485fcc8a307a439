//! Shared access signatures of Azure Service Bus (learn.microsoft.com, "service-bus-sas").
//!
//! `SharedAccessSignature sr={uri}&sig={signature}&se={expiry}&skn={rule}`: the signature is the HMAC-SHA256 of the
//! percent-encoded URI, a line feed and the expiry, keyed with the key's *text* (it looks like base64 and is not decoded).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::hmac_sha256;
use crate::identity::Secret;

/// Signs `uri` (everything below it is covered) until `expiry`, in seconds since 1970.
#[must_use]
pub fn sign(uri: &str, rule: &str, key: &Secret, expiry: u64) -> Secret {
    let resource = percent_encoded(uri);
    let expiry = expiry.to_string();
    let mac = hmac_sha256(
        key.expose().as_bytes(),
        &[resource.as_bytes(), b"\n", expiry.as_bytes()],
    );
    let signature = percent_encoded(&STANDARD.encode(mac));
    Secret::new(format!(
        "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={}",
        percent_encoded(rule)
    ))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, with upper-case escapes.
#[must_use]
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(uri: &str) -> String {
        sign(uri, "Root", &Secret::new("a2V5"), 1_700_000_000)
            .expose()
            .to_owned()
    }

    /// Computed with a foreign client and checked against two others.
    #[test]
    fn equals_the_signatures_of_other_clients() {
        assert_eq!(
            token("https://testns.servicebus.windows.net/q1"),
            "SharedAccessSignature sr=https%3A%2F%2Ftestns.servicebus.windows.net%2Fq1\
             &sig=AkRI8to12xjC7fXJlHtAKOa5cpU7BrxNWp2rkCom6rk%3D&se=1700000000&skn=Root"
        );
        assert_eq!(
            token("https://testns.servicebus.windows.net/"),
            "SharedAccessSignature sr=https%3A%2F%2Ftestns.servicebus.windows.net%2F\
             &sig=j2Pstby6ow%2BR15gtohj9uDQdeDm1N%2FUM9zhqvjOAPOM%3D&se=1700000000&skn=Root"
        );
    }

    #[test]
    fn a_rule_name_of_any_characters_does_not_break_the_fields() {
        let token = sign("https://h/q", "a&b=c d", &Secret::new("k"), 1);
        assert!(token.expose().ends_with("&skn=a%26b%3Dc%20d"));
    }
}
