//! The LAN side: one listener and one file per port.

pub mod discovery;
