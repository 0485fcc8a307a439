//! The LAN side: one listener and one file per port.

pub mod answer;
pub mod discovery;
pub mod problem;
pub mod request;
pub mod route;
pub mod server;
