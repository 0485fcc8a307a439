//! The WAN side against the real platform emulator, over TLS with its own authority.

mod azurite;
mod bad_tls;
mod bulk;
mod bus;
mod check;
mod enrol;
mod kill;
mod line;
mod logs;
mod media;
mod media_disk;
mod media_kill;
mod media_line;
mod media_plan;
pub mod platform;
mod proxy;
mod proxy_peers;
mod pull;
mod push;
mod rollout_box;
mod rollouts;
mod shipping;
mod shop;
mod squid;
mod time;
mod tls_peer;
mod way_out;
