//! The documents of the DDI API, as hawkBit writes them.

use serde_json::{Map, Value, json};

use super::{Call, TENANT};
use crate::percent::encode;
use crate::store::rollouts::{Controller, Rollout, Status, Urgency};

/// `https://…/DEFAULT/controller/v1/{controllerId}`
fn base(call: &Call<'_>) -> String {
    format!(
        "{}/{TENANT}/controller/v1/{}",
        call.origin,
        encode(call.controller)
    )
}

/// The answer to a poll.
pub fn poll(
    call: &Call<'_>,
    controller: &Controller,
    active: Option<&Rollout>,
    installed: Option<&Rollout>,
    sleep: &str,
) -> Value {
    let base = base(call);
    let mut links = Map::new();
    let mut link = |rel: &str, path: String| {
        links.insert(rel.to_owned(), json!({"href": format!("{base}/{path}")}));
    };
    if let Some(active) = active {
        let (id, tag) = (active.id, tag(active));
        match active.status {
            Status::WaitForConfirmation => {
                link("confirmationBase", format!("confirmationBase/{id}?c={tag}"));
            }
            Status::Canceling => link("cancelAction", format!("cancelAction/{id}")),
            _ => link("deploymentBase", format!("deploymentBase/{id}?c={tag}")),
        }
    }
    if let Some(installed) = installed {
        link("installedBase", format!("installedBase/{}", installed.id));
    }
    if controller.is_asked {
        link("configData", "configData".to_owned());
    }
    json!({"config": {"polling": {"sleep": sleep}}, "_links": links})
}

/// Changes whenever what the action asks for changes.
fn tag(rollout: &Rollout) -> u32 {
    let (forced, open) = (
        u32::from(rollout.urgency == Urgency::Forced),
        u32::from(rollout.window_open == Some(true)),
    );
    u32::try_from(rollout.id).unwrap_or(0) * 31 + forced * 7 + open
}

/// A deployment, also for confirmation.
pub fn deployment(call: &Call<'_>, rollout: &Rollout, as_what: &str) -> Value {
    let download = match rollout.urgency {
        Urgency::Forced | Urgency::DownloadOnly => "forced",
        Urgency::Soft => "attempt",
    };
    let update = match (rollout.urgency, rollout.window_open) {
        (Urgency::DownloadOnly, _) | (_, Some(false)) => "skip",
        _ => download,
    };
    let artifact = &rollout.artifact;
    let own = format!(
        "{}/softwaremodules/{}/artifacts/{}",
        base(call),
        rollout.id,
        encode(&artifact.filename)
    );
    let href = rollout.link.as_ref().unwrap_or(&own);
    let mut deployment = json!({
        "download": download,
        "update": update,
        "chunks": [{
            "part": "os",
            "version": rollout.version,
            "name": "comptoir",
            "artifacts": [{
                "filename": artifact.filename,
                "hashes": {"sha1": artifact.sha1, "md5": artifact.md5, "sha256": artifact.sha256},
                "size": artifact.size,
                "_links": {
                    "download": {"href": href},
                    "md5sum": {"href": format!("{own}.MD5SUM")},
                },
            }],
        }],
    });
    if let Some(open) = rollout.window_open {
        let word = if open { "available" } else { "unavailable" };
        deployment["maintenanceWindow"] = word.into();
    }
    json!({"id": rollout.id.to_string(), as_what: deployment})
}
