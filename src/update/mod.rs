//! New versions of the box: a client of RAUC.
//!
//! ```text
//!  bundle ──install──▶ other slot ──boot──▶ trial ──gate holds──▶ committed
//!                                             └──gate fails, or never asked──▶ old slot
//! ```
//!
//! RAUC checks signatures, writes slots and keeps the boot state ([`boot_control`], [`slots`], [`bundle`]). What is
//! decided here: which bundle may be installed ([`install`]), when a trial is kept ([`gate`], [`trial`], [`probe`]), and what is
//! remembered about it outside the slots ([`history`]). [`boot`] is the one place that reads the kernel command line.

pub mod boot;
pub mod boot_control;
pub mod bundle;
pub mod gate;
pub mod history;
pub mod install;
pub mod probe;
pub mod slots;
pub mod trial;
