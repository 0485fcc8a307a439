//! The edge to RAUC, which checks signatures, writes slots and keeps the boot state.
//!
//! The command-line client is used, not the bus: it is one stable interface from 1.8 on, and its exit code and text say what
//! went wrong. Every call has a bound: a client that neither prints nor ends is stopped.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::bundle::{BundleInfo, ReadBundleError};
use super::slots::{ReadSlotsError, Slots};

/// A question to RAUC is answered within this; verifying a bundle on a slow disk is the longest.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// Longest silence of an installation; writing one image prints nothing in between.
const INSTALL_SILENCE: Duration = Duration::from_secs(20 * 60);

/// Lines of an answer kept at most, the newest ones.
const MAX_LINES: usize = 4096;

/// What tests replace: the slots and the boot state.
pub trait BootControl {
    /// What is known about the slots.
    ///
    /// # Errors
    /// When there are none, or RAUC does not answer.
    fn slots(&self) -> Result<Slots, BootControlError>;

    /// Verifies a bundle's signature and says what it is.
    ///
    /// # Errors
    /// When it is no bundle or not signed by somebody we trust.
    fn inspect(&self, bundle_path: &Path) -> Result<BundleInfo, BootControlError>;

    /// Writes a bundle to the slot that is not running and makes it the next to boot; blocks, telling `progress` line by line.
    ///
    /// # Errors
    /// As RAUC says; the running slot is untouched.
    fn install(
        &self,
        bundle_path: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), BootControlError>;

    /// Keeps the running slot: the boot loader no longer counts its boots.
    ///
    /// # Errors
    /// As RAUC says.
    fn commit(&self) -> Result<(), BootControlError>;
}

/// What RAUC could not do.
#[derive(Debug, thiserror::Error)]
pub enum BootControlError {
    /// There is no RAUC here, or it can't be started.
    #[error("cannot run RAUC ({program})")]
    Run {
        /// What was to be run.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It said no.
    #[error("RAUC failed to {attempt}: {says}")]
    Refused {
        /// What was asked.
        attempt: &'static str,
        /// Its last words.
        says: String,
    },
    /// It did not answer in time.
    #[error("RAUC was silent for {silence:?} while it was to {attempt}")]
    Silent {
        /// What was asked.
        attempt: &'static str,
        /// The bound.
        silence: Duration,
    },
    /// Its report is unreadable.
    #[error(transparent)]
    Slots(#[from] ReadSlotsError),
    /// Its description of the bundle is unreadable.
    #[error(transparent)]
    Bundle(#[from] ReadBundleError),
}

/// The real one.
#[derive(Debug, Clone)]
pub struct Rauc {
    program: PathBuf,
}

impl Default for Rauc {
    fn default() -> Self {
        Self {
            program: "rauc".into(),
        }
    }
}

impl BootControl for Rauc {
    fn slots(&self) -> Result<Slots, BootControlError> {
        let output = self.run(
            "report the slots",
            &["status".as_ref(), "--output-format=json".as_ref()],
            ANSWER_WITHIN,
            &mut |_| {},
        )?;
        Ok(Slots::read(output.as_bytes())?)
    }

    fn inspect(&self, bundle_path: &Path) -> Result<BundleInfo, BootControlError> {
        let arguments = [
            "info".as_ref(),
            "--output-format=json".as_ref(),
            bundle_path,
        ];
        let output = self.run("verify the bundle", &arguments, ANSWER_WITHIN, &mut |_| {})?;
        Ok(BundleInfo::read(output.as_bytes())?)
    }

    fn install(
        &self,
        bundle_path: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), BootControlError> {
        self.run(
            "install the bundle",
            &["install".as_ref(), bundle_path],
            INSTALL_SILENCE,
            progress,
        )
        .map(drop)
    }

    fn commit(&self) -> Result<(), BootControlError> {
        let arguments = ["status".as_ref(), "mark-good".as_ref()];
        self.run(
            "keep the running slot",
            &arguments,
            ANSWER_WITHIN,
            &mut |_| {},
        )
        .map(drop)
    }
}

impl Rauc {
    /// Runs RAUC, hands each line of its output to `told` as it comes, and returns all of it.
    fn run(
        &self,
        attempt: &'static str,
        arguments: &[&Path],
        silence: Duration,
        told: &mut dyn FnMut(&str),
    ) -> Result<String, BootControlError> {
        let failed = |source| BootControlError::Run {
            program: self.program.display().to_string(),
            source,
        };
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = Running(command.spawn().map_err(failed)?);
        let (lines, heard) = channel();
        read_lines(running.0.stdout.take(), false, lines.clone());
        read_lines(running.0.stderr.take(), true, lines);
        let (mut output, mut last_words) = (Vec::new(), String::new());
        loop {
            match heard.recv_timeout(silence) {
                Ok((is_error, line)) => {
                    if !line.trim().is_empty() && (is_error || line.starts_with("LastError")) {
                        last_words.clone_from(&line);
                    }
                    if !is_error {
                        told(&line);
                        if output.len() == MAX_LINES {
                            output.remove(0);
                        }
                        output.push(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(BootControlError::Silent { attempt, silence });
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = running.0.wait().map_err(failed)?;
        if status.success() {
            return Ok(output.join("\n"));
        }
        if let Some(cause) = output
            .iter()
            .find_map(|line| line.strip_prefix("LastError: "))
        {
            cause.clone_into(&mut last_words);
        }
        if last_words.is_empty() {
            last_words = status.to_string();
        }
        Err(BootControlError::Refused {
            attempt,
            says: last_words,
        })
    }
}

/// A process that does not outlive our interest in it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn read_lines(
    pipe: Option<impl Read + Send + 'static>,
    is_error: bool,
    lines: std::sync::mpsc::Sender<(bool, String)>,
) {
    let Some(pipe) = pipe else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            if lines.send((is_error, line)).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A RAUC that is a script.
    fn rauc(script: &str) -> (tempfile::TempDir, Rauc) {
        let dir = tempfile::tempdir().unwrap();
        let (text, program) = (dir.path().join("text"), dir.path().join("rauc"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Written by another process: a fork of another test must not hold the program open for writing.
        let status = Command::new("install")
            .args(["-m", "755"])
            .args([&text, &program])
            .status();
        assert!(status.unwrap().success());
        (dir, Rauc { program })
    }

    #[test]
    fn an_installation_tells_its_progress_and_its_failure() {
        let (_dir, good) = rauc("echo '  0% Installing'; echo '100% Installing done.'");
        let mut told = Vec::new();
        good.install(Path::new("x.raucb"), &mut |line| told.push(line.to_owned()))
            .unwrap();
        assert_eq!(told, ["  0% Installing", "100% Installing done."]);

        let (_dir, bad) =
            rauc("echo 'LastError: Invalid bundle format'; echo 'Installing failed' >&2; exit 1");
        let error = bad.install(Path::new("x.raucb"), &mut |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RAUC failed to install the bundle: Invalid bundle format"
        );
    }

    #[test]
    fn no_rauc_is_an_error_that_names_it() {
        let none = Rauc {
            program: "/nonexistent/rauc".into(),
        };
        assert_eq!(
            none.slots().unwrap_err().to_string(),
            "cannot run RAUC (/nonexistent/rauc)"
        );
    }

    #[test]
    fn a_silent_rauc_is_stopped() {
        let (_dir, deaf) = rauc("exec sleep 600");
        let error = deaf
            .run("test", &[], Duration::from_millis(200), &mut |_| {})
            .unwrap_err();
        assert!(matches!(error, BootControlError::Silent { .. }), "{error}");
    }
}
