//! The platform's stand-in, on the box's LAN behind the shop's proxy.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::http;
use crate::vm::{Vm, build_dir, eventually};

pub const SITE: &str = "image-test";
pub const TOKEN: &str = "token-of-the-image-tests";
pub const BUS_KEY_NAME: &str = "site-image-test";
pub const BUS_KEY: &str = "bus-key-of-the-image-tests";

/// Certificates are made at the first start.
const READY_WITHIN: Duration = Duration::from_secs(60);

pub struct Platform {
    process: Option<Child>,
    dir: PathBuf,
    catalogue_path: PathBuf,
    netns: String,
    address: String,
}

impl Platform {
    /// Starts it with these products.
    pub fn start(vm: &Vm, dir: &Path, catalogue_path: &Path) -> Self {
        fs::remove_dir_all(dir).ok();
        fs::create_dir_all(dir).unwrap();
        let mut platform = Self {
            process: None,
            dir: dir.to_owned(),
            catalogue_path: catalogue_path.to_owned(),
            netns: vm.netns(),
            address: vm.address(1),
        };
        platform.start_again();
        platform
    }

    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the platform runs");
        let ready_path = self.dir.join("ready");
        fs::remove_file(&ready_path).ok();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let emulator_path = build_dir().join("platform-emulator");
        assert!(
            emulator_path.exists(),
            "no {}; `cargo build --workspace` makes it",
            emulator_path.display()
        );
        let process = Command::new("ip")
            .args(["netns", "exec", &self.netns])
            .arg(&emulator_path)
            .args(["--listen", "0.0.0.0:443", "--site", SITE, "--token", TOKEN])
            .args(["--bus-key-name", BUS_KEY_NAME, "--bus-key", BUS_KEY])
            .args(["--control", &format!("{}:8446", self.address)])
            .arg("--ca-dir")
            .arg(self.dir.join("ca"))
            .arg("--data")
            .arg(self.dir.join("data"))
            .arg("--catalogue")
            .arg(&self.catalogue_path)
            .arg("--ready-file")
            .arg(&ready_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        eventually("the platform serves", READY_WITHIN, || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the platform has ended: {ended:?}, {}",
                self.log()
            );
            fs::metadata(&ready_path).ok().filter(|file| file.len() > 0)
        });
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    fn control_url(&self, path: &str) -> String {
        format!("http://{}:8446/control/{path}", self.address)
    }

    /// Orders a version for the box, by force, and returns the roll-out's number.
    pub fn order_rollout(&self, version: &str, bundle_path: &Path) -> i64 {
        let sleep = serde_json::json!({"sleep": "00:00:02"});
        http::send("PUT", &self.control_url("controllers"), sleep.to_string());
        let bundle = fs::read(bundle_path).unwrap();
        let url = self.control_url(&format!("rollouts?version={version}"));
        http::send("POST", &url, bundle).json()["id"]
            .as_i64()
            .unwrap()
    }

    /// A roll-out with all that was said of it.
    pub fn rollout(&self, id: i64) -> Value {
        let all = http::get(&self.control_url("rollouts"), None)
            .unwrap()
            .json();
        let all = all["rollouts"].as_array().unwrap();
        all.iter().find(|one| one["id"] == id).unwrap().clone()
    }

    /// A product, new or changed.
    pub fn put_document(&self, id: &str, data: &Value) {
        let url = self.control_url(&format!("documents/products/{id}"));
        http::send("PUT", &url, data.to_string());
    }

    pub fn ca_path(&self) -> PathBuf {
        self.dir.join("ca/ca.pem")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.stop();
    }
}
