//! `POST /v1/sites/{site}/events`: what the box reports, stored once per `Idempotency-Key`.

use std::sync::Arc;

use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::bad_request;
use crate::platform::{Platform, now_ms};
use crate::serve::body::Payload;
use crate::serve::reply::{Reply, json as json_reply, problem};
use crate::store::StoreError;
use crate::store::events::{self, NewEvent, Stored};

/// Largest body of an event.
const MAX_EVENT_BYTES: usize = 256 * 1024;
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
        Some(key)
            if (1..=MAX_KEY_CHARS).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            key.to_owned()
        }
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
    let event = match check(&body, key) {
        Ok(event) => event,
        Err(detail) => {
            return Ok(problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-event",
                &detail,
            ));
        }
    };
    let stored = platform
        .store
        .call(move |connection| events::store(connection, &event, now_ms()))
        .await?;
    Ok(match stored {
        Stored::New(number) => {
            platform.events_changed.send_replace(());
            json_reply(StatusCode::CREATED, &json!({"event": number}))
        }
        Stored::Repeat(number) => json_reply(StatusCode::OK, &json!({"event": number})),
        Stored::Conflict => {
            let detail = "another event was stored under this Idempotency-Key";
            problem(StatusCode::CONFLICT, "key-reused", detail)
        }
    })
}

fn check(body: &[u8], key: String) -> Result<NewEvent, String> {
    #[derive(Deserialize)]
    struct Envelope {
        kind: String,
        occurred_at: String,
        body: Map<String, Value>,
    }
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if envelope.kind.is_empty() || envelope.kind.chars().count() > MAX_KIND_CHARS {
        return Err("kind must have 1 to 100 characters".into());
    }
    envelope
        .occurred_at
        .parse::<jiff::Timestamp>()
        .map_err(|error| format!("occurred_at is no RFC 3339 moment: {error}"))?;
    // Only that it is an object was to be checked.
    drop(envelope.body);
    let text: &RawValue = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(NewEvent {
        key,
        kind: envelope.kind,
        occurred_at: envelope.occurred_at,
        digest: Sha256::digest(body).into(),
        body: text.get().to_owned(),
    })
}
