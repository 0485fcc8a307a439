//! `comptoir serve`: the server itself.

use std::process::ExitCode;

use super::Files;
use crate::config::Config;
use crate::daemon::serve;
use crate::telemetry::{outgoing, start_logs};

pub(super) fn run(files: &Files) -> anyhow::Result<ExitCode> {
    let (config, refused) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    let (layer, outgoing) = outgoing::streams(&config.wan, &config.store.data_dir);
    start_logs(&config.telemetry, layer);
    serve(config, refused.as_ref(), outgoing)?;
    Ok(ExitCode::SUCCESS)
}
