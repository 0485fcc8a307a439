//! Starts the emulator and talks to it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Longest wait for anything in these tests.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A running emulator; its state goes with it.
pub struct Emulator {
    pub dir: TempDir,
    pub ready: Value,
    args: Vec<String>,
    child: Child,
    agent: Agent,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    head: ureq::http::HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.head
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Emulator {
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, ready) = spawn(dir.path(), &args);
        let agent = agent(&ready);
        Self {
            dir,
            ready,
            args,
            child,
            agent,
        }
    }

    /// Kills it without warning and starts it again on the same state, on new ports.
    pub fn restart(&mut self) {
        self.kill();
        (self.child, self.ready) = spawn(self.dir.path(), &self.args);
        self.agent = agent(&self.ready);
    }

    pub fn url(&self, flow: &str) -> &str {
        self.ready[format!("{flow}_url")].as_str().unwrap()
    }

    /// One call of the control API that must succeed.
    pub fn control(&self, method: &str, path: &str, body: impl Into<String>) -> Value {
        let url = format!("{}/control{path}", self.url("control"));
        let request = Request::builder()
            .method(method)
            .uri(url)
            .body(body.into())
            .unwrap();
        let answer = self.send(request).unwrap();
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        }
    }

    /// One request to the API, with the right token.
    pub fn api(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, ureq::Error> {
        let url = format!("{}/v1/sites/s1{path}", self.url("api"));
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header("Authorization", "Bearer tok");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.to_owned()).unwrap())
    }

    /// A snapshot's plan, and all its documents: the parts' lines without their end lines.
    pub fn snapshot(&self) -> (Value, String) {
        let plan = self.api("GET", "/snapshot", &[], "").unwrap().json();
        let mut lines = String::new();
        for part in plan["parts"].as_array().unwrap() {
            let path = format!(
                "/snapshot/{}/{}",
                plan["snapshot"].as_str().unwrap(),
                part["part"].as_str().unwrap()
            );
            let body = self.api("GET", &path, &[], "").unwrap().body;
            let end = format!("{{\"end\":true,\"count\":{}}}\n", part["documents"]);
            lines += body
                .strip_suffix(&end)
                .expect("the end line counts the documents");
        }
        (plan, lines)
    }

    pub fn open(&self, request: Request<String>) -> Result<Response<ureq::Body>, ureq::Error> {
        self.agent.run(request)
    }

    /// With a deadline of its own.
    pub fn send_within(
        &self,
        limit: Duration,
        request: Request<String>,
    ) -> Result<Answer, ureq::Error> {
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(limit))
            .build();
        self.agent.run(request).and_then(read)
    }

    pub fn send(&self, request: Request<String>) -> Result<Answer, ureq::Error> {
        self.agent.run(request).and_then(read)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(mut response: Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let body = response.body_mut().read_to_string()?;
    Ok(Answer {
        status: response.status().as_u16(),
        body,
        head: response.headers().clone(),
    })
}

fn spawn(dir: &Path, args: &[String]) -> (Child, Value) {
    let ready_path = dir.join("ready.json");
    let _ = std::fs::remove_file(&ready_path);
    let mut child = Command::new(env!("CARGO_BIN_EXE_platform-emulator"))
        .args([
            "--site",
            "s1",
            "--token",
            "tok",
            "--bus-key-name",
            "Root",
            "--bus-key",
            "a2V5",
        ])
        .args([
            "--ca-dir".as_ref(),
            dir.join("ca").as_os_str(),
            "--data".as_ref(),
            dir.join("data").as_os_str(),
        ])
        .args(["--ready-file".as_ref(), ready_path.as_os_str()])
        .args(args)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    loop {
        if let Ok(text) = std::fs::read(&ready_path) {
            return (child, serde_json::from_slice(&text).unwrap());
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "the emulator has ended"
        );
        assert!(started.elapsed() < DEADLINE, "the emulator is not ready");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn agent(ready: &Value) -> Agent {
    let ca = std::fs::read(ready["ca_file"].as_str().unwrap()).unwrap();
    let ca = Certificate::from_pem(&ca).unwrap();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[ca]))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(DEADLINE))
        .build()
        .into()
}
