//! What came in at the log input.

use hyper::StatusCode;
use serde::Deserialize;

use super::{Call, CallError};
use crate::platform::Platform;
use crate::serve::reply::{Reply, empty, json as json_reply};

/// `{batches,total,entries:[{dialect,batch,received_ms,too_old,entry}]}`
pub fn list(platform: &Platform) -> Reply {
    json_reply(StatusCode::OK, &platform.intake.list())
}

pub fn clear(platform: &Platform) -> Reply {
    platform.intake.clear();
    empty(StatusCode::NO_CONTENT)
}

/// `{"max_entries": N}`: more at once are answered 413; `null`: the dialect's own bound.
pub fn set_bounds(call: &Call<'_>, platform: &Platform) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bounds {
        max_entries: Option<usize>,
    }
    let Bounds { max_entries } = call.json()?;
    platform.intake.set_max_entries(max_entries);
    Ok(list(platform))
}
