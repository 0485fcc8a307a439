//! The listener on the command port.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Socket, Type};

use crate::args::Args;
use crate::device::Device;
use crate::session;

/// How often the listener looks whether it is to refuse connections.
const LOOK: Duration = Duration::from_millis(20);

/// A bound port.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens, before anybody is told about this device.
    pub fn bind(args: &Args) -> anyhow::Result<Self> {
        let listener = listen(SocketAddr::new(args.bind, args.port))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections, for ever; while the device refuses connections nothing listens.
    pub fn run(self, device: &Arc<Device>) -> anyhow::Result<()> {
        let mut open = Some(self.listener);
        loop {
            if device.faults().refuse_connections {
                open = None;
                device.hang_up();
            } else if open.is_none() {
                open = Some(listen(self.address)?);
            }
            match open.as_ref().map(TcpListener::accept) {
                Some(Ok((stream, _))) => {
                    stream.set_nonblocking(false)?;
                    let device = Arc::clone(device);
                    thread::spawn(move || {
                        if let Err(error) = session::serve(&device, stream) {
                            eprintln!("device-emulator: session ended: {error:#}");
                        }
                    });
                }
                Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => {
                    return Err(error).context("cannot accept connections");
                }
                _ => thread::sleep(LOOK),
            }
        }
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(16)?;
        Ok::<_, std::io::Error>(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address}"))
}
