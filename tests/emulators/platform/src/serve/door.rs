//! A listening address. "Offline" closes its listener, so that connecting is refused as by a dead host, while a
//! second socket, bound but not listening, keeps the port from anybody else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Flows;
use super::connection::{self, Secured};
use crate::platform::Platform;

/// Most open connections of one door; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;
const BACKLOG: i32 = 1024;

/// A bound address that opens and closes with the platform's "offline".
pub struct Door {
    addr: SocketAddr,
    flows: Flows,
    tls: Arc<ServerConfig>,
    // Holds the port while the door is closed.
    _holder: Socket,
}

impl Door {
    /// Binds `addr`; port 0 takes a free one.
    pub fn bind(addr: SocketAddr, flows: Flows, tls: Arc<ServerConfig>) -> io::Result<Self> {
        // Without SO_REUSEPORT first: it alone tells that somebody else listens there.
        let addr = std::net::TcpListener::bind(addr)?.local_addr()?;
        let holder = shared_socket(addr)?;
        Ok(Self {
            addr,
            flows,
            tls,
            _holder: holder,
        })
    }

    /// The address, with its true port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the platform stops.
    pub async fn run(self, platform: Arc<Platform>) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut offline = platform.offline();
        let mut stopped = platform.stopped();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                _ = offline.wait_for(|offline| !*offline) => {}
            }
            let socket = shared_socket(self.addr)?;
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            platform.door_moved(true);
            self.accept_while_online(&listener, &platform, &room).await;
            drop(listener);
            platform.door_moved(false);
        }
    }

    /// Returns when the platform goes offline or stops.
    async fn accept_while_online(
        &self,
        listener: &TcpListener,
        platform: &Arc<Platform>,
        room: &Arc<Semaphore>,
    ) {
        let mut offline = platform.offline();
        let mut stopped = platform.stopped();
        loop {
            let permit = Arc::clone(room)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let stream = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                _ = offline.wait_for(|offline| *offline) => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // A connection that died in the backlog is its client's trouble, not the door's.
                    Err(error) => {
                        tracing::debug!(event = "serve.accept_failed", %error);
                        continue;
                    }
                },
            };
            let secured = Secured {
                flows: self.flows.clone(),
                tls: Arc::clone(&self.tls),
            };
            let platform = Arc::clone(platform);
            tokio::spawn(async move {
                connection::serve_secured(stream, secured, platform).await;
                drop(permit);
            });
        }
    }
}

fn shared_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}
