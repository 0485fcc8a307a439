//! A root shell in the box, on a console that the virtual machine adds. Systemd starts it from the machine's credentials: the
//! image has nothing for it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::vm::eventually;

/// One answer of the guest; it may be busy booting.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// QEMU makes the console's socket while it starts.
const ATTACH_WITHIN: Duration = Duration::from_secs(20);

/// So many tries without an answer, and the console is attached anew.
const TRIES_PER_ATTACH: u32 = 8;

/// Longest a command may take unless it says otherwise.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(90);

/// What a command printed, and its exit status.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub output: String,
}

impl Ran {
    /// Its output, if it went well.
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.output);
        self.output
    }
}

pub struct Shell {
    path: PathBuf,
    stream: UnixStream,
    heard: Vec<u8>,
    number: u32,
}

impl Shell {
    /// Connects to that console; the guest may still be off.
    pub fn attach(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            stream: connect(path),
            heard: Vec::new(),
            number: 0,
        }
    }

    /// Waits until the guest's shell answers; also after the guest has restarted.
    pub fn wait_until_up(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        for number in 1.. {
            assert!(
                Instant::now() < deadline,
                "no shell in the box after {within:?}"
            );
            if number % TRIES_PER_ATTACH == 0 {
                self.stream = connect(&self.path);
            }
            // While the box boots nobody reads; a full pipe is as good as silence.
            let asked = self.stream.write_all(b"\necho sh\"\"ell-is-up\n");
            if asked.is_ok() && self.hear("shell-is-up", TRY_EVERY).is_some() {
                break;
            }
        }
        // Answers to the earlier tries are still on their way.
        self.run("true");
    }

    pub fn run(&mut self, command: &str) -> Ran {
        self.run_within(command, COMMAND_WITHIN)
    }

    pub fn run_within(&mut self, command: &str, within: Duration) -> Ran {
        self.number += 1;
        let (begin, end) = (
            format!("begin-{}:", self.number),
            format!("end-{}:", self.number),
        );
        let script = format!(
            "echo {begin}; {{ {command}\n}} </dev/null 2>&1; said=$?; echo; echo {end}$said:\n"
        );
        self.stream.write_all(script.as_bytes()).unwrap();
        let answer = self
            .hear(&end, within)
            .and_then(|before| Some((before, self.hear(":", within)?)));
        let Some((before, status)) = answer else {
            panic!(
                "no end of {command:?} after {within:?}: {}",
                String::from_utf8_lossy(&self.heard)
            );
        };
        let output = before
            .rsplit_once(&format!("{begin}\n"))
            .map_or("", |(_, output)| output);
        Ran {
            status: status.trim().parse().unwrap(),
            output: output.trim_end().to_owned(),
        }
    }

    /// What comes before `text`, if it comes in time.
    fn hear(&mut self, text: &str, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        let mut chunk = [0; 16 * 1024];
        loop {
            let found = self
                .heard
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let before = String::from_utf8_lossy(&self.heard[..at]).into_owned();
                self.heard.drain(..at + text.len());
                return Some(before);
            }
            if Instant::now() >= deadline {
                return None;
            }
            // A time-out only means: nothing yet.
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.heard.extend_from_slice(&chunk[..length]),
                Err(_) => {}
            }
        }
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = eventually("the shell's console is there", ATTACH_WITHIN, || {
        UnixStream::connect(path).ok()
    });
    stream.set_read_timeout(Some(TRY_EVERY)).unwrap();
    stream.set_write_timeout(Some(TRY_EVERY)).unwrap();
    stream
}
