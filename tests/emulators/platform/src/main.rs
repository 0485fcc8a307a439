//! The platform emulator.

fn main() {}
