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
//!
//! On the server's side `daemon` calls [`sockets::LanSockets::claim`] (the same call as the supervisor's, which finds what was
//! handed over), registers each part with [`heartbeat::Progress::watch`], and, once every port answers, gives
//! [`heartbeat::Sender::run`] a thread. A server that no supervisor runs has no heartbeat channel and needs none.

pub mod child;
pub mod heartbeat;
pub mod notify;
pub mod policy;
pub mod reasons;
pub mod sockets;
pub mod supervise;
