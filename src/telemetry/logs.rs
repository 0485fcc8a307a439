//! Log set-up: to standard error, which journald (or a developer's terminal) keeps.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, TelemetryConfig};

/// Starts logging for the whole process. A second call changes nothing.
pub fn start_logs(config: &TelemetryConfig) {
    // Libraries speak from "warn" upwards: their debug lines may hold headers, and headers hold tokens.
    let filter = EnvFilter::new(format!("warn,comptoir={}", config.level));
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .try_init(),
        LogFormat::Text => logs.compact().finish().try_init(),
    };
    if started.is_err() {
        tracing::debug!(event = "telemetry.logs_already_started");
    }
}
