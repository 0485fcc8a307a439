//! Comptoir: the local server of a shop. The rooms and who may import whom stand in ARCHITECTURE.md.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod devices;
pub mod digest;
pub mod identity;
pub mod lan;
pub mod shutdown;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod units;
pub mod update;
pub mod wan;
