//! `comptoir serve`: the server itself.

use std::process::ExitCode;

use super::Files;
use crate::config::Config;
use crate::daemon::serve;
use crate::telemetry::start_logs;

pub(super) fn run(files: &Files) -> anyhow::Result<ExitCode> {
    let (config, refused) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    start_logs(&config.telemetry);
    serve(config, refused.as_ref())?;
    Ok(ExitCode::SUCCESS)
}
