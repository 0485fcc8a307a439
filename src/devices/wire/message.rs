//! The messages, in the order of their numbers.

use super::{BODY_LIMIT, NAME_LIMIT, TEXT_LIMIT, WireError};
use serde::{Deserialize, Serialize};

/// How many messages version 1 has: numbers from 0 to one less.
const MESSAGES: u32 = 9;

/// One message. The order of the variants is the wire's: new ones are appended, none is ever moved, changed or taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// 0, box to device, plain: the first word of a session.
    BoxHello {
        /// Whose box this is; a device paired with another one says [`Message::Bye`].
        box_id: &'a str,
        /// Fresh for this session.
        nonce: [u8; 32],
        /// The box's time, milliseconds since 1970 in UTC.
        now_ms: u64,
    },
    /// 1, device to box, plain: who it is, where it stands, and its proof.
    DeviceHello {
        /// As given at pairing.
        device_id: &'a str,
        /// Fresh at every start of the device.
        boot_id: [u8; 16],
        /// The highest `seq` it has finished and remembers; 0 for none.
        last_seq: u64,
        /// Fresh for this session.
        nonce: [u8; 32],
        /// The device's proof of the command key.
        mac: [u8; 32],
    },
    /// 2, box to device, plain: the box's proof. After it every frame carries a tag.
    BoxProof {
        /// The box's proof of the command key.
        mac: [u8; 32],
    },
    /// 3, box to device: do this.
    Command {
        /// The same whenever the command is sent again.
        id: [u8; 16],
        /// Rises by command and device.
        seq: u64,
        /// When the box took the command on, milliseconds since 1970 in UTC.
        issued_at_ms: u64,
        /// When it is no longer to be executed.
        expires_at_ms: u64,
        /// Whether it was sent before. A device that lost its memory executes it and shows this mark to people.
        possible_duplicate: bool,
        /// What to do, such as `order`.
        kind: &'a str,
        /// With what; its shape is the kind's.
        body: &'a [u8],
    },
    /// 4, device to box: the command is on the device's disk and will be executed.
    Accepted {
        /// Which command.
        id: [u8; 16],
    },
    /// 5, device to box: what came of the command.
    Done {
        /// Which command.
        id: [u8; 16],
        /// How it ended.
        outcome: Outcome,
        /// For people; may be empty.
        detail: &'a str,
    },
    /// 6, either way: are you there.
    Ping {
        /// Comes back in the pong.
        n: u64,
    },
    /// 7, either way: yes.
    Pong {
        /// The ping's.
        n: u64,
    },
    /// 8, either way, also plain in place of `DeviceHello`: the last word, and why.
    Bye {
        /// A stable word, such as `not_paired` or `superseded`.
        reason: &'a str,
    },
}

/// How a command ended on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 0: executed.
    Ok,
    /// 1: tried, and failed.
    Failed,
    /// 2: not executed, it came too late.
    Expired,
    /// 3: accepted once, but the device cannot tell whether it was executed (a printer cut off in the middle).
    Unknown,
}

impl<'a> Message<'a> {
    /// The message of a body.
    pub(super) fn from_body(body: &'a [u8]) -> Result<Self, WireError> {
        let (number, _) = postcard::take_from_bytes::<u32>(body)
            .map_err(|_| WireError::Malformed { number: u32::MAX })?;
        if number >= MESSAGES {
            return Err(WireError::UnknownMessage { number });
        }
        let (message, rest) =
            postcard::take_from_bytes::<Self>(body).map_err(|_| WireError::Malformed { number })?;
        if !rest.is_empty() {
            return Err(WireError::TrailingBytes {
                number,
                count: rest.len(),
            });
        }
        message.within_limits()?;
        Ok(message)
    }

    /// Appends the message's body to `frame`.
    pub(super) fn write_body(&self, frame: Vec<u8>) -> Result<Vec<u8>, WireError> {
        self.within_limits()?;
        Ok(postcard::to_extend(self, frame)
            .expect("writing to a Vec fails for no message of this enum"))
    }

    fn within_limits(&self) -> Result<(), WireError> {
        let (field, length, limit) = match self {
            Self::BoxHello { box_id, .. } => ("box_id", box_id.len(), NAME_LIMIT),
            Self::DeviceHello { device_id, .. } => ("device_id", device_id.len(), NAME_LIMIT),
            Self::Command { kind, .. } if kind.len() > NAME_LIMIT => {
                ("kind", kind.len(), NAME_LIMIT)
            }
            Self::Command { body, .. } => ("body", body.len(), BODY_LIMIT),
            Self::Done { detail, .. } => ("detail", detail.len(), TEXT_LIMIT),
            Self::Bye { reason } => ("reason", reason.len(), TEXT_LIMIT),
            Self::BoxProof { .. }
            | Self::Accepted { .. }
            | Self::Ping { .. }
            | Self::Pong { .. } => return Ok(()),
        };
        if length > limit {
            return Err(WireError::FieldTooLong {
                field,
                length,
                limit,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(message: &Message<'_>) -> Vec<u8> {
        message.write_body(Vec::new()).expect("within limits")
    }

    #[test]
    fn a_message_number_is_its_place_in_the_enum() {
        let numbers: Vec<u8> = [
            Message::BoxProof { mac: [0; 32] },
            Message::Accepted { id: [0; 16] },
            Message::Ping { n: 1 },
            Message::Pong { n: 1 },
            Message::Bye { reason: "" },
        ]
        .iter()
        .map(|m| body_of(m)[0])
        .collect();
        assert_eq!(numbers, [2, 4, 6, 7, 8]);
    }

    #[test]
    fn a_number_beyond_the_last_is_an_unknown_message() {
        assert_eq!(
            Message::from_body(&[9]),
            Err(WireError::UnknownMessage { number: 9 })
        );
        assert_eq!(
            Message::from_body(&[0xff, 0x7f]),
            Err(WireError::UnknownMessage { number: 16_383 })
        );
    }

    #[test]
    fn a_field_over_its_limit_is_refused_on_the_way_out_and_in() {
        let long = "x".repeat(NAME_LIMIT + 1);
        let hello = Message::BoxHello {
            box_id: &long,
            nonce: [0; 32],
            now_ms: 0,
        };
        let refused = WireError::FieldTooLong {
            field: "box_id",
            length: NAME_LIMIT + 1,
            limit: NAME_LIMIT,
        };
        assert_eq!(hello.write_body(Vec::new()), Err(refused.clone()));
        let bytes = postcard::to_stdvec(&hello).expect("encodes");
        assert_eq!(Message::from_body(&bytes), Err(refused));
    }

    #[test]
    fn text_that_is_not_utf8_and_a_bool_that_is_neither_are_malformed() {
        assert_eq!(
            Message::from_body(&[8, 1, 0xff]),
            Err(WireError::Malformed { number: 8 })
        );
        let mut command = body_of(&Message::Command {
            id: [0; 16],
            seq: 0,
            issued_at_ms: 0,
            expires_at_ms: 0,
            possible_duplicate: true,
            kind: "",
            body: b"",
        });
        assert_eq!(command[20], 1);
        command[20] = 2;
        assert_eq!(
            Message::from_body(&command),
            Err(WireError::Malformed { number: 3 })
        );
    }

    #[test]
    fn a_body_that_claims_more_than_there_is_is_malformed() {
        // A reason of 2^32 - 1 bytes, of which none is there.
        assert_eq!(
            Message::from_body(&[8, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            Err(WireError::Malformed { number: 8 })
        );
    }
}
