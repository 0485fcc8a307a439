//! The emulator as its users start it. What foreign clients check (`tests/peers`) is not repeated here.
#![allow(
    clippy::unwrap_used,
    reason = "a test helper's panic is the test's report"
)]

mod emulator;

mod blobs;
mod bus;
mod faults;
mod memory;
mod shared;
