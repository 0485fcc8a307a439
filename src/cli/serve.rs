//! `comptoir serve`: the server itself.

use std::process::ExitCode;

use super::Files;
use crate::config::Config;
use crate::daemon::{Ended, serve};
use crate::supervisor::supervise::REBOOT_EXIT_CODE;
use crate::telemetry::{outgoing, start_logs};

pub(super) fn run(files: &Files) -> anyhow::Result<ExitCode> {
    let (config, refused) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    let (layer, outgoing) = outgoing::streams(&config.wan, &config.store.data_dir);
    start_logs(&config.telemetry, layer);
    Ok(match serve(config, refused.as_ref(), outgoing)? {
        Ended::Asked => ExitCode::SUCCESS,
        // The supervisor hands it on to the init system.
        Ended::RestartDue => ExitCode::from(REBOOT_EXIT_CODE),
    })
}
