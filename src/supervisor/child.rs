//! One run of the server as a process.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::heartbeat::{self, Receiver};
use super::reasons::Cause;
use super::sockets::LanSockets;

/// What is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// A running server.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    beats: Receiver,
    started: Duration,
}

impl Child {
    /// Starts the server with the LAN's sockets and a heartbeat channel of its own.
    ///
    /// It stands in a process group of its own (a Ctrl-C reaches only the supervisor, which passes it on in good order),
    /// reads nothing, writes its logs where ours go, and cannot speak to systemd in our name.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn spawn(program: &Program, sockets: &LanSockets, now: Duration) -> io::Result<Self> {
        let (beats, theirs) = heartbeat::pair()?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .stdin(Stdio::null())
            .process_group(0);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        sockets.hand_to(&mut command, theirs)?;
        let process = command.spawn()?;
        Ok(Self {
            process,
            beats,
            started: now,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How long it has been running.
    #[must_use]
    pub fn ran(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started)
    }

    /// The heartbeat channel.
    #[must_use]
    pub fn beats(&self) -> &Receiver {
        &self.beats
    }

    /// How it ended, without waiting; `None` while it runs.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn try_exit(&mut self) -> io::Result<Option<Cause>> {
        Ok(self.process.try_wait()?.map(classify))
    }

    /// Sends a signal. That the process is already gone is no error: its exit will be seen.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            // The process is not reaped before `try_exit`, so the id cannot belong to another one.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Resident memory, or `None` when the process is going away.
    #[must_use]
    pub fn rss_mib(&self) -> Option<u64> {
        rss_mib(&fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?)
    }
}

impl Drop for Child {
    /// A supervisor that fails leaves no server behind.
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn classify(status: ExitStatus) -> Cause {
    match (status.code(), status.signal()) {
        (Some(code), _) => Cause::Exited { code },
        (None, signal) => Cause::Killed {
            signal: signal.unwrap_or(0),
        },
    }
}

/// `VmRSS:     12345 kB` of proc_pid_status(5).
fn rss_mib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn run(script: &str) -> Child {
        let args = vec!["-c".into(), script.into()];
        let program = Program {
            path: "/bin/sh".into(),
            args,
        };
        Child::spawn(&program, &LanSockets::default(), Duration::ZERO).unwrap()
    }

    fn exit(child: &mut Child) -> Cause {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(cause) = child.try_exit().unwrap() {
                return cause;
            }
            assert!(Instant::now() < deadline, "does not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_way_a_server_ended_is_told_apart() {
        assert_eq!(exit(&mut run("exit 3")), Cause::Exited { code: 3 });
        assert_eq!(exit(&mut run("kill -ABRT $$")), Cause::Killed { signal: 6 });
        let mut stopped = run("kill -STOP $$; exit 0");
        stopped.signal(Signal::SIGKILL);
        assert_eq!(exit(&mut stopped), Cause::Killed { signal: 9 });
    }

    #[test]
    fn memory_is_read_from_a_living_process() {
        let child = run("read -r _ < /dev/zero");
        assert!(child.rss_mib().is_some_and(|mib| mib < 1000));
        assert_eq!(rss_mib("Name:\tx\nVmRSS:\t  51200 kB\n"), Some(50));
        assert_eq!(rss_mib("Name:\tzombie\n"), None);
    }

    #[test]
    fn a_server_that_cannot_be_started_is_an_error() {
        let program = Program {
            path: "/nonexistent/comptoir".into(),
            args: vec![],
        };
        let error = Child::spawn(&program, &LanSockets::default(), Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
