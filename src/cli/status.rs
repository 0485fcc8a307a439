//! `comptoir status`: how the running box is, in a few lines.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::Files;
use crate::clock::rfc3339;
use crate::config::{Config, LanPort};
use crate::supervisor::reasons::Reasons;
use crate::update::probe::ask_status;

/// Restarts that are shown.
const RESTARTS_SHOWN: usize = 5;

pub(super) fn run(files: &Files, as_json: bool) -> anyhow::Result<ExitCode> {
    let (config, _) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    let reasons = Reasons::load(&config.store.data_dir);
    let shown = reasons.list().len().saturating_sub(RESTARTS_SHOWN);
    let restarts = &reasons.list()[shown..];
    let front = config.lan.addr(LanPort::Front);
    let (status, exit_code) = match ask_status(front) {
        Ok(status) => (status, ExitCode::SUCCESS),
        Err(error) => {
            let what = format!("the server does not answer on {front}: {error}");
            (json!({ "unreachable": what }), ExitCode::FAILURE)
        }
    };
    if as_json {
        println!("{:#}", json!({ "status": status, "restarts": restarts }));
        return Ok(exit_code);
    }
    for line in lines(&status) {
        println!("{line}");
    }
    for restart in restarts {
        println!(
            "restart    {}: {} after {} s",
            restart.at, restart.cause, restart.ran_s
        );
    }
    Ok(exit_code)
}

/// The document as lines for people.
fn lines(status: &Value) -> Vec<String> {
    if let Some(unreachable) = status["unreachable"].as_str() {
        return vec![unreachable.to_owned()];
    }
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let since = |value: &Value| {
        value
            .as_i64()
            .and_then(rfc3339)
            .unwrap_or_else(|| "?".to_owned())
    };
    let verdict = &status["verdict"];
    let mut lines = vec![format!(
        "{}: {} (since {})",
        text(&verdict["level"]),
        text(&verdict["sentence"]["en"]),
        since(&verdict["since_ms"])
    )];
    for fact in status["conditions"].as_array().into_iter().flatten() {
        lines.push(format!(
            "{:10} {}: {} (since {})",
            text(&fact["level"]),
            text(&fact["code"]),
            text(&fact["sentence"]["en"]),
            since(&fact["since_ms"])
        ));
    }
    let (platform, catalogue, orders) =
        (&status["platform"], &status["catalogue"], &status["orders"]);
    lines.push(format!(
        "box        {} of site {}, version {}",
        text(&status["box_id"]),
        text(&status["site_id"]),
        text(&status["version"])
    ));
    lines.push(format!(
        "platform   data {}, orders {}, media {}",
        text(&platform["data"]),
        text(&platform["orders"]),
        text(&platform["media"])
    ));
    let flows = status["flows"].as_array();
    for flow in flows
        .into_iter()
        .flatten()
        .filter(|flow| flow["state"] == "down")
    {
        let trouble = &flow["trouble"];
        lines.push(format!(
            "flow       {} to {}: {} (since {}). {} {}",
            text(&flow["name"]),
            text(&flow["host"]),
            text(&trouble["cause"]),
            since(&flow["since_ms"]),
            text(&trouble["staff"]["en"]),
            text(&trouble["action"]["en"])
        ));
    }
    let (time, enrolment) = (&status["time"], &status["enrolment"]);
    lines.push(format!(
        "enrolment  {}{}",
        match enrolment["state"].as_str().unwrap_or("?") {
            "by_settings" => "by the site file".to_owned(),
            "not_enrolled" => "the platform was not reached yet".to_owned(),
            "waiting_for_claim" =>
                "waits to be claimed with the code printed on the box".to_owned(),
            "enrolled" => format!("since {}", since(&enrolment["since_ms"])),
            "revoked" => "revoked by the platform".to_owned(),
            other => other.to_owned(),
        },
        enrolment["valid_until_ms"]
            .as_i64()
            .and_then(rfc3339)
            .map_or_else(String::new, |until| format!(", credentials until {until}"))
    ));
    lines.push(format!(
        "time       {}, {}",
        text(&time["quality"]),
        time["confirmed_s_ago"].as_u64().map_or_else(
            || "confirmed by no host yet".to_owned(),
            |ago| format!("confirmed {ago} s ago")
        )
    ));
    lines.push(format!(
        "catalogue  {} documents, {}",
        number(&catalogue["documents"]),
        catalogue["age_s"].as_u64().map_or_else(
            || "not heard of since the start".to_owned(),
            |age| format!("last heard of {age} s ago")
        )
    ));
    lines.push(format!(
        "orders     {} wait for a device, {} to be told to the platform, {} set aside",
        number(&orders["waiting"]),
        number(&orders["to_send"]),
        number(&orders["parked"])
    ));
    lines.push(format!("devices    {}", number(&status["device_count"])));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_verdict_and_every_condition_is_named() {
        let status = json!({
            "verdict": { "level": "warning", "since_ms": 0, "sentence": { "en": "Look here.", "fr": "" } },
            "conditions": [{ "code": "wan.api_unreachable", "level": "warning", "since_ms": 0, "sentence": { "en": "No answer." } }],
            "orders": { "waiting": 3, "to_send": 4, "parked": 5 },
            "catalogue": { "documents": 9, "age_s": null },
            "device_count": 2,
            "flows": [
                { "name": "api", "state": "up" },
                { "name": "bus", "host": "h:443", "state": "down", "since_ms": 0, "trouble": {
                    "cause": "dns", "staff": { "en": "No name." }, "action": { "en": "Mend it." } } },
            ],
            "time": { "quality": "weak", "confirmed_s_ago": 7 },
            "enrolment": { "state": "enrolled", "since_ms": 0, "valid_until_ms": 1000 },
        });
        let text = lines(&status).join("\n");
        assert!(
            text.starts_with("warning: Look here. (since 1970-01-01T00:00:00Z)"),
            "{text}"
        );
        assert!(text.contains("wan.api_unreachable: No answer."), "{text}");
        assert!(
            text.contains(
                "flow       bus to h:443: dns (since 1970-01-01T00:00:00Z). No name. Mend it."
            ),
            "{text}"
        );
        assert!(!text.contains("flow       api"), "{text}");
        assert!(
            text.contains(
                "enrolment  since 1970-01-01T00:00:00Z, credentials until 1970-01-01T00:00:01Z"
            ),
            "{text}"
        );
        assert!(
            text.contains("time       weak, confirmed 7 s ago"),
            "{text}"
        );
        assert!(
            text.contains("3 wait for a device, 4 to be told to the platform, 5 set aside"),
            "{text}"
        );
        assert!(
            text.contains("9 documents, not heard of since the start"),
            "{text}"
        );
    }

    #[test]
    fn a_server_that_is_silent_is_said_so() {
        let text = lines(&json!({ "unreachable": "the server does not answer" }));
        assert_eq!(text, ["the server does not answer"]);
    }
}
