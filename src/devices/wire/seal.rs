//! Frames with and without a tag.

use super::{Message, PREFIX_LEN, TAG_LEN, VERSION, WireError};
use crate::devices::handshake::{KEY_LEN, SessionKey};
use crate::digest::equal_in_constant_time;

/// Version and message number: no frame is shorter.
const LEAST_PLAIN: usize = 2;

/// Which way a frame goes. The tag covers it, so that a frame cannot be sent back to where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the box to the device.
    ToDevice,
    /// From the device to the box.
    ToBox,
}

/// A frame of the handshake, length included.
pub fn seal_plain(message: &Message<'_>) -> Result<Vec<u8>, WireError> {
    Ok(with_length(message.write_body(start())?))
}

/// The message of a frame of the handshake.
pub fn open_plain(frame: &[u8]) -> Result<Message<'_>, WireError> {
    Message::from_body(body_of(frame, LEAST_PLAIN)?)
}

/// Makes the frames of one direction of one session.
#[derive(Debug)]
pub struct Sealer(Counted);

/// Checks the frames of one direction of one session.
#[derive(Debug)]
pub struct Opener(Counted);

impl Sealer {
    /// A sealer at the start of a session.
    pub fn new(key: SessionKey, direction: Direction) -> Self {
        Self(Counted::new(key, direction))
    }

    /// A sealer in the middle of a session.
    #[cfg(test)]
    pub(super) fn at(key: SessionKey, direction: Direction, counter: u64) -> Self {
        Self(Counted {
            counter,
            ..Counted::new(key, direction)
        })
    }

    /// The next frame, length included. A message that is refused uses up no counter.
    pub fn seal(&mut self, message: &Message<'_>) -> Result<Vec<u8>, WireError> {
        let mut frame = message.write_body(start())?;
        let tag = self.0.next(&frame[PREFIX_LEN..]);
        frame.extend_from_slice(&tag[..TAG_LEN]);
        Ok(with_length(frame))
    }
}

impl Opener {
    /// An opener at the start of a session.
    pub fn new(key: SessionKey, direction: Direction) -> Self {
        Self(Counted::new(key, direction))
    }

    /// An opener in the middle of a session.
    #[cfg(test)]
    pub(super) fn at(key: SessionKey, direction: Direction, counter: u64) -> Self {
        Self(Counted {
            counter,
            ..Counted::new(key, direction)
        })
    }

    /// The message of the next frame. The tag is checked before the body is looked at.
    pub fn open<'a>(&mut self, frame: &'a [u8]) -> Result<Message<'a>, WireError> {
        body_of(frame, LEAST_PLAIN + TAG_LEN)?;
        let (content, tag) = frame.split_at(frame.len() - TAG_LEN);
        if !equal_in_constant_time(&self.0.next(content)[..TAG_LEN], tag) {
            return Err(WireError::BadTag);
        }
        Message::from_body(body_of(content, LEAST_PLAIN)?)
    }
}

#[derive(Debug)]
struct Counted {
    key: SessionKey,
    direction: Direction,
    counter: u64,
}

impl Counted {
    fn new(key: SessionKey, direction: Direction) -> Self {
        Self {
            key,
            direction,
            counter: 0,
        }
    }

    /// The mac over the next frame's version and body.
    fn next(&mut self, content: &[u8]) -> [u8; KEY_LEN] {
        let direction = match self.direction {
            Direction::ToDevice => 0,
            Direction::ToBox => 1,
        };
        let mac = self
            .key
            .mac(&[&[direction], &self.counter.to_be_bytes(), content]);
        self.counter += 1;
        mac
    }
}

fn body_of(frame: &[u8], least: usize) -> Result<&[u8], WireError> {
    if frame.len() < least {
        return Err(WireError::Truncated {
            length: frame.len(),
            least,
        });
    }
    if frame[0] != VERSION {
        return Err(WireError::BadVersion { version: frame[0] });
    }
    Ok(&frame[1..])
}

fn start() -> Vec<u8> {
    vec![0, 0, 0, 0, VERSION]
}

fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let length =
        u32::try_from(frame.len() - PREFIX_LEN).expect("limits of the fields keep frames short");
    frame[..PREFIX_LEN].copy_from_slice(&length.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::wire::{BODY_LIMIT, FRAME_LIMIT, NAME_LIMIT};

    fn key() -> SessionKey {
        SessionKey::new([5; 32])
    }

    fn sealed(messages: &[Message<'_>]) -> Vec<Vec<u8>> {
        let mut sealer = Sealer::new(key(), Direction::ToDevice);
        messages
            .iter()
            .map(|m| sealer.seal(m).expect("within limits")[PREFIX_LEN..].to_vec())
            .collect()
    }

    #[test]
    fn sealed_frames_open_in_order_and_only_in_order() {
        let messages = [Message::Ping { n: 1 }, Message::Ping { n: 2 }];
        let frames = sealed(&messages);
        let mut opener = Opener::new(key(), Direction::ToDevice);
        assert_eq!(opener.open(&frames[0]), Ok(messages[0]));
        assert_eq!(opener.open(&frames[1]), Ok(messages[1]));

        let mut opener = Opener::new(key(), Direction::ToDevice);
        assert_eq!(opener.open(&frames[1]), Err(WireError::BadTag));
        let mut opener = Opener::new(key(), Direction::ToDevice);
        assert_eq!(opener.open(&frames[0]), Ok(messages[0]));
        assert_eq!(
            opener.open(&frames[0]),
            Err(WireError::BadTag),
            "sent again by somebody in between"
        );
    }

    #[test]
    fn a_frame_sent_back_to_its_sender_does_not_open() {
        let frames = sealed(&[Message::Ping { n: 1 }]);
        let mut opener = Opener::new(key(), Direction::ToBox);
        assert_eq!(opener.open(&frames[0]), Err(WireError::BadTag));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let frame = &sealed(&[Message::Accepted { id: [3; 16] }])[0];
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = Opener::new(key(), Direction::ToDevice)
                .open(&changed)
                .expect_err("changed");
            let expected = if bit < 8 { "bad_version" } else { "bad_tag" };
            assert_eq!(error.name(), expected, "bit {bit}");
        }
    }

    #[test]
    fn the_longest_command_fits_into_a_frame() {
        let body = vec![0xff; BODY_LIMIT];
        let kind = "k".repeat(NAME_LIMIT);
        let command = Message::Command {
            id: [0xff; 16],
            seq: u64::MAX,
            issued_at_ms: u64::MAX,
            expires_at_ms: u64::MAX,
            possible_duplicate: true,
            kind: &kind,
            body: &body,
        };
        let frame = &sealed(&[command])[0];
        assert!(frame.len() <= FRAME_LIMIT);
        assert_eq!(
            Opener::new(key(), Direction::ToDevice).open(frame),
            Ok(command)
        );
    }

    #[test]
    fn random_bytes_never_panic_and_never_open() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut plain_messages = 0;
        for _ in 0..50_000 {
            let length = usize::try_from(random() % 300).expect("small");
            let mut bytes: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
            if random() % 2 == 0 && length > 1 {
                // Half of them get past the version, and to a message that exists.
                bytes[0] = VERSION;
                bytes[1] %= 9;
            }
            plain_messages += usize::from(open_plain(&bytes).is_ok());
            assert!(
                Opener::new(key(), Direction::ToBox).open(&bytes).is_err(),
                "{bytes:02x?}"
            );
        }
        assert!(
            plain_messages > 0,
            "the generator reaches the accepting paths too"
        );
    }
}
