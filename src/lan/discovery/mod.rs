//! Discovery on UDP 57854: devices find the box, the box finds devices. It only ever says *where*; who somebody is gets
//! proven in the session that follows. `docs/device-protocol.md`, section 8, is the normative text.
//!
//! What a stranger can make it do is bounded: it speaks only to neighbours (by the real mask of the interface a datagram came
//! in by), an answer is never longer than its question, [`buckets`] limit how often, and nothing a datagram says is kept
//! except a device's address, which [`Sighting`] carries on to be proven.

pub mod buckets;
pub mod interfaces;
mod service;
mod socket;
pub mod wire;

pub use service::{Announcement, Discovery, Sighting};
