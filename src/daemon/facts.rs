//! What happened while nobody could tell: restarts, boots and the checks' verdicts, told to support once each.
//!
//! Other processes write them down (the supervisor, the trial of a new version), so they are read from where they stand.
//! `outgoing/support/told.json` remembers what was told; without it only the last of each is told, not the whole past.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::diagnose::checks::{Asked, Verdict};
use crate::diagnose::report::{Report, Scope};
use crate::digest::Digest;
use crate::shutdown::Shutdown;
use crate::supervisor::reasons::{Cause, Reason, Reasons};
use crate::telemetry::chain;
use crate::telemetry::outgoing::stream_dir;
use crate::update::history::{self, Boot, History, Why};

/// From one look at restarts and boots to the next.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// Every so many looks the checks are asked: they knock at the hosts.
const LOOKS_PER_CHECK: u32 = 60;

/// What was told already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    restart: Option<String>,
    boot: Option<String>,
    verdicts: BTreeMap<String, String>,
}

/// Looks and tells.
pub(super) struct Facts {
    data_dir: PathBuf,
    path: PathBuf,
    asked: Asked,
    told: Told,
}

impl Facts {
    pub(super) fn new(data_dir: &Path, asked: Asked) -> Self {
        let path = stream_dir(data_dir, "support").join("told.json");
        let told = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            data_dir: data_dir.to_path_buf(),
            path,
            asked,
            told,
        }
    }

    /// Until the shutdown.
    pub(super) async fn tell(mut self, shutdown: Shutdown) {
        let mut looks = 0_u32;
        while !shutdown.is_triggered() {
            let with_checks = looks % LOOKS_PER_CHECK == 1;
            looks = looks.wrapping_add(1);
            let looked = tokio::task::spawn_blocking(move || {
                self.look(with_checks);
                self
            });
            match looked.await {
                Ok(facts) => self = facts,
                Err(error) => {
                    tracing::warn!(event = "daemon.facts_ended", error = &*chain(&error));
                    return;
                }
            }
            tokio::select! {
                () = shutdown.triggered() => {}
                () = tokio::time::sleep(LOOK_PERIOD) => {}
            }
        }
    }

    fn look(&mut self, with_checks: bool) {
        let before = self.told.clone();
        let reasons = Reasons::load(&self.data_dir);
        for reason in untold(reasons.list(), &mut self.told.restart) {
            tell_restart(reason);
        }
        let history = History::load(&self.data_dir);
        for boot in untold(history.boots(), &mut self.told.boot) {
            tell_boot(boot);
        }
        if with_checks {
            let report = Report::make(&self.asked, Scope::Everything);
            for answer in &report.checks {
                self.tell_verdict(answer.name, answer.verdict, None);
            }
            for flow in &report.flows {
                self.tell_verdict(flow.name, flow.verdict, flow.cause);
            }
        }
        if self.told != before {
            let text = serde_json::to_vec(&self.told).expect("text is JSON");
            // Not durable on purpose: after a cut the last of each is told again.
            if let Err(error) = fs::write(&self.path, text) {
                tracing::debug!(event = "daemon.told_unwritten", %error);
            }
        }
    }

    /// A verdict is told when it is another than last time; that all is well is told only after it was not.
    fn tell_verdict(&mut self, check: &'static str, verdict: Verdict, cause: Option<&'static str>) {
        let name = match verdict {
            Verdict::Ok => "ok",
            Verdict::Skipped => "skipped",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        };
        let last = self.told.verdicts.insert(check.to_owned(), name.to_owned());
        let is_well = matches!(verdict, Verdict::Ok | Verdict::Skipped);
        if last.as_deref() != Some(name) && !(last.is_none() && is_well) {
            info!(
                event = "diagnose.verdict_changed",
                check,
                verdict = name,
                cause
            );
        }
    }
}

/// The entries behind the last one told; only the last one when that is not known any more. Afterwards all are told.
fn untold<'a, T: Serialize>(list: &'a [T], told: &mut Option<String>) -> &'a [T] {
    let digest = |entry: &T| {
        serde_json::to_vec(entry).map_or(String::new(), |json| Digest::of(&json).to_string())
    };
    let Some(last) = list.last() else { return &[] };
    let at = told
        .as_ref()
        .and_then(|told| list.iter().rposition(|entry| digest(entry) == *told));
    *told = Some(digest(last));
    match at {
        Some(at) => &list[at + 1..],
        None => &list[list.len() - 1..],
    }
}

fn seconds(at: &str) -> i64 {
    at.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second)
}

fn tell_restart(reason: &Reason) {
    let (cause, exit_code, signal, part, rss_mib) = match &reason.cause {
        Cause::Exited { code } => ("exited", Some(*code), None, None, None),
        Cause::Killed { signal } => ("killed", None, Some(*signal), None, None),
        Cause::Hung { part } => ("hung", None, None, Some(part.as_str()), None),
        Cause::StartTooSlow => ("start_too_slow", None, None, None, None),
        Cause::MemoryGrown { rss_mib } => ("memory_grown", None, None, None, Some(*rss_mib)),
        Cause::SpawnFailed { .. } => ("spawn_failed", None, None, None, None),
        Cause::Unknown => ("unknown", None, None, None, None),
    };
    info!(
        event = "supervisor.restart_told",
        cause,
        exit_code,
        signal,
        part,
        rss_mib,
        ran_s = reason.ran_s,
        failures = reason.failures,
        at_s = seconds(&reason.at)
    );
}

fn tell_boot(boot: &Boot) {
    let why_kind = match boot.why {
        Why::Kept => "kept",
        Why::Trial { .. } => "trial",
        Why::Rollback { .. } => "rollback",
        Why::Unknown => "unknown",
    };
    let verdict = match boot.verdict {
        history::Verdict::Good => "good",
        history::Verdict::Open => "open",
        history::Verdict::Committed => "committed",
        history::Verdict::Failed { .. } => "failed",
        history::Verdict::Unknown => "unknown",
    };
    info!(
        event = "update.boot_told",
        version = boot.version,
        why_kind,
        verdict,
        at_s = seconds(&boot.at)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_told_once_and_an_unknown_past_only_by_its_end() {
        let mut told = None;
        assert_eq!(untold::<u8>(&[], &mut told), &[] as &[u8]);
        assert_eq!(untold(&[1, 2, 3], &mut told), [3]);
        assert_eq!(untold(&[1, 2, 3], &mut told), &[] as &[u8]);
        assert_eq!(untold(&[2, 3, 4, 5], &mut told), [4, 5]);
        // A boot whose verdict changed is another entry.
        assert_eq!(untold(&[2, 3, 4, 6], &mut told), [6]);
    }
}
