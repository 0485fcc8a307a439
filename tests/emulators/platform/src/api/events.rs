//! `POST /v1/sites/{site}/events` and `/events/batch`: what the box reports, stored once per `Idempotency-Key`.

use std::sync::Arc;

use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::bad_request;
use crate::platform::{Platform, now_ms};
use crate::serve::body::Payload;
use crate::serve::reply::{Reply, json as json_reply, problem};
use crate::store::StoreError;
use crate::store::events::{self, NewEvent, Stored};

/// Largest body of an event.
const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Largest body of a batch.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Most events in a batch.
const MAX_BATCH_EVENTS: usize = 200;
/// Longest Idempotency-Key.
const MAX_KEY_CHARS: usize = 200;
/// Longest kind.
const MAX_KIND_CHARS: usize = 100;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub async fn answer(
    request: Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let key = request
        .headers()
        .get(IDEMPOTENCY_KEY)
        .and_then(|key| key.to_str().ok());
    let key = match key {
        Some(key) if is_key(key) => key.to_owned(),
        _ => {
            return Ok(bad_request(
                "Idempotency-Key must be given, 1 to 200 visible ASCII characters",
            ));
        }
    };
    let Some(body) = request
        .into_body()
        .filter(|body| body.len() <= MAX_EVENT_BYTES)
    else {
        return Ok(problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "an event has at most 262144 bytes",
        ));
    };
    let envelope: Envelope<'_> = match serde_json::from_slice(&body) {
        Ok(envelope) => envelope,
        Err(error) => return Ok(invalid(&error.to_string())),
    };
    let outcome = match check(&envelope, key) {
        Err(detail) => return Ok(invalid(&detail)),
        Ok(event) => store(platform, vec![Ok(event)]).await?.remove(0),
    };
    Ok(match outcome {
        Outcome::Stored(number) => json_reply(StatusCode::CREATED, &json!({"event": number})),
        Outcome::Repeat(number) => json_reply(StatusCode::OK, &json!({"event": number})),
        Outcome::Refused(status, kind, detail) => problem(status, kind, &detail),
    })
}

/// Each event by itself, in their order, until the first one that fails here: the rest is then not looked at.
pub async fn answer_batch(
    request: Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    let too_large = |detail: &str| problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail);
    let Some(body) = request
        .into_body()
        .filter(|body| body.len() <= MAX_BATCH_BYTES)
    else {
        return Ok(too_large("a batch has at most 1048576 bytes"));
    };
    let batch: Batch<'_> = match serde_json::from_slice(&body) {
        Ok(batch) => batch,
        Err(error) => return Ok(invalid(&error.to_string())),
    };
    if batch.events.len() > MAX_BATCH_EVENTS {
        return Ok(too_large("a batch has at most 200 events"));
    }
    if batch.events.is_empty() {
        return Ok(invalid("a batch has at least one event"));
    }
    let checked = batch.events.iter().map(|event| {
        let envelope: Envelope<'_> =
            serde_json::from_str(event.get()).map_err(|error| error.to_string())?;
        let key = envelope.key.as_deref().filter(|key| is_key(key));
        let key = key.ok_or("key must have 1 to 200 visible ASCII characters")?;
        if envelope.body.get().len() > MAX_EVENT_BYTES {
            return Err("an event has at most 262144 bytes".to_owned());
        }
        check(&envelope, key.to_owned())
    });
    let outcomes = store(platform, checked.collect()).await?;
    let results: Vec<Value> = outcomes.iter().map(Outcome::result).collect();
    Ok(json_reply(StatusCode::OK, &json!({"results": results})))
}

#[derive(Deserialize)]
struct Envelope<'a> {
    /// Of an event in a batch; alone it has it in a header.
    key: Option<String>,
    kind: String,
    occurred_at: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

enum Outcome {
    Stored(i64),
    Repeat(i64),
    Refused(StatusCode, &'static str, String),
}

impl Outcome {
    fn result(&self) -> Value {
        match self {
            Self::Stored(number) => json!({"status": 201, "event": number}),
            Self::Repeat(number) => json!({"status": 200, "event": number}),
            Self::Refused(status, kind, detail) => {
                let kind = format!("urn:comptoir:{kind}");
                json!({"status": status.as_u16(), "type": kind, "detail": detail})
            }
        }
    }
}

/// One transaction. Events that control has armed a refusal for are not stored.
async fn store(
    platform: &Arc<Platform>,
    events: Vec<Result<NewEvent, String>>,
) -> Result<Vec<Outcome>, StoreError> {
    let on = Arc::clone(platform);
    let outcomes = platform
        .store
        .call(move |connection| {
            let transaction = connection.transaction()?;
            let mut outcomes = Vec::with_capacity(events.len());
            for event in events {
                let outcome = match event {
                    Err(detail) => {
                        Outcome::Refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid-event", detail)
                    }
                    Ok(event) => match on.refusals.hit(&event.kind) {
                        Some(status) => {
                            Outcome::Refused(status, "armed", "control armed this".into())
                        }
                        None => match events::store(&transaction, &event, now_ms())? {
                            Stored::New(number) => Outcome::Stored(number),
                            Stored::Repeat(number) => Outcome::Repeat(number),
                            Stored::Conflict => {
                                let detail = "another event was stored under this key";
                                Outcome::Refused(StatusCode::CONFLICT, "key-reused", detail.into())
                            }
                        },
                    },
                };
                let stumbled =
                    matches!(&outcome, Outcome::Refused(status, ..) if status.is_server_error());
                outcomes.push(outcome);
                if stumbled {
                    break;
                }
            }
            transaction.commit()?;
            Ok(outcomes)
        })
        .await?;
    if outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Stored(_)))
    {
        platform.events_changed.send_replace(());
    }
    Ok(outcomes)
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_CHARS).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

fn invalid(detail: &str) -> Reply {
    problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid-event", detail)
}

/// An event is the same as another if kind, moment and body are, byte for byte, whichever way it came.
fn check(envelope: &Envelope<'_>, key: String) -> Result<NewEvent, String> {
    let Envelope {
        kind,
        occurred_at,
        body,
        ..
    } = envelope;
    if kind.is_empty() || kind.chars().count() > MAX_KIND_CHARS {
        return Err("kind must have 1 to 100 characters".into());
    }
    occurred_at
        .parse::<jiff::Timestamp>()
        .map_err(|error| format!("occurred_at is no RFC 3339 moment: {error}"))?;
    if !body.get().starts_with('{') {
        return Err("body must be an object".into());
    }
    let body = format!(
        "{{\"kind\":{},\"occurred_at\":{},\"body\":{}}}",
        json!(kind),
        json!(occurred_at),
        body.get()
    );
    Ok(NewEvent {
        key,
        kind: kind.clone(),
        occurred_at: occurred_at.clone(),
        digest: Sha256::digest(&body).into(),
        body,
    })
}
