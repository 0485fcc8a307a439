//! One session with one device: connect, prove, then messages both ways, with a deadline on every wait.
//!
//! ```text
//!   connect (5 s) --> handshake (10 s) --> open --+--> ended: Closed | Bye | Silent | Wire | Io
//!                                                 '--> receive: pings after 15 s of silence, gives up 15 s later
//! ```

mod pipe;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::pipe::{FRAME_DEADLINE, WRITE_DEADLINE};
use self::pipe::{Incoming, Outgoing};
use super::handshake::{CommandKey, NONCE_LEN, Nonces};
use super::wire::{
    Direction, FRAME_LIMIT, Message, Opener, Outcome, Sealer, TEXT_LIMIT, WireError, open_plain,
    seal_plain,
};

/// For a device to take the connection.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// For the whole handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Without a word for so long, the device is asked whether it is there.
pub const PING_AFTER: Duration = Duration::from_secs(15);

/// And if it says nothing for so long after that, it is gone.
pub const PONG_DEADLINE: Duration = Duration::from_secs(15);

/// Why there is no session, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody takes the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A deadline passed.
    #[error("{waited_for} took longer than {deadline:?}")]
    Deadline {
        /// What was waited for.
        waited_for: &'static str,
        /// How long.
        deadline: Duration,
    },
    /// The device sent what is no frame or no message.
    #[error("the device broke the protocol")]
    Wire(#[from] WireError),
    /// The device sent a message that has no place there.
    #[error("the device sent {message} out of place")]
    OutOfPlace {
        /// Which.
        message: &'static str,
    },
    /// Another device answers at this address.
    #[error("another device answers at this address")]
    OtherDevice,
    /// Whoever answers does not know the device's key.
    #[error("the device's proof is wrong")]
    BadProof,
    /// The device said farewell.
    #[error("the device ended the session: {reason}")]
    Bye {
        /// Its reason, as far as it is printable.
        reason: String,
    },
    /// The connection ended.
    #[error("the device closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

impl SessionError {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Deadline { .. } => "deadline",
            Self::Wire(error) => error.name(),
            Self::OutOfPlace { .. } => "out_of_place",
            Self::OtherDevice => "other_device",
            Self::BadProof => "bad_proof",
            Self::Bye { .. } => "bye",
            Self::Closed => "closed",
            Self::Io(_) => "io",
        }
    }
}

/// What a device has to say; pings are answered on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The command is on its disk.
    Accepted {
        /// Which.
        id: [u8; 16],
    },
    /// The command is over.
    Done {
        /// Which.
        id: [u8; 16],
        /// How.
        outcome: Outcome,
        /// In words.
        detail: String,
    },
}

/// Who talks to whom.
#[derive(Debug, Clone)]
pub struct Parties<'a> {
    /// The box.
    pub box_id: &'a str,
    /// The device that is expected.
    pub device_id: &'a str,
    /// What they share.
    pub key: &'a CommandKey,
}

/// What a device told of itself in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction {
    /// New at each start of the device.
    pub boot_id: [u8; 16],
    /// The highest `seq` it has finished and remembers.
    pub last_seq: u64,
}

/// A session that is through its handshake.
#[derive(Debug)]
pub struct Session<S> {
    stream: S,
    reader: Incoming,
    writer: Outgoing,
    sealer: Sealer,
    opener: Opener,
    heard_at: Instant,
    pinged: Option<Instant>,
    pings: u64,
}

/// Connects, with the options a command connection wants.
///
/// # Errors
/// [`SessionError::Connect`], [`SessionError::Deadline`].
pub async fn connect(address: SocketAddr) -> Result<TcpStream, SessionError> {
    let refused = |source| SessionError::Connect { address, source };
    let stream = timeout(CONNECT_DEADLINE, TcpStream::connect(address))
        .await
        .map_err(|_| SessionError::Deadline {
            waited_for: "connecting",
            deadline: CONNECT_DEADLINE,
        })?
        .map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(PING_AFTER)
        .with_interval(PING_AFTER);
    socket.set_tcp_keepalive(&keepalive).map_err(refused)?;
    socket
        .set_tcp_user_timeout(Some(PING_AFTER + PONG_DEADLINE))
        .map_err(refused)?;
    Ok(stream)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Shakes hands. `nonce` is fresh for this session, `now_ms` the time the device goes by.
    ///
    /// # Errors
    /// [`SessionError`]; the connection is of no more use then.
    pub async fn shake_hands(
        stream: S,
        parties: &Parties<'_>,
        nonce: [u8; NONCE_LEN],
        now_ms: u64,
    ) -> Result<(Self, Introduction), SessionError> {
        timeout(
            HANDSHAKE_DEADLINE,
            Self::introduce(stream, parties, nonce, now_ms),
        )
        .await
        .map_err(|_| SessionError::Deadline {
            waited_for: "the handshake",
            deadline: HANDSHAKE_DEADLINE,
        })?
    }

    async fn introduce(
        mut stream: S,
        parties: &Parties<'_>,
        nonce: [u8; NONCE_LEN],
        now_ms: u64,
    ) -> Result<(Self, Introduction), SessionError> {
        let hello = Message::BoxHello {
            box_id: parties.box_id,
            nonce,
            now_ms,
        };
        stream.write_all(&seal_plain(&hello)?).await?;

        let mut reader = Incoming::new();
        let frame = reader.next(&mut stream).await?;
        let (introduction, nonces) = match open_plain(&frame)? {
            Message::DeviceHello {
                device_id,
                boot_id,
                last_seq,
                nonce: of_device,
                mac,
            } => {
                let nonces = Nonces {
                    of_box: nonce,
                    of_device,
                };
                if device_id != parties.device_id {
                    return Err(SessionError::OtherDevice);
                }
                if !parties.key.verifies_device(&nonces, device_id, &mac) {
                    return Err(SessionError::BadProof);
                }
                (Introduction { boot_id, last_seq }, nonces)
            }
            other => return Err(unexpected(&other)),
        };
        let proof = Message::BoxProof {
            mac: parties.key.box_proof(&nonces, parties.box_id),
        };
        stream.write_all(&seal_plain(&proof)?).await?;

        reader.decoder.set_limit(FRAME_LIMIT);
        let key = parties.key.session_key(&nonces);
        let session = Self {
            stream,
            reader,
            writer: Outgoing::default(),
            sealer: Sealer::new(key.clone(), Direction::ToDevice),
            opener: Opener::new(key, Direction::ToBox),
            heard_at: Instant::now(),
            pinged: None,
            pings: 0,
        };
        Ok((session, introduction))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`SessionError`]. Only [`SessionError::Wire`] leaves the session as it was: the message is too long.
    pub async fn send(&mut self, message: &Message<'_>) -> Result<(), SessionError> {
        self.writer.frames.extend(self.sealer.seal(message)?);
        self.writer.flush(&mut self.stream).await
    }

    /// What the device says next; `None` when it says nothing before `until`. Whether it is still there is found out on the
    /// way. Dropping the future loses nothing of what either side says.
    ///
    /// # Errors
    /// [`SessionError`]: the session is over.
    pub async fn receive(&mut self, until: Instant) -> Result<Option<Said>, SessionError> {
        // What a dropped future left behind.
        self.writer.flush(&mut self.stream).await?;
        loop {
            let patience = self
                .pinged
                .map_or(self.heard_at + PING_AFTER, |at| at + PONG_DEADLINE);
            let frame =
                match timeout_at(until.min(patience), self.reader.next(&mut self.stream)).await {
                    Ok(frame) => frame?,
                    Err(_) if until <= patience => return Ok(None),
                    Err(_) if self.pinged.is_some() => {
                        return Err(SessionError::Deadline {
                            waited_for: "a sign of life",
                            deadline: PING_AFTER + PONG_DEADLINE,
                        });
                    }
                    Err(_) => {
                        self.ping().await?;
                        continue;
                    }
                };
            self.heard_at = Instant::now();
            self.pinged = None;
            match self.opener.open(&frame)? {
                Message::Accepted { id } => return Ok(Some(Said::Accepted { id })),
                Message::Done {
                    id,
                    outcome,
                    detail,
                } => {
                    return Ok(Some(Said::Done {
                        id,
                        outcome,
                        detail: detail.to_owned(),
                    }));
                }
                Message::Ping { n } => self.send(&Message::Pong { n }).await?,
                Message::Pong { .. } => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Says farewell and closes. Nobody waits for the device here.
    pub async fn close(mut self, reason: &str) {
        let _ = self.send(&Message::Bye { reason }).await;
        let _ = timeout(WRITE_DEADLINE, self.stream.shutdown()).await;
    }

    async fn ping(&mut self) -> Result<(), SessionError> {
        self.pings += 1;
        self.pinged = Some(Instant::now());
        self.send(&Message::Ping { n: self.pings }).await
    }
}

fn unexpected(message: &Message<'_>) -> SessionError {
    let message = match message {
        // Anybody can say this in the handshake, so the reason is a hint, and its text is not trusted.
        Message::Bye { reason } => {
            let reason = reason
                .chars()
                .filter(|c| c.is_ascii_graphic() || *c == ' ')
                .take(TEXT_LIMIT)
                .collect();
            return SessionError::Bye { reason };
        }
        Message::BoxHello { .. } => "BoxHello",
        Message::DeviceHello { .. } => "DeviceHello",
        Message::BoxProof { .. } => "BoxProof",
        Message::Command { .. } => "Command",
        Message::Accepted { .. } => "Accepted",
        Message::Done { .. } => "Done",
        Message::Ping { .. } => "Ping",
        Message::Pong { .. } => "Pong",
    };
    SessionError::OutOfPlace { message }
}

#[cfg(test)]
mod tests;
