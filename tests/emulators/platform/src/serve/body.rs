//! Bodies: whole, streamed through a bounded channel, and the two that faults make.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Chunks a producer may be ahead of its client; then it waits.
const CHUNKS_AHEAD: usize = 8;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The sending end of a streamed body, for blocking code.
pub struct ChunkSender(mpsc::Sender<io::Result<Bytes>>);

impl ChunkSender {
    /// Hands over one chunk and waits while the client is behind. False: the client has gone.
    pub fn send(&self, chunk: Bytes) -> bool {
        self.0.blocking_send(Ok(chunk)).is_ok()
    }

    /// Ends the body as broken: the client sees a connection cut short.
    pub fn fail(&self, error: io::Error) {
        // A client that has gone needs no error.
        let _ = self.0.blocking_send(Err(error));
    }
}

/// A body made chunk by chunk by blocking code.
pub fn streamed() -> (ChunkSender, Body) {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    (ChunkSender(sender), Chunks(receiver).boxed_unsync())
}

struct Chunks(mpsc::Receiver<io::Result<Bytes>>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|chunk| chunk.map(|result| result.map(Frame::data)))
    }
}

/// How a body that is not sent to its end goes on after its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It fails, so the connection ends without a proper end.
    Cut,
    /// Nothing comes any more.
    Stall,
}

/// `inner`, of which only the first `bytes` are sent.
pub fn truncated(inner: Body, bytes: u64, ending: Ending) -> Body {
    Truncated {
        inner,
        left: bytes,
        wait: Box::pin(tokio::time::sleep(ending.delay())),
        ending,
    }
    .boxed_unsync()
}

/// Between the last byte and the cut: the HTTP server throws away what it has not sent when a body fails.
const FLUSH_TIME: Duration = Duration::from_millis(200);
/// A stalled answer holds its connection this long at most.
pub const STALL: Duration = Duration::from_secs(600);

impl Ending {
    fn delay(self) -> Duration {
        match self {
            Self::Cut => FLUSH_TIME,
            Self::Stall => STALL,
        }
    }
}

struct Truncated {
    inner: Body,
    left: u64,
    ending: Ending,
    wait: Pin<Box<Sleep>>,
}

impl Truncated {
    fn cut(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        ready!(self.wait.as_mut().poll(context));
        Poll::Ready(Some(Err(io::Error::other("cut by a fault"))))
    }
}

impl HttpBody for Truncated {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return self.cut(context);
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(context)) else {
            // Shorter than the cut: the client must still not take it for whole.
            self.left = 0;
            return self.cut(context);
        };
        let frame = frame.map(|frame| {
            frame.map_data(|mut data| {
                data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= data.len() as u64;
                let delay = self.ending.delay();
                self.wait.as_mut().reset(Instant::now() + delay);
                data
            })
        });
        Poll::Ready(Some(frame))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        // The head must still promise the whole length.
        self.inner.size_hint()
    }
}

/// `inner` at `bytes_per_s`, one chunk every [`SLOW_TICK`].
pub fn slowed(inner: Body, bytes_per_s: u64) -> Body {
    let per_tick = bytes_per_s.max(1).div_ceil(TICKS_PER_S).max(1);
    Slowed {
        inner,
        ready: Bytes::new(),
        per_tick: usize::try_from(per_tick).unwrap_or(usize::MAX),
        sleep: Box::pin(tokio::time::sleep(SLOW_TICK)),
    }
    .boxed_unsync()
}

const TICKS_PER_S: u64 = 10;
const SLOW_TICK: Duration = Duration::from_millis(1000 / TICKS_PER_S);

struct Slowed {
    inner: Body,
    ready: Bytes,
    per_tick: usize,
    sleep: Pin<Box<Sleep>>,
}

impl HttpBody for Slowed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        while self.ready.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.ready = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        ready!(self.sleep.as_mut().poll(context));
        self.sleep.as_mut().reset(Instant::now() + SLOW_TICK);
        let size = self.per_tick.min(self.ready.len());
        Poll::Ready(Some(Ok(Frame::data(self.ready.split_to(size)))))
    }
}

/// A request's body, read before anything is answered, so that a refusal does not cost the client its connection;
/// `None` if it was longer than [`MAX_PAYLOAD_BYTES`].
pub type Payload = Option<Bytes>;

/// Largest request body of the three flows; each operation has a limit of its own below.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// Reads a request's body of at most `limit` bytes; `None` if it is longer or broke off.
pub async fn read(body: Incoming, limit: usize) -> Option<Bytes> {
    Limited::new(body, limit)
        .collect()
        .await
        .ok()
        .map(http_body_util::Collected::to_bytes)
}
