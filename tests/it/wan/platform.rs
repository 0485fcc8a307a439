//! The platform emulator as a process of its own, and the verbs tests speak to it with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub const SITE: &str = "shop-1";
pub const TOKEN: &str = "token-of-shop-1";
pub const KEY_NAME: &str = "box";
pub const LOGS_KEY: &str = "bG9ncw-of-the/site";
pub const SUPPORT_QUEUE: &str = "support-events";
pub const KEY: &str = "a2V5IG9mIHRoZSBidXM=";

/// When customers placed their orders.
const PLACED_AT: &str = "2026-01-01T00:00:00Z";

/// How long a test waits for what must come: a machine that is busy or slow is no failure.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// For what must come before the end of the pause after a refusal, a minute, would bring it.
pub const SOONER_THAN_A_PAUSE: Duration = Duration::from_secs(50);
/// Requests that are shown when a test has failed.
const SHOWN_REQUESTS: usize = 12;

/// Waits until `reached` gives something.
pub fn eventually<T>(what: &str, reached: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, reached)
}

/// The same with another patience.
pub fn within<T>(patience: Duration, what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = reached() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "not reached in {} s: {what}",
            patience.as_secs()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// A running platform.
pub struct Platform {
    child: Child,
    ready: Value,
    control: ureq::Agent,
    _dir: tempfile::TempDir,
}

impl Drop for Platform {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Platform {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ready_file = dir.path().join("ready.json");
        // Beside the test's own binary: target/debug/deps/it-… and target/debug/platform-emulator.
        let own = std::env::current_exe().unwrap();
        let emulator = own.ancestors().nth(2).unwrap().join("platform-emulator");
        assert!(
            emulator.is_file(),
            "{} is missing: cargo build --workspace",
            emulator.display()
        );
        let child = Command::new(emulator)
            .args(["--site", SITE, "--token", TOKEN])
            .args(["--bus-key-name", KEY_NAME, "--bus-key", KEY])
            .args(["--logs-key", LOGS_KEY, "--queue", SUPPORT_QUEUE])
            .arg("--ca-dir")
            .arg(dir.path().join("ca"))
            .arg("--data")
            .arg(dir.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = eventually("the platform serves", || fs::read(&ready_file).ok());
        let control = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            child,
            ready: serde_json::from_slice(&ready).unwrap(),
            control,
            _dir: dir,
        }
    }

    /// What was asked of it last, for the report of a test that failed; nothing here may panic.
    fn show(&self) {
        let url = format!("{}/control/requests", self.text("control_url"));
        let said = self.control.get(url).call();
        let said = said.and_then(|mut answer| answer.body_mut().read_to_string());
        let said: Value = serde_json::from_str(&said.unwrap_or_default()).unwrap_or_default();
        let last = said["last"].as_array().map_or(&[][..], Vec::as_slice);
        eprintln!("--- the last of {} requests to the platform", last.len());
        for request in &last[last.len().saturating_sub(SHOWN_REQUESTS)..] {
            eprintln!("{request}");
        }
    }

    pub fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    pub fn ca_file(&self) -> PathBuf {
        Path::new(self.text("ca_file")).to_path_buf()
    }

    /// One call of the control API, which must succeed.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
        let text = self.text_of(method, path, headers, body);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn text_of(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/control/{path}", self.text("control_url")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = if method == "GET" {
            self.control.run(request.body(()).unwrap()).unwrap()
        } else {
            self.control.run(request.body(body).unwrap()).unwrap()
        };
        let text = answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()
            .unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {text}");
        text
    }

    pub fn put_document(&self, collection: &str, id: &str, data: &Value) {
        let path = format!("documents/{collection}/{id}");
        self.call("PUT", &path, &[], data.to_string().as_bytes());
    }

    pub fn delete_document(&self, collection: &str, id: &str) {
        self.call("DELETE", &format!("documents/{collection}/{id}"), &[], b"");
    }

    /// The same, and the feed never tells of it.
    pub fn put_in_silence(&self, collection: &str, id: &str, data: &Value) {
        let path = format!("documents/{collection}/{id}?silent=1");
        self.call("PUT", &path, &[], data.to_string().as_bytes());
    }

    /// Deletes, and the feed never tells of it.
    pub fn delete_in_silence(&self, collection: &str, id: &str) {
        let path = format!("documents/{collection}/{id}?silent=1");
        self.call("DELETE", &path, &[], b"");
    }

    /// Makes documents `g0`, `g1`, … of about `bytes` bytes.
    pub fn generate(&self, collection: &str, count: u32, bytes: u32) {
        self.generate_from(collection, 0, count, bytes);
    }

    /// The same from `g{from}` on.
    pub fn generate_from(&self, collection: &str, from: u32, count: u32, bytes: u32) {
        let wanted = serde_json::json!({"count": count, "bytes": bytes, "from": from});
        let path = format!("documents/{collection}/generate");
        self.call("POST", &path, &[], wanted.to_string().as_bytes());
    }

    /// All documents of a collection by id, a line each.
    pub fn documents(&self, collection: &str) -> Vec<String> {
        let text = self.text_of("GET", &format!("documents/{collection}"), &[], b"");
        text.lines().map(str::to_owned).collect()
    }

    /// No snapshot is kept any more.
    pub fn drop_snapshots(&self) {
        self.call("DELETE", "snapshots", &[], b"");
    }

    /// Loads `count` products `p0`, `p1`, …
    pub fn load_products(&self, count: u32) {
        let lines: String = (0..count)
            .map(|n| {
                format!(
                    "{{\"id\":\"p{n}\",\"name\":\"Product {n}\",\"barcodes\":[\"300000{n:07}\"],\
                     \"price\":{{\"amount\":\"{}.20\",\"currency\":\"EUR\"}}}}\n",
                    n % 90
                )
            })
            .collect();
        self.call("POST", "documents/products", &[], lines.as_bytes());
    }

    /// All changes so far fall off the feed.
    pub fn forget_changes(&self) {
        self.call("POST", "feed/forget", &[], b"");
    }

    /// `fault` hits the next `times` requests of `flow` whose path holds `path`, of `method` if one is given.
    pub fn arm(&self, fault: &str, flow: &str, times: u32, method: Option<&str>, path: &str) {
        let mut body =
            serde_json::json!({"fault": fault, "flow": flow, "times": times, "path": path});
        if let Some(method) = method {
            body["method"] = method.into();
        }
        self.call("POST", "faults", &[], body.to_string().as_bytes());
    }

    /// Whether every armed fault has hit.
    pub fn faults_are_spent(&self) -> bool {
        self.call("GET", "faults", &[], b"")["faults"] == Value::Array(Vec::new())
    }

    /// Every connection is cut and none accepted, until it is back.
    pub fn set_offline(&self, offline: bool) {
        let body = serde_json::json!({ "offline": offline });
        self.call("PUT", "offline", &[], body.to_string().as_bytes());
    }

    /// The platform's time is `offset_s` ahead of this machine's.
    pub fn set_clock(&self, offset_s: i64) {
        let body = serde_json::json!({ "offset_s": offset_s });
        self.call("PUT", "clock", &[], body.to_string().as_bytes());
    }

    /// The one box that showed itself.
    pub fn enrolling(&self) -> Option<Value> {
        let boxes = self.call("GET", "enrol", &[], b"");
        boxes["boxes"].as_array().unwrap().first().cloned()
    }

    /// Somebody types a claim code at the platform: the status that answers.
    pub fn claim(&self, code: &str) -> u16 {
        let request =
            ureq::http::Request::post(format!("{}/control/enrol/claim", self.text("control_url")));
        let body = serde_json::json!({ "code": code }).to_string();
        let answer = self.control.run(request.body(body.as_bytes()).unwrap());
        answer.unwrap().status().as_u16()
    }

    /// `revoke` or `rotate` what the one box was handed.
    pub fn enrolled(&self, act: &str) {
        let known = self.enrolling().unwrap();
        let path = format!("enrol/{}/{act}", known["box_id"].as_str().unwrap());
        self.call("POST", &path, &[], b"");
    }

    /// Tokens the one box was handed so far.
    pub fn handed_out(&self) -> u64 {
        let known = self.enrolling();
        known.map_or(0, |known| known["handed_out"].as_u64().unwrap())
    }

    /// Credentials handed out from now on are good for `life_s`, of which `age_s` have passed.
    pub fn set_credentials(&self, life_s: i64, age_s: i64) {
        let body = serde_json::json!({"life_s": life_s, "age_s": age_s});
        self.call("PUT", "enrol", &[], body.to_string().as_bytes());
    }

    /// Events of `kind` are refused with `status`, `times` times.
    pub fn refuse_events(&self, kind: &str, status: u16, times: u32) {
        let body = serde_json::json!({"kind": kind, "status": status, "times": times});
        self.call("POST", "events/refusals", &[], body.to_string().as_bytes());
    }

    /// An order by `via`: `bus`, `feed` or `both`.
    pub fn order_via(&self, order_id: &str, via: &str) {
        let body = serde_json::json!({"order_id": order_id, "placed_at": PLACED_AT,
            "lines": [{"name": "Café crème"}]});
        let path = format!("orders?via={via}");
        self.call("POST", &path, &[], body.to_string().as_bytes());
    }

    /// Another message with an order that was sent by [`Self::order_via`] before.
    pub fn order_again(&self, order_id: &str, message_id: &str) {
        let body = serde_json::json!({"order_id": order_id, "placed_at": PLACED_AT,
            "lines": [{"name": "Café crème"}]});
        let path = format!("orders?message_id={message_id}");
        self.call("POST", &path, &[], body.to_string().as_bytes());
    }

    /// How many events came, of any kind.
    pub fn event_count(&self) -> usize {
        let state = self.call("GET", "state", &[], b"");
        usize::try_from(state["events"].as_u64().unwrap()).unwrap()
    }

    /// Any JSON, as it is, into the feed of orders.
    pub fn feed_item(&self, message_id: &str, body: &str) {
        let path = format!("orders/feed?message_id={message_id}");
        self.call("POST", &path, &[], body.as_bytes());
    }

    /// Every cursor of the feed of orders is void.
    pub fn void_order_cursors(&self) {
        self.call("POST", "orders/forget", &[], b"");
    }

    /// Makes a queue, topic or subscription, or changes it.
    pub fn entity(&self, path: &str, settings: &Value) {
        let path = format!("bus/{path}");
        self.call("PUT", &path, &[], settings.to_string().as_bytes());
    }

    /// An entity with its messages.
    pub fn state_of(&self, entity: &str) -> Value {
        self.call("GET", &format!("bus/{entity}"), &[], b"")
    }

    pub fn order(&self, order_id: &str) {
        let body = serde_json::json!({"order_id": order_id, "lines": [{"name": "Café crème"}]});
        self.call("POST", "orders", &[], body.to_string().as_bytes());
    }

    /// Anything, as it is, into the site's queue.
    pub fn message(&self, message_id: &str, body: &[u8]) {
        self.message_to(&format!("site-{SITE}"), message_id, body);
    }

    /// Anything, as it is, into a queue or topic.
    pub fn message_to(&self, entity: &str, message_id: &str, body: &[u8]) {
        let broker = serde_json::json!({"MessageId": message_id}).to_string();
        self.call(
            "POST",
            &format!("bus/{entity}/messages"),
            &[("BrokerProperties", &broker)],
            body,
        );
    }

    /// All locks end now: what was received and not completed comes again.
    pub fn drop_locks(&self) {
        self.call("DELETE", &format!("bus/site-{SITE}/locks"), &[], b"");
    }

    /// Messages in the site's queue, locked or not.
    pub fn queued(&self) -> usize {
        let queue = self.call("GET", &format!("bus/site-{SITE}"), &[], b"");
        queue["messages"].as_array().unwrap().len()
    }

    /// What boxes reported so far.
    pub fn events(&self) -> Vec<Value> {
        let events = self.call("GET", "events?limit=100000", &[], b"");
        events["events"].as_array().unwrap().clone()
    }

    /// The `n` of every event of `kind`, in the order of arrival.
    pub fn event_numbers(&self, kind: &str) -> Vec<i64> {
        let events = self.events_of(kind);
        let bodies = events.iter().map(|event| &event["event"]["body"]);
        bodies.map(|body| body["n"].as_i64().unwrap()).collect()
    }

    /// Every event of `kind`, in the order of arrival.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let after = events
                .last()
                .map_or(0, |last| last["number"].as_i64().unwrap());
            let path = format!("events?kind={kind}&limit=5000&after={after}");
            let page = self.call("GET", &path, &[], b"");
            let page = page["events"].as_array().unwrap();
            if page.is_empty() {
                return events;
            }
            events.extend_from_slice(page);
        }
    }

    /// Stores a blob; with `document`, also its media document. Its data.
    pub fn put_blob(&self, name: &str, bytes: &[u8], document: bool) -> Value {
        let path = format!("blobs/images/{name}?document={}", u8::from(document));
        self.call("PUT", &path, &[("content-type", "image/png")], bytes)
    }

    /// What came in at the log input, oldest first: `{dialect, batch, entry}`.
    pub fn log_entries(&self) -> Vec<Value> {
        let logs = self.call("GET", "logs", &[], b"");
        logs["entries"].as_array().unwrap().clone()
    }

    /// The log input answers 413 to more entries than this at once.
    pub fn take_log_entries_at_once(&self, max: usize) {
        let body = serde_json::json!({ "max_entries": max });
        self.call("PUT", "logs", &[], body.to_string().as_bytes());
    }

    /// What lies in the support queue, oldest first: the bodies.
    pub fn support_events(&self) -> Vec<Value> {
        let queue = self.call("GET", &format!("bus/{SUPPORT_QUEUE}/bodies"), &[], b"");
        let bodies = queue["bodies"].as_array().unwrap();
        bodies
            .iter()
            .map(|body| serde_json::from_str(body.as_str().unwrap()).unwrap())
            .collect()
    }

    /// The support queue takes a message that is sent again once.
    pub fn detect_duplicate_support_events(&self) {
        let body = serde_json::json!({ "duplicate_window_ms": 600_000 });
        let path = format!("bus/queues/{SUPPORT_QUEUE}");
        self.call("PUT", &path, &[], body.to_string().as_bytes());
    }

    /// The platform's clock goes ahead of this machine's.
    pub fn set_clock_ahead(&self, seconds: i64) {
        let body = serde_json::json!({ "offset_s": seconds });
        self.call("PUT", "clock", &[], body.to_string().as_bytes());
    }

    /// Orders a roll-out of `bytes`; `query` names the version and the terms. Its number.
    pub fn order_rollout(&self, query: &str, bytes: &[u8]) -> i64 {
        let path = format!("rollouts?{query}");
        self.call("POST", &path, &[], bytes)["id"].as_i64().unwrap()
    }

    /// A roll-out with all that was said of it.
    pub fn rollout(&self, id: i64) -> Value {
        let all = self.call("GET", "rollouts", &[], b"");
        let all = all["rollouts"].as_array().unwrap();
        all.iter().find(|one| one["id"] == id).unwrap().clone()
    }

    /// Changes a roll-out's terms, or cancels it.
    pub fn change_rollout(&self, id: i64, change: &Value) {
        let path = format!("rollouts/{id}");
        self.call("PUT", &path, &[], change.to_string().as_bytes());
    }

    /// Other bytes stand where the roll-out's bundle stood.
    pub fn exchange_bundle(&self, id: i64, bytes: &[u8]) {
        self.call("PUT", &format!("rollouts/{id}/artifact"), &[], bytes);
    }

    /// The boxes as the platform's roll-outs know them.
    pub fn controllers(&self) -> Value {
        self.call("GET", "controllers", &[], b"")["controllers"].take()
    }

    /// How long boxes are to wait between two polls for roll-outs.
    pub fn set_poll_sleep(&self, sleep: &str) {
        let body = serde_json::json!({ "sleep": sleep }).to_string();
        self.call("PUT", "controllers", &[], body.as_bytes());
    }

    /// The last requests, each as one line of text.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.call("GET", "requests", &[], b"");
        let last = requests["last"].as_array().unwrap();
        last.iter().map(ToString::to_string).collect()
    }

    /// How many of the last requests hold all of `parts`.
    pub fn asked(&self, parts: &[&str]) -> usize {
        self.requests()
            .iter()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count()
    }
}
