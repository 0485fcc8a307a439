//! The device emulator.

fn main() {}
