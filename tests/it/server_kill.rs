//! The whole server, killed again and again: the real `comptoir serve`, a device that pairs over the care port, orders over the
//! order port.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::SystemClock;
use comptoir::config::StoreConfig;
use comptoir::store::{DocumentChange, NewDevice, Store};
use comptoir::units::ByteSize;
use serde_json::{Value, json};

use crate::kitchen::{DEADLINE, Kitchen, binary, wait_for};
use crate::loopback::own_address;
use crate::supervisor::bench::NOWHERE;

const CLAIM_CODE: &str = "ABCD-EFGH";
/// Added to every port: some may only be bound by root.
const OFFSET: u16 = 3000;

/// A server process, and where its ports are.
struct Server {
    dir: PathBuf,
    address: String,
    running: Option<Child>,
}

impl Server {
    fn new(dir: &Path) -> Self {
        let address = own_address();
        let site = format!(
            "[site]\nclaim_code = \"{CLAIM_CODE}\"\n[lan]\nbind = \"{address}\"\nport_offset = {OFFSET}\n\
             [discovery]\nenabled = false\n\
             {NOWHERE}[store]\ndata_dir = \"{}\"\n",
            dir.join("data").display()
        );
        fs::write(dir.join("site.toml"), site).unwrap();
        Self {
            dir: dir.into(),
            address,
            running: None,
        }
    }

    fn start(&mut self) {
        self.start_by(Command::new(binary("comptoir")));
    }

    /// `command` is the server's program, or becomes it.
    fn start_by(&mut self, mut command: Command) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("server.log"))
            .unwrap();
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
        wait_for("the server to be alive", || {
            let (status, _) = self.ask(80, "GET", "/livez", &[], "").ok()?;
            (status == 200).then_some(())
        });
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The longest file that the running server may write, in bytes: prlimit(1).
    fn limit_files(&self, bytes: &str) {
        let pid = self.running.as_ref().unwrap().id().to_string();
        let limit = format!("--fsize={bytes}:unlimited");
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status()
            .expect("prlimit (util-linux) is installed");
        assert!(status.success());
    }

    /// One request to a port of the contract.
    fn ask(
        &self,
        port: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect((self.address.as_str(), port + OFFSET))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {headers}Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| std::io::Error::other("cut off"))?;
        let body = answer
            .split_once("\r\n\r\n")
            .map_or_else(String::new, |(_, body)| body.to_owned());
        Ok((status, body))
    }

    /// Submits until the server says that it has the order.
    fn order(&self, token: &str, order_id: &str) -> std::io::Result<u16> {
        let body = json!({"order_id": order_id, "placed_at": "2026-11-24T20:00:00Z", "lines": [], "role": "kitchen"});
        let authorization = format!("Bearer {token}");
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Idempotency-Key", order_id),
        ];
        let (status, _) = self.ask(8001, "POST", "/v1/orders", &headers, &body.to_string())?;
        Ok(status)
    }

    fn state(&self, token: &str, order_id: &str) -> String {
        let authorization = format!("Bearer {token}");
        let path = format!("/v1/orders/{order_id}");
        let headers = [("Authorization", authorization.as_str())];
        let (_, body) = self.ask(8001, "GET", &path, &headers, "").unwrap();
        let order: Value = serde_json::from_str(&body).unwrap();
        order["state"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn no_order_is_lost_or_seen_twice_when_server_and_device_are_killed_again_and_again() {
    const ROUNDS: u64 = 8;
    const ORDERS_A_ROUND: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path());
    server.start();
    let care_url = format!("http://{}:{}", server.address, 8004 + OFFSET);
    let mut kitchen = Kitchen::unpaired(&dir.path().join("kitchen")).with(&[
        "--care-url",
        &care_url,
        "--pair-code",
        CLAIM_CODE,
        "--role",
        "kitchen",
        "--heartbeat-s",
        "1",
    ]);
    kitchen.start();
    let token = kitchen.token();
    kitchen.faults(&json!({"done_delay_ms": 40}));

    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        for n in 0..ORDERS_A_ROUND {
            let id = format!("o-{round}-{n}");
            assert_eq!(server.order(&token, &id).unwrap(), 201, "{id}");
            acknowledged.push(id);
        }
        // The kill falls somewhere between "claimed" and "done", each round a little later.
        let patience = Duration::from_millis(round * 7);
        let (_tell, never) = std::sync::mpsc::channel::<()>();
        let _ = never.recv_timeout(patience);
        server.kill();
        if round % 3 == 2 {
            kitchen.kill();
            kitchen.start();
        }
        server.start();
    }

    wait_for("every order to be done", || {
        acknowledged
            .iter()
            .all(|id| server.state(&token, id) == "done")
            .then_some(())
    });
    let mut seen = kitchen.seen();
    seen.sort();
    acknowledged.sort();
    assert_eq!(seen, acknowledged, "each of them once");
    assert!(
        kitchen
            .lines()
            .iter()
            .all(|line| line["marked_as_duplicate"] == false)
    );
}

#[test]
fn a_disk_that_takes_nothing_is_told_at_every_door_until_it_takes_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    let token = pair(&store);
    drop(store);
    let mut server = Server::new(dir.path());
    // A file above its limit is refused by the system call instead of by a signal.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ && exec \"$0\" \"$@\""]);
    shell.arg(binary("comptoir"));
    server.start_by(shell);
    assert_eq!(server.order(&token, "o-1").unwrap(), 201);

    server.limit_files("0");
    assert_eq!(server.order(&token, "o-2").unwrap(), 503);
    let (status, body) = server.ask(80, "GET", "/readyz", &[], "").unwrap();
    assert!(
        status == 503 && body.contains("does not take what is written"),
        "{status} {body}"
    );
    wait_for("the front page to say so", || {
        let (_, body) = server.ask(80, "GET", "/status.json", &[], "").ok()?;
        body.contains("store.disk_failing").then_some(())
    });

    server.limit_files("unlimited");
    wait_for("the server to find out by itself", || {
        let (status, _) = server.ask(80, "GET", "/readyz", &[], "").ok()?;
        (status == 200).then_some(())
    });
    wait_for("the front page to take it back", || {
        let (_, body) = server.ask(80, "GET", "/status.json", &[], "").ok()?;
        (!body.contains("store.disk_failing")).then_some(())
    });
    assert_eq!(server.order(&token, "o-2").unwrap(), 201);
}

#[test]
fn a_catalogue_that_breaks_in_use_ends_the_server_and_is_made_anew_at_its_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let token = large_catalogue(&data_dir);
    // In the middle, and too large a file to be looked through before it is used.
    let path = data_dir.join("catalogue.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + (1 << 18)].fill(0xa5);
    fs::write(&path, bytes).unwrap();

    let mut server = Server::new(dir.path());
    server.start();
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let first_bad = (0..DOCUMENTS).find(|n| {
        let path = format!("/v1/documents/products/p{n}");
        // A server that has just ended answers nothing.
        server
            .ask(8000, "GET", &path, &headers, "")
            .map_or(500, |(status, _)| status)
            >= 500
    });
    assert!(first_bad.is_some(), "the damage was not met");
    let mut child = server.running.take().unwrap();
    let status = wait_for("the server to end by itself", || child.try_wait().unwrap());
    assert!(!status.success());

    server.start();
    let (status, _) = server
        .ask(8000, "GET", "/v1/documents/products/p1", &headers, "")
        .unwrap();
    assert_eq!(status, 404, "empty, and served");
    let log = fs::read_to_string(dir.path().join("server.log")).unwrap();
    assert!(log.contains("daemon.repair_due") && log.contains("store.database_replaced"));
}

const DOCUMENTS: usize = 3000;

/// A store with more than eight megabytes of documents and one device; the device's token.
fn large_catalogue(data_dir: &Path) -> String {
    let store = open(data_dir);
    let text = serde_json::value::to_raw_value(&"y".repeat(3500)).unwrap();
    let documents = (0..DOCUMENTS)
        .map(|n| DocumentChange {
            collection: "products".into(),
            id: format!("p{n}"),
            version: 1,
            data: Some(text.clone()),
        })
        .collect();
    store.catalogue.apply_page(documents, "c1").wait().unwrap();
    pair(&store)
}

fn open(data_dir: &Path) -> Store {
    let config = StoreConfig {
        data_dir: data_dir.to_path_buf(),
        catalogue_cache: ByteSize::mib(1),
        blob_quota: ByteSize::mib(1),
        orders_reserve: ByteSize::bytes(0),
    };
    Store::open(&config, Arc::new(SystemClock::default())).unwrap()
}

/// The token of a new device.
fn pair(store: &Store) -> String {
    let new = NewDevice {
        name: "Caisse".into(),
        role: "till".into(),
        address: None,
    };
    let paired = store.devices.pair(new).wait().unwrap();
    paired.token.expose().to_owned()
}

#[test]
fn what_a_start_had_to_repair_and_to_leave_out_is_told_until_the_next_one() {
    const TOLD: [&str; 3] = [
        "config.site_refused",
        "store.catalogue_rebuilt",
        "store.orders_salvaged",
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path());
    server.start();
    server.kill();
    let site_file = dir.path().join("site.toml");
    let image_file = dir.path().join("image.toml");
    fs::rename(&site_file, &image_file).unwrap();
    fs::write(&site_file, "[devices]\nno_such_key = 1\n").unwrap();
    // The log of each, too: it has the first page again.
    for name in [
        "catalogue.db",
        "catalogue.db-wal",
        "orders.db",
        "orders.db-wal",
    ] {
        let path = dir.path().join("data").join(name);
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(&[0x5a; 4096]).unwrap();
    }
    let conditions = |server: &mut Server| {
        let mut command = Command::new(binary("comptoir"));
        command.arg("--image-file").arg(&image_file);
        server.start_by(command);
        let (_, status) = server.ask(80, "GET", "/status.json", &[], "").unwrap();
        server.kill();
        let status: Value = serde_json::from_str(&status).unwrap();
        status["conditions"].to_string()
    };
    let told = conditions(&mut server);
    for code in TOLD {
        assert!(told.contains(code), "{code}: {told}");
    }
    fs::write(&site_file, "").unwrap();
    let told = conditions(&mut server);
    for code in TOLD {
        assert!(!told.contains(code), "{code}: {told}");
    }
}
