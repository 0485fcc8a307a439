//! Devices: how a command of the box reaches a kitchen screen, a printer or a till, exactly once as far as anybody can see.
//!
//! The box connects to TCP 8081 of a paired device, both prove the key they share, and then one command at a time goes out,
//! is accepted (the device has it on disk) and done (the device says what came of it). `docs/device-protocol.md` is the
//! normative text for everybody who builds a device.
//!
//! | file | holds |
//! |---|---|
//! | [`wire`] | frames and messages: bytes in, values out, no input or output of its own |
//! | [`handshake`] | the proofs of both sides and the session key, as pure functions |
//! | [`session`] | one connection to one device: connect, prove, talk, with a deadline on every wait |

pub mod handshake;
pub mod session;
pub mod wire;
