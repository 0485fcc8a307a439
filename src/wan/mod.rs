//! Everything between the box and the internet.

pub mod contract;
pub mod egress;
pub mod sas;
pub mod time;
