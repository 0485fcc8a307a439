//! What systemd hears, and what it passes.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::bench::{Box, NAMES, get, signal, wait};

#[test]
fn a_crash_loop_is_slowed_and_said_and_the_ports_stay_open() {
    let mut this = Box::new("");
    // A database that is a folder: the server cannot open its store.
    fs::create_dir_all(this.dir.path().join("data/orders.db/x")).unwrap();
    let notices = Notices::listen(&this);
    let mut command = this.command("supervise");
    notices.attach(&mut command);
    this.start(command);
    wait("the loop is said", || {
        this.log().contains("supervisor.crash_loop")
    });
    wait("the loop is recorded", || this.reasons().len() >= 5);
    // The next start is half a minute away; this is the whole of what came before.
    assert_eq!(this.reasons().len(), 5);
    assert!(
        this.reasons()
            .iter()
            .all(|reason| reason["kind"] == "restart" && reason["cause"] == "exited")
    );
    TcpStream::connect(this.addr("orders")).unwrap();
    notices.wait_for("STATUS=next start in");
    notices.wait_for("CRASH LOOP");
    let heard = notices.heard();
    assert!(
        !heard.iter().any(|(_, line)| line == "READY=1"),
        "{heard:?}"
    );
}

/// What systemd would hear.
struct Notices {
    path: PathBuf,
    heard: Arc<std::sync::Mutex<Vec<(Instant, String)>>>,
}

impl Notices {
    fn listen(this: &Box) -> Self {
        let path = this.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let heard = Arc::<std::sync::Mutex<Vec<(Instant, String)>>>::default();
        std::thread::spawn({
            let heard = Arc::clone(&heard);
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let lines = text.lines().map(|line| (Instant::now(), line.to_owned()));
                    heard.lock().unwrap().extend(lines);
                }
            }
        });
        Self { path, heard }
    }

    fn attach(&self, command: &mut Command) {
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "30000000");
    }

    fn heard(&self) -> Vec<(Instant, String)> {
        self.heard.lock().unwrap().clone()
    }

    fn wait_for(&self, part: &str) {
        wait(part, || {
            self.heard().iter().any(|(_, line)| line.contains(part))
        });
    }
}

#[test]
fn systemd_hears_ready_and_work_and_hears_no_work_before_a_hung_server_is_killed() {
    let mut this = Box::new("[supervisor]\nhang_s = 8\n");
    let notices = Notices::listen(&this);
    let mut command = this.command("supervise");
    notices.attach(&mut command);
    this.start(command);
    notices.wait_for("READY=1");
    assert_eq!(get(this.addr("front")).unwrap(), 200, "READY means ready");
    notices.wait_for("STATUS=serving");
    let work = || {
        notices
            .heard()
            .iter()
            .filter(|(_, line)| line == "WATCHDOG=1")
            .count()
    };
    wait("work is proved again and again", || work() >= 3);

    let stopped_at = Instant::now();
    signal(this.server().unwrap(), Signal::SIGSTOP);
    wait("the hang is recorded", || !this.reasons().is_empty());
    let recorded_at = Instant::now();
    let fed: Vec<_> = notices
        .heard()
        .into_iter()
        .filter(|(at, line)| line == "WATCHDOG=1" && *at > stopped_at && *at < recorded_at)
        .map(|(at, _)| at - stopped_at)
        .collect();
    let last_fed = fed
        .iter()
        .filter(|after| **after < Duration::from_secs(7))
        .max()
        .copied()
        .unwrap_or_default();
    assert!(
        last_fed < Duration::from_secs(5),
        "fed {last_fed:?} after the server stopped"
    );
    let silence = recorded_at - stopped_at - last_fed;
    assert!(
        silence > Duration::from_secs(2),
        "systemd had {silence:?} without work before the kill"
    );
    this.wait_ready();
    let ready = notices
        .heard()
        .iter()
        .filter(|(_, line)| line == "READY=1")
        .count();
    assert_eq!(ready, 1, "READY is said once");
}

/// Starts `verb` under the real systemd-socket-activate, which passes every port by name on the first connection.
fn start_activated(this: &mut Box, verb: &str) {
    let mut command = Command::new("systemd-socket-activate");
    for name in NAMES {
        command.args(["-l", &this.addr(name).to_string()]);
    }
    command.arg(format!("--fdname={}", NAMES.join(":")));
    command
        .arg(env!("CARGO_BIN_EXE_comptoir"))
        .args(this.arguments(verb));
    this.start(command);
    let front = this.addr("front");
    wait("systemd-socket-activate listens", || {
        TcpStream::connect(front).is_ok()
    });
}

#[test]
fn sockets_of_systemd_are_taken_over_by_name() {
    let mut this = Box::new("");
    start_activated(&mut this, "supervise");
    this.wait_ready();
    let log = this.log();
    for name in NAMES {
        let opened = format!("supervisor.socket_opened\" name=\"{name}\"");
        assert!(
            !log.contains(&opened),
            "{name} was opened although it was passed"
        );
        let code = get(this.addr(name)).unwrap();
        assert!(code == 200 || code == 421, "{name} answers {code}");
    }
    let old = this.server().unwrap();
    signal(old, Signal::SIGKILL);
    this.wait_other_server(old);
    this.wait_ready();
}

#[test]
fn the_server_also_runs_without_a_supervisor() {
    let mut activated = Box::new("");
    start_activated(&mut activated, "serve");
    activated.wait_ready();

    let mut alone = Box::new("");
    let command = alone.command("serve");
    alone.start(command);
    alone.wait_ready();
}
