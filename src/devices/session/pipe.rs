//! Both directions of a connection, in a way that loses nothing when nobody waits for them any more.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::SessionError;
use crate::devices::wire::{FrameDecoder, HANDSHAKE_FRAME_LIMIT};

/// For a device to take some bytes of a frame.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// For the rest of a frame that has begun.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes read at a time.
const READ_LEN: usize = 4096;

/// Frames on their way out. A frame once numbered has to arrive whole, also when nobody waits for it any more. Never more
/// than two: each further one waits for those before it.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) frames: Vec<u8>,
    written: usize,
}

impl Outgoing {
    pub(super) async fn flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<(), SessionError> {
        while self.written < self.frames.len() {
            let write = stream.write(&self.frames[self.written..]);
            let written =
                timeout(WRITE_DEADLINE, write)
                    .await
                    .map_err(|_| SessionError::Deadline {
                        waited_for: "writing a frame",
                        deadline: WRITE_DEADLINE,
                    })??;
            if written == 0 {
                return Err(SessionError::Closed);
            }
            self.written += written;
        }
        // One long command must not keep its memory for the life of the session.
        self.frames = Vec::new();
        self.written = 0;
        Ok(())
    }
}

/// Reads frames, and keeps what was read of one when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) decoder: FrameDecoder,
    buffer: Box<[u8; READ_LEN]>,
    start: usize,
    end: usize,
    begun_at: Option<Instant>,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self {
            decoder: FrameDecoder::new(HANDSHAKE_FRAME_LIMIT),
            buffer: Box::new([0; READ_LEN]),
            start: 0,
            end: 0,
            begun_at: None,
        }
    }

    pub(super) async fn next<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<Vec<u8>, SessionError> {
        loop {
            let mut input = &self.buffer[self.start..self.end];
            if !input.is_empty() {
                let frame = self.decoder.push(&mut input)?;
                self.start = self.end - input.len();
                if let Some(frame) = frame {
                    self.begun_at = None;
                    return Ok(frame);
                }
                self.begun_at.get_or_insert_with(Instant::now);
            }
            let read = stream.read(&mut self.buffer[..]);
            let read = match self.begun_at {
                None => read.await,
                Some(at) => timeout_at(at + FRAME_DEADLINE, read).await.map_err(|_| {
                    SessionError::Deadline {
                        waited_for: "the rest of a frame",
                        deadline: FRAME_DEADLINE,
                    }
                })?,
            }?;
            (self.start, self.end) = (0, read);
            if read == 0 {
                self.decoder.finish()?;
                return Err(SessionError::Closed);
            }
        }
    }
}
