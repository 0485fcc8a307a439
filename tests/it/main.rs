//! Integration tests: the real binaries against the real emulators, on loopback.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper's panic is the test's report"
)]

mod audit;
mod check_schema;
mod diagnose;
mod discovery;
mod dispatch;
mod full_disk;
mod kitchen;
mod lan;
mod loopback;
mod power_cut;
mod rauc_bench;
mod rollout;
mod server_kill;
mod shop;
mod supervisor;
mod tidy;
mod update;
mod wan;
