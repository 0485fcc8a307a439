//! `comptoir supervise` with the real server: killed, hung, crashing, stopped, and started with sockets of systemd.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every wait of these tests ends by then, on a machine that is busy with other tests too.
const PATIENCE: Duration = Duration::from_secs(60);

const NAMES: [&str; 6] = ["front", "catalogue", "orders", "events", "media", "care"];
const PORTS: [u16; 6] = [80, 8000, 8001, 8002, 8003, 8004];

/// A port offset that nobody on this machine uses: a box on every address would hide those on one.
fn offset() -> u16 {
    static OFFSET: OnceLock<u16> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let first = u16::try_from(std::process::id() % 5000).unwrap();
        let is_free = |offset: &u16| {
            PORTS
                .iter()
                .all(|port| TcpListener::bind(("0.0.0.0", port + offset)).is_ok())
        };
        let free = (0..200)
            .map(|step| 1100 + (first + step * 29) % 5900)
            .find(is_free);
        free.expect("some offset is free")
    })
}

/// A box as a process, on a loopback address of its own.
struct Box {
    dir: tempfile::TempDir,
    ip: String,
    supervisor: Option<Child>,
}

impl Drop for Box {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            // In good order, so that the server goes too.
            signal(child.id(), Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(15);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.ip, self.log());
        }
    }
}

impl Box {
    /// A box that is not started yet; `more` is added to its site file.
    fn new(more: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let ip = format!(
            "127.{}.{}.{}",
            16 + number % 200,
            pid >> 8 & 0xff,
            (pid & 0xff).clamp(1, 254)
        );
        let dir = tempfile::tempdir().unwrap();
        let site = format!(
            "[lan]\nbind = '{ip}'\nport_offset = {}\n[store]\ndata_dir = '{}/data'\n[telemetry]\nformat = 'text'\n{more}",
            offset(),
            dir.path().display()
        );
        fs::write(dir.path().join("site.toml"), site).unwrap();
        Self {
            dir,
            ip,
            supervisor: None,
        }
    }

    fn started(more: &str) -> Self {
        let mut this = Self::new(more);
        let command = this.command("supervise");
        this.start(command);
        this.wait_ready();
        this
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comptoir"));
        command.args(self.arguments(verb));
        command
    }

    fn arguments(&self, verb: &str) -> Vec<String> {
        let site_file = self.dir.path().join("site.toml").display().to_string();
        vec![verb.to_owned(), "--site-file".to_owned(), site_file]
    }

    fn start(&mut self, mut command: Command) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.supervisor = Some(command.spawn().unwrap());
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn addr(&self, name: &str) -> SocketAddr {
        let place = NAMES.iter().position(|have| *have == name).unwrap();
        format!("{}:{}", self.ip, PORTS[place] + offset())
            .parse()
            .unwrap()
    }

    fn wait_ready(&self) {
        let front = self.addr("front");
        wait("the box is ready", || {
            get(front).is_ok_and(|code| code == 200)
        });
    }

    /// The running server's process id.
    fn server(&self) -> Option<u32> {
        let supervisor = self.supervisor.as_ref()?.id();
        let children =
            fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn wait_other_server(&self, old: u32) {
        wait("another server runs", || {
            self.server().is_some_and(|pid| pid != old)
        });
    }

    fn reasons(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.path().join("data/state/restarts.json"))
            .unwrap_or_default();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        kept["reasons"].as_array().cloned().unwrap_or_default()
    }
}

/// Clients that open one connection after the other, as fast as they are served.
struct Load {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(this: &Box) -> Self {
        let (stop, refused, served) =
            <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let clients = NAMES
            .iter()
            .map(|name| {
                let addr = this.addr(name);
                let (stop, refused, served) =
                    (Arc::clone(&stop), Arc::clone(&refused), Arc::clone(&served));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        match get(addr) {
                            Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                                refused.fetch_add(1, Ordering::Relaxed)
                            }
                            // A request that was being served when its server died.
                            Err(_) => 0,
                        };
                    }
                })
            })
            .collect();
        Self {
            stop,
            refused,
            served,
            clients,
        }
    }

    fn wait_served(&self, more: usize) {
        let target = self.served.load(Ordering::Relaxed) + more;
        wait("requests are served", || {
            self.served.load(Ordering::Relaxed) >= target
        });
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        self.refused.load(Ordering::Relaxed)
    }
}

fn wait(what: &str, level: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !level() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// One request on a connection of its own; the answer's status.
fn get(addr: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

#[test]
fn a_killed_server_is_replaced_under_load_and_no_connection_is_refused() {
    let this = Box::started("");
    let load = Load::on(&this);
    load.wait_served(50);
    for _ in 0..2 {
        let old = this.server().unwrap();
        signal(old, Signal::SIGKILL);
        this.wait_other_server(old);
        this.wait_ready();
        load.wait_served(50);
    }
    assert_eq!(load.end(), 0, "connections were refused");
    let reasons = this.reasons();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|reason| reason["cause"] == "killed" && reason["signal"] == 9),
        "{reasons:?}"
    );
}

#[test]
fn a_hung_server_is_replaced_under_load_and_the_reason_is_recorded() {
    let this = Box::started("[supervisor]\nhang_s = 3\n");
    let load = Load::on(&this);
    load.wait_served(50);
    let old = this.server().unwrap();
    signal(old, Signal::SIGSTOP);
    this.wait_other_server(old);
    this.wait_ready();
    load.wait_served(50);
    assert_eq!(load.end(), 0, "connections were refused");
    let reasons = this.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(reasons[0]["cause"], "hung");
    assert!(
        reasons[0]["part"]
            .as_str()
            .is_some_and(|part| !part.is_empty()),
        "{reasons:?}"
    );
}

#[test]
fn an_idle_server_counts_as_alive() {
    let this = Box::started("[supervisor]\nhang_s = 2\n");
    let (old, until) = (this.server(), Instant::now() + Duration::from_secs(6));
    wait("six idle seconds", || Instant::now() > until);
    assert_eq!(this.server(), old);
    assert!(this.reasons().is_empty(), "{:?}", this.reasons());
}

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

#[test]
fn a_stop_ends_server_and_supervisor_in_good_order() {
    let mut this = Box::started("");
    let server = this.server().unwrap();
    let mut supervisor = this.supervisor.take().unwrap();
    signal(supervisor.id(), Signal::SIGTERM);
    assert!(supervisor.wait().unwrap().success());
    assert!(
        !fs::exists(format!("/proc/{server}")).unwrap(),
        "the server was left behind"
    );
    let error = get(this.addr("front")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_server_does_not_outlive_a_killed_supervisor() {
    let mut this = Box::started("");
    let server = this.server().unwrap();
    let mut supervisor = this.supervisor.take().unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    wait("the server ends itself", || {
        !fs::exists(format!("/proc/{server}/exe")).unwrap()
    });
    let command = this.command("supervise");
    this.start(command);
    this.wait_ready();
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
    assert!(
        recorded_at - stopped_at > Duration::from_secs(7),
        "the kill came first"
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
