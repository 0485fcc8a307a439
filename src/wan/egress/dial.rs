//! TCP to one of several addresses: each is begun a moment after the one before it, and the first that answers is taken
//! (RFC 8305, "happy eyeballs"), so that a network with broken IPv6 costs a moment and not a deadline.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::failure::Until;
use super::stop::{STOP_SLICE, Stop};

/// The next address is begun this long after the last one, or at once when that one fails.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses that are tried at most; a name has few.
pub(super) const MAX_ADDRESSES: usize = 8;

/// Why nobody answers.
#[derive(Debug)]
pub(super) enum DialError {
    /// What the last address said.
    Io(io::Error),
    /// None said anything.
    Passed(Until),
    /// Ended from this side.
    Stopped,
}

/// Opens a connection to the first of `addresses` that answers.
pub(super) fn dial(
    addresses: &[SocketAddr],
    until: Until,
    stop: &Stop,
) -> Result<TcpStream, DialError> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut open: Vec<Socket> = Vec::new();
    let mut failed = None;
    let mut next_at = Instant::now();
    loop {
        if stop.is_given() {
            return Err(DialError::Stopped);
        }
        if until.left().is_zero() {
            return Err(failed.map_or(DialError::Passed(until), DialError::Io));
        }
        if open.is_empty() || Instant::now() >= next_at {
            match waiting.next().map(begin) {
                Some(Ok(socket)) => open.push(socket),
                Some(Err(error)) => failed = Some(error),
                None if open.is_empty() => {
                    let none = || io::Error::from(io::ErrorKind::AddrNotAvailable);
                    return Err(DialError::Io(failed.unwrap_or_else(none)));
                }
                None => {}
            }
            next_at = Instant::now() + STAGGER;
        }
        match answered(&mut open, until.left().min(STOP_SLICE)) {
            Ok(Some(socket)) => {
                let stream = TcpStream::from(socket);
                prepare(&stream).map_err(DialError::Io)?;
                return Ok(stream);
            }
            Ok(None) => {}
            Err(error) => {
                failed = Some(error);
                next_at = Instant::now();
            }
        }
    }
}

/// The families alternate, in the order the system prefers them; a few addresses are enough.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let family = |v4: bool| addresses.iter().filter(move |a| a.is_ipv4() == v4);
    let (mut one, mut other) = (family(first_is_v4), family(!first_is_v4));
    let mut turn = Vec::new();
    while turn.len() < MAX_ADDRESSES {
        let before = turn.len();
        turn.extend(one.next());
        turn.extend(other.next());
        if turn.len() == before {
            break;
        }
    }
    turn
}

fn begin(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket),
    }
}

/// Waits for one of `open` to answer; one that fails is taken out and its error returned.
fn answered(open: &mut Vec<Socket>, wait: Duration) -> io::Result<Option<Socket>> {
    let mut watched: Vec<_> = open
        .iter()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
        .collect();
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    match poll(&mut watched, wait) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = watched
        .iter()
        .position(|watched| watched.any().unwrap_or(false));
    let Some(index) = ready else { return Ok(None) };
    let socket = open.swap_remove(index);
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(Some(socket)),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use super::super::Cause;
    use super::*;

    fn until(limit: Duration) -> Until {
        Until::within(limit, Cause::TcpTimeout)
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Nothing listens there.
    fn refusing() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    }

    /// A listener whose queue is full: it neither refuses nor answers.
    pub(in super::super) fn silent() -> (Socket, SocketAddr, Vec<Socket>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let fillers = (0..4).map(|_| begin(address).unwrap()).collect();
        (listener, address, fillers)
    }

    #[test]
    fn an_address_that_refuses_or_keeps_silent_does_not_hide_one_that_answers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let good = listener.local_addr().unwrap();
        let (_listener, silent, _fillers) = silent();
        let stream = dial(
            &[refusing(), silent, good],
            until(PATIENCE),
            &Stop::default(),
        )
        .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[test]
    fn who_only_refuses_is_told_from_who_keeps_silent() {
        let refused = dial(&[refusing(), refusing()], until(PATIENCE), &Stop::default());
        let Err(DialError::Io(error)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let (_listener, silent, _fillers) = silent();
        let passed = dial(
            &[silent],
            until(Duration::from_millis(100)),
            &Stop::default(),
        );
        assert!(matches!(passed, Err(DialError::Passed(_))), "{passed:?}");
    }

    #[test]
    fn a_stop_ends_it() {
        let (_listener, silent, _fillers) = silent();
        let stop = Stop::default();
        let dialling = std::thread::spawn({
            let stop = stop.clone();
            move || dial(&[silent], until(Duration::from_secs(600)), &stop)
        });
        stop.give();
        assert!(matches!(dialling.join().unwrap(), Err(DialError::Stopped)));
    }

    #[test]
    fn the_families_take_turns() {
        let v4 = |n| SocketAddr::from((Ipv4Addr::new(10, 0, 0, n), 1));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
        assert_eq!(in_turn(&[v4(1), v4(2), v6]), [v4(1), v6, v4(2)]);
        assert_eq!(in_turn(&[v6, v4(1)]), [v6, v4(1)]);
        assert_eq!(in_turn(&[v4(1); 99]).len(), MAX_ADDRESSES);
    }
}
