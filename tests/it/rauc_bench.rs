//! A machine for the real RAUC: its service on a bus of its own, two files as slots, a text file as boot state.
//!
//! The bundles are plain ones, since a verity bundle needs device-mapper; the verity way is walked in the image tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A machine with two slots, A running.
pub struct Bench {
    pub dir: tempfile::TempDir,
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
    pub fn new() -> Self {
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

    pub fn path(&self, name: &str) -> PathBuf {
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

    pub fn script(&self, name: &str, body: &str) {
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
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self
            .command("rauc")
            .arg("status")
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "RAUC's service does not answer");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
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

    pub fn comptoir(&self, arguments: &[&str]) -> Output {
        let site_file = self.path("site.toml");
        let mut command = self.command(env!("CARGO_BIN_EXE_comptoir"));
        command
            .arg("--site-file")
            .arg(site_file)
            .args(arguments)
            .output()
            .unwrap()
    }

    pub fn bundle(&self, compatible: &str, version: &str) -> PathBuf {
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

    pub fn boot_state(&self) -> Vec<String> {
        let mut lines: Vec<_> = fs::read_to_string(self.path("env"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    pub fn slot_begins_with(&self, slot: &str, wanted: &str) -> bool {
        fs::read(self.path(slot))
            .unwrap()
            .starts_with(wanted.as_bytes())
    }
}

/// All a program printed.
pub fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}
