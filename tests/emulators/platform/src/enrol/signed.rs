//! Who speaks: a nonce of ours, used once, and the box's Ed25519 signature over it, its time and its body.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature as EdSignature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use sha2::{Digest, Sha256};

use super::Body;
use crate::platform::Platform;
use crate::serve::reply::{Reply, problem};
use crate::store::enrolment::Presented;

/// A nonce is good this long.
const NONCE_LIFE_MS: i64 = 5 * 60 * 1000;
/// Nonces that are out at a time; beyond it the oldest are void.
const MAX_NONCES: usize = 10_000;
/// How far a box's time may be off.
const MAX_SKEW_S: u64 = 15 * 60;
/// Rounds of PBKDF2 over the claim code.
const CLAIM_ROUNDS: u32 = 20_000;

/// Nonces that are out.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<VecDeque<(String, i64)>>);

impl Nonces {
    /// A new one.
    pub fn make(&self, now_ms: i64) -> String {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        let nonce = STANDARD.encode(bytes);
        let mut out = self.0.lock().expect("no holder of this lock panics");
        if out.len() == MAX_NONCES {
            out.pop_front();
        }
        out.push_back((nonce.clone(), now_ms));
        nonce
    }

    /// Takes it back; false when it is not out, or too old.
    fn take(&self, nonce: &str, now_ms: i64) -> bool {
        let mut out = self.0.lock().expect("no holder of this lock panics");
        let Some(at) = out.iter().position(|(known, _)| known == nonce) else {
            return false;
        };
        out.remove(at)
            .is_some_and(|(_, made_ms)| now_ms - made_ms <= NONCE_LIFE_MS)
    }
}

/// The three headers, as they came.
pub struct Signature {
    nonce: String,
    at: String,
    signature: String,
}

impl Signature {
    /// Reads them.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Some(Self {
            nonce: text("comptoir-nonce")?,
            at: text("comptoir-at")?,
            signature: text("comptoir-signature")?,
        })
    }
}

/// Why a box is not listened to.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the nonce is not one of ours, was used, or is too old")]
    Nonce,
    #[error("the box's time is off by more than a quarter of an hour")]
    Clock,
    #[error("the signature does not fit")]
    Signature,
}

impl Refusal {
    /// As an answer.
    pub fn reply(&self) -> Reply {
        let (status, kind) = match self {
            Self::Malformed(_) => (StatusCode::UNAUTHORIZED, "signature"),
            Self::Nonce => (StatusCode::UNAUTHORIZED, "nonce"),
            Self::Clock => (StatusCode::UNAUTHORIZED, "clock"),
            Self::Signature => (StatusCode::UNAUTHORIZED, "signature"),
        };
        problem(status, kind, &self.to_string())
    }
}

/// The box, when it is who it says it is: `said` is what `body` holds.
pub fn check(
    said: &Body,
    body: &[u8],
    given: Option<Signature>,
    platform: &Arc<Platform>,
) -> Result<Presented, Refusal> {
    let box_id = &said.box_id;
    let bytes = |text: &str, what| STANDARD.decode(text).map_err(|_| Refusal::Malformed(what));
    let key = bytes(&said.public_key, "public_key is not base64")?;
    let claim = bytes(&said.claim, "claim is not base64")?;
    let raw: [u8; 32] = key
        .as_slice()
        .try_into()
        .map_err(|_| Refusal::Malformed("public_key has 32 bytes"))?;
    let verifying =
        VerifyingKey::from_bytes(&raw).map_err(|_| Refusal::Malformed("public_key is no point"))?;
    if claim.len() != 32 {
        return Err(Refusal::Malformed("claim has 32 bytes"));
    }
    let fingerprint: String = Sha256::digest(raw)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if *box_id != format!("box-{fingerprint}") {
        return Err(Refusal::Malformed("box_id does not follow from public_key"));
    }
    let given = given.ok_or(Refusal::Malformed(
        "Comptoir-Nonce, Comptoir-At and Comptoir-Signature are needed",
    ))?;
    let digest: String = Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let text = format!(
        "comptoir-enrol-v1\n{box_id}\n{}\n{}\n{digest}",
        given.nonce, given.at
    );
    let signature = bytes(&given.signature, "the signature is not base64")?;
    let parsed = EdSignature::from_slice(&signature).map_err(|_| Refusal::Signature)?;
    verifying
        .verify_strict(text.as_bytes(), &parsed)
        .map_err(|_| Refusal::Signature)?;
    // Only now: a nonce is not used up by somebody who merely saw it.
    let now_ms = crate::platform::now_ms();
    if !platform.enrol.nonces.take(&given.nonce, now_ms) {
        return Err(Refusal::Nonce);
    }
    let at_s: i64 = given
        .at
        .parse()
        .map_err(|_| Refusal::Malformed("Comptoir-At is a number of seconds"))?;
    if at_s.abs_diff(platform.clock.now_ms() / 1000) > MAX_SKEW_S {
        return Err(Refusal::Clock);
    }
    Ok(Presented {
        box_id: box_id.clone(),
        public_key: key,
        version: said.version.clone(),
        claim,
        signed_text: text,
        signature,
    })
}

/// What a box with this key and this code says in `claim`: PBKDF2-HMAC-SHA-256 (RFC 8018) of the code in lower case without
/// spaces and hyphens.
pub fn claim_proof(code: &str, public_key: &[u8]) -> [u8; 32] {
    let code: String = code
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .flat_map(char::to_lowercase)
        .collect();
    let keyed =
        Hmac::<Sha256>::new_from_slice(code.as_bytes()).expect("HMAC takes a key of any length");
    let mut first = keyed.clone();
    first.update(b"comptoir-claim-v1");
    first.update(public_key);
    first.update(&1_u32.to_be_bytes());
    let mut block: [u8; 32] = first.finalize().into_bytes().into();
    let mut proof = block;
    for _ in 1..CLAIM_ROUNDS {
        let mut next = keyed.clone();
        next.update(&block);
        block = next.finalize().into_bytes().into();
        for (sum, byte) in proof.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    proof
}
