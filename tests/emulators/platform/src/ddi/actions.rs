//! Polls, deployments, cancellations, confirmations and what a box says of them.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Call, MAX_BODY_BYTES, documents, not_found, ok};
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, empty, problem};
use crate::store::StoreError;
use crate::store::rollouts::{self, Controller, Rollout, Status, Urgency};

/// A feedback's body; fields of old clients (`id`, `time`) are passed over.
#[derive(Deserialize)]
struct Feedback {
    status: FeedbackStatus,
}

#[derive(Deserialize)]
struct FeedbackStatus {
    execution: String,
    result: FeedbackResult,
}

#[derive(Deserialize)]
struct FeedbackResult {
    finished: String,
}

#[derive(Deserialize)]
struct Confirmation {
    confirmation: String,
}

#[derive(Deserialize)]
struct ConfigData {
    #[serde(default)]
    mode: Option<String>,
    data: Map<String, Value>,
}

/// hawkBit's words for the execution of an action.
const EXECUTIONS: [&str; 8] = [
    "closed",
    "proceeding",
    "canceled",
    "scheduled",
    "rejected",
    "resumed",
    "download",
    "downloaded",
];

pub async fn answer(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, StoreError> {
    match (&call.method, call.path.as_slice()) {
        (&Method::GET, []) => poll(call, platform).await,
        (&Method::PUT, ["configData"]) => config_data(call, platform).await,
        (&Method::GET, [about, id]) => read(call, platform, about, id).await,
        (&Method::POST, [about, id, "feedback"]) => feedback(call, platform, about, id).await,
        _ => Ok(not_found()),
    }
}

async fn poll(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, StoreError> {
    let id = call.controller.to_owned();
    let (controller, actions) = platform
        .store
        .call(move |connection| {
            let known = rollouts::controller(connection, &id)?;
            // hawkBit registers a target that nobody knows, and asks it who it is.
            let mut controller = known.unwrap_or_else(|| Controller {
                id: id.clone(),
                attributes: Map::new(),
                is_asked: true,
                last_poll_ms: 0,
            });
            controller.last_poll_ms = now_ms();
            rollouts::put_controller(connection, &controller)?;
            for mut waiting in rollouts::list(connection)? {
                if waiting.controller.is_none() {
                    waiting.controller = Some(id.clone());
                    rollouts::update(connection, &waiting)?;
                }
            }
            Ok((controller, actions_of(connection, &id)?))
        })
        .await?;
    let active = actions.iter().find(|action| action.status.is_active());
    let installed = actions
        .iter()
        .rfind(|action| action.status == Status::Finished);
    let sleep = platform.poll_sleep();
    ok(&documents::poll(
        call,
        &controller,
        active,
        installed,
        &sleep,
    ))
}

fn actions_of(connection: &Connection, controller: &str) -> Result<Vec<Rollout>, StoreError> {
    let mut all = rollouts::list(connection)?;
    all.retain(|action| action.controller.as_deref() == Some(controller));
    Ok(all)
}

async fn config_data(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, StoreError> {
    let Some(ConfigData { mode, data }) = parsed(call) else {
        return Ok(unreadable());
    };
    if !data.values().all(Value::is_string) {
        return Ok(unreadable());
    }
    let id = call.controller.to_owned();
    platform
        .store
        .call(move |connection| {
            let Some(mut controller) = rollouts::controller(connection, &id)? else {
                return Ok(not_found());
            };
            match mode.as_deref() {
                Some("replace") => controller.attributes = data,
                Some("remove") => controller
                    .attributes
                    .retain(|key, _| !data.contains_key(key)),
                _ => controller.attributes.extend(data),
            }
            controller.is_asked = false;
            rollouts::put_controller(connection, &controller)?;
            Ok(empty(StatusCode::OK))
        })
        .await
}

/// The action of this box and this number.
fn action(
    connection: &Connection,
    controller: &str,
    id: &str,
) -> Result<Option<Rollout>, StoreError> {
    let Ok(id) = id.parse() else { return Ok(None) };
    let found = rollouts::find(connection, id)?;
    Ok(found.filter(|action| action.controller.as_deref() == Some(controller)))
}

async fn read(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    about: &str,
    id: &str,
) -> Result<Reply, StoreError> {
    let (controller, id, what) = (call.controller.to_owned(), id.to_owned(), about.to_owned());
    let found = platform
        .store
        .call(move |connection| {
            let found = action(connection, &controller, &id)?.filter(|action| match &*what {
                "cancelAction" => {
                    matches!(action.status, Status::Canceling | Status::Canceled)
                }
                "confirmationBase" => action.status == Status::WaitForConfirmation,
                "installedBase" => !action.status.is_active() && action.status != Status::Canceled,
                "deploymentBase" => !matches!(
                    action.status,
                    Status::Canceling | Status::Canceled | Status::WaitForConfirmation
                ),
                _ => false,
            });
            if let Some(action) = &found {
                let note = json!({"about": what}).to_string();
                rollouts::note(connection, action.id, "retrieved", &note, now_ms())?;
            }
            Ok(found)
        })
        .await?;
    let Some(action) = found else {
        return Ok(not_found());
    };
    let id = action.id.to_string();
    match about {
        "cancelAction" => ok(&json!({"id": id, "cancelAction": {"stopId": id}})),
        "confirmationBase" => ok(&documents::deployment(call, &action, "confirmation")),
        _ => ok(&documents::deployment(call, &action, "deployment")),
    }
}

async fn feedback(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    about: &str,
    id: &str,
) -> Result<Reply, StoreError> {
    let Some(body) = call.body.clone() else {
        return Ok(unreadable());
    };
    let (controller, id, about) = (call.controller.to_owned(), id.to_owned(), about.to_owned());
    platform
        .store
        .call(move |connection| {
            let Some(mut action) = action(connection, &controller, &id)? else {
                return Ok(not_found());
            };
            let next = match &*about {
                "deploymentBase" => of_deployment(&action, &body),
                "cancelAction" => of_cancellation(&action, &body),
                "confirmationBase" => of_confirmation(&action, &body),
                _ => Err(Refusal::NotFound),
            };
            match next {
                Ok(status) => {
                    action.status = status;
                    rollouts::update(connection, &action)?;
                    let text = String::from_utf8_lossy(&body);
                    rollouts::note(connection, action.id, &about, &text, now_ms())?;
                    Ok(empty(StatusCode::OK))
                }
                Err(refusal) => Ok(refusal.reply()),
            }
        })
        .await
}

/// Why a feedback was not taken.
enum Refusal {
    /// No such action in this state.
    NotFound,
    /// The action is over.
    Gone,
    /// Nobody asked to cancel it.
    NotCanceling,
    /// hawkBit would not read it.
    Unreadable,
}

impl Refusal {
    fn reply(&self) -> Reply {
        match self {
            Self::NotFound => not_found(),
            Self::Gone => problem(
                StatusCode::GONE,
                "gone",
                "the action is not active any more",
            ),
            Self::NotCanceling => problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "not-canceling",
                "nobody asked to cancel this action",
            ),
            Self::Unreadable => unreadable(),
        }
    }
}

fn of_deployment(action: &Rollout, body: &Bytes) -> Result<Status, Refusal> {
    if action.status == Status::WaitForConfirmation {
        return Err(Refusal::NotFound);
    }
    if !action.status.is_active() {
        return Err(Refusal::Gone);
    }
    let (execution, finished) = said(body)?;
    Ok(match (&*execution, &*finished) {
        ("closed", "failure") => Status::Error,
        ("closed", _) => Status::Finished,
        ("canceled", _) => Status::Canceled,
        ("downloaded", _) if action.urgency == Urgency::DownloadOnly => Status::Downloaded,
        _ => action.status,
    })
}

fn of_cancellation(action: &Rollout, body: &Bytes) -> Result<Status, Refusal> {
    let (execution, finished) = said(body)?;
    if action.status != Status::Canceling {
        return Err(Refusal::NotCanceling);
    }
    Ok(match (&*execution, &*finished) {
        ("closed", "failure") => Status::Error,
        ("closed", _) => Status::Canceled,
        ("rejected", _) => Status::Running,
        _ => action.status,
    })
}

fn of_confirmation(action: &Rollout, body: &Bytes) -> Result<Status, Refusal> {
    let said: Confirmation = serde_json::from_slice(body).map_err(|_| Refusal::Unreadable)?;
    if !action.status.is_active() {
        return Err(Refusal::Gone);
    }
    if action.status != Status::WaitForConfirmation {
        return Err(Refusal::NotFound);
    }
    match &*said.confirmation {
        "confirmed" => Ok(Status::Running),
        "denied" => Ok(Status::WaitForConfirmation),
        _ => Err(Refusal::Unreadable),
    }
}

/// Execution and result of a feedback that hawkBit would read.
fn said(body: &Bytes) -> Result<(String, String), Refusal> {
    let Feedback { status } = serde_json::from_slice(body).map_err(|_| Refusal::Unreadable)?;
    let finished = status.result.finished;
    let known = EXECUTIONS.contains(&&*status.execution)
        && ["success", "failure", "none"].contains(&&*finished);
    if known {
        Ok((status.execution, finished))
    } else {
        Err(Refusal::Unreadable)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(call: &Call<'_>) -> Option<T> {
    let body = call.body.as_ref()?;
    (body.len() <= MAX_BODY_BYTES)
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

fn unreadable() -> Reply {
    problem(
        StatusCode::BAD_REQUEST,
        "bad-request",
        "the body is not what hawkBit reads",
    )
}
