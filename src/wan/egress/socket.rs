//! A TCP connection whose every wait has an end, whatever is layered over it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A wait in the kernel at most; then it is looked whether the end has come. Most ends lie further away, so that a socket's
/// own timeout is hardly ever set anew.
const SLICE: Duration = Duration::from_secs(5);

/// When the waits on one socket end. All layers over it share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<Mutex<Option<Instant>>>);

impl Patience {
    /// Waits from now on end then.
    pub(super) fn until(&self, end: Instant) {
        *self.0.lock().expect("no holder of this lock panics") = Some(end);
    }

    /// The next wait in the kernel, or the error of having none left.
    fn slice(&self) -> io::Result<Duration> {
        let end = *self.0.lock().expect("no holder of this lock panics");
        let left = end.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The kernel counts in milliseconds or coarser, and zero would mean for ever.
        Ok(left.clamp(Duration::from_millis(1), SLICE))
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    patience: Patience,
    read_slice: Duration,
    write_slice: Duration,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Arc::new(stream),
            patience: Patience::default(),
            read_slice: Duration::ZERO,
            write_slice: Duration::ZERO,
        }
    }

    /// The TCP stream itself, to end it from elsewhere.
    pub(super) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }
}

/// Whether a connection without a request can be used again: nothing has come, neither bytes nor an end.
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO) == Ok(0)
}

/// Goes on after slices without a byte and after signals.
fn patiently<T>(
    patience: &Patience,
    mut try_for: impl FnMut(Duration) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match try_for(patience.slice()?) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            other => return other,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut stream, set) = (&*self.stream, &mut self.read_slice);
        patiently(&self.patience, |slice| {
            if *set != slice {
                stream.set_read_timeout(Some(slice))?;
                *set = slice;
            }
            stream.read(buffer)
        })
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (mut stream, set) = (&*self.stream, &mut self.write_slice);
        patiently(&self.patience, |slice| {
            if *set != slice {
                stream.set_write_timeout(Some(slice))?;
                *set = slice;
            }
            stream.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Socket::new(near), listener.accept().unwrap().0)
    }

    #[test]
    fn a_wait_ends_when_its_end_comes_and_not_before_a_byte_that_is_there() {
        let (mut socket, mut far) = pair();
        let patience = socket.patience().clone();
        patience.until(Instant::now() + Duration::from_millis(30));
        let error = socket.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        far.write_all(b"hi").unwrap();
        patience.until(Instant::now() + Duration::from_secs(600));
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 2);
        patience.until(Instant::now() + Duration::from_millis(30));
        let full = std::iter::repeat_with(|| socket.write(&[0; 65536])).find(Result::is_err);
        assert_eq!(full.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_connection_is_quiet_until_something_or_its_end_comes() {
        let (socket, mut far) = pair();
        assert!(is_quiet(socket.stream()));
        far.write_all(b"?").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        socket.stream().peek(&mut [0]).unwrap();
        assert!(!is_quiet(socket.stream()));
    }
}
