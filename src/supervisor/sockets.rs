//! The LAN's listening sockets: taken over where they are passed, opened where they are not, and never shut down.
//!
//! systemd (or `systemd-socket-activate`) passes sockets by `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`; the supervisor
//! hands the same sockets to every server it starts, so that the kernel goes on accepting connections into their
//! queues while no server runs. To the server the three ways (systemd, supervisor, nobody) look alike: it claims.
//!
//! The supervisor cannot know the server's process id before the fork, so it hands over with `LISTEN_FDS` and
//! `LISTEN_FDNAMES` and *without* `LISTEN_PID`; an absent id is taken as meant for us, a wrong one is not. The variables
//! leave the environment when they are read. The heartbeat channel travels in the same way, as the socket `heartbeat`.
//!
//! A passed socket is known by its name, or, where its name says nothing (one systemd unit has one name for all its
//! sockets), by the port it is bound to. What nobody wants is closed here.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::{info, warn};

use crate::config::{DiscoveryConfig, LanConfig, LanPort};

/// Connections the kernel keeps per port while no server accepts; more are delayed by the client's own retries,
/// not refused. The kernel's `somaxconn` (4096) is the upper bound.
const BACKLOG: i32 = 1024;

/// The first passed descriptor, by systemd's protocol.
const FIRST_FD: i32 = 3;

/// Name of the heartbeat channel among the passed sockets.
const HEARTBEAT: &str = "heartbeat";

/// Stream or datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// A listener.
    Tcp,
    /// A datagram socket that may broadcast.
    Udp,
}

/// A socket that the configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// The port's name in the contract.
    name: &'static str,
    /// Where it is bound.
    addr: SocketAddr,
    /// How it speaks.
    transport: Transport,
}

/// Name of the discovery socket; the listeners carry [`LanPort::name`].
const DISCOVERY: &str = "discovery";

/// Every socket of the LAN side, non-blocking.
#[derive(Debug, Default)]
pub struct LanSockets {
    tcp: Vec<(&'static str, TcpListener)>,
    udp: Vec<(&'static str, UdpSocket)>,
    heartbeat: Option<UnixDatagram>,
}

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Nobody passed it and it could not be opened.
    #[error("cannot open port {name} on {addr}")]
    Open {
        /// The port's name in the contract.
        name: &'static str,
        /// Where it was to be bound.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It was passed and is unusable.
    #[error("socket {name:?}, passed as descriptor {fd}, is unusable")]
    Passed {
        /// Its name as passed.
        name: String,
        /// Its number.
        fd: i32,
        /// Why.
        source: io::Error,
    },
}

/// What this process was started with.
#[derive(Debug, Default)]
struct Passed {
    tcp: Vec<(String, TcpListener)>,
    udp: Vec<(String, UdpSocket)>,
    heartbeat: Option<UnixDatagram>,
}

impl LanSockets {
    /// Takes what was passed to this process and opens the rest of what the settings switch on.
    ///
    /// Reads and clears the environment: call it once, before the process has threads.
    ///
    /// # Errors
    /// When a passed socket is unusable or a wanted one cannot be opened.
    pub fn claim(lan: &LanConfig, discovery: &DiscoveryConfig) -> Result<Self, ClaimError> {
        Self::complete(Passed::from_env()?, &wanted(lan, discovery))
    }

    fn complete(passed: Passed, wanted: &[Wanted]) -> Result<Self, ClaimError> {
        let mut sockets = Self {
            heartbeat: passed.heartbeat,
            ..Self::default()
        };
        for (name, listener) in passed.tcp {
            let addr = listener.local_addr().ok();
            match place(&name, addr, Transport::Tcp, wanted) {
                Some(name) => sockets.tcp.push((name, listener)),
                None => warn!(event = "supervisor.socket_unwanted", name, ?addr),
            }
        }
        for (name, socket) in passed.udp {
            let addr = socket.local_addr().ok();
            match place(&name, addr, Transport::Udp, wanted) {
                Some(name) => sockets.udp.push((name, socket)),
                None => warn!(event = "supervisor.socket_unwanted", name, ?addr),
            }
        }
        for want in wanted {
            let Wanted {
                name,
                addr,
                transport,
            } = *want;
            let failed = |source| ClaimError::Open { name, addr, source };
            match transport {
                Transport::Tcp if sockets.tcp.iter().all(|(have, _)| *have != name) => {
                    sockets.tcp.push((name, open(want).map_err(failed)?.into()));
                }
                Transport::Udp if sockets.udp.iter().all(|(have, _)| *have != name) => {
                    sockets.udp.push((name, open(want).map_err(failed)?.into()));
                }
                _ => continue,
            }
            info!(event = "supervisor.socket_opened", name, %addr);
        }
        Ok(sockets)
    }

    /// Every listener with its name; a port bound to several addresses comes once for each.
    pub fn tcp(&self) -> impl Iterator<Item = (&'static str, &TcpListener)> {
        self.tcp.iter().map(|(name, listener)| (*name, listener))
    }

    /// Takes the listeners of one port out; empty when the port is switched off.
    pub fn take_tcp(&mut self, port: LanPort) -> Vec<TcpListener> {
        let wanted = |(have, _): &mut (&str, TcpListener)| *have == port.name();
        self.tcp
            .extract_if(.., wanted)
            .map(|(_, listener)| listener)
            .collect()
    }

    /// Takes the discovery socket out; `None` when discovery is switched off.
    pub fn take_discovery(&mut self) -> Option<UdpSocket> {
        let place = self.udp.iter().position(|(have, _)| *have == DISCOVERY)?;
        Some(self.udp.swap_remove(place).1)
    }

    /// Takes the channel to the supervisor out; `None` where no supervisor runs us.
    pub fn take_heartbeat(&mut self) -> Option<UnixDatagram> {
        self.heartbeat.take()
    }

    /// Lets `command` start with all these sockets and this heartbeat channel.
    ///
    /// # Errors
    /// When the operating system has no descriptor left.
    pub fn hand_to(&self, command: &mut Command, heartbeat: OwnedFd) -> io::Result<()> {
        let mut names = Vec::new();
        let mut fds = Vec::new();
        for (name, listener) in &self.tcp {
            names.push(*name);
            fds.push(listener.as_fd().try_clone_to_owned()?);
        }
        for (name, socket) in &self.udp {
            names.push(*name);
            fds.push(socket.as_fd().try_clone_to_owned()?);
        }
        names.push(HEARTBEAT);
        fds.push(heartbeat);
        let mappings = (FIRST_FD..)
            .zip(fds)
            .map(|(child_fd, parent_fd)| FdMapping {
                parent_fd,
                child_fd,
            })
            .collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        command
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS_FIRST_FD");
        Ok(())
    }
}

impl Passed {
    fn from_env() -> Result<Self, ClaimError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut fds = ListenFd::from_env();
        let mut passed = Self::default();
        for (place, fd) in (0..fds.len()).zip(FIRST_FD..) {
            let name = names.next().unwrap_or_default();
            if let Err(source) = passed.sort_in(&mut fds, place, &name) {
                return Err(ClaimError::Passed { name, fd, source });
            }
        }
        Ok(passed)
    }

    /// Takes descriptor `place` as what it is; what is none of the three kinds is an error.
    fn sort_in(&mut self, fds: &mut ListenFd, place: usize, name: &str) -> io::Result<()> {
        if let Ok(Some(listener)) = fds.take_tcp_listener(place) {
            if !SockRef::from(&listener).is_listener()? {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a stream socket that does not listen",
                ));
            }
            listener.set_nonblocking(true)?;
            self.tcp.push((name.to_owned(), listener));
            return Ok(());
        }
        if let Ok(Some(socket)) = fds.take_udp_socket(place) {
            socket.set_nonblocking(true)?;
            self.udp.push((name.to_owned(), socket));
            return Ok(());
        }
        if let Some(socket) = fds.take_unix_datagram(place)? {
            socket.set_nonblocking(true)?;
            self.heartbeat = Some(socket);
        }
        Ok(())
    }
}

fn wanted(lan: &LanConfig, discovery: &DiscoveryConfig) -> Vec<Wanted> {
    let listener = |port: LanPort| Wanted {
        name: port.name(),
        addr: lan.addr(port),
        transport: Transport::Tcp,
    };
    let mut wanted: Vec<_> = lan.ports_on().map(listener).collect();
    if discovery.enabled {
        wanted.push(Wanted {
            name: DISCOVERY,
            addr: discovery.addr(lan),
            transport: Transport::Udp,
        });
    }
    wanted
}

/// Which wanted socket a passed one is: by name first, else by port.
fn place(
    name: &str,
    addr: Option<SocketAddr>,
    transport: Transport,
    wanted: &[Wanted],
) -> Option<&'static str> {
    let of_kind = || wanted.iter().filter(|want| want.transport == transport);
    let by_name = of_kind().find(|want| want.name == name);
    let by_port =
        || of_kind().find(|want| addr.is_some_and(|addr| addr.port() == want.addr.port()));
    by_name.or_else(by_port).map(|want| want.name)
}

fn open(want: &Wanted) -> io::Result<Socket> {
    let domain = Domain::for_address(want.addr);
    let socket = match want.transport {
        Transport::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
        Transport::Udp => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
    };
    socket.set_nonblocking(true)?;
    match want.transport {
        Transport::Tcp => {
            // Without this a restart of the supervisor itself waits for old connections to time out.
            socket.set_reuse_address(true)?;
            socket.bind(&want.addr.into())?;
            socket.listen(BACKLOG)?;
        }
        Transport::Udp => {
            socket.set_broadcast(true)?;
            socket.bind(&want.addr.into())?;
        }
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(name: &'static str, port: u16, transport: Transport) -> Wanted {
        Wanted {
            name,
            addr: ([127, 0, 0, 1], port).into(),
            transport,
        }
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn passed_sockets_are_known_by_name_or_by_port_and_the_rest_is_opened() {
        let (by_name, by_port, stranger) = (listener(), listener(), listener());
        let wanted = [
            want("front", 1, Transport::Tcp),
            want("orders", port(&by_port), Transport::Tcp),
            want("media", 0, Transport::Tcp),
            want("discovery", 0, Transport::Udp),
        ];
        let (front_port, stranger_port) = (port(&by_name), port(&stranger));
        let passed = Passed {
            tcp: vec![
                ("front".to_owned(), by_name),
                ("comptoir.socket".to_owned(), by_port),
                ("ftp".to_owned(), stranger),
            ],
            ..Passed::default()
        };
        let mut sockets = LanSockets::complete(passed, &wanted).unwrap();
        let names: Vec<_> = sockets.tcp().map(|(name, _)| name).collect();
        assert_eq!(names, ["front", "orders", "media"]);
        assert_eq!(port(&sockets.take_tcp(LanPort::Front)[0]), front_port);
        assert!(sockets.take_tcp(LanPort::Front).is_empty());
        assert!(sockets.take_discovery().is_some());
        // What nobody wanted is closed: its port can be bound again.
        TcpListener::bind(("127.0.0.1", stranger_port)).unwrap();
    }

    #[test]
    fn a_port_in_use_is_named_in_the_error() {
        let taken = listener();
        let wanted = [want("catalogue", port(&taken), Transport::Tcp)];
        let error = LanSockets::complete(Passed::default(), &wanted).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot open port catalogue on 127.0.0.1:{}", port(&taken))
        );
    }

    #[test]
    fn the_child_gets_every_socket_by_name_and_the_parent_keeps_its_own() {
        let wanted = [
            want("front", 0, Transport::Tcp),
            want("discovery", 0, Transport::Udp),
        ];
        let sockets = LanSockets::complete(Passed::default(), &wanted).unwrap();
        let (_ours, theirs) = UnixDatagram::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $LISTEN_FDS $LISTEN_FDNAMES ${LISTEN_PID-none}; for n in 3 4 5; do readlink /proc/$$/fd/$n; done"]);
        command.env("LISTEN_PID", "1");
        sockets.hand_to(&mut command, theirs.into()).unwrap();
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines[0], "3 front:discovery:heartbeat none");
        assert_eq!(
            lines[1..]
                .iter()
                .filter(|line| line.starts_with("socket:"))
                .count(),
            3,
            "{output}"
        );
        let (_, front) = sockets.tcp().next().unwrap();
        std::net::TcpStream::connect(front.local_addr().unwrap()).unwrap();
    }
}
