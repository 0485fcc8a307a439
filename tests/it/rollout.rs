//! A roll-out on the real binary: ordered by the platform, fetched by the server, installed by the real RAUC, and handed on
//! by the supervisor as the wish for a reboot. Killed on the way, it goes on.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::loopback::own_address;
use crate::rauc_bench::Bench;
use crate::wan::platform::{Platform, SITE, TOKEN, eventually};

/// What the supervisor ends with when the box is to be rebooted.
const REBOOT: i32 = 75;

/// A box with two slots and a platform.
struct RealBox {
    bench: Bench,
    platform: Platform,
    supervisor: Option<Child>,
}

impl Drop for RealBox {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
    }
}

impl RealBox {
    fn new() -> Self {
        let (bench, platform) = (Bench::new(), Platform::start());
        platform.set_poll_sleep("00:00:01");
        let dir = bench.dir.path().display();
        let site = format!(
            "[site]\nsite_id = \"{SITE}\"\nclaim_code = \"12345678\"\n\
             [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\ntoken = \"{TOKEN}\"\n\
             retry_first_ms = 100\nretry_max_s = 1\n\
             [wan.trust]\nca_files = [\"{}\"]\n[wan.bus]\nenabled = false\n[wan.rollouts]\npoll_min_s = 1\n\
             [lan]\nbind = \"{}\"\nport_offset = 3100\n[discovery]\nenabled = false\n\
             [store]\ndata_dir = \"{dir}/data\"\norders_reserve_mib = 8\n",
            platform.text("api_url"),
            platform.text("bus_url"),
            platform.text("blob_url"),
            platform.ca_file().display(),
            own_address(),
        );
        fs::write(bench.path("site.toml"), site).unwrap();
        Self {
            bench,
            platform,
            supervisor: None,
        }
    }

    fn order(&self, version: &str, bundle: &PathBuf) -> i64 {
        let query = format!("version={version}");
        self.platform
            .order_rollout(&query, &fs::read(bundle).unwrap())
    }

    fn start(&mut self) {
        assert!(self.supervisor.is_none(), "it runs");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.bench.path("log"))
            .unwrap();
        let supervisor = self
            .bench
            .command(env!("CARGO_BIN_EXE_comptoir"))
            .arg("--site-file")
            .arg(self.bench.path("site.toml"))
            .arg("supervise")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.supervisor = Some(supervisor);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bench.path("log")).unwrap_or_default()
    }

    /// Waits until the supervisor asks for the reboot.
    fn reboot_is_asked(&mut self) {
        let supervisor = self.supervisor.as_mut().expect("it runs");
        let status = eventually("the supervisor ends", || supervisor.try_wait().unwrap());
        self.supervisor = None;
        assert_eq!(status.code(), Some(REBOOT), "{}", self.log());
    }

    /// The server's process, as the kernel knows the supervisor's children.
    fn server(&self) -> Option<u32> {
        let supervisor = self.supervisor.as_ref()?.id();
        let path = format!("/proc/{supervisor}/task/{supervisor}/children");
        let children = fs::read_to_string(path).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn kill_server(&self) {
        let pid = eventually("the server runs", || self.server());
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.unwrap().success());
        eventually("another server runs", || {
            self.server().filter(|next| *next != pid)
        });
    }

    fn state(&self, file: &str) -> Value {
        let path = self.bench.path("data/state").join(file);
        let text = fs::read_to_string(path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn step(&self, wanted: &str) {
        eventually(wanted, || {
            (self.state("rollout.json")["order"]["stage"]["step"] == wanted).then_some(())
        });
    }

    /// All that was told of a roll-out so far: execution and details.
    fn told(&self, id: i64) -> Vec<String> {
        let rollout = self.platform.rollout(id);
        let all = rollout["feedback"].as_array().unwrap().clone();
        all.iter()
            .map(|said| &said["body"]["status"])
            .filter(|status| status.is_object())
            .map(|status| {
                let (execution, why) = (&status["execution"], &status["details"][0]);
                format!("{}: {}", execution.as_str().unwrap(), why.as_str().unwrap())
            })
            .collect()
    }

    /// Waits until the platform has closed it as failed, and says why.
    fn failed(&self, id: i64) -> String {
        eventually("the roll-out has failed", || {
            (self.platform.rollout(id)["status"] == "error").then_some(())
        });
        self.told(id).pop().unwrap()
    }
}

#[test]
fn an_ordered_bundle_is_written_by_rauc_and_the_reboot_is_asked_for() {
    let mut box_ = RealBox::new();
    let id = box_.order("7.1", &box_.bench.bundle("test-box", "7.1"));
    box_.start();
    box_.reboot_is_asked();
    assert!(box_.bench.slot_begins_with("b.img", "7.17.17.1"));
    assert!(box_.bench.slot_begins_with("a.img", "\0\0\0"));
    assert_eq!(
        box_.bench.boot_state(),
        ["BOOT_A_LEFT=9", "BOOT_B_LEFT=2", "BOOT_ORDER=B A"]
    );
    let told = box_.told(id);
    assert!(
        told.iter()
            .any(|words| words == "downloaded: fetched, SHA-256 verified"),
        "{told:?}"
    );
    assert!(
        !told.iter().any(|words| words.starts_with("closed")),
        "{told:?}"
    );
    let folder = fs::read_dir(box_.bench.path("data/rollout")).unwrap();
    assert_eq!(folder.count(), 0, "its space is given back");
    let status = box_.bench.comptoir(&["update", "status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("ordered   version 7.1: restarting"), "{said}");

    // The power fails before the restart, and the box comes back where it was.
    for file in ["rollout.json", "boots.json"] {
        let path = box_.bench.path("data/state").join(file);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(boot_id.trim()), "{file}: {text}");
        fs::write(&path, text.replace(boot_id.trim(), "the boot before")).unwrap();
    }
    box_.start();
    let why = box_.failed(id);
    assert!(why.contains("the new version never came to run"), "{why}");
    let again = box_.order("7.1", &box_.bench.path("7.1.raucb"));
    let why = box_.failed(again);
    assert!(
        why.contains("version 7.1 failed on this box before"),
        "{why}"
    );
    eventually("the end is remembered", || {
        let status = box_.bench.comptoir(&["update", "status"]);
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        said.contains("last      version 7.1: failed: version 7.1 failed on this box before")
            .then_some(())
    });
}

#[test]
fn a_server_killed_while_it_fetches_or_installs_goes_on() {
    let mut box_ = RealBox::new();
    let dir = box_.bench.dir.path().display().to_string();
    // RAUC's client waits at the door, so that the kill meets an installation under way.
    fs::write(box_.bench.path("hold"), "").unwrap();
    box_.bench.script(
        "rauc",
        &format!(
            "while [ \"$1\" = install ] && [ -e {dir}/hold ]; do sleep 0.05; done\n\
             exec /usr/bin/rauc --conf={dir}/system.conf \"$@\""
        ),
    );
    let path = "/softwaremodules/";
    box_.platform.arm("slow:2000", "api", 1, None, path);
    let id = box_.order("7.2", &box_.bench.bundle("test-box", "7.2"));
    box_.start();
    eventually("the bundle comes in", || {
        let partial = fs::metadata(box_.bench.path("data/rollout/bundle.partial"));
        partial.is_ok_and(|file| file.len() > 0).then_some(())
    });
    box_.kill_server();
    box_.step("installing");
    assert_eq!(box_.platform.asked(&[path, "206"]), 1);
    box_.kill_server();
    eventually("it was begun again", || {
        let order = &box_.state("rollout.json")["order"];
        let again = order["interruptions"] == 1 && order["stage"]["step"] == "installing";
        again.then_some(())
    });
    eventually("it is known that a slot is being written", || {
        let trial = &box_.state("boots.json")["trial"];
        (trial["phase"]["step"] == "writing").then_some(())
    });
    fs::remove_file(box_.bench.path("hold")).unwrap();
    box_.reboot_is_asked();
    assert!(box_.bench.slot_begins_with("b.img", "7.2"));
    assert_eq!(box_.state("boots.json")["trial"]["phase"]["step"], "staged");
    assert_eq!(box_.platform.rollout(id)["status"], "running");
}

#[test]
fn what_rauc_does_not_trust_and_what_was_not_ordered_changes_nothing() {
    let mut box_ = RealBox::new();
    let before = box_.bench.boot_state();
    let mut damaged = fs::read(box_.bench.bundle("test-box", "7.3")).unwrap();
    let middle = damaged.len() / 3;
    damaged[middle] ^= 0xff;
    box_.start();
    let id = box_.platform.order_rollout("version=7.3", &damaged);
    let why = box_.failed(id);
    assert!(why.contains("RAUC failed to"), "{why}");
    let id = box_.order("8.0", &box_.bench.bundle("test-box", "7.4"));
    let why = box_.failed(id);
    assert!(
        why.ends_with("the bundle holds version 7.4, version 8.0 was ordered"),
        "{why}"
    );
    let id = box_.order("7.5", &box_.bench.bundle("toaster", "7.5"));
    let why = box_.failed(id);
    assert!(why.contains("made for \"toaster\""), "{why}");
    assert_eq!(box_.bench.boot_state(), before);
    assert!(box_.bench.slot_begins_with("b.img", "\0\0\0"));
}
