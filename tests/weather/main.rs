//! Weather: what the internet does to a shop, in fast motion, with an oracle.
//!
//! Each case is a shop of its own: the real box, the real device emulator, the platform emulator, where a case wants one a
//! real proxy, and customers who keep ordering at the counter and on the internet while the weather lasts. When it is
//! over, the [`oracle`] asks: is every order and every event that the platform or a device was told is stored on the other
//! side, exactly once? Does anything still wait? How much was used to catch up is [`measure`]d.
//!
//! The cases run in a network namespace of their own, where nftables loses packets for real. `scripts/test weather` runs
//! them; one by `cargo test --test weather -- NAME`. `WEATHER_MINUTE_MS` is how long a minute of weather lasts here.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper's panic is the test's report"
)]

mod catch_up;
mod control;
#[path = "../it/kitchen.rs"]
#[allow(dead_code, reason = "shared with the other integration tests")]
mod kitchen;
#[path = "../it/loopback.rs"]
#[allow(dead_code, reason = "shared with the other integration tests")]
mod loopback;
mod measure;
mod net;
mod oracle;
#[path = "../it/wan/platform.rs"]
#[allow(dead_code, reason = "shared with the other integration tests")]
mod platform;
mod proxy;
mod runner;
mod scenarios;
mod server;
mod traffic;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    runner::run(scenarios::CASES)
}
