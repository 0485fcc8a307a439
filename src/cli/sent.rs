//! `comptoir status --sent`: what left the shop for support lately.

use std::fs;
use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use super::Files;
use crate::clock::rfc3339;
use crate::config::Config;
use crate::telemetry::outgoing::stream_dir;

pub(super) fn run(files: &Files) -> anyhow::Result<ExitCode> {
    let (config, _) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    for (stream, host) in [
        ("logs", config.wan.logs_url.host()),
        ("support", config.wan.support_url.host()),
    ] {
        let path = stream_dir(&config.store.data_dir, stream).join("sent.json");
        let batches = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} can't be read", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        for line in lines(stream, host, &batches) {
            println!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(stream: &str, host: &str, batches: &[Value]) -> Vec<String> {
    if batches.is_empty() {
        return vec![format!("{stream}: nothing was sent to {host}")];
    }
    let mut lines = vec![format!(
        "{stream}: the last {} batches to {host}",
        batches.len()
    )];
    for batch in batches {
        let number = |key: &str| batch[key].as_i64().unwrap_or_default();
        let at = rfc3339(number("at_ms")).unwrap_or_default();
        lines.push(format!(
            "  {at}  {} records, {} bytes",
            number("records"),
            number("bytes")
        ));
        lines.push(format!(
            "    {}",
            batch["body"].as_str().unwrap_or_default()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_batch_is_shown_word_by_word_and_nothing_is_said_to_be_nothing() {
        let nothing = lines("logs", "api.logmatic.io", &[]);
        assert_eq!(nothing, ["logs: nothing was sent to api.logmatic.io"]);
        let batch = json!({"at_ms": 0, "records": 2, "bytes": 30, "status": 200, "body": "[{\"message\":\"x\"}]"});
        let text = lines("logs", "api.logmatic.io", &[batch]).join("\n");
        assert!(
            text.contains("1970-01-01T00:00:00Z  2 records, 30 bytes"),
            "{text}"
        );
        assert!(text.contains("[{\"message\":\"x\"}]"), "{text}");
    }
}
