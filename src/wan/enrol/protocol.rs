//! What is said at enrolment (`tests/emulators/platform/openapi.yaml`, `/v1/enrol`), and how the box proves who says it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hmac_sha256};
use crate::identity::{BoxIdentity, Secret};
use crate::wan::credentials::{BusAccess, Granted};

/// Rounds of PBKDF2 over the claim code: what is sent of it must not be worth guessing at.
const CLAIM_ROUNDS: u32 = 20_000;
/// Credentials with less life before them than this are refused: they would end before they may be exchanged for others
/// ([`super::EXCHANGE_PAUSE`]).
const MIN_LIFE_S: i64 = super::EXCHANGE_PAUSE.as_secs().cast_signed();
/// A token or signature at most; ten times what any is.
const MAX_SECRET_BYTES: usize = 4096;
/// A site's or an entity's name at most.
const MAX_NAME_BYTES: usize = 200;

/// What the box says of itself.
#[derive(Serialize)]
pub(super) struct Introduction<'a> {
    pub(super) box_id: &'a str,
    /// Base64.
    pub(super) public_key: String,
    pub(super) version: &'a str,
    /// Base64.
    pub(super) claim: &'a str,
    pub(super) renew: bool,
}

/// The platform's answer.
#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Told {
    /// Nobody has claimed the box yet.
    Waiting { nonce: String },
    /// The box belongs to a site.
    Claimed {
        nonce: String,
        credentials: Box<HandedOut>,
    },
    /// It did.
    Revoked { nonce: String },
}

/// `GET /v1/enrol/nonce`.
#[derive(Deserialize)]
pub(super) struct Nonce {
    pub(super) nonce: String,
}

/// What a claimed box is handed. Parts the platform does not name are not given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HandedOut {
    pub(super) site_id: String,
    pub(super) issued_at_s: i64,
    pub(super) claimed_at_s: i64,
    pub(super) api: Token,
    pub(super) bus: Option<Signed>,
    pub(super) media: Option<Signed>,
    pub(super) support: Option<Signed>,
    pub(super) logs: Option<LogsKey>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) expires_at_s: i64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signed {
    pub(super) entity: Option<String>,
    pub(super) sas: String,
    pub(super) expires_at_s: i64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogsKey {
    pub(super) key: String,
}

/// Credentials that are not what was agreed. Nothing of them is repeated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials handed out can't be used: {0}")]
pub(super) struct RefuseCredentialsError(&'static str);

impl HandedOut {
    /// Whether everything may stand in a header or an address.
    pub(super) fn check(&self) -> Result<(), RefuseCredentialsError> {
        let refuse = |what| Err(RefuseCredentialsError(what));
        let is_name = |name: &str| {
            (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if !is_name(&self.site_id) {
            return refuse("site_id");
        }
        if !is_secret(&self.api.token) || self.api.token.contains(' ') {
            return refuse("api.token");
        }
        for (part, name) in [(&self.bus, "bus"), (&self.support, "support")] {
            let Some(part) = part else { continue };
            if !is_secret(&part.sas) || !part.sas.starts_with("SharedAccessSignature ") {
                return refuse(name);
            }
            if part
                .entity
                .as_deref()
                .is_some_and(|entity| !is_name(entity))
            {
                return refuse(name);
            }
        }
        if let Some(media) = &self.media {
            let is_query = is_secret(&media.sas) && !media.sas.contains(['?', '#', ' ']);
            if !is_query {
                return refuse("media");
            }
        }
        if self.logs.as_ref().is_some_and(|logs| !is_secret(&logs.key)) {
            return refuse("logs");
        }
        if self.first_expiry_s() <= self.issued_at_s {
            return refuse("they end before they begin");
        }
        Ok(())
    }

    /// The same of such as were handed out at `now_s`, which the platform took for the right time; whether they are also
    /// worth having.
    pub(super) fn check_new(&self, now_s: i64) -> Result<(), RefuseCredentialsError> {
        self.check()?;
        let begin_s = self.issued_at_s.max(now_s);
        if self.first_expiry_s() < begin_s.saturating_add(MIN_LIFE_S) {
            return Err(RefuseCredentialsError("they end within a minute"));
        }
        Ok(())
    }

    /// When the first part ends.
    pub(super) fn first_expiry_s(&self) -> i64 {
        let signed = [&self.bus, &self.media, &self.support];
        signed
            .into_iter()
            .flatten()
            .map(|part| part.expires_at_s)
            .fold(self.api.expires_at_s, i64::min)
    }

    /// When they are to be renewed: at two thirds of their life, so that a week's outage is survived by a three weeks' one.
    pub(super) fn renew_at_s(&self) -> i64 {
        let life_s = self.first_expiry_s().saturating_sub(self.issued_at_s);
        self.issued_at_s.saturating_add(life_s / 3 * 2)
    }

    /// In the terms of the workers.
    pub(super) fn granted(&self) -> Granted {
        let access = |part: &Signed| BusAccess::Sas {
            token: Secret::new(part.sas.clone()),
            expires_at_s: part.expires_at_s,
        };
        Granted {
            site_id: self.site_id.clone(),
            api_token: Some(Secret::new(self.api.token.clone())),
            bus: self.bus.as_ref().map(access),
            bus_entity: self.bus.as_ref().and_then(|bus| bus.entity.clone()),
            media_sas: self
                .media
                .as_ref()
                .map(|media| Secret::new(media.sas.clone())),
            support: self.support.as_ref().map(access),
            support_entity: self
                .support
                .as_ref()
                .and_then(|support| support.entity.clone()),
            logs_key: self.logs.as_ref().map(|logs| Secret::new(logs.key.clone())),
        }
    }
}

/// May stand in a header: visible ASCII and single spaces.
fn is_secret(text: &str) -> bool {
    (1..=MAX_SECRET_BYTES).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// The box's signature over who it is, the platform's nonce, its time and its body; base64.
pub(super) fn signature(identity: &BoxIdentity, nonce: &str, at_s: i64, body: &[u8]) -> String {
    let text = format!(
        "comptoir-enrol-v1\n{}\n{nonce}\n{at_s}\n{}",
        identity.id(),
        Digest::of(body)
    );
    STANDARD.encode(identity.sign(text.as_bytes()))
}

/// What proves that the box has `code`: PBKDF2-HMAC-SHA-256 (RFC 8018) of the code in lower case without spaces and
/// hyphens, salted with the box's key; base64.
pub(super) fn claim_proof(code: &Secret, public_key: &[u8; 32]) -> String {
    let mut plain = String::new();
    for c in code.expose().chars() {
        if !c.is_whitespace() && c != '-' {
            let _ = write!(plain, "{}", c.to_lowercase());
        }
    }
    let key = plain.as_bytes();
    let mut block = hmac_sha256(
        key,
        &[b"comptoir-claim-v1", public_key, &1_u32.to_be_bytes()],
    );
    let mut proof = block;
    for _ in 1..CLAIM_ROUNDS {
        block = hmac_sha256(key, &[&block]);
        for (sum, byte) in proof.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    STANDARD.encode(proof)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn handed_out() -> HandedOut {
        HandedOut {
            site_id: "shop-1".into(),
            issued_at_s: 1000,
            claimed_at_s: 900,
            api: Token {
                token: "granted-token".into(),
                expires_at_s: 4000,
            },
            bus: Some(Signed {
                entity: Some("site-shop-1".into()),
                sas: "SharedAccessSignature sr=x&sig=y&se=5000&skn=z".into(),
                expires_at_s: 5000,
            }),
            media: Some(Signed {
                entity: None,
                sas: "sv=2021-12-02&sig=a%2Fb".into(),
                expires_at_s: 6000,
            }),
            support: None,
            logs: Some(LogsKey { key: "k".into() }),
        }
    }

    /// Computed with Python's hashlib.pbkdf2_hmac("sha256", b"ab12cd34", b"comptoir-claim-v1" + bytes(range(32)), 20000).
    #[test]
    fn the_claims_proof_is_pbkdf2_whatever_way_the_code_is_typed() {
        let key: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let expected = "7ZN9h4g9LHePvJU46XX1gZ/AySqwJtutdXULU7OLs3I=";
        for code in ["ab12cd34", "AB12-CD34", " ab12 cd34 "] {
            assert_eq!(claim_proof(&Secret::new(code), &key), expected, "{code}");
        }
    }

    #[test]
    fn they_are_renewed_at_two_thirds_of_the_shortest_life() {
        let handed_out = handed_out();
        assert_eq!(handed_out.check(), Ok(()));
        assert_eq!(handed_out.first_expiry_s(), 4000);
        assert_eq!(handed_out.renew_at_s(), 3000);
    }

    #[test]
    fn such_as_end_within_a_minute_are_not_taken() {
        let handed_out = handed_out();
        assert_eq!(handed_out.check_new(3940), Ok(()));
        assert!(handed_out.check_new(3941).is_err());
        assert!(handed_out.check_new(9000).is_err(), "they have ended");
        assert_eq!(handed_out.check(), Ok(()), "kept ones may have ended");
    }

    #[test]
    fn what_could_break_out_of_a_header_or_an_address_is_refused() {
        let refused = |change: fn(&mut HandedOut)| {
            let mut handed_out = handed_out();
            change(&mut handed_out);
            handed_out.check().unwrap_err().0
        };
        assert_eq!(refused(|h| h.api.token = "a\r\nX: y".into()), "api.token");
        assert_eq!(refused(|h| h.api.token = "a b".into()), "api.token");
        assert_eq!(refused(|h| h.api.token = "x".repeat(5000)), "api.token");
        assert_eq!(refused(|h| h.site_id = String::new()), "site_id");
        assert_eq!(
            refused(|h| h.bus.as_mut().unwrap().sas = "Bearer x".into()),
            "bus"
        );
        assert_eq!(
            refused(|h| h.media.as_mut().unwrap().sas = "?sv=1".into()),
            "media"
        );
        assert_eq!(
            refused(|h| h.api.expires_at_s = 1000),
            "they end before they begin"
        );
    }
}
