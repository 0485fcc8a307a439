//! The box: the real `comptoir serve`, killed and started as a case wants it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::kitchen::{binary, wait_for};

pub const CLAIM_CODE: &str = "ABCD-EFGH";

/// Each box of this run has its own ports.
static NEXT_OFFSET: AtomicU16 = AtomicU16::new(100);

/// What one request on the LAN may take, in any weather outside.
const LAN_DEADLINE: Duration = Duration::from_secs(120);

pub struct Server {
    dir: PathBuf,
    offset: u16,
    running: Option<Child>,
    clock_file: Option<PathBuf>,
}

/// Debian's.
const LIBFAKETIME: &str = "libfaketime.so.1";

/// An answer of the box; `None`: no whole one came.
pub type Answer = Option<(u16, Vec<u8>)>;

impl Server {
    /// `settings` come on top of what every box of these tests has.
    pub fn new(dir: &Path, settings: &str) -> Self {
        let offset = loop {
            let offset = NEXT_OFFSET.fetch_add(20, Ordering::Relaxed);
            let free = [80, 8000, 8001, 8002, 8003, 8004]
                .iter()
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok());
            if free {
                break offset;
            }
        };
        let site = format!(
            "{settings}\n[lan]\nbind = \"127.0.0.1\"\nport_offset = {offset}\n[discovery]\nenabled = false\n\
             [store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n",
            dir.join("data").display()
        );
        fs::write(dir.join("site.toml"), site).unwrap();
        Self {
            dir: dir.into(),
            offset,
            running: None,
            clock_file: None,
        }
    }

    /// From its next start on, the box's clock is what [`Self::set_clock`] says; its monotonic clock goes on as ever.
    pub fn wears_a_watch(&mut self) {
        self.clock_file = Some(self.dir.join("clock"));
        self.set_clock("+0");
    }

    /// libfaketime's notation: `+30d`, `-1d`, `@1970-01-01 00:00:00`.
    pub fn set_clock(&self, faketime: &str) {
        let file = self.clock_file.as_ref().expect("the box wears a watch");
        let new = file.with_extension("new");
        fs::write(&new, faketime).unwrap();
        fs::rename(new, file).unwrap();
    }

    pub fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("server.log"))
            .unwrap();
        let mut command = Command::new(binary("comptoir"));
        if let Some(clock_file) = &self.clock_file {
            command
                .env("LD_PRELOAD", faketime_library())
                .env("FAKETIME_TIMESTAMP_FILE", clock_file)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let child = command
            .arg("--site-file")
            .arg(self.dir.join("site.toml"))
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        wait_for("the box to be alive", || {
            (self.get(80, "/livez", None)?.0 == 200).then_some(())
        });
    }

    /// As a power cut ends it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            // What the faked clock of a killed process leaves behind.
            for left in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(format!("/dev/shm/{left}{}", child.id()));
            }
        }
    }

    pub fn url(&self, port: u16, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", port + self.offset)
    }

    pub fn get(&self, port: u16, path: &str, token: Option<&str>) -> Answer {
        get(&self.url(port, path), token)
    }

    pub fn json(&self, port: u16, path: &str, token: Option<&str>) -> Value {
        let (status, body) = self
            .get(port, path, token)
            .unwrap_or_else(|| panic!("{path} is not answered"));
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// Last lines of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(LAN_DEADLINE))
        .build()
        .new_agent()
}

pub fn get(url: &str, token: Option<&str>) -> Answer {
    let mut request = agent().get(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call().ok()?;
    let body = answer.body_mut().read_to_vec().ok()?;
    Some((answer.status().as_u16(), body))
}

/// Submits an order; its status, if an answer came.
pub fn submit(url: &str, token: &str, order_id: &str, body: &str) -> Option<u16> {
    let answer = agent()
        .post(url)
        .header("Authorization", format!("Bearer {token}"))
        .header("Idempotency-Key", order_id)
        .header("Content-Type", "application/json")
        .send(body)
        .ok()?;
    Some(answer.status().as_u16())
}

/// Where Debian puts it on this architecture.
fn faketime_library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    folders
        .map(|folder| folder.path().join("faketime").join(LIBFAKETIME))
        .find(|library| library.exists())
        .expect("libfaketime is installed: apt-get install faketime")
}
