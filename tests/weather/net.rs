//! A network of this run's own, and losing packets on it.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

/// Puts this process, and all it starts, into a network namespace that has nothing but a loopback.
pub fn enter_own_namespace() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("needs root, for a network namespace ({error})"))?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .map_err(|error| format!("needs ip ({error})"))?;
    assert!(up.success(), "the loopback does not come up");
    nft(
        "add table inet weather\nadd chain inet weather in { type filter hook input priority 0; }\n",
    );
    Ok(())
}

/// While it lives, so many percent of the packets from and to a port are lost, each way.
pub struct Loss {
    handles: Vec<u64>,
}

impl Loss {
    pub fn of(percent: u32, ports: &[u16]) -> Self {
        let handles = ports
            .iter()
            .flat_map(|port| [format!("tcp dport {port}"), format!("tcp sport {port}")])
            .map(|packets| {
                let rule = format!(
                    "add rule inet weather in {packets} numgen random mod 100 < {percent} drop\n"
                );
                handle_of(&nft(&rule))
            })
            .collect();
        Self { handles }
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        for handle in &self.handles {
            nft(&format!("delete rule inet weather in handle {handle}\n"));
        }
    }
}

/// `add rule … # handle 7`, and a line about the new generation.
fn handle_of(echo: &str) -> u64 {
    let rule = echo.lines().find(|line| line.starts_with("add rule"));
    let (_, number) = rule.unwrap_or(echo).rsplit_once("# handle ").expect(echo);
    number.trim().parse().unwrap()
}

/// Runs nftables' commands; what it echoes.
fn nft(commands: &str) -> String {
    let mut child = Command::new("nft")
        .args(["--echo", "--handle", "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nft is installed: apt-get install nftables");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(commands.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft refuses {commands}");
    String::from_utf8(output.stdout).unwrap()
}
