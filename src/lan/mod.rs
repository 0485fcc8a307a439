//! The LAN side: one listener and one file per port.
//!
//! ```text
//!  socket -> server (deadlines, bounds) -> route (whose path is it?) -> auth (which device?) -> front | catalogue | …
//! ```
//! A request is answered from the store; nothing here waits for the WAN. Point reads run where they are asked: they take
//! microseconds, less than a hop to another thread. Lists run on the blocking threads, writes on the store's writer.

pub mod answer;
pub mod discovery;
pub mod problem;
pub mod request;
pub mod route;
pub mod server;

mod attempts;
mod auth;
mod care;
mod catalogue;
mod day;
mod events;
mod front;
mod history;
mod house;
mod media;
mod orders;
mod page;
mod prices;
mod status;
mod support;

use std::net::TcpListener;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::info;

pub use house::{Checks, LanDeps};
pub use server::LoopProbe;

use crate::config::LanPort;
use crate::shutdown::Shutdown;
use house::House;
use server::{Limits, Port, PortCount};

/// The running LAN side.
#[derive(Debug)]
pub struct LanHandle {
    probes: Vec<(LanPort, LoopProbe)>,
    tasks: Vec<JoinHandle<()>>,
}

/// A port that can't be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve port {port}")]
pub struct StartLanError {
    port: &'static str,
    source: std::io::Error,
}

/// Starts every port on `runtime`, until `shutdown`. A port may come with several listeners, one for each address.
///
/// # Errors
/// When a listener can't be used; nothing runs then.
pub fn start(
    runtime: &Handle,
    listeners: Vec<(LanPort, TcpListener)>,
    deps: LanDeps,
    shutdown: &Shutdown,
) -> Result<LanHandle, StartLanError> {
    let _on_runtime = runtime.enter();
    let mut ready = Vec::new();
    for (port, listener) in listeners {
        let failed = |source| StartLanError {
            port: port.name(),
            source,
        };
        listener.set_nonblocking(true).map_err(failed)?;
        ready.push((
            port,
            tokio::net::TcpListener::from_std(listener).map_err(failed)?,
        ));
    }
    let open = ready.iter().map(|(port, _)| *port).collect();
    let house = Arc::new(House::new(deps, open, shutdown.clone()));
    let mut handle = LanHandle {
        probes: Vec::new(),
        tasks: house.start_tasks(),
    };
    for (port, listener) in ready {
        let settings = Port::new(
            port,
            Limits::of(port, &house.lan.limits),
            PortCount::of(port, &house.telemetry.metrics),
        );
        info!(event = "lan.port_opened", port = port.name(), addr = ?listener.local_addr().ok());
        let (run, probe) = server::serve(listener, settings, Arc::clone(&house), shutdown.clone());
        handle.probes.push((port, probe));
        handle.tasks.push(tokio::spawn(run));
    }
    Ok(handle)
}

impl LanHandle {
    /// Every port's loop, to prove that it turns.
    pub fn probes(&self) -> impl Iterator<Item = (LanPort, LoopProbe)> {
        self.probes.iter().cloned()
    }

    /// Returns when every port has ended, after the shutdown.
    pub async fn ended(self) {
        for task in self.tasks {
            // A task that panicked has ended too, and has said so.
            let _ = task.await;
        }
    }
}
