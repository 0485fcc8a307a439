//! A box as processes, and clients that load it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kitchen::show_tail;
use crate::loopback::own_address;

/// Every wait of these tests ends by then, on a machine that is busy with other tests too.
const PATIENCE: Duration = Duration::from_secs(120);

/// A platform that refuses every connection: these boxes ask nobody outside this machine.
pub const NOWHERE: &str = "[wan]\napi_url = 'https://127.0.0.1:9'\nbus_url = 'https://127.0.0.1:9'\nmedia_url = 'https://127.0.0.1:9'\n\
    logs_url = 'https://127.0.0.1:9'\nsupport_url = 'https://127.0.0.1:9'\n";

pub const NAMES: [&str; 6] = ["front", "catalogue", "orders", "events", "media", "care"];
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
pub struct Box {
    pub dir: tempfile::TempDir,
    ip: String,
    pub supervisor: Option<Child>,
}

impl Drop for Box {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            // In good order, so that the server goes too.
            signal(child.id(), Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(15);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            show_tail(&format!("the box on {}", self.ip), &self.log());
        }
    }
}

impl Box {
    /// A box that is not started yet; `more` is added to its site file.
    pub fn new(more: &str) -> Self {
        let ip = own_address();
        let dir = tempfile::tempdir().unwrap();
        let site = format!(
            "[lan]\nbind = '{ip}'\nport_offset = {}\n[store]\ndata_dir = '{}/data'\n[telemetry]\nformat = 'text'\n\
             {NOWHERE}{more}",
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

    pub fn started(more: &str) -> Self {
        let mut this = Self::new(more);
        let command = this.command("supervise");
        this.start(command);
        this.wait_ready();
        this
    }

    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comptoir"));
        command.args(self.arguments(verb));
        command
    }

    pub fn arguments(&self, verb: &str) -> Vec<String> {
        let site_file = self.dir.path().join("site.toml").display().to_string();
        vec![verb.to_owned(), "--site-file".to_owned(), site_file]
    }

    pub fn start(&mut self, mut command: Command) {
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

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn addr(&self, name: &str) -> SocketAddr {
        let place = NAMES.iter().position(|have| *have == name).unwrap();
        format!("{}:{}", self.ip, PORTS[place] + offset())
            .parse()
            .unwrap()
    }

    pub fn wait_ready(&self) {
        let front = self.addr("front");
        wait("the box is ready", || {
            get(front).is_ok_and(|code| code == 200)
        });
    }

    /// The running server's process id.
    pub fn server(&self) -> Option<u32> {
        let supervisor = self.supervisor.as_ref()?.id();
        let children =
            fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    pub fn wait_other_server(&self, old: u32) {
        wait("another server runs", || {
            self.server().is_some_and(|pid| pid != old)
        });
    }

    pub fn reasons(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.path().join("data/state/restarts.json"))
            .unwrap_or_default();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        kept["reasons"].as_array().cloned().unwrap_or_default()
    }
}

/// Clients that open one connection after the other, as fast as they are served.
pub struct Load {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    pub fn on(this: &Box) -> Self {
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

    pub fn wait_served(&self, more: usize) {
        let target = self.served.load(Ordering::Relaxed) + more;
        wait("requests are served", || {
            self.served.load(Ordering::Relaxed) >= target
        });
    }

    pub fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        self.refused.load(Ordering::Relaxed)
    }
}

pub fn wait(what: &str, level: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !level() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Whether the server is ready, asked on a connection of its own; the answer's status.
pub fn get(addr: SocketAddr) -> std::io::Result<u16> {
    let answer = read(addr, "/readyz")?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// The whole answer to one request on a connection of its own.
pub fn read(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
