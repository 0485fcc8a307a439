//! Log set-up: to standard error, which journald (or a developer's terminal) keeps.

use std::error::Error;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use super::outgoing::OutgoingLayer;
use crate::config::{LogFormat, TelemetryConfig};

/// The error and all its causes, in one line: a log's JSON would show the outermost sentence alone.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause's words in their own.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Starts logging for the whole process; `outgoing` takes what may leave for support. A second call changes nothing.
pub fn start_logs(config: &TelemetryConfig, outgoing: Option<OutgoingLayer>) {
    // Libraries speak from "warn" upwards: their debug lines may hold headers, and headers hold tokens.
    let filter = EnvFilter::new(format!("warn,comptoir={}", config.level));
    let outgoing = outgoing.map(|layer| {
        let ours = Targets::new().with_target("comptoir", layer.finest());
        layer.with_filter(ours)
    });
    let base = registry().with(outgoing);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            base.with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Text => base.with(lines.compact().with_filter(filter)).try_init(),
    };
    if started.is_err() {
        tracing::debug!(event = "telemetry.logs_already_started");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = Outer(io::Error::other("the key is lost"));
        assert_eq!(chain(&error), "cannot open the door: the key is lost");
    }
}
