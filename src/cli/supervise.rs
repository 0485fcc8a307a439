//! `comptoir supervise`: keeping the server alive.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::{Files, update};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::supervisor::child::Program;
use crate::supervisor::policy::Limits;
use crate::supervisor::reasons::Reasons;
use crate::supervisor::sockets::LanSockets;
use crate::supervisor::supervise::{Ending, Options, REBOOT_EXIT_CODE, supervise};
use crate::telemetry::start_logs;
use crate::update::boot::BootFacts;
use crate::update::history::History;

pub(super) fn run(files: &Files) -> anyhow::Result<ExitCode> {
    // The server says what is wrong with the shop's settings; here it only matters that it is started.
    let (config, _) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    start_logs(&config.telemetry, None);
    let facts = BootFacts::of_this_boot();
    update::record_boot(&config, &facts);
    let sockets = LanSockets::claim(&config.lan, &config.discovery)?;
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    let args = vec![
        "serve".into(),
        "--image-file".into(),
        files.image_file.clone().into(),
        "--site-file".into(),
        files.site_file.clone().into(),
    ];
    let data_dir = config.store.data_dir.clone();
    let options = Options {
        program: Program { path, args },
        data_dir: config.store.data_dir.clone(),
        limits: Limits {
            hang_after: config.supervisor.hang,
            stop_grace: config.supervisor.stop_grace,
            ..Limits::default()
        },
        max_rss: config.supervisor.max_rss,
        reboot_allowed: config.supervisor.reboot_on_crash_loop,
        in_trial: Box::new({
            let facts = facts.clone();
            let data_dir = data_dir.clone();
            move || History::load(&data_dir).in_trial(&facts)
        }),
        reboot_is_due: Box::new({
            let facts = facts.clone();
            move || History::load(&data_dir).trial_is_due(&facts)
        }),
    };
    match supervise(options, sockets, &SystemClock::default())? {
        Ending::Stopped => Ok(ExitCode::SUCCESS),
        Ending::RebootAsked => {
            remember_why_trial_ended(&config.store.data_dir, &facts);
            Ok(ExitCode::from(REBOOT_EXIT_CODE))
        }
    }
}

/// A trial whose server keeps failing never reaches its gate; the rollback that follows gets its reason from here.
fn remember_why_trial_ended(data_dir: &Path, facts: &BootFacts) {
    let mut history = History::load(data_dir);
    if !history.in_trial(facts) {
        return;
    }
    let cause = Reasons::load(data_dir)
        .list()
        .last()
        .map(|reason| reason.cause.to_string());
    let reason = format!("the server kept failing: {}", cause.unwrap_or_default());
    if let Err(error) = history.gate_failed(&reason) {
        tracing::error!(event = "update.record_failed", %error);
    }
}
