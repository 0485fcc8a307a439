//! Places on this machine that nobody else has: neither another test of this process, nor another process with tests, nor
//! the kernel when it picks a port itself.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

/// First network of [`own_address`]; those below are other programs' (127.0) or other suites'.
const FIRST_NET: u8 = 16;
/// Ports of [`free_port`]: above every port of a shifted box, below those that the kernel gives (32768 and up). One that
/// the kernel gave, closed again, may be somebody else's before it is bound anew.
const PORTS: std::ops::Range<u16> = 16_000..32_000;

/// An address of loopback for one box; on it every port is free.
pub fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 200, "no more addresses");
    let pid = std::process::id();
    let (a, b) = (pid >> 8 & 0xff, pid & 0xff);
    format!("127.{}.{a}.{}", FIRST_NET + number, b.clamp(1, 254))
}

/// A port of 127.0.0.1 for a program that can't pick one itself; it stays free until somebody binds it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes that run beside each other begin far apart.
    let first = std::process::id().wrapping_mul(97) % u32::from(count);
    let first = u16::try_from(first).unwrap();
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..count)
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count)
        .find(is_free)
        .expect("some port is free")
}
