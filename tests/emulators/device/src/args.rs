//! The command line.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use serde_json::json;

use crate::device::Device;
use crate::faults::Faults;

/// A simulated device of the shop.
#[derive(Debug, Clone, Parser)]
#[command(name = "device-emulator", version, args_override_self = true)]
pub struct Args {
    /// Address to listen on, and to reach the box from.
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Port to listen on for commands; 0 takes a free one (then the box must be told).
    #[arg(long, default_value_t = 8081)]
    pub port: u16,
    /// Host name or address of the box; its care port is --care-port.
    #[arg(long, value_name = "HOST")]
    pub r#box: Option<String>,
    /// The box's care URL, such as http://192.168.1.2:8004; goes before --box.
    #[arg(long, value_name = "URL")]
    pub care_url: Option<String>,
    /// The box's port for pairing and heartbeats.
    #[arg(long, default_value_t = 8004)]
    pub care_port: u16,
    /// Find the box by discovery on the interface with this address, and answer its questions there.
    #[arg(long, value_name = "IFADDR")]
    pub discover: Option<Ipv4Addr>,
    /// UDP port of discovery.
    #[arg(long, default_value_t = 57854)]
    pub discovery_port: u16,
    /// Where to send the question to; default is the interface's broadcast address and --discovery-port.
    #[arg(long, value_name = "IP:PORT")]
    pub discover_target: Option<SocketAddr>,
    /// Code to pair with, when --state holds no pairing yet.
    #[arg(long, value_name = "CODE")]
    pub pair_code: Option<String>,
    /// Name to pair under.
    #[arg(long, default_value = "emulated device")]
    pub name: String,
    /// Role to pair for.
    #[arg(long, default_value = "kitchen")]
    pub role: String,
    /// Folder of the device's memory: pairing and commands.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Seconds between two heartbeats; 0 sends none.
    #[arg(long, default_value_t = 10)]
    pub heartbeat_s: u64,
    /// File for what the kitchen sees, in place of standard output. It survives a restart, and tells the device what it had executed.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Address of the control port (HTTP): GET /, PUT /faults, POST /forget, POST /heartbeat.
    #[arg(long, value_name = "ADDR")]
    pub control: Option<SocketAddr>,
    /// Written (JSON) when the device is paired and listens.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// A fault to start with, NAME=VALUE as in PUT /faults; may be given several times.
    #[arg(long = "fault", value_name = "NAME=VALUE", value_parser = parse_fault)]
    pub faults: Vec<(String, serde_json::Value)>,
}

impl Args {
    /// Whether discovery is on.
    pub fn discovers(&self) -> bool {
        self.discover.is_some()
    }

    /// The faults to start with.
    pub fn first_faults(&self) -> anyhow::Result<Faults> {
        let patch = self.faults.iter().cloned().collect();
        Faults::default().patched(serde_json::Value::Object(patch))
    }
}

fn parse_fault(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    Ok((name.into(), value))
}

/// Says that the device is ready: a whole file at once.
pub fn write_ready_file(
    path: &Path,
    device: &Device,
    address: SocketAddr,
    control: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let ready = json!({
        "device_id": device.pairing().device_id,
        "box_id": device.pairing().box_id,
        "address": address,
        "control": control,
        "pid": std::process::id(),
    });
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, format!("{ready}\n"))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
