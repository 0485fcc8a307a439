//! One shop: LAN, proxy, platform, and the box with its installer's stick.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundles;
use crate::http::{self, Answer};
use crate::platform::{self, Platform};
use crate::shell::Shell;
use crate::vm::{BOOT_WITHIN, Vm, build_dir, eventually};

/// The LANs of these tests: far from those people use for `scripts/run --port-offset`. Each run takes a free one.
const LANS: std::ops::RangeInclusive<u8> = 241..=249;

/// Products the platform knows.
pub const PRODUCTS: usize = 2000;

const CLAIM_CODE: &str = "image-test-code";

/// Lines of the console shown when a case fails.
const LAST_WORDS: usize = 60;

pub struct World {
    pub vm: Vm,
    pub platform: Platform,
    pub shell: Shell,
    pub boot_report: Value,
    token: Option<String>,
    bundles_dir: PathBuf,
    /// Held as long as the LAN is used; given back by the operating system however we end.
    _lan_lock: File,
}

/// A LAN that no other run on this machine uses; what a dead run left of it may be taken down.
fn take_lan() -> (u8, File) {
    LANS.rev()
        .find_map(|lan| {
            let lock = File::create(format!("/run/comptoir-{lan}.lock")).unwrap();
            lock.try_lock().is_ok().then_some((lan, lock))
        })
        .expect("one of the tests' LANs is free")
}

/// Barcode of a product by its number.
pub fn barcode(number: usize) -> String {
    format!("2{number:012}")
}

impl World {
    pub fn new() -> Self {
        let dir = build_dir().join("image-test");
        fs::create_dir_all(&dir).unwrap();
        let catalogue_path = dir.join("catalogue.ndjson");
        fs::write(&catalogue_path, catalogue()).unwrap();
        let stick_dir = dir.join("stick");
        let (lan, lan_lock) = take_lan();
        let mut vm = Vm::on_a_fresh_lan(lan, &dir.join("box"), &stick_dir);
        let platform = Platform::start(&vm, &dir.join("platform"), &catalogue_path);
        let bundles_dir = dir.join("bundles");
        bundles::make(&bundles_dir);
        fill_stick(&stick_dir, &platform.ca_path(), &vm.address(1));
        let shell = vm.power_on();
        let mut world = Self {
            vm,
            platform,
            shell,
            boot_report: Value::Null,
            token: None,
            bundles_dir,
            _lan_lock: lan_lock,
        };
        world.wait_for_boot();
        world
    }

    /// Switches the box on after a cut and waits until it serves.
    pub fn power_on(&mut self) {
        self.shell = self.vm.power_on();
        self.wait_for_boot();
    }

    pub fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.vm.address(2))
    }

    /// After a boot that somebody else asked for: waits until the box serves.
    pub fn wait_for_boot(&mut self) {
        let report = self.vm.wait_for("comptoir-boot: {", BOOT_WITHIN);
        let json = report.strip_prefix("comptoir-boot: ").unwrap();
        self.boot_report = serde_json::from_str(json).unwrap();
        self.shell.wait_until_up(BOOT_WITHIN);
        self.wait_until_ready();
    }

    /// What the box says of itself.
    pub fn status(&self) -> Value {
        let answer = http::get(&self.url(80, "/status.json"), None).unwrap();
        answer.json()
    }

    pub fn wait_until_ready(&self) {
        let url = self.url(80, "/readyz");
        eventually("the box is ready", BOOT_WITHIN, || {
            http::get(&url, None)
                .ok()
                .filter(|answer| answer.status == 200)
        });
    }

    /// The token of a device, paired at first use.
    pub fn token(&mut self) -> String {
        if self.token.is_none() {
            self.wait_until_ready();
            let wish = json!({"code": CLAIM_CODE, "name": "tester", "role": "tester"});
            let answer = http::post(&self.url(8004, "/v1/pair"), None, None, &wish).unwrap();
            assert_eq!(answer.status, 201, "{answer:?}");
            self.token = Some(answer.json()["token"].as_str().unwrap().to_owned());
        }
        self.token.clone().unwrap()
    }

    /// The bundle of a version that [`bundles::make`] made.
    pub fn bundle(&self, version: &str) -> PathBuf {
        bundles::path(&self.bundles_dir, version)
    }

    /// A GET with the device's token that must be answered.
    pub fn get(&mut self, port: u16, path: &str) -> Answer {
        let token = self.token();
        http::get(&self.url(port, path), Some(&token)).unwrap()
    }

    /// Asks the box, as the user the server runs as.
    pub fn comptoir(&mut self, arguments: &str, within: Duration) -> String {
        let command = format!(
            "cd /data/comptoir && setpriv --reuid comptoir --regid comptoir --clear-groups comptoir {arguments}"
        );
        self.shell.run_within(&command, within).ok()
    }

    pub fn print_last_words(&self) {
        let console = self.vm.console();
        let lines: Vec<_> = console.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
            println!("  console: {line}");
        }
        println!(
            "  all of it: {}",
            self.vm.data_dir().join("console.log").display()
        );
    }
}

fn catalogue() -> String {
    let mut lines = String::new();
    for number in 0..PRODUCTS {
        let product = json!({
            "id": format!("p{number}"),
            "name": format!("Product {number}"),
            "barcodes": [barcode(number)],
            "price": {"amount": format!("{}.{:02}", number / 100, number % 100), "currency": "EUR"},
        });
        writeln!(lines, "{product}").unwrap();
    }
    lines
}

/// What an installer brings: settings, the private authority.
fn fill_stick(stick_dir: &Path, ca_path: &Path, proxy: &str) {
    fs::remove_dir_all(stick_dir).ok();
    fs::create_dir_all(stick_dir).unwrap();
    fs::copy(ca_path, stick_dir.join("ca.pem")).unwrap();
    let (site, token, key_name, key) = (
        platform::SITE,
        platform::TOKEN,
        platform::BUS_KEY_NAME,
        platform::BUS_KEY,
    );
    let settings = format!(
        r#"[site]
site_id = "{site}"
claim_code = "{CLAIM_CODE}"

[wan]
token = "{token}"

[wan.rollouts]
poll_min_s = 2

[wan.proxy]
url = "http://{proxy}:3128"

[wan.trust]
ca_files = ["ca.pem"]

[wan.bus]
key_name = "{key_name}"
key = "{key}"
"#
    );
    fs::write(stick_dir.join("site.toml"), settings).unwrap();
}
