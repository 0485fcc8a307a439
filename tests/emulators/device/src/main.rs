//! A device of the shop: it pairs with the box, beats, takes commands on TCP 8081 and shows what it executed, one JSON line a
//! command. It follows `docs/device-protocol.md` and shares no code with the box, so that the two check each other; and it
//! can be told to misbehave the way real devices and networks do ([`faults`]).

mod args;
mod care;
mod control;
mod datagram;
mod device;
mod discovery;
mod faults;
mod hex;
mod http;
mod kitchen;
mod memory;
mod pairing;
mod server;
mod session;
mod wire;

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;

use args::Args;
use device::Device;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let pairing = care::paired(&args).context("cannot pair with the box")?;
    let device = Arc::new(Device::open(&args, pairing)?);
    let listener = server::Listener::bind(&args)?;
    let control = match args.control {
        Some(address) => Some(control::serve(&device, address)?),
        None => None,
    };
    care::start_heartbeat(&device, &args, listener.address().port());
    if args.discovers()
        && let Err(error) = discovery::start_answering(&device, &args, listener.address().port())
    {
        // Being found is optional: the box also learns the address from pairing and heartbeats.
        eprintln!("device-emulator: does not answer discovery: {error:#}");
    }
    device.start_executing();
    if let Some(path) = &args.ready_file {
        args::write_ready_file(path, &device, listener.address(), control)?;
    }
    listener.run(&device)
}
