//! Pairing and heartbeats: the device's side of port 8004.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::args::Args;
use crate::device::Device;
use crate::pairing::Pairing;
use crate::{discovery, hex, http};

/// For so long an unreachable box is asked again, before pairing is given up.
const PAIRING_DEADLINE: Duration = Duration::from_secs(120);

/// Where the network contract has devices listen.
const CONTRACT_PORT: u16 = 8081;

/// Between two tries.
const PAIRING_PAUSE: Duration = Duration::from_secs(1);

/// The pairing on disk, or a new one; and whether it was there before.
pub fn paired(args: &Args) -> anyhow::Result<(Pairing, bool)> {
    std::fs::create_dir_all(&args.state)
        .with_context(|| format!("cannot make {}", args.state.display()))?;
    if let Some(pairing) = Pairing::load(&args.state)? {
        return Ok((pairing, true));
    }
    let code = args
        .pair_code
        .as_deref()
        .context("not paired yet, and no --pair-code given")?;
    let pairing = pair(args, code)?;
    pairing.store(&args.state)?;
    Ok((pairing, false))
}

/// Starts the thread that beats, for a device that listens on `port`.
pub fn start_heartbeat(device: &Arc<Device>, args: &Args, port: u16) {
    let device = Arc::clone(device);
    let args = args.clone();
    let beats = device.beats();
    // Without a box to beat to, or with beating switched off, only an explicit beat tries.
    let pause = match args.heartbeat_s {
        0 => Duration::from_secs(u64::from(u32::MAX)),
        seconds => Duration::from_secs(seconds),
    };
    let started = Instant::now();
    thread::spawn(move || {
        let mut authority = None;
        let mut first = args.heartbeat_s != 0;
        loop {
            let asked = match beats.recv_timeout(if first { Duration::ZERO } else { pause }) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => args.heartbeat_s != 0,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            first = false;
            if !asked || device.faults().mute {
                continue;
            }
            let beaten = authority
                .take()
                .map_or_else(|| locate(&args, Some(device.pairing())), Ok)
                .and_then(|at| beat(&device, &args, &at, port, started).map(|()| at));
            match beaten {
                Ok(at) => authority = Some(at),
                Err(error) => eprintln!("device-emulator: no heartbeat: {error:#}"),
            }
        }
    });
}

fn beat(
    device: &Device,
    args: &Args,
    authority: &str,
    port: u16,
    started: Instant,
) -> anyhow::Result<()> {
    let body = json!({
        "boot_id": hex::encode(&device.boot_id()),
        "uptime_s": started.elapsed().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
        // A device on the contract's port need not say so.
        "command_port": (port != CONTRACT_PORT).then_some(port),
    });
    let token = Some(device.pairing().token.as_str());
    let answer = http::post(authority, args.bind, "/v1/heartbeat", token, &body)?;
    if !(200..300).contains(&answer.status) {
        bail!("the box answers {}: {}", answer.status, shown(&answer.body));
    }
    Ok(())
}

fn pair(args: &Args, code: &str) -> anyhow::Result<Pairing> {
    let deadline = Instant::now() + PAIRING_DEADLINE;
    let body = json!({"code": code, "name": args.name, "role": args.role});
    loop {
        let answer =
            locate(args, None).and_then(|at| http::post(&at, args.bind, "/v1/pair", None, &body));
        match answer {
            Ok(answer) if answer.status == 201 => {
                return serde_json::from_slice(&answer.body)
                    .context("the box's answer to pairing is not what the protocol says");
            }
            Ok(answer) if (400..500).contains(&answer.status) && answer.status != 429 => {
                bail!("the box refuses: {} {}", answer.status, shown(&answer.body))
            }
            Ok(answer) => eprintln!(
                "device-emulator: pairing: the box answers {}",
                answer.status
            ),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(error) => eprintln!("device-emulator: pairing: {error:#}"),
        }
        if Instant::now() > deadline {
            bail!("the box did not pair in {PAIRING_DEADLINE:?}");
        }
        thread::sleep(PAIRING_PAUSE);
    }
}

/// Where the box's care port is, as host:port.
fn locate(args: &Args, pairing: Option<&Pairing>) -> anyhow::Result<String> {
    if let Some(url) = &args.care_url {
        let rest = url
            .strip_prefix("http://")
            .context("--care-url begins with http://")?;
        let authority = rest.split('/').next().unwrap_or(rest);
        return Ok(if authority.contains(':') {
            authority.into()
        } else {
            format!("{authority}:80")
        });
    }
    if let Some(host) = &args.r#box {
        return Ok(format!("{host}:{}", args.care_port));
    }
    let found = discovery::find_box(args, pairing)?;
    Ok(format!("{}:{}", found.address, args.care_port))
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}
