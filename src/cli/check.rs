//! `comptoir check` and `comptoir boot-report`: the self-diagnosis.

use std::process::ExitCode;

use super::Files;
use crate::config::Config;
use crate::diagnose::boot_report::BootReport;
use crate::diagnose::checks::{Asked, Verdict, ask_all, worst};
use crate::telemetry::start_logs;
use crate::version::running;

/// Exit code when something does not work.
const FAILED: u8 = 1;
/// Exit code when the shop goes on and somebody should look.
const WARNING: u8 = 3;

pub(super) fn check(files: &Files, json: bool) -> anyhow::Result<ExitCode> {
    let (config, refused) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
    let answers = ask_all(&Asked {
        config,
        refused: refused.map(|refused| refused.to_string()),
    });
    let verdict = worst(&answers);
    if json {
        println!(
            "{:#}",
            serde_json::json!({ "version": running(), "verdict": verdict, "checks": answers })
        );
    } else {
        for answer in &answers {
            println!("{:8} {:11} {}", answer.verdict, answer.name, answer.seen);
            if !answer.advice.is_empty() {
                println!("{:20} → {}", "", answer.advice);
            }
        }
    }
    Ok(match verdict {
        Verdict::Ok | Verdict::Skipped => ExitCode::SUCCESS,
        Verdict::Warning => ExitCode::from(WARNING),
        Verdict::Failed => ExitCode::from(FAILED),
    })
}

pub(super) fn boot_report(files: &Files) -> anyhow::Result<ExitCode> {
    // A box with wrong settings is exactly the one whose report is wanted.
    let config = Config::load(&files.image_file, &files.site_file);
    let config = config.or_else(|_| Config::from_layers(&[]))?;
    start_logs(&config.telemetry);
    println!(
        "{}",
        BootReport::of_this_boot(running(), &config.store.data_dir).line()
    );
    Ok(ExitCode::SUCCESS)
}
