//! The operator's side of enrolment: who waits, claim by the code on the box, revoke, rotate.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, CallError};
use crate::enrol::claim_proof;
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, json as json_reply, problem};
use crate::store::enrolment::{self, Box, State};

/// Answers what is below `/control/enrol`.
pub async fn route(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    path: &[&str],
) -> Result<Reply, CallError> {
    match (call.method.as_str(), path) {
        ("GET", []) => {
            let boxes = platform
                .store
                .call(|connection| enrolment::list(connection))
                .await?;
            let boxes: Vec<Value> = boxes.iter().map(shown).collect();
            Ok(json_reply(StatusCode::OK, &json!({"boxes": boxes})))
        }
        ("PUT", []) => set_life(call, platform),
        ("POST", ["claim"]) => claim(call, platform).await,
        ("DELETE", ["guesses"]) => {
            platform.enrol.forgive_guesses();
            Ok(json_reply(StatusCode::OK, &json!({})))
        }
        ("POST", [box_id, "revoke"]) => revoke(platform, box_id).await,
        ("POST", [box_id, "rotate"]) => rotate(platform, box_id).await,
        _ => Err(CallError::NoSuchCall),
    }
}

fn shown(found: &Box) -> Value {
    json!({
        "box_id": found.box_id,
        "public_key": STANDARD.encode(&found.public_key),
        "version": found.version,
        "claim": STANDARD.encode(&found.claim),
        "state": found.state,
        "site": found.site,
        "signed_text": found.signed_text,
        "signature": STANDARD.encode(&found.signature),
        "handed_out": found.handed_out,
    })
}

/// `{"life_s": N, "age_s": M}`: how long credentials are good from now on, and how old they are when handed out.
fn set_life(call: &Call<'_>, platform: &Platform) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    struct Life {
        life_s: u32,
        #[serde(default)]
        age_s: u32,
    }
    let Life { life_s, age_s } = call.json()?;
    platform.enrol.set_life_s(life_s.into(), age_s.into());
    Ok(json_reply(StatusCode::OK, &json!({})))
}

/// `{"code": "…"}`: the box with this code is the site's from now on.
async fn claim(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    struct Claim {
        code: String,
    }
    let Claim { code } = call.json()?;
    if !platform.enrol.may_guess(now_ms()) {
        return Ok(problem(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-guesses",
            "too many wrong codes: none is taken for ten minutes",
        ));
    }
    let site = platform.credentials.site.clone();
    let claimed = platform
        .store
        .call(move |connection| {
            let boxes = enrolment::list(connection)?;
            let fits = boxes.into_iter().find(|found| {
                found.state != State::Claimed
                    && claim_proof(&code, &found.public_key)[..] == found.claim
            });
            let Some(found) = fits else { return Ok(None) };
            enrolment::set_state(connection, &found.box_id, State::Claimed, &site, now_ms())?;
            Ok(Some(found.box_id))
        })
        .await?;
    match claimed {
        Some(box_id) => {
            platform.enrol.changed.send_replace(());
            Ok(json_reply(StatusCode::OK, &json!({"box_id": box_id})))
        }
        None => {
            platform.enrol.guessed_wrong(now_ms());
            Err(CallError::Absent("a box that waits with this code"))
        }
    }
}

async fn revoke(platform: &Arc<Platform>, box_id: &str) -> Result<Reply, CallError> {
    let id = box_id.to_owned();
    let known = platform
        .store
        .call(move |connection| enrolment::set_state(connection, &id, State::Revoked, "", now_ms()))
        .await?;
    if !known {
        return Err(CallError::Absent("this box"));
    }
    platform.enrol.changed.send_replace(());
    Ok(json_reply(StatusCode::OK, &json!({})))
}

async fn rotate(platform: &Arc<Platform>, box_id: &str) -> Result<Reply, CallError> {
    let id = box_id.to_owned();
    platform
        .store
        .call(move |connection| enrolment::void_tokens(connection, &id))
        .await?;
    Ok(json_reply(StatusCode::OK, &json!({})))
}
