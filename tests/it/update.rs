//! `comptoir update` against the real RAUC: its service on a bus of its own, two files as slots, a text file as boot state.
//!
//! The bundle is a plain one, since a verity bundle needs device-mapper; the verity way is walked in the image tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A machine with two slots, A running.
struct Bench {
    dir: tempfile::TempDir,
    bus_address: String,
    running: Vec<Child>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in self.running.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self {
            dir,
            bus_address: String::new(),
            running: Vec::new(),
        };
        bench.make_signer();
        bench.make_machine();
        bench.start_bus();
        bench.start_rauc();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn make_signer(&self) {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "test ca");
        fs::write(self.path("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let mut signer = CertificateParams::default();
        signer
            .distinguished_name
            .push(rcgen::DnType::CommonName, "test signer");
        signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        fs::write(
            self.path("signer.pem"),
            signer.signed_by(&key, &issuer).unwrap().pem(),
        )
        .unwrap();
        fs::write(self.path("signer.key"), key.serialize_pem()).unwrap();
    }

    fn make_machine(&self) {
        let dir = self.dir.path().display();
        for slot in ["a.img", "b.img"] {
            fs::write(self.path(slot), vec![0; 1 << 20]).unwrap();
        }
        for folder in ["bin", "rauc-data", "mnt", "data"] {
            fs::create_dir(self.path(folder)).unwrap();
        }
        fs::write(
            self.path("site.toml"),
            format!("[store]\ndata_dir = \"{dir}/data\"\n"),
        )
        .unwrap();
        fs::write(
            self.path("env"),
            "BOOT_ORDER=A B\nBOOT_A_LEFT=9\nBOOT_B_LEFT=9\n",
        )
        .unwrap();
        fs::write(
            self.path("system.conf"),
            format!(
                "[system]\ncompatible=test-box\nbootloader=uboot\ndata-directory={dir}/rauc-data\nmountprefix={dir}/mnt\n\
                 boot-attempts=9\nboot-attempts-primary=2\n[keyring]\npath={dir}/ca.pem\n\
                 [slot.rootfs.0]\ndevice={dir}/a.img\ntype=raw\nbootname=A\n\
                 [slot.rootfs.1]\ndevice={dir}/b.img\ntype=raw\nbootname=B\n"
            ),
        )
        .unwrap();
        self.script("fw_printenv", &format!("grep \"^$1=\" {dir}/env"));
        self.script(
            "fw_setenv",
            &format!("grep -v \"^$1=\" {dir}/env >{dir}/env.new; echo \"$1=$2\" >>{dir}/env.new; mv {dir}/env.new {dir}/env"),
        );
        self.script(
            "rauc",
            &format!("exec /usr/bin/rauc --conf={dir}/system.conf \"$@\""),
        );
    }

    fn script(&self, name: &str, body: &str) {
        let text = self.path(name);
        fs::write(&text, format!("#!/bin/sh\n{body}\n")).unwrap();
        // Written by another process: a fork of another test must not hold a program of ours open for writing.
        let path = self.path("bin").join(name);
        let status = Command::new("install")
            .args(["-m", "755"])
            .args([&text, &path])
            .status();
        assert!(status.unwrap().success());
    }

    fn start_bus(&mut self) {
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address", "--address"])
            .arg(format!("unix:path={}", self.path("bus").display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon runs (Debian: dbus-daemon)");
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut self.bus_address)
            .unwrap();
        self.running.push(bus);
    }

    fn start_rauc(&mut self) {
        let service = self
            .command("rauc")
            .args(["--override-boot-slot=A", "service"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rauc runs (Debian: rauc)");
        self.running.push(service);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self
            .command("rauc")
            .arg("status")
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "RAUC's service does not answer");
            std::thread::yield_now();
        }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        // std looks the program up in the child's PATH only when that is set before.
        let mut command = Command::new("env");
        command
            .arg(format!("PATH={path}"))
            .arg(program)
            .env("DBUS_STARTER_BUS_TYPE", "session")
            .env("DBUS_SESSION_BUS_ADDRESS", self.bus_address.trim());
        command
    }

    fn comptoir(&self, arguments: &[&str]) -> Output {
        let site_file = self.path("site.toml");
        let mut command = self.command(env!("CARGO_BIN_EXE_comptoir"));
        command
            .arg("--site-file")
            .arg(site_file)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn bundle(&self, compatible: &str, version: &str) -> PathBuf {
        let folder = self.path(&format!("bundle-{version}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("root.img"), version.repeat(1000)).unwrap();
        let manifest = format!(
            "[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=root.img\n"
        );
        fs::write(folder.join("manifest.raucm"), manifest).unwrap();
        let bundle = self.path(&format!("{version}.raucb"));
        let made = Command::new("rauc")
            .args([
                "--cert",
                "signer.pem",
                "--key",
                "signer.key",
                "--keyring",
                "ca.pem",
                "bundle",
            ])
            .args([&folder, &bundle])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        bundle
    }

    fn boot_state(&self) -> Vec<String> {
        let mut lines: Vec<_> = fs::read_to_string(self.path("env"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    fn slot_begins_with(&self, slot: &str, wanted: &str) -> bool {
        fs::read(self.path(slot))
            .unwrap()
            .starts_with(wanted.as_bytes())
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn show(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_bundle_goes_to_the_other_slot_and_is_tried_next() {
    let bench = Bench::new();
    let bundle = bench.bundle("test-box", "7.1");
    let installed = bench.comptoir(&["update", "install", show(&bundle)]);
    let said = text(&installed);
    assert!(installed.status.success(), "{said}");
    assert!(said.contains("100% Installing done."), "{said}");
    assert!(
        said.contains("version 7.1 is in slot B") && said.contains("a reboot is needed"),
        "{said}"
    );
    assert!(bench.slot_begins_with("b.img", "7.17.17.1"));
    assert!(bench.slot_begins_with("a.img", "\0\0\0"));
    assert_eq!(
        bench.boot_state(),
        ["BOOT_A_LEFT=9", "BOOT_B_LEFT=2", "BOOT_ORDER=B A"]
    );

    let status = bench.comptoir(&["update", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["next_slot"], "B");
    assert_eq!(status["trial"]["version"], "7.1");
    assert_eq!(status["slots"][0]["slot"], "A");
    let said = text(&bench.comptoir(&["update", "status"]));
    assert!(said.contains("next boot slot B"), "{said}");
    assert!(
        said.contains("new       version 7.1 in slot B: tried at the next boot"),
        "{said}"
    );
}

#[test]
fn the_running_slot_is_kept_on_request() {
    let bench = Bench::new();
    fs::write(
        bench.path("env"),
        "BOOT_ORDER=A B\nBOOT_A_LEFT=1\nBOOT_B_LEFT=9\n",
    )
    .unwrap();
    let kept = bench.comptoir(&["update", "commit"]);
    assert!(kept.status.success(), "{}", text(&kept));
    assert_eq!(bench.boot_state()[0], "BOOT_A_LEFT=9");
}

#[test]
fn what_is_no_bundle_for_this_box_changes_nothing() {
    let bench = Bench::new();
    let before = bench.boot_state();
    let other = bench.bundle("toaster", "1.0");
    let refused = bench.comptoir(&["update", "install", show(&other)]);
    assert!(!refused.status.success());
    assert!(
        text(&refused).contains("made for \"toaster\", this box is \"test-box\""),
        "{}",
        text(&refused)
    );

    let mut damaged = fs::read(bench.bundle("test-box", "1.1")).unwrap();
    let middle = damaged.len() / 3;
    damaged[middle] ^= 0xff;
    fs::write(bench.path("damaged.raucb"), damaged).unwrap();
    let refused = bench.comptoir(&["update", "install", show(&bench.path("damaged.raucb"))]);
    assert!(!refused.status.success(), "{}", text(&refused));

    let missing = bench.comptoir(&["update", "install", "/nonexistent.raucb"]);
    assert!(
        text(&missing).contains("cannot find the bundle /nonexistent.raucb"),
        "{}",
        text(&missing)
    );
    assert_eq!(bench.boot_state(), before);
    assert!(bench.slot_begins_with("b.img", "\0\0\0"));
}

#[test]
fn a_version_that_failed_before_is_refused_until_somebody_insists() {
    let bench = Bench::new();
    let bundle = bench.bundle("test-box", "6.6");
    fs::create_dir_all(bench.path("data/state")).unwrap();
    let failed = r#"{"boots":[],"trial":null,"failed":[{"version":"6.6","reason":"port orders","at":"2026-11-01T00:00:00Z"}]}"#;
    fs::write(bench.path("data/state/boots.json"), failed).unwrap();
    let refused = bench.comptoir(&["update", "install", show(&bundle)]);
    assert!(
        text(&refused).contains("version 6.6 failed on this box before (port orders)"),
        "{}",
        text(&refused)
    );
    let forced = bench.comptoir(&["update", "install", "--force", show(&bundle)]);
    assert!(forced.status.success(), "{}", text(&forced));
    assert!(bench.slot_begins_with("b.img", "6.6"));
}
