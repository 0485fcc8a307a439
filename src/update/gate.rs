//! The gate of a trial: real questions to the box, held for a stability window, under a deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tracing::{info, warn};

use super::boot::BootFacts;
use super::boot_control::{BootControl, BootControlError};
use super::history::History;
use super::probe::{platform_is_up, probe_data_disk, probe_port};
use super::trial::{Verdict, Vigil};
use crate::clock::Clock;
use crate::config::{LanConfig, LanPort, UpdateConfig};
use crate::durable::ReplaceFileError;
use crate::shutdown::Shutdown;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the gate asks about.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Every port that is switched on must answer.
    pub lan: LanConfig,
    /// Must keep what it is given.
    pub data_dir: PathBuf,
}

/// How the gate ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// The running slot is kept.
    Committed,
    /// This boot is no trial; nothing was to be done.
    NoTrial,
    /// Health did not last; the boot loader's count leads back.
    GaveUp {
        /// What was wrong last.
        reason: String,
    },
}

/// The gate could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// RAUC did not keep the slot.
    #[error("cannot keep the running slot")]
    Keep(#[from] BootControlError),
    /// It is kept, and that could not be written down.
    #[error("cannot write down what became of the trial")]
    Remember(#[from] ReplaceFileError),
}

impl Gate {
    /// What is wrong with the box at this moment; `None` when nothing is.
    #[must_use]
    pub fn problem(&self, platform_was_up: bool) -> Option<String> {
        let mut problems = Vec::new();
        for port in self.lan.ports_on() {
            problems.extend(
                probe_port(port, self.lan.addr(port))
                    .err()
                    .map(|error| error.to_string()),
            );
        }
        problems.extend(
            probe_data_disk(&self.data_dir)
                .err()
                .map(|error| error.to_string()),
        );
        if platform_was_up && platform_is_up(self.lan.addr(LanPort::Front)) != Some(true) {
            problems.push("the platform answered before the update and does not now".to_owned());
        }
        match failed_units() {
            Ok(units) if units.is_empty() => {}
            Ok(units) => problems.push(format!("failed units: {}", units.join(" "))),
            Err(error) => {
                problems.push(format!("systemd does not say which units failed: {error}"))
            }
        }
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// Waits until health has lasted, then keeps the running slot; gives up at the deadline.
    ///
    /// The history is read anew before it is written, since waiting is long and the supervisor writes it too.
    ///
    /// # Errors
    /// When RAUC or the data disk fails at the last step.
    pub fn commit_when_healthy(
        &self,
        facts: &BootFacts,
        settings: &UpdateConfig,
        deadline: Duration,
        control: &dyn BootControl,
        clock: &dyn Clock,
    ) -> Result<Passed, CommitError> {
        let history = History::load(&self.data_dir);
        if !history.in_trial(facts) {
            return Ok(Passed::NoTrial);
        }
        let platform_was_up = history.trial().is_some_and(|trial| trial.platform_was_up);
        let mut vigil = Vigil::new(settings.stability, clock.monotonic() + deadline);
        let mut last = None;
        let pause = Shutdown::default();
        loop {
            let problem = self.problem(platform_was_up);
            if problem != last {
                info!(
                    event = "update.gate_looked",
                    problem = problem.as_deref().unwrap_or("none")
                );
                last.clone_from(&problem);
            }
            match vigil.look(problem, clock.monotonic()) {
                Verdict::Wait => drop(pause.wait(LOOK_EVERY)),
                Verdict::Keep => return self.commit(facts, control),
                Verdict::GiveUp { reason } => {
                    warn!(event = "update.gate_gave_up", reason);
                    History::load(&self.data_dir).gate_failed(&reason)?;
                    return Ok(Passed::GaveUp { reason });
                }
            }
        }
    }

    /// Keeps the running slot, whatever its health.
    ///
    /// # Errors
    /// When RAUC or the data disk fails.
    pub fn commit(
        &self,
        facts: &BootFacts,
        control: &dyn BootControl,
    ) -> Result<Passed, CommitError> {
        // RAUC first: if the power goes in between, the next boot finds an uncounted slot and says committed.
        control.commit()?;
        History::load(&self.data_dir).commit(facts)?;
        Ok(Passed::Committed)
    }
}

/// Units that systemd calls failed; none where there is no systemd.
///
/// # Errors
/// When systemd is there and does not answer.
pub fn failed_units() -> io::Result<Vec<String>> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(Vec::new());
    }
    let output = Command::new("systemctl")
        .args(["--failed", "--plain", "--no-legend"])
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::super::boot::Slot;
    use super::super::bundle::BundleInfo;
    use super::super::history;
    use super::super::slots::Slots;
    use super::super::trial::{Phase, Trial};
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;

    /// A boot control that only counts.
    #[derive(Default)]
    struct Counting {
        commits: RefCell<u32>,
    }

    impl BootControl for Counting {
        fn slots(&self) -> Result<Slots, BootControlError> {
            unreachable!("the gate asks nothing about slots")
        }
        fn inspect(&self, _: &Path) -> Result<BundleInfo, BootControlError> {
            unreachable!("the gate reads no bundle")
        }
        fn install(&self, _: &Path, _: &mut dyn FnMut(&str)) -> Result<(), BootControlError> {
            unreachable!("the gate installs nothing")
        }
        fn commit(&self) -> Result<(), BootControlError> {
            *self.commits.borrow_mut() += 1;
            Ok(())
        }
    }

    /// A box with nothing but a front door, which is ready.
    fn front_door(dir: &Path) -> (Gate, UpdateConfig) {
        let site = "[lan]\nbind = '127.0.0.1'\n".to_owned()
            + &["catalogue", "orders", "events", "media", "care"]
                .map(|port| format!("[lan.{port}]\nenabled = false\n"))
                .concat();
        let mut config = Config::from_layers(&[(Path::new("site.toml"), &site)]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        config.lan.port_offset = listener.local_addr().unwrap().port() - 80;
        config.update.stability = Duration::from_millis(1);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            }
        });
        (
            Gate {
                lan: config.lan,
                data_dir: dir.to_owned(),
            },
            config.update,
        )
    }

    fn trial_boot(dir: &Path) -> BootFacts {
        let facts = BootFacts {
            boot_id: "2".into(),
            slot: Some(Slot::named("B")),
            trial: true,
        };
        let mut history = History::load(dir);
        let trial = Trial {
            slot: Slot::named("B"),
            version: "2".into(),
            from_version: "1".into(),
            platform_was_up: false,
            staged_in_boot: "1".into(),
            phase: Phase::Staged,
            last_failure: None,
        };
        history.stage(trial).unwrap();
        history.record_boot(&facts, "2", "").unwrap();
        facts
    }

    #[test]
    fn a_healthy_trial_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, settings) = front_door(dir.path());
        let facts = trial_boot(dir.path());
        let control = Counting::default();
        let deadline = Duration::from_secs(60);
        let go = || {
            gate.commit_when_healthy(
                &facts,
                &settings,
                deadline,
                &control,
                &SystemClock::default(),
            )
            .unwrap()
        };
        assert_eq!(go(), Passed::Committed);
        assert_eq!(go(), Passed::NoTrial);
        assert_eq!(*control.commits.borrow(), 1);
        assert_eq!(
            History::load(dir.path()).boots()[0].verdict,
            history::Verdict::Committed
        );
    }

    #[test]
    fn a_platform_that_is_lost_with_the_update_is_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, _) = front_door(dir.path());
        assert_eq!(gate.problem(false), None);
        assert!(
            gate.problem(true)
                .unwrap()
                .contains("the platform answered before")
        );
    }

    #[test]
    fn a_port_that_does_not_answer_is_not_kept_and_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (mut gate, settings) = front_door(dir.path());
        gate.lan.orders = true;
        let facts = trial_boot(dir.path());
        let control = Counting::default();
        let passed = gate.commit_when_healthy(
            &facts,
            &settings,
            Duration::ZERO,
            &control,
            &SystemClock::default(),
        );
        assert!(matches!(passed, Ok(Passed::GaveUp { reason }) if reason.contains("port orders")));
        assert_eq!(*control.commits.borrow(), 0);
        let failure = History::load(dir.path())
            .trial()
            .unwrap()
            .last_failure
            .clone()
            .unwrap();
        assert!(failure.contains("port orders"), "{failure}");
    }
}
