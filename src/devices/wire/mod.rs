//! Frames and messages of the device protocol, version 1 (`docs/device-protocol.md` is the normative text).
//!
//! ```text
//!   u32 BE length | u8 version | body (postcard) | tag, 16 bytes, only after the handshake
//!                   '------------- length counts from here -------------'
//! ```
//!
//! Nothing here reads or writes a socket: [`FrameDecoder`] is fed with bytes and gives frames, [`open_plain`] and [`Opener`]
//! make messages of them, [`seal_plain`] and [`Sealer`] make frames of messages. A message borrows from its frame, so that
//! reading one allocates nothing: what a peer can make the box allocate is one frame of [`FRAME_LIMIT`] bytes, and
//! [`HANDSHAKE_FRAME_LIMIT`] before it has proven who it is.
//!
//! There is no way back into step after a bad frame: every [`WireError`] ends the session.

mod frame;
mod message;
mod seal;

pub use frame::FrameDecoder;
pub use message::{Message, Outcome};
pub use seal::{Direction, Opener, Sealer, open_plain, seal_plain};

/// The version of the protocol spoken here; the first byte of every frame.
pub const VERSION: u8 = 1;

/// The most a frame's length may say, in bytes (version, body and tag). More is refused before anything is allocated.
pub const FRAME_LIMIT: usize = 262_144;

/// The same for a frame of the handshake: its sender is still a stranger.
pub const HANDSHAKE_FRAME_LIMIT: usize = 1024;

/// The most a command's body may hold: what [`FRAME_LIMIT`] leaves, with room for every other field at its longest.
pub const BODY_LIMIT: usize = FRAME_LIMIT - 1024;

/// The longest `box_id`, `device_id` and `kind`, in bytes.
pub const NAME_LIMIT: usize = 64;

/// The longest `detail` of a result and `reason` of a farewell, in bytes.
pub const TEXT_LIMIT: usize = 512;

/// Bytes of the tag at the end of a sealed frame: the first half of an HMAC-SHA256.
pub const TAG_LEN: usize = 16;

/// Bytes of the length at the start of a frame.
const PREFIX_LEN: usize = 4;

/// Why bytes are no frame, or a frame no message. The session they came on is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame says it is longer than allowed here.
    #[error("frame of {length} bytes is over the limit of {limit}")]
    Oversized {
        /// What the frame says.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The frame is shorter than its fixed parts.
    #[error("frame of {length} bytes is shorter than the least possible {least}")]
    Truncated {
        /// What there is.
        length: usize,
        /// What must be there.
        least: usize,
    },
    /// The peer closed the connection inside a frame.
    #[error("connection ended inside a frame, {missing} bytes before its end")]
    Cut {
        /// How many bytes had still to come, as far as is known.
        missing: usize,
    },
    /// The peer speaks another version.
    #[error("frame of version {version}, not {VERSION}")]
    BadVersion {
        /// What it speaks.
        version: u8,
    },
    /// The tag does not fit: another key, another place in the session, or changed bytes.
    #[error("frame's tag does not fit")]
    BadTag,
    /// A message number this version does not have.
    #[error("unknown message number {number}")]
    UnknownMessage {
        /// The number.
        number: u32,
    },
    /// The body is not the message its number says.
    #[error("malformed message number {number}")]
    Malformed {
        /// The number, or `u32::MAX` where not even that could be read.
        number: u32,
    },
    /// Bytes are left over after the message.
    #[error("{count} bytes after message number {number}")]
    TrailingBytes {
        /// The number.
        number: u32,
        /// How many.
        count: usize,
    },
    /// A field is longer than the protocol allows.
    #[error("field {field} has {length} bytes, over the limit of {limit}")]
    FieldTooLong {
        /// Which one.
        field: &'static str,
        /// What it has.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
}

impl WireError {
    /// A stable name for logs and test vectors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Oversized { .. } => "oversized",
            Self::Truncated { .. } => "truncated",
            Self::Cut { .. } => "cut",
            Self::BadVersion { .. } => "bad_version",
            Self::BadTag => "bad_tag",
            Self::UnknownMessage { .. } => "unknown_message",
            Self::Malformed { .. } => "malformed",
            Self::TrailingBytes { .. } => "trailing_bytes",
            Self::FieldTooLong { .. } => "field_too_long",
        }
    }
}

#[cfg(test)]
mod golden;
