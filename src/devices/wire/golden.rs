//! The golden frames of `tests/golden/frames`: `tests/peers/device_vectors.py` makes the same bytes from the same cases.

use super::*;
use crate::devices::handshake::{CommandKey, Nonces, SessionKey};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/frames")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("golden file")).expect("JSON")
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("hex digit"))
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte"))
        .collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value.as_str().expect("hex text"))
        .try_into()
        .expect("length")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("number")
}

/// The message a case describes; `body` is where its bytes live.
fn message_of<'a>(fields: &'a Value, body: &'a mut Vec<u8>) -> Message<'a> {
    match text(&fields["type"]) {
        "BoxHello" => Message::BoxHello {
            box_id: text(&fields["box_id"]),
            nonce: array(&fields["nonce"]),
            now_ms: number(&fields["now_ms"]),
        },
        "DeviceHello" => Message::DeviceHello {
            device_id: text(&fields["device_id"]),
            boot_id: array(&fields["boot_id"]),
            last_seq: number(&fields["last_seq"]),
            nonce: array(&fields["nonce"]),
            mac: array(&fields["mac"]),
        },
        "BoxProof" => Message::BoxProof {
            mac: array(&fields["mac"]),
        },
        "Command" => {
            *body = unhex(text(&fields["body"]));
            Message::Command {
                id: array(&fields["id"]),
                seq: number(&fields["seq"]),
                issued_at_ms: number(&fields["issued_at_ms"]),
                expires_at_ms: number(&fields["expires_at_ms"]),
                possible_duplicate: fields["possible_duplicate"].as_bool().expect("bool"),
                kind: text(&fields["kind"]),
                body,
            }
        }
        "Accepted" => Message::Accepted {
            id: array(&fields["id"]),
        },
        "Done" => Message::Done {
            id: array(&fields["id"]),
            outcome: serde_json::from_value(fields["outcome"].clone()).expect("an outcome"),
            detail: text(&fields["detail"]),
        },
        "Ping" => Message::Ping {
            n: number(&fields["n"]),
        },
        "Pong" => Message::Pong {
            n: number(&fields["n"]),
        },
        "Bye" => Message::Bye {
            reason: text(&fields["reason"]),
        },
        other => panic!("no such message: {other}"),
    }
}

struct Case {
    name: String,
    case: Value,
    bytes: Vec<u8>,
}

impl Case {
    fn direction(&self) -> Option<Direction> {
        match self.case["seal"]["direction"].as_str()? {
            "to_device" => Some(Direction::ToDevice),
            "to_box" => Some(Direction::ToBox),
            other => panic!("no such direction: {other}"),
        }
    }

    /// Reads the bytes the way a session would, and gives the error's name.
    fn read(&self, key: &SessionKey) -> Result<Vec<u8>, WireError> {
        let direction = self.direction();
        let limit = if direction.is_some() {
            FRAME_LIMIT
        } else {
            HANDSHAKE_FRAME_LIMIT
        };
        let mut decoder = FrameDecoder::new(limit);
        let mut input = self.bytes.as_slice();
        let Some(frame) = decoder.push(&mut input)? else {
            decoder.finish()?;
            panic!("{}: neither frame nor error", self.name);
        };
        assert!(input.is_empty(), "{}: one frame a file", self.name);
        let message = match direction {
            None => open_plain(&frame)?,
            Some(direction) => {
                let counter = self.case["reader_counter"]
                    .as_u64()
                    .unwrap_or_else(|| number(&self.case["seal"]["counter"]));
                Opener::at(key.clone(), direction, counter).open(&frame)?
            }
        };
        Ok(postcard::to_stdvec(&message).expect("encodes"))
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = fs::read_dir(golden_dir())
        .expect("golden frames")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir())
        .map(|dir| Case {
            name: dir
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
            case: json(&dir.join("case.json")),
            bytes: unhex(&fs::read_to_string(dir.join("frame.hex")).expect("frame.hex")),
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() > 20, "the golden frames are there");
    cases
}

#[test]
fn the_golden_handshake_is_ours() {
    let session = json(&golden_dir().join("session.json"));
    let key = CommandKey::new(array(&session["command_key"]));
    let nonces = Nonces {
        of_box: array(&session["box_nonce"]),
        of_device: array(&session["device_nonce"]),
    };
    let device_id = text(&session["device_id"]);
    assert_eq!(
        key.device_proof(&nonces, device_id),
        array(&session["device_mac"])
    );
    assert!(key.verifies_device(&nonces, device_id, &array(&session["device_mac"])));
    assert_eq!(
        key.box_proof(&nonces, text(&session["box_id"])),
        array(&session["box_mac"])
    );
    assert!(key.session_key(&nonces) == SessionKey::new(array(&session["session_key"])));
}

#[test]
fn golden_frames_are_written_and_read_to_the_byte() {
    let key = SessionKey::new(array(
        &json(&golden_dir().join("session.json"))["session_key"],
    ));
    for case in cases().iter().filter(|c| c.case["error"].is_null()) {
        let mut body = Vec::new();
        let message = message_of(&case.case["message"], &mut body);
        let written = match case.direction() {
            None => seal_plain(&message),
            Some(direction) => Sealer::at(
                key.clone(),
                direction,
                number(&case.case["seal"]["counter"]),
            )
            .seal(&message),
        };
        assert_eq!(
            written.as_deref(),
            Ok(case.bytes.as_slice()),
            "{}",
            case.name
        );
        let read = case
            .read(&key)
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(
            read,
            postcard::to_stdvec(&message).expect("encodes"),
            "{}",
            case.name
        );
    }
}

#[test]
fn bad_golden_frames_are_refused_by_name() {
    let key = SessionKey::new(array(
        &json(&golden_dir().join("session.json"))["session_key"],
    ));
    let cases = cases();
    let mut bad = 0;
    for case in cases.iter().filter(|c| !c.case["error"].is_null()) {
        let error = case
            .read(&key)
            .expect_err(&format!("{} must be refused", case.name));
        assert_eq!(error.name(), text(&case.case["error"]), "{}", case.name);
        bad += 1;
    }
    assert!(bad > 10, "the bad frames are there");
}
