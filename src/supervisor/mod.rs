//! Keeps the server alive: `comptoir supervise` runs `comptoir serve`.
//!
//! ```text
//!  systemd ── sockets ──▶ supervise ── the same sockets ──▶ serve
//!     ▲                     │   ▲                             │
//!     └── READY, WATCHDOG,──┘   └──── beats: which parts ◀────┘
//!         STATUS                       did work
//! ```
//!
//! What is done about what is seen stands in one pure table, [`policy`]. The rest of the room is its hands and eyes:
//! [`supervise`] is the loop, [`child`] one run of the server, [`sockets`] claims and hands over the listeners,
//! [`heartbeat`] carries the proof of work, [`notify`] tells systemd, [`reasons`] remembers why.

pub mod child;
pub mod heartbeat;
pub mod notify;
pub mod policy;
pub mod reasons;
pub mod sockets;
pub mod supervise;
