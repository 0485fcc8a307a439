//! The cases, by what they are about.

pub mod faults;
pub mod serving;
pub mod system;
pub mod update;
