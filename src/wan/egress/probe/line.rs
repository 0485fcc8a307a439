//! A connection whose every wait ends at the current step's deadline, and which remembers how it began.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Of what the other side sends first, kept to tell a web page from TLS.
const MAX_BEGINNING: usize = 256;

/// Bytes both ways.
pub(super) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// What all layers over one TCP connection share: the deadline of the step, and how the other side began to speak in it.
#[derive(Clone)]
pub(super) struct Shared {
    until: Rc<Cell<Instant>>,
    beginning: Rc<RefCell<Vec<u8>>>,
}

impl Shared {
    pub(super) fn new(until: Instant) -> Self {
        Self {
            until: Rc::new(Cell::new(until)),
            beginning: Rc::default(),
        }
    }

    /// A new step begins.
    pub(super) fn begin(&self, until: Instant) {
        self.until.set(until);
        self.beginning.borrow_mut().clear();
    }

    /// Whether the other side speaks plain HTTP, or HTML, where TLS was expected.
    pub(super) fn speaks_plainly(&self) -> bool {
        let beginning = self.beginning.borrow();
        let text = beginning.trim_ascii_start();
        let starts = |word: &str| {
            text.get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
        };
        starts("HTTP/1.") || starts("<!doctype") || starts("<html")
    }
}

/// TCP with a deadline for the whole step instead of one for each read: a peer that trickles does not prolong it.
pub(super) struct Line {
    tcp: TcpStream,
    shared: Shared,
}

impl Line {
    pub(super) const fn new(tcp: TcpStream, shared: Shared) -> Self {
        Self { tcp, shared }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self
            .shared
            .until
            .get()
            .checked_duration_since(Instant::now());
        match left {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        let count = self.tcp.read(buffer).map_err(late)?;
        let mut beginning = self.shared.beginning.borrow_mut();
        let room = MAX_BEGINNING.saturating_sub(beginning.len()).min(count);
        beginning.extend_from_slice(&buffer[..room]);
        Ok(count)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        self.tcp.write(bytes).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// A socket's deadline shows as "would block".
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_peer_that_trickles_does_not_prolong_the_step() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let shared = Shared::new(Instant::now() + Duration::from_secs(60));
        let mut line = Line::new(tcp, shared.clone());
        peer.write_all(b"HTTP/1.1 302 Found\r\n").unwrap();
        let mut bytes = [0; 4];
        line.read_exact(&mut bytes).unwrap();
        assert!(!shared.speaks_plainly());
        line.read_exact(&mut [0; 6]).unwrap();
        assert!(shared.speaks_plainly());
        shared.begin(Instant::now());
        let error = line.read(&mut bytes).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::TimedOut,
            "although bytes are there"
        );
        assert!(!shared.speaks_plainly(), "a new step begins anew");
    }
}
