//! A box in QEMU: `scripts/vm` does the work, this waits for levels with deadlines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::Shell;

/// From power-on to a serving box, under a loaded machine's emulation.
pub const BOOT_WITHIN: Duration = Duration::from_secs(240);

/// Between two looks at a level.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

pub fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The build folder this test lies in: `target/debug/deps/image-…` has the emulators two levels up.
pub fn build_dir() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// Runs a script of the repository and returns what it printed.
pub fn script(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(repo().join("scripts").join(name))
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "scripts/{name} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `look` finds something.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not so after {within:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The box and its LAN; dropping it ends both.
pub struct Vm {
    lan: String,
    data_dir: PathBuf,
    stick_dir: PathBuf,
    /// What the clock chip says at the next start, if not the right time.
    clock_chip: Option<&'static str>,
    /// How much of the console was looked at.
    seen: usize,
}

impl Vm {
    /// A fresh LAN with a proxy; the box is off.
    pub fn on_a_fresh_lan(lan: u8, data_dir: &Path, stick_dir: &Path) -> Self {
        let vm = Self {
            lan: lan.to_string(),
            data_dir: data_dir.to_owned(),
            stick_dir: stick_dir.to_owned(),
            clock_chip: None,
            seen: 0,
        };
        vm.verb("down", &[]);
        fs::remove_dir_all(data_dir).ok();
        fs::create_dir_all(data_dir).unwrap();
        vm.verb("up", &[]);
        vm.verb("proxy", &[]);
        vm
    }

    pub fn verb(&self, verb: &str, arguments: &[&str]) -> String {
        let mut all = vec![verb, &self.lan];
        all.extend(arguments);
        script("vm", &all)
    }

    pub fn address(&self, host: u8) -> String {
        format!("10.57.{}.{host}", self.lan)
    }

    pub fn netns(&self) -> String {
        format!("comptoir-{}", self.lan)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Plugs the stick in and switches the box on; its shell answers some time later.
    pub fn power_on(&mut self) -> Shell {
        self.look_from_here();
        let (data, stick) = (
            self.data_dir.to_str().unwrap().to_owned(),
            self.stick_dir.to_str().unwrap().to_owned(),
        );
        let mut arguments = vec!["--data", &data, "--stick", &stick, "--fault-shell"];
        if let Some(at) = self.clock_chip {
            arguments.extend(["--clock-chip", at]);
        }
        self.verb("start", &arguments);
        Shell::attach(&PathBuf::from(format!(
            "/run/comptoir-{}/shell.sock",
            self.lan
        )))
    }

    /// What the clock chip says at the next start; `None`: the right time.
    pub fn set_clock_chip(&mut self, at: Option<&'static str>) {
        self.clock_chip = at;
    }

    /// Pulls the plug.
    pub fn cut_power(&self) {
        self.verb("cut", &[]);
    }

    /// What the console says from now on is what counts.
    pub fn look_from_here(&mut self) {
        self.seen = self.console().len();
    }

    /// The console so far; one character a byte, so that places in it stay where they are.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.data_dir.join("console.log")).unwrap_or_default();
        let readable = |byte: u8| {
            if byte.is_ascii() {
                char::from(byte)
            } else {
                '?'
            }
        };
        bytes.into_iter().map(readable).collect()
    }

    /// Waits for the next line with this text and looks on behind it.
    pub fn wait_for(&mut self, text: &str, within: Duration) -> String {
        let (line, seen) = eventually(&format!("{text:?} on the console"), within, || {
            let console = self.console();
            let at = self.seen + console.get(self.seen..)?.find(text)?;
            let end = at + console[at..].find('\n')?;
            Some((console[at..end].trim().to_owned(), end))
        });
        self.seen = seen;
        line
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let down = Command::new(repo().join("scripts/vm"))
            .args(["down", &self.lan])
            .status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("LAN {} could not be taken down", self.lan);
        }
    }
}
