//! Devices: how a command of the box reaches a kitchen screen, a printer or a till, exactly once as far as anybody can see.
//!
//! The box connects to TCP 8081 of a paired device, both prove the key they share, and then one command at a time goes out,
//! is accepted (the device has it on disk) and done (the device says what came of it). `docs/device-protocol.md` is the
//! normative text for everybody who builds a device. The registry of devices and their keys is [`crate::store::devices`].
//!
//! | file | holds |
//! |---|---|
//! | [`dispatch`] | sees to it that every device that has something to do has a courier |
//! | `courier` | carries the commands of one device to it, one after the other |
//! | [`session`] | one connection to one device: connect, prove, talk, with a deadline on every wait |
//! | [`handshake`] | the proofs of both sides and the session key, as pure functions |
//! | [`wire`] | frames and messages: bytes in, values out, no input or output of its own |
//! | `links` | how the box stands with each device |
//! | `presence` | which devices the platform is told are paired, lost, and back |

mod courier;
mod dispatch;
pub mod handshake;
mod links;
mod presence;
pub mod session;
pub mod wire;

pub use courier::IDLE_CLOSE;
pub use dispatch::{Dispatch, DispatchHandle, DispatchParts, RELEASE_AFTER, SESSIONS_LIMIT};
pub use links::LinkState;
pub use presence::{Turn, tell_turn};
