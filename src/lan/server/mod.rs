//! HTTP/1.1 on one port: accepting, deadlines, bounds, counting. What is asked is answered elsewhere.
//!
//! Each port has a loop of its own, with its own bound on connections, so that one audience cannot starve another.
//! At the bound a client is answered 503 and closed, which tells it to come back; waiting in the kernel's queue would look
//! like a dead box.
//!
//! A panic of a handler costs its request where panics unwind. Where they abort (release builds), it costs the process: the
//! supervisor starts another one on the same listeners, and what came meanwhile waits in their queues.

mod count;
mod limits;
mod port;
mod wire;

pub use count::PortCount;
pub use limits::{LONGEST_WAIT, Limits};
pub use port::{LoopProbe, Port, Service, serve};
pub use wire::InFlight;

#[cfg(test)]
mod tests;
