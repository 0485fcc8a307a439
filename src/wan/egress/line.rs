//! A finished connection in the HTTP client's terms: buffers, and waits with the client's deadlines.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::time::Duration as Left;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::socket::{Patience, is_quiet};
use super::total;

/// Bytes in both directions, whatever the layers.
pub(super) trait Duplex: Read + Write + Send + Sync {}

impl<T: Read + Write + Send + Sync> Duplex for T {}

/// A connection with TLS to the host at its end.
pub(super) struct Line {
    stream: Box<dyn Duplex>,
    tcp: Arc<TcpStream>,
    patience: Patience,
    buffers: LazyBuffers,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    pub(super) fn new(
        stream: Box<dyn Duplex>,
        tcp: Arc<TcpStream>,
        patience: Patience,
        buffers: LazyBuffers,
    ) -> Self {
        Self {
            stream,
            tcp,
            patience,
            buffers,
        }
    }

    /// Lets the next wait end after `timeout`, or with the whole request; gives what it means when it does.
    fn wait_for(&self, timeout: NextTimeout) -> Result<Timeout, ureq::Error> {
        let now = Instant::now();
        let own = match timeout.after {
            Left::Exact(after) => Some(now + after),
            Left::NotHappening => None,
        };
        let (end, reason) = match (own, total::end()) {
            (Some(own), Some(end)) if end < own => (end, Timeout::Global),
            (Some(own), _) => (own, timeout.reason),
            (None, Some(end)) => (end, Timeout::Global),
            (None, None) => (now + NO_DEADLINE, timeout.reason),
        };
        if end <= now {
            return Err(ureq::Error::Timeout(reason));
        }
        self.patience.until(end);
        Ok(reason)
    }
}

/// Every wait has a deadline from the settings; this one is for a wait that was forgotten.
const NO_DEADLINE: Duration = Duration::from_secs(300);

fn sorted(error: io::Error, reason: Timeout) -> ureq::Error {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    match error.kind() {
        TimedOut => ureq::Error::Timeout(reason),
        // The HTTP client takes these for the end of a body without length. The end of one is TLS's farewell and nothing
        // else (RFC 9112 section 9.8): without it, anybody on the line cuts an answer short and it passes for whole.
        UnexpectedEof | ConnectionAborted | ConnectionReset => {
            ureq::Error::Io(io::Error::other(error))
        }
        _ => ureq::Error::from(error),
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let reason = self.wait_for(timeout.for_write())?;
        let output = &self.buffers.output()[..amount];
        self.stream
            .write_all(output)
            .and_then(|()| self.stream.flush())
            .map_err(|error| sorted(error, reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        // Before the answer's head there is one deadline for all of it; a stall is a matter of bodies.
        let timeout = match timeout.reason {
            Timeout::RecvResponse => timeout,
            _ => timeout.for_read(),
        };
        let reason = self.wait_for(timeout)?;
        let input = self.buffers.input_append_buf();
        let read = self.stream.read(input);
        let amount = read.map_err(|error| sorted(error, reason))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        is_quiet(&self.tcp)
    }

    fn is_tls(&self) -> bool {
        true
    }
}
