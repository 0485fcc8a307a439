//! A client's socket with deadlines: hyper asks it for bytes, and it gives up where the client does.
//!
//! hyper's own header timer starts when it begins to wait for a request, so one value would have to serve both a
//! kiosk that keeps its connection and a client that sends a byte a second. Here each phase has its own deadline:
//!
//! ```text
//!   Idle --first byte--> Head --head complete--> Request --answer written--> Idle
//!    |idle timeout        |header timeout         |request deadline (port.rs) and, while writing, stall
//! ```
//!
//! The timer is only moved when it would fire too late; a request that arrives whole never touches it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;

/// Which deadline cut a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// No request came.
    Idle,
    /// A head did not become complete.
    Header,
    /// An answer was not taken.
    Stall,
}

/// What a connection is doing, shared by its socket, its requests and their bodies.
#[derive(Debug)]
pub struct Phase {
    opened: Instant,
    started: AtomicU32,
    ended: AtomicU32,
    /// When the last request ended, in milliseconds since `opened`.
    ended_at_ms: AtomicU64,
}

impl Default for Phase {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            started: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            ended_at_ms: AtomicU64::new(0),
        }
    }
}

/// A request between its head and the last byte of its answer.
#[derive(Debug)]
pub struct InFlight(Arc<Phase>);

impl InFlight {
    /// The request starts.
    pub fn start(phase: &Arc<Phase>) -> Self {
        phase.started.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(phase))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let open_for = self.0.opened.elapsed().as_millis();
        let at_ms = u64::try_from(open_for).unwrap_or(u64::MAX);
        self.0.ended_at_ms.store(at_ms, Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// The socket.
pub struct Wire {
    stream: TokioIo<TcpStream>,
    phase: Arc<Phase>,
    limits: Limits,
    /// Requests that had ended when we last looked.
    seen: u32,
    /// Since when no request is in flight.
    idle_since: Instant,
    /// When the first byte of a head came.
    head_since: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    cut_by: Arc<OnceLock<Deadline>>,
}

impl Wire {
    /// Wraps an accepted socket. `cut_by` is set when a deadline ends the connection.
    pub fn new(
        stream: TcpStream,
        phase: Arc<Phase>,
        limits: Limits,
        cut_by: Arc<OnceLock<Deadline>>,
    ) -> Self {
        Self {
            stream: TokioIo::new(stream),
            phase,
            limits,
            seen: 0,
            idle_since: Instant::now(),
            head_since: None,
            read_timer: Box::pin(sleep_until(Instant::now() + limits.header)),
            write_timer: None,
            cut_by,
        }
    }

    /// Whether a request is in flight. Between two requests the times of the earlier one are forgotten.
    fn in_flight(&mut self) -> bool {
        let ended = self.phase.ended.load(Ordering::Acquire);
        if ended != self.seen {
            self.seen = ended;
            let ended_at = Duration::from_millis(self.phase.ended_at_ms.load(Ordering::Relaxed));
            (self.idle_since, self.head_since) = (self.phase.opened + ended_at, None);
        }
        self.phase.started.load(Ordering::Relaxed) != ended
    }

    /// Nothing to read: is a deadline over?
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper does not come back here when a request ends, so the timer also runs while one is in flight: it then
        // fires at the latest when the idle deadline could be over, and finds out.
        let (deadline, at) = if self.in_flight() {
            (None, Instant::now() + self.limits.idle)
        } else if let Some(since) = self.head_since {
            (Some(Deadline::Header), since + self.limits.header)
        } else {
            (Some(Deadline::Idle), self.idle_since + self.limits.idle)
        };
        if at < self.read_timer.deadline() {
            self.read_timer.as_mut().reset(at);
        }
        while self.read_timer.as_mut().poll(cx).is_ready() {
            if let Some(deadline) = deadline
                && self.read_timer.deadline() >= at
            {
                return Poll::Ready(Err(self.cut(deadline)));
            }
            self.read_timer.as_mut().reset(at);
        }
        Poll::Pending
    }

    fn poll_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let stall = self.limits.stall;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(self.cut(Deadline::Stall))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn cut(&self, deadline: Deadline) -> io::Error {
        // The first deadline is the reason; later ones follow from it.
        let _ = self.cut_by.set(deadline);
        io::ErrorKind::TimedOut.into()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                if !self.in_flight() {
                    self.head_since.get_or_insert_with(Instant::now);
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_read_deadline(cx),
        }
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.poll_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
