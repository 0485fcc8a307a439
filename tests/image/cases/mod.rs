//! The cases, by what they are about.

pub mod clock;
pub mod faults;
pub mod rollout;
pub mod serving;
pub mod system;
