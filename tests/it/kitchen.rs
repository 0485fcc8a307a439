//! A device of the shop for tests: the real `device-emulator` as a process, and what its kitchen sees.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use comptoir::store::devices::Paired;
use serde_json::{Value, json};

use crate::loopback::free_port;

/// For everything a test waits for: generous, a busy machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Lines of a log that are shown when a test has failed: of CI's output only the end is seen.
const SHOWN_LINES: usize = 40;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// A binary of the workspace, beside this test's own.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --workspace",
        path.display()
    );
    path
}

/// Waits until `level` gives something.
pub fn wait_for<T>(what: &str, mut level: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = level() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

/// The end of a log, for the report of a test that failed.
pub fn show_tail(of: &str, log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    eprintln!("--- the last of {} lines of {of}", lines.len());
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        eprintln!("{line}");
    }
}

/// The emulator. Its memory and its log outlive it.
pub struct Kitchen {
    dir: PathBuf,
    port: u16,
    running: Option<Child>,
    control: Option<SocketAddr>,
    arguments: Vec<String>,
    host: Option<String>,
    bind: String,
}

impl Kitchen {
    /// A device that was paired by other means than the care port.
    pub fn paired(dir: &Path, paired: &Paired, box_id: &str, box_key: &[u8; 32]) -> Self {
        let state = dir.join("state");
        fs::create_dir_all(&state).unwrap();
        let hex = |bytes: &[u8]| comptoir::digest::hex(bytes);
        let pairing = json!({
            "device_id": paired.device_id,
            "token": paired.token.expose(),
            "command_key": hex(&paired.command_key),
            "box_id": box_id,
            "box_key": hex(box_key),
        });
        fs::write(state.join("pairing.json"), pairing.to_string()).unwrap();
        // As after pairing: a memory that never lost anything.
        let memory = json!({"line": "began", "lost": false, "last_seq": 0});
        fs::write(state.join("commands.jsonl"), format!("{memory}\n")).unwrap();
        Self::unpaired(dir)
    }

    /// Lives in a network namespace of its own, and there on the contract's port.
    pub fn on_host(mut self, host: &str, address: &str) -> Self {
        self.host = Some(host.into());
        self.bind = address.into();
        self.port = 8081;
        self
    }

    /// A device that pairs itself when it starts.
    pub fn unpaired(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        Self {
            dir: dir.into(),
            // Not one of the kernel's: it comes back on the same port after a power cut.
            port: free_port(),
            running: None,
            control: None,
            arguments: Vec::new(),
            host: None,
            bind: "127.0.0.1".into(),
        }
    }

    /// Its bearer token, once it is paired.
    pub fn token(&self) -> String {
        let pairing = fs::read(self.dir.join("state/pairing.json")).unwrap();
        let pairing: Value = serde_json::from_slice(&pairing).unwrap();
        pairing["token"].as_str().unwrap().to_owned()
    }

    /// Further arguments for the next start.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    /// Starts it, always on the same port; where it listens.
    pub fn start(&mut self) -> SocketAddr {
        let ready = self.dir.join("ready.json");
        let _ = fs::remove_file(&ready);
        let errors = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("stderr.log"))
            .unwrap();
        let mut command = match &self.host {
            Some(host) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", host])
                    .arg(binary("device-emulator"));
                command
            }
            None => Command::new(binary("device-emulator")),
        };
        let child = command
            .args(["--bind", &self.bind, "--port", &self.port.to_string()])
            .args(["--control", "127.0.0.1:0", "--heartbeat-s", "0"])
            .arg("--state")
            .arg(self.dir.join("state"))
            .arg("--log")
            .arg(self.dir.join("kitchen.jsonl"))
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        self.running = Some(child);
        let ready: Value = wait_for("the device to be ready", || {
            serde_json::from_slice(&fs::read(&ready).ok()?).ok()
        });
        let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
        self.control = Some(ready["control"].as_str().unwrap().parse().unwrap());
        self.port = address.port();
        address
    }

    /// Power cut.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The ids of the orders the kitchen has seen, in the order it saw them.
    pub fn seen(&self) -> Vec<String> {
        self.lines()
            .iter()
            .map(|line| line["body"]["order_id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The kitchen's log.
    pub fn lines(&self) -> Vec<Value> {
        fs::read_to_string(self.dir.join("kitchen.jsonl"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until the kitchen has seen as many orders.
    pub fn wait_seen(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} orders in the kitchen"), || {
            let seen = self.seen();
            (seen.len() >= count).then_some(seen)
        })
    }

    /// What it complained about.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.join("stderr.log")).unwrap_or_default()
    }

    /// What the device says of itself.
    pub fn report(&self) -> Value {
        self.control("GET", "/", "")
    }

    /// Makes the device misbehave.
    pub fn faults(&self, faults: &Value) {
        self.control("PUT", "/faults", &faults.to_string());
    }

    /// The device loses its memory of commands.
    pub fn forget(&self) {
        self.control("POST", "/forget", "");
    }

    fn control(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.control.unwrap()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Kitchen {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seen = fs::read_to_string(self.dir.join("kitchen.jsonl")).unwrap_or_default();
            eprintln!("--- the kitchen saw {} orders", seen.lines().count());
            show_tail("the device", &self.errors());
        }
        self.kill();
    }
}
