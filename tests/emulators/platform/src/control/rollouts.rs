//! Roll-outs: ordered, changed, cancelled and looked at.

use std::sync::Arc;

use hyper::StatusCode;
use md5::Md5;
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::{Call, CallError};
use crate::catalogue::hex;
use crate::platform::Platform;
use crate::serve::reply::{Reply, empty, json as json_reply};
use crate::store::blobs;
use crate::store::rollouts::{self, Artifact, Rollout, Status, Urgency};

/// `POST /rollouts?version=V[…]`, `GET /rollouts`, `PUT /rollouts/{id}`, `PUT /rollouts/{id}/artifact`.
pub async fn route(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    path: &[&str],
) -> Result<Reply, CallError> {
    match (call.method.as_str(), path) {
        ("POST", []) => order(call, platform).await,
        ("GET", []) => list(platform).await,
        ("PUT", [id]) => change(call, platform, id).await,
        ("PUT", [id, "artifact"]) => exchange(call, platform, id).await,
        _ => Err(CallError::NoSuchCall),
    }
}

/// `GET` and `PUT /controllers`: boxes as targets; `{"sleep":"00:00:30","ask":true}` for all of them.
pub async fn controllers(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        sleep: Option<String>,
        #[serde(default)]
        ask: bool,
    }
    if call.method == "PUT" {
        let Change { sleep, ask } = call.json()?;
        if let Some(sleep) = sleep {
            platform.set_poll_sleep(&sleep);
        }
        if ask {
            platform
                .store
                .call(|connection| {
                    for mut controller in rollouts::controllers(connection)? {
                        controller.is_asked = true;
                        rollouts::put_controller(connection, &controller)?;
                    }
                    Ok(())
                })
                .await?;
        }
    }
    let all = platform.store.call(|c| rollouts::controllers(c)).await?;
    Ok(json_reply(StatusCode::OK, &json!({"controllers": all})))
}

async fn order(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let text = |name: &str| call.query.value(name).map(str::to_owned);
    let version = text("version").ok_or_else(|| CallError::Bad("version must be given".into()))?;
    let filename = text("filename").unwrap_or_else(|| format!("comptoir-{version}.raucb"));
    let urgency = text("urgency").unwrap_or_else(|| "forced".into());
    let urgency: Urgency = serde_json::from_value(Value::String(urgency))
        .map_err(|error| CallError::Bad(error.to_string()))?;
    let needs_consent = text("confirm").is_some_and(|value| value != "0");
    let rollout = Rollout {
        id: 0,
        controller: text("controller"),
        version,
        artifact: store_artifact(call, platform, filename).await?,
        urgency,
        window_open: text("window").map(|word| word == "available"),
        link: text("link"),
        redirect: text("redirect"),
        status: if needs_consent {
            Status::WaitForConfirmation
        } else {
            Status::Running
        },
    };
    let id = platform
        .store
        .call(move |connection| {
            // A new assignment asks the box to let go of older ones.
            for mut older in rollouts::list(connection)? {
                let same = older.controller == rollout.controller || rollout.controller.is_none();
                if same && older.status.is_active() {
                    older.status = Status::Canceling;
                    rollouts::update(connection, &older)?;
                }
            }
            rollouts::insert(connection, &rollout)
        })
        .await?;
    Ok(json_reply(StatusCode::OK, &json!({"id": id})))
}

async fn store_artifact(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    filename: String,
) -> Result<Artifact, CallError> {
    let (dir, bytes) = (platform.store.blobs_dir(), call.body.clone());
    let artifact = platform
        .store
        .call(move |_| {
            let sha256 = blobs::write_bytes(&dir, &bytes)?;
            let (sha1, size) = (hex(&Sha1::digest(&bytes)), bytes.len() as u64);
            Ok(Artifact {
                filename,
                size,
                md5: hex(&Md5::digest(&bytes)),
                served: sha256.clone(),
                served_sha1: sha1.clone(),
                served_size: size,
                sha1,
                sha256,
            })
        })
        .await?;
    Ok(artifact)
}

async fn list(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let all = platform
        .store
        .call(|connection| {
            rollouts::list(connection)?
                .into_iter()
                .map(|rollout| {
                    let feedback = rollouts::feedback(connection, rollout.id)?;
                    let mut value = json!(rollout);
                    value["feedback"] = json!(feedback);
                    Ok(value)
                })
                .collect::<Result<Vec<Value>, _>>()
        })
        .await?;
    Ok(json_reply(StatusCode::OK, &json!({"rollouts": all})))
}

/// `{"cancel":true}` asks the box, `{"force_quit":true}` does not; `{"window":"available"}`, `{"urgency":"forced"}`.
async fn change(call: &Call<'_>, platform: &Arc<Platform>, id: &str) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        #[serde(default)]
        cancel: bool,
        #[serde(default)]
        force_quit: bool,
        window: Option<String>,
        urgency: Option<Urgency>,
    }
    let wanted: Change = call.json()?;
    with(platform, id, move |rollout| {
        if let Some(word) = wanted.window {
            rollout.window_open = Some(word == "available");
        }
        if let Some(urgency) = wanted.urgency {
            rollout.urgency = urgency;
        }
        if wanted.force_quit {
            rollout.status = Status::Canceled;
        } else if wanted.cancel && rollout.status.is_active() {
            rollout.status = Status::Canceling;
        }
    })
    .await
}

/// Other bytes are served from now on; what is announced stays.
async fn exchange(call: &Call<'_>, platform: &Arc<Platform>, id: &str) -> Result<Reply, CallError> {
    let other = store_artifact(call, platform, String::new()).await?;
    with(platform, id, move |rollout| {
        rollout.artifact.served = other.served;
        rollout.artifact.served_sha1 = other.served_sha1;
        rollout.artifact.served_size = other.served_size;
    })
    .await
}

async fn with(
    platform: &Arc<Platform>,
    id: &str,
    work: impl FnOnce(&mut Rollout) + Send + 'static,
) -> Result<Reply, CallError> {
    let id = id
        .parse()
        .map_err(|_| CallError::Bad("a roll-out has a number".into()))?;
    let is_known = platform
        .store
        .call(move |connection| {
            let Some(mut rollout) = rollouts::find(connection, id)? else {
                return Ok(false);
            };
            work(&mut rollout);
            rollouts::update(connection, &rollout)?;
            Ok(true)
        })
        .await?;
    if is_known {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(CallError::Absent("the roll-out"))
    }
}
