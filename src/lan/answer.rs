//! What handlers give back: a response whose body is bytes in memory, a file, or a stream of events.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::problem::Problem;
use super::server::InFlight;

/// A response of the box.
pub type Answer = Response<Body>;

/// What a handler gives back.
pub type Answered = Result<Answer, Box<Problem>>;

/// Bytes of a file that are in memory at a time, per connection.
pub const FILE_CHUNK: usize = 64 * 1024;

/// A response's body.
#[derive(Debug)]
pub struct Body {
    source: Source,
    /// Ends the request's time on its connection when the last byte was handed over.
    pub(super) in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Source {
    Bytes(Bytes),
    File(FileRange),
    Events(mpsc::Receiver<Bytes>),
}

/// Part of a file, read piece by piece on the blocking threads.
#[derive(Debug)]
struct FileRange {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    share: Option<Arc<OwnedSemaphorePermit>>,
}

/// Bytes that hold a share of the memory for answers as long as somebody holds them.
struct Shared {
    bytes: Bytes,
    #[expect(dead_code, reason = "held, not read")]
    share: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn shared(bytes: Bytes, share: Arc<OwnedSemaphorePermit>) -> Bytes {
    Bytes::from_owner(Shared { bytes, share })
}

impl Body {
    /// Bytes in memory.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::from_source(Source::Bytes(bytes.into()))
    }

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    /// `length` bytes of `file` from `at`.
    #[must_use]
    pub fn file(file: File, at: u64, length: u64) -> Self {
        Self::from_source(Source::File(FileRange {
            file: Arc::new(file),
            at,
            left: length,
            reading: None,
            share: None,
        }))
    }

    /// What comes out of `events`, until its senders are gone.
    #[must_use]
    pub fn events(events: mpsc::Receiver<Bytes>) -> Self {
        Self::from_source(Source::Events(events))
    }

    /// With its share of the memory for answers, which is given back when the socket has taken the bytes. They carry it
    /// themselves: a body is dropped when its last bytes were handed over, long before a slow client takes them.
    #[must_use]
    pub fn holding(mut self, share: OwnedSemaphorePermit) -> Self {
        let share = Arc::new(share);
        match &mut self.source {
            Source::Bytes(bytes) => *bytes = shared(std::mem::take(bytes), share),
            Source::File(range) => range.share = Some(share),
            Source::Events(_) => {}
        }
        self
    }

    const fn from_source(source: Source) -> Self {
        Self {
            source,
            in_flight: None,
        }
    }
}

impl FileRange {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (at, left) = (self.at, self.left);
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(&self.file);
            let length = usize::try_from(left).map_or(FILE_CHUNK, |left| left.min(FILE_CHUNK));
            tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; length];
                file.read_exact_at(&mut chunk, at)?;
                Ok(Bytes::from(chunk))
            })
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let read = read.map_err(io::Error::other).flatten();
        if let Ok(chunk) = &read {
            let length = chunk.len() as u64;
            self.at += length;
            self.left -= length;
        }
        let share = self.share.clone();
        Poll::Ready(Some(read.map(|chunk| {
            Frame::data(match share {
                Some(share) => shared(chunk, share),
                None => chunk,
            })
        })))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.get_mut().source {
            Source::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::File(range) => range.poll_chunk(cx),
            Source::Events(events) => events
                .poll_recv(cx)
                .map(|event| event.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Bytes(bytes) => bytes.is_empty(),
            Source::File(range) => range.left == 0,
            Source::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::File(range) => SizeHint::with_exact(range.left),
            Source::Events(_) => SizeHint::default(),
        }
    }
}

/// An answer with JSON that is already text.
#[must_use]
pub fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", text)
}

/// An answer with a value as JSON.
///
/// # Errors
/// Never for the types of this room: they have string keys and finite numbers.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answered {
    let text = serde_json::to_vec(value).map_err(|error| {
        Problem::new(
            super::problem::Kind::Internal,
            format!("the answer can't be written: {error}"),
        )
    })?;
    Ok(json_text(status, text))
}

/// An answer with `content_type`, not to be kept by anybody unless its handler says otherwise.
#[must_use]
pub fn typed(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Answer {
    let mut answer = Answer::new(Body::bytes(content));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_file_comes_in_pieces_and_only_the_part_asked() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        file.write_all(&content).unwrap();
        let mut body = Body::file(file, 10, 280_000);
        assert_eq!(body.size_hint().exact(), Some(280_000));
        let (mut got, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= FILE_CHUNK);
            got.extend_from_slice(&piece);
            pieces += 1;
        }
        assert_eq!(pieces, 5);
        assert_eq!(got, content[10..280_010]);
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_said_is_an_error_and_not_an_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        assert!(Body::file(file, 0, 50).collect().await.is_err());
    }
}
