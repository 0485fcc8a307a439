//! Comptoir: the local server of a shop.
//!
//! The rooms, who may import whom, and what is promised stand in `ARCHITECTURE.md`. Start reading at
//! [`daemon`], the one wiring file of `comptoir serve`.

// Ground: small named pieces every room may use.
pub mod backoff;
pub mod clock;
pub mod digest;
pub mod durable;
pub mod identity;
pub mod language;
pub mod shutdown;
pub mod units;
pub mod version;

// Rooms.
pub mod cli;
pub mod config;
pub mod daemon;
pub mod devices;
pub mod diagnose;
pub mod lan;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod update;
pub mod wan;
