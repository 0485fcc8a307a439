//! The self-diagnosis: looks at everything and changes nothing (the disk check leaves no trace of its probe).
//!
//! [`checks`] holds one file per question; `comptoir check` asks them all, in the order of the list. [`boot_report`] is
//! the one line that a boot leaves on the console. [`listeners`] reads from the kernel who listens.

pub mod boot_report;
pub mod checks;
pub mod listeners;
