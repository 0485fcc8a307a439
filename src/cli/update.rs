//! `comptoir update`: bundles in, trials kept, and where the box stands.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::Files;
use crate::clock::{Clock, SystemClock, rfc3339};
use crate::config::{Config, LanPort};
use crate::telemetry::start_logs;
use crate::update::boot::BootFacts;
use crate::update::boot_control::{BootControl, Rauc};
use crate::update::gate::{Gate, Passed};
use crate::update::history::{Boot, History, Verdict, Why};
use crate::update::install::{Now, Wish, install};
use crate::update::probe::{ask_status, platform_is_up};
use crate::update::slots::Slots;
use crate::update::trial::Phase;
use crate::version::running;
use crate::wan::rollouts::status_on_disk;

/// Boots shown by `update status`.
const BOOTS_SHOWN: usize = 10;

/// Update verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Update {
    /// Write a signed bundle to the other slot; the next boot tries it.
    Install {
        /// The bundle.
        bundle: PathBuf,
        /// Also a version that failed on this box before.
        #[arg(long)]
        force: bool,
        /// Reboot at once when it is written.
        #[arg(long)]
        reboot: bool,
    },
    /// Say which slot and version runs, and why.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Keep the version that runs.
    Commit {
        /// Only when every port answers and the disk works, for as long as `update.stability_s`; else fail at the deadline.
        #[arg(long)]
        when_healthy: bool,
        /// Longest wait for that; `update.trial_deadline_s` when not given.
        #[arg(long, requires = "when_healthy")]
        deadline_s: Option<u64>,
    },
}

impl Update {
    pub(super) fn run(&self, files: &Files) -> anyhow::Result<ExitCode> {
        // A trial is judged by what the server runs with, and that is never stopped by the shop's settings.
        let (config, _) = Config::load_or_without_site(&files.image_file, &files.site_file)?;
        start_logs(&config.telemetry, None);
        let facts = BootFacts::of_this_boot();
        match self {
            Self::Install {
                bundle,
                force,
                reboot,
            } => run_install(&config, &facts, bundle, *force, *reboot),
            Self::Status { json } => {
                print_status(&config, &facts, *json);
                Ok(ExitCode::SUCCESS)
            }
            Self::Commit {
                when_healthy,
                deadline_s,
            } => {
                let deadline = deadline_s.map_or(config.update.trial_deadline, Duration::from_secs);
                run_commit(&config, &facts, *when_healthy, deadline)
            }
        }
    }
}

/// Writes down this boot; what the supervisor calls before anything else.
pub(super) fn record_boot(config: &Config, facts: &BootFacts) {
    let mut history = History::load(&config.store.data_dir);
    let at = SystemClock::default().wall().to_string();
    if let Err(error) = history.record_boot(facts, running(), &at) {
        tracing::error!(event = "update.record_failed", %error);
    }
}

fn run_install(
    config: &Config,
    facts: &BootFacts,
    bundle: &Path,
    force: bool,
    reboot: bool,
) -> anyhow::Result<ExitCode> {
    // RAUC's service has another working directory.
    let bundle_path = bundle
        .canonicalize()
        .with_context(|| format!("cannot find the bundle {}", bundle.display()))?;
    let mut history = History::load(&config.store.data_dir);
    let mut print = |line: &str| println!("{line}");
    let now = Now {
        facts,
        version: running(),
        platform_is_up: platform_is_up(config.lan.addr(LanPort::Front)) == Some(true),
    };
    let wish = Wish {
        bundle_path: &bundle_path,
        version: None,
        force,
    };
    let installed = install(wish, now, &mut history, &Rauc::default(), &mut print)?;
    println!(
        "version {} is in slot {}; the next boot tries it",
        installed.version, installed.slot
    );
    if reboot {
        let status = Command::new("systemctl")
            .arg("reboot")
            .status()
            .context("cannot ask for a reboot")?;
        if !status.success() {
            bail!("the reboot was refused ({status}); the update is installed");
        }
    } else {
        println!("a reboot is needed");
    }
    Ok(ExitCode::SUCCESS)
}

fn run_commit(
    config: &Config,
    facts: &BootFacts,
    when_healthy: bool,
    deadline: Duration,
) -> anyhow::Result<ExitCode> {
    let gate = Gate {
        lan: config.lan.clone(),
        data_dir: config.store.data_dir.clone(),
    };
    let (control, clock) = (Rauc::default(), SystemClock::default());
    let passed = if when_healthy {
        gate.commit_when_healthy(facts, &config.update, deadline, &control, &clock)?
    } else {
        gate.commit(facts, &control)?
    };
    let version = running();
    match passed {
        Passed::Committed => println!("version {version} is kept"),
        Passed::NoTrial => println!("version {version} is no trial; nothing was to be done"),
        Passed::GaveUp { reason } => bail!("version {version} is not kept: {reason}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_status(config: &Config, facts: &BootFacts, as_json: bool) {
    let history = History::load(&config.store.data_dir);
    let slots = Rauc::default().slots();
    let rollout = rollout_status(config);
    let shown = history.boots().len().saturating_sub(BOOTS_SHOWN);
    let boots = &history.boots()[shown..];
    let this_boot = boots.iter().find(|boot| boot.boot_id == facts.boot_id);
    if as_json {
        let slots = slots.as_ref().ok();
        let status = json!({
            "version": running(),
            "slot": facts.slot,
            "in_trial": history.in_trial(facts),
            "this_boot": this_boot,
            "next_slot": slots.and_then(|slots| slots.primary.as_ref()),
            "slots": slots.map(|slots| &slots.all),
            "trial": history.trial(),
            "failed": history.failed(),
            "boots": boots,
            "rollout": rollout,
        });
        println!("{status:#}");
        return;
    }
    let version = running();
    match &facts.slot {
        Some(slot) => println!(
            "running   version {version} from slot {slot}: {}",
            story(this_boot)
        ),
        None => println!("running   version {version}; this machine has no slots"),
    }
    match &slots {
        Ok(slots) => print_slots(slots),
        Err(error) => println!("slots     unknown: {error}"),
    }
    if let Some(trial) = history.trial() {
        let phase = match trial.phase {
            Phase::Writing => "being written".to_owned(),
            Phase::Staged => "tried at the next boot".to_owned(),
            Phase::Running { attempt } => format!("on trial, try {attempt}"),
            Phase::Unknown => UNKNOWN.to_owned(),
        };
        println!(
            "new       version {} in slot {}: {phase}",
            trial.version, trial.slot
        );
    }
    print_rollout(&rollout);
    for failed in history.failed() {
        println!(
            "failed    version {} ({}): {}",
            failed.version, failed.at, failed.reason
        );
    }
    for boot in boots {
        let slot = boot.slot.as_ref().map_or("-", |slot| slot.as_str());
        println!(
            "boot      {} slot {slot} version {}: {}",
            boot.at,
            boot.version,
            story(Some(boot))
        );
    }
}

/// What the running server says, else what is on the disk.
fn rollout_status(config: &Config) -> Value {
    let running = ask_status(config.lan.addr(LanPort::Front)).ok();
    let told = running.and_then(|mut status| status.get_mut("update").map(Value::take));
    told.unwrap_or_else(|| json!(status_on_disk(&config.store.data_dir)))
}

fn print_rollout(rollout: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().replace('_', " ");
    let ordered = &rollout["ordered"];
    if ordered.is_object() {
        let percent = ordered["percent"].as_u64();
        let percent = percent.map_or_else(String::new, |percent| format!(" {percent} %"));
        let waits = match text(&ordered["waits_for"]) {
            waits if waits.is_empty() => waits,
            waits => format!(", waits for: {waits}"),
        };
        let until = ordered["waits_until_ms"].as_i64().and_then(rfc3339);
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        println!(
            "ordered   version {}: {}{percent}{waits}{until}",
            text(&ordered["version"]),
            text(&ordered["state"])
        );
    }
    let last = &rollout["last"];
    if last.is_object() {
        let success = last["success"].as_bool() == Some(true);
        println!(
            "last      version {}: {}: {}",
            last["version"].as_str().unwrap_or_default(),
            if success { "kept" } else { "failed" },
            last["detail"].as_str().unwrap_or_default()
        );
    }
}

fn print_slots(slots: &Slots) {
    let all: Vec<_> = slots
        .all
        .iter()
        .map(|state| format!("{} {}", state.slot, if state.good { "good" } else { "bad" }))
        .collect();
    println!("slots     {}", all.join(", "));
    if let Some(next) = &slots.primary {
        println!("next boot slot {next}");
    }
}

/// Of what another version wrote.
const UNKNOWN: &str = "as another version knows";

fn story(boot: Option<&Boot>) -> String {
    let Some(boot) = boot else {
        return "this boot is not written down".to_owned();
    };
    match (&boot.why, &boot.verdict) {
        (Why::Kept, _) => "kept".to_owned(),
        (Why::Rollback { version, reason }, _) => {
            format!("back, since version {version} failed: {reason}")
        }
        (Why::Trial { attempt }, Verdict::Open) => format!("on trial, try {attempt}"),
        (Why::Trial { attempt }, Verdict::Failed { reason }) => {
            format!("trial {attempt} failed: {reason}")
        }
        (Why::Trial { .. }, Verdict::Committed | Verdict::Good) => "tried and kept".to_owned(),
        (Why::Unknown, _) | (_, Verdict::Unknown) => UNKNOWN.to_owned(),
    }
}
