//! The self-diagnosis: looks at everything and changes nothing (the disk check leaves no trace of its probe).
//!
//! [`checks`] holds one file per question about the box, [`flows`] asks the hosts of the network contract; [`report`] is both
//! together, [`text`] the same for people. [`sheet`] is what a network's administrator opens. [`boot_report`] is the one line
//! that a boot leaves on the console. [`listeners`] reads from the kernel who listens.

pub mod boot_report;
pub mod checks;
pub mod flows;
pub mod listeners;
pub mod report;
pub mod sheet;
pub mod text;
