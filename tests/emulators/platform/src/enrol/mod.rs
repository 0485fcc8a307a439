//! Enrolment: a box shows its key and its claim code's proof, an operator claims it by the code, and the box is handed
//! credentials of its own, each with an expiry. `openapi.yaml` says the same in the words of a contract.

mod grant;
mod signed;

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::method_not_allowed;
use crate::percent::Query;
use crate::platform::{Platform, now_ms};
use crate::serve::body::Payload;
use crate::serve::reply::{Reply, json as json_reply, problem};
use crate::store::StoreError;
use crate::store::enrolment::{self, Box, Introduced, State};

pub use grant::is_token_good;
pub use signed::{Nonces, claim_proof};

/// Where it begins.
const PATH: &str = "/v1/enrol";
/// Largest body.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Longest a question is held.
const MAX_WAIT_S: u64 = 60;
/// Wrong codes, all boxes together, before codes are refused for [`GUESS_PAUSE_MS`].
const MAX_GUESSES: u32 = 5;
/// How long.
const GUESS_PAUSE_MS: i64 = 10 * 60 * 1000;
/// How long credentials are good, unless control says otherwise.
const LIFE_S: i64 = 7 * 24 * 3600;

/// What enrolment keeps in memory; a restart costs a box one nonce.
pub struct Enrolment {
    nonces: Nonces,
    /// Told whenever a box's state may have changed.
    pub changed: watch::Sender<()>,
    /// Of credentials: how long they are good, how old when handed out.
    life_s: std::sync::Mutex<(i64, i64)>,
    guesses: std::sync::Mutex<(u32, i64)>,
}

impl Default for Enrolment {
    fn default() -> Self {
        Self {
            nonces: Nonces::default(),
            changed: watch::Sender::new(()),
            life_s: (LIFE_S, 0).into(),
            guesses: std::sync::Mutex::default(),
        }
    }
}

impl Enrolment {
    /// How long credentials that are handed out from now on are good, and how old they are by then.
    pub fn set_life_s(&self, life_s: i64, age_s: i64) {
        *self.life_s.lock().expect("no holder of this lock panics") = (life_s, age_s);
    }

    fn life_and_age_s(&self) -> (i64, i64) {
        *self.life_s.lock().expect("no holder of this lock panics")
    }

    /// Whether a code may be tried now.
    pub fn may_guess(&self, now_ms: i64) -> bool {
        let mut guesses = self.guesses.lock().expect("no holder of this lock panics");
        if now_ms - guesses.1 > GUESS_PAUSE_MS {
            *guesses = (0, now_ms);
        }
        guesses.0 < MAX_GUESSES
    }

    /// A code was wrong.
    pub fn guessed_wrong(&self, now_ms: i64) {
        let mut guesses = self.guesses.lock().expect("no holder of this lock panics");
        *guesses = (guesses.0 + 1, now_ms);
    }

    /// Wrong codes are forgiven.
    pub fn forgive_guesses(&self) {
        *self.guesses.lock().expect("no holder of this lock panics") = (0, 0);
    }
}

/// Whether the path is answered here, and not with a site's token.
pub fn is_enrolment(path: &str) -> bool {
    path == PATH || path.starts_with("/v1/enrol/")
}

/// Answers one request below `/v1/enrol`.
pub async fn answer(request: Request<Payload>, platform: &Arc<Platform>) -> Reply {
    let outcome = match (request.uri().path(), request.method()) {
        ("/v1/enrol/nonce", &Method::GET) => Ok(json_reply(
            StatusCode::OK,
            &json!({"nonce": platform.enrol.nonces.make(now_ms())}),
        )),
        (PATH, &Method::POST) => enrol(request, platform).await,
        (PATH, _) => Ok(method_not_allowed("POST")),
        ("/v1/enrol/nonce", _) => Ok(method_not_allowed("GET")),
        _ => Ok(problem(
            StatusCode::NOT_FOUND,
            "not-found",
            "no such resource",
        )),
    };
    outcome.unwrap_or_else(|error| crate::api::store_failed(&error))
}

/// What the box says of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    box_id: String,
    public_key: String,
    version: String,
    claim: String,
    /// The credentials it has are refused, or come to their end.
    #[serde(default)]
    renew: bool,
}

async fn enrol(request: Request<Payload>, platform: &Arc<Platform>) -> Result<Reply, StoreError> {
    let query = Query::parse(request.uri().query());
    let wait_s = match query.number("wait_s", 0, 0..=MAX_WAIT_S) {
        Ok(wait_s) => wait_s,
        Err(detail) => return Ok(bad_request(&detail)),
    };
    let signature = signed::Signature::of(request.headers());
    let Some(bytes) = request
        .into_body()
        .filter(|body| body.len() <= MAX_BODY_BYTES)
    else {
        return Ok(problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "a box says of itself 16384 bytes at most",
        ));
    };
    let body: Body = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(error) => return Ok(bad_request(&error.to_string())),
    };
    let presented = match signed::check(&body, &bytes, signature, platform) {
        Ok(presented) => presented,
        Err(refusal) => return Ok(refusal.reply()),
    };
    let introduced = platform
        .store
        .call(move |connection| enrolment::introduce(connection, &presented, now_ms()))
        .await?;
    if introduced == Introduced::OtherKey {
        return Ok(problem(
            StatusCode::CONFLICT,
            "other-key",
            "this box id is known with another key",
        ));
    }
    let found = wait_for_news(platform, &body.box_id, wait_s).await?;
    match found.state {
        State::Claimed => grant::hand_out(platform, found, body.renew).await,
        State::Waiting | State::Revoked => Ok(json_reply(
            StatusCode::OK,
            &json!({"state": found.state, "nonce": platform.enrol.nonces.make(now_ms())}),
        )),
    }
}

/// The box as it stands, at once if it is claimed, otherwise after `wait_s` at most.
async fn wait_for_news(
    platform: &Arc<Platform>,
    box_id: &str,
    wait_s: u64,
) -> Result<Box, StoreError> {
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    let mut changed = platform.enrol.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let id = box_id.to_owned();
        let found = platform
            .store
            .call(move |connection| enrolment::find(connection, &id))
            .await?
            .expect("a box that was introduced is there");
        if found.state == State::Claimed || Instant::now() >= deadline {
            return Ok(found);
        }
        // Either way the loop looks again.
        let _ = tokio::time::timeout_at(deadline, changed.changed()).await;
    }
}

fn bad_request(detail: &str) -> Reply {
    problem(StatusCode::BAD_REQUEST, "bad-request", detail)
}
