//! Faults, "offline", and a clock that is wrong.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Call, CallError};
use crate::platform::Platform;
use crate::serve::fault::{Fault, MAX_ARMED};
use crate::serve::reply::{Reply, empty, json as json_reply};

pub fn list(platform: &Platform) -> Reply {
    json_reply(StatusCode::OK, &json!({"faults": platform.faults.list()}))
}

pub fn arm(call: &Call<'_>, platform: &Platform) -> Result<Reply, CallError> {
    let fault: Fault = call.json()?;
    if platform.faults.arm(fault) {
        Ok(list(platform))
    } else {
        Err(CallError::Bad(format!(
            "{MAX_ARMED} faults are armed already"
        )))
    }
}

/// Events of a kind are refused.
pub fn refuse(call: &Call<'_>, platform: &Platform) -> Result<Reply, CallError> {
    if platform.refusals.arm(call.json()?) {
        Ok(json_reply(
            StatusCode::OK,
            &json!({"refusals": platform.refusals.list()}),
        ))
    } else {
        let detail = format!("status is 400 to 599, and at most {MAX_ARMED} are armed");
        Err(CallError::Bad(detail))
    }
}

pub fn clear(platform: &Platform) -> Reply {
    platform.faults.clear();
    empty(StatusCode::NO_CONTENT)
}

pub async fn set_offline(call: &Call<'_>, platform: &Platform) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Offline {
        offline: bool,
    }
    let Offline { offline } = call.json()?;
    platform.set_offline(offline).await;
    tracing::info!(event = "serve.offline_set", offline);
    Ok(json_reply(StatusCode::OK, &json!({"offline": offline})))
}

/// `{"offset_s": N}`: the platform's clock is so many seconds ahead of this machine's.
pub fn set_clock(call: &Call<'_>, platform: &Platform) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Clock {
        offset_s: i32,
    }
    let Clock { offset_s } = call.json()?;
    platform.clock.set_offset_s(offset_s);
    Ok(json_reply(StatusCode::OK, &json!({"offset_s": offset_s})))
}
