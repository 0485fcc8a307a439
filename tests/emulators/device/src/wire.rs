//! Frames and messages, written out by hand from sections 3 to 5 of `docs/device-protocol.md`.

use std::io::{self, Read, Write};

use anyhow::{Context, bail, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;

/// The most a frame may have in a session, and in the handshake.
pub const FRAME_LIMIT: usize = 262_144;
/// See [`FRAME_LIMIT`].
pub const HANDSHAKE_LIMIT: usize = 1024;

/// Messages from the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromBox {
    Hello {
        box_id: String,
        nonce: [u8; 32],
        now_ms: u64,
    },
    Proof {
        mac: [u8; 32],
    },
    Command(Command),
    Ping(u64),
    Pong(u64),
    Bye(String),
}

/// Messages to the box.
#[derive(Debug, Clone)]
pub enum ToBox {
    Hello {
        device_id: String,
        boot_id: [u8; 16],
        last_seq: u64,
        nonce: [u8; 32],
        mac: [u8; 32],
    },
    Accepted([u8; 16]),
    Done {
        id: [u8; 16],
        outcome: Outcome,
        detail: String,
    },
    Pong(u64),
    Bye(&'static str),
}

/// What the box wants done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The same whenever it is sent again.
    #[serde(with = "crate::hex::array")]
    pub id: [u8; 16],
    /// Rises.
    pub seq: u64,
    /// When the box took it on.
    pub issued_at_ms: u64,
    /// When it is no longer to be executed.
    pub expires_at_ms: u64,
    /// Whether it was sent before.
    pub possible_duplicate: bool,
    /// What.
    pub kind: String,
    /// With what.
    #[serde(with = "crate::hex::bytes")]
    pub body: Vec<u8>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok = 0,
    Failed = 1,
    Expired = 2,
    Unknown = 3,
}

/// HMAC-SHA256 over parts.
pub fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The tag of a frame.
fn tag(key: &[u8; 32], direction: u8, counter: u64, content: &[u8]) -> [u8; TAG_LEN] {
    let whole = hmac(key, &[&[direction], &counter.to_be_bytes(), content]);
    whole[..TAG_LEN].try_into().expect("16 of 32 bytes")
}

/// Reads one frame without its length. `Ok(None)` at a clean end of the stream.
pub fn read_frame(stream: &mut impl Read, limit: usize) -> anyhow::Result<Option<Vec<u8>>> {
    let mut prefix = [0; 4];
    match stream.read(&mut prefix[..1])? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut prefix[1..]).context("cut")?,
    }
    let length = u32::from_be_bytes(prefix) as usize;
    ensure!(
        length <= limit,
        "oversized: frame of {length} bytes, at most {limit}"
    );
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).context("cut")?;
    Ok(Some(frame))
}

/// Writes one frame with its length.
pub fn write_frame(stream: &mut impl Write, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], content].concat())
}

/// The content of a frame without a tag.
pub fn plain(message: &ToBox) -> Vec<u8> {
    let mut content = vec![VERSION];
    content.extend(body(message));
    content
}

/// The message of a frame without a tag.
pub fn open_plain(frame: &[u8]) -> anyhow::Result<FromBox> {
    ensure!(frame.len() >= 2, "truncated");
    ensure!(frame[0] == VERSION, "bad_version");
    parse(&frame[1..])
}

/// The content of the frame with this number towards the box.
pub fn sealed(message: &ToBox, key: &[u8; 32], counter: u64) -> Vec<u8> {
    let mut content = plain(message);
    let tag = tag(key, 1, counter, &content);
    content.extend(tag);
    content
}

/// The message of the frame with this number from the box.
pub fn open_sealed(frame: &[u8], key: &[u8; 32], counter: u64) -> anyhow::Result<FromBox> {
    ensure!(frame.len() >= 2 + TAG_LEN, "truncated");
    ensure!(frame[0] == VERSION, "bad_version");
    let (content, theirs) = frame.split_at(frame.len() - TAG_LEN);
    ensure!(tag(key, 0, counter, content) == theirs, "bad_tag");
    parse(&content[1..])
}

fn body(message: &ToBox) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        ToBox::Hello {
            device_id,
            boot_id,
            last_seq,
            nonce,
            mac,
        } => {
            out.push(1);
            put_bytes(&mut out, device_id.as_bytes());
            out.extend(boot_id);
            put_varint(&mut out, *last_seq);
            out.extend(nonce);
            out.extend(mac);
        }
        ToBox::Accepted(id) => {
            out.push(4);
            out.extend(id);
        }
        ToBox::Done {
            id,
            outcome,
            detail,
        } => {
            out.push(5);
            out.extend(id);
            out.push(*outcome as u8);
            put_bytes(&mut out, detail.as_bytes());
        }
        ToBox::Pong(n) => {
            out.push(7);
            put_varint(&mut out, *n);
        }
        ToBox::Bye(reason) => {
            out.push(8);
            put_bytes(&mut out, reason.as_bytes());
        }
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn parse(body: &[u8]) -> anyhow::Result<FromBox> {
    let mut cursor = Cursor(body);
    let message = match cursor.varint()? {
        0 => FromBox::Hello {
            box_id: cursor.text("box_id", 64)?,
            nonce: cursor.array()?,
            now_ms: cursor.varint()?,
        },
        2 => FromBox::Proof {
            mac: cursor.array()?,
        },
        3 => FromBox::Command(Command {
            id: cursor.array()?,
            seq: cursor.varint()?,
            issued_at_ms: cursor.varint()?,
            expires_at_ms: cursor.varint()?,
            possible_duplicate: match cursor.array()? {
                [0] => false,
                [1] => true,
                [other] => bail!("malformed: bool of {other}"),
            },
            kind: cursor.text("kind", 64)?,
            body: cursor.bytes("body", 261_120)?.to_vec(),
        }),
        6 => FromBox::Ping(cursor.varint()?),
        7 => FromBox::Pong(cursor.varint()?),
        8 => FromBox::Bye(cursor.text("reason", 512)?),
        number @ (1 | 4 | 5) => bail!("message {number} is not for a device"),
        number => bail!("unknown_message {number}"),
    };
    ensure!(cursor.0.is_empty(), "trailing_bytes");
    Ok(message)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("malformed")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn varint(&mut self) -> anyhow::Result<u64> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            let part = u64::from(byte & 0x7f);
            let shifted = part.checked_shl(shift).unwrap_or(0);
            ensure!(shifted >> shift == part, "malformed: number over 64 bits");
            number |= shifted;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("malformed: number over ten bytes")
    }

    fn bytes(&mut self, field: &str, limit: usize) -> anyhow::Result<&'a [u8]> {
        let length = usize::try_from(self.varint()?)?;
        ensure!(
            length <= limit || length > self.0.len(),
            "field_too_long: {field}"
        );
        self.take(length)
    }

    fn text(&mut self, field: &str, limit: usize) -> anyhow::Result<String> {
        let bytes = self.bytes(field, limit)?;
        Ok(std::str::from_utf8(bytes).context("malformed")?.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::hex;

    fn golden() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/frames")
    }

    fn session_key() -> [u8; 32] {
        let session: Value =
            serde_json::from_slice(&fs::read(golden().join("session.json")).unwrap()).unwrap();
        hex::decode_array(session["session_key"].as_str().unwrap()).unwrap()
    }

    fn cases() -> Vec<(String, Value, Vec<u8>)> {
        let mut cases = Vec::new();
        for entry in fs::read_dir(golden()).unwrap() {
            let dir = entry.unwrap().path();
            if dir.is_dir() {
                let case = fs::read(dir.join("case.json")).unwrap();
                let frame = fs::read_to_string(dir.join("frame.hex")).unwrap();
                cases.push((
                    dir.file_name().unwrap().to_string_lossy().into_owned(),
                    serde_json::from_slice(&case).unwrap(),
                    hex::decode(&frame.replace('\n', "")).unwrap(),
                ));
            }
        }
        assert!(cases.len() > 20);
        cases
    }

    fn read(case: &Value, mut stream: &[u8], key: &[u8; 32]) -> anyhow::Result<FromBox> {
        let sealed = !case["seal"].is_null();
        let limit = if sealed { FRAME_LIMIT } else { HANDSHAKE_LIMIT };
        let frame = read_frame(&mut stream, limit)?.expect("a frame");
        if !sealed {
            return open_plain(&frame);
        }
        let counter = case["reader_counter"]
            .as_u64()
            .or(case["seal"]["counter"].as_u64());
        open_sealed(&frame, key, counter.unwrap())
    }

    #[test]
    fn golden_frames_of_the_box_are_read() {
        let key = session_key();
        let mut read_well = 0;
        for (name, case, bytes) in cases() {
            let message = &case["message"];
            let from_box = !matches!(
                message["type"].as_str(),
                None | Some("DeviceHello" | "Accepted" | "Done" | "Pong")
            );
            if !case["error"].is_null() || !from_box {
                continue;
            }
            let got = read(&case, &bytes, &key).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            match got {
                FromBox::Hello { box_id, now_ms, .. } => {
                    assert_eq!(box_id, message["box_id"].as_str().unwrap());
                    assert_eq!(now_ms, message["now_ms"].as_u64().unwrap());
                }
                FromBox::Proof { mac } => assert_eq!(hex::encode(&mac), message["mac"]),
                FromBox::Command(command) => {
                    let mut expected = message.clone();
                    expected.as_object_mut().unwrap().remove("type");
                    assert_eq!(serde_json::to_value(command).unwrap(), expected, "{name}");
                }
                FromBox::Ping(n) | FromBox::Pong(n) => assert_eq!(n, message["n"]),
                FromBox::Bye(reason) => assert_eq!(reason, message["reason"]),
            }
            read_well += 1;
        }
        assert!(read_well >= 8, "{read_well}");
    }

    #[test]
    fn bad_golden_frames_are_refused_by_name() {
        let key = session_key();
        let mut refused = 0;
        for (name, case, bytes) in cases() {
            // DeviceHello is no message for a device, whatever is wrong with it.
            let Some(error) = case["error"].as_str().filter(|_| name != "bad_name") else {
                continue;
            };
            let got = read(&case, &bytes, &key).expect_err(&name);
            assert!(format!("{got:#}").contains(error), "{name}: {got:#}");
            refused += 1;
        }
        assert!(refused >= 12, "{refused}");
    }

    #[test]
    fn golden_frames_of_the_device_are_written_to_the_byte() {
        let key = session_key();
        let mut written = 0;
        for (name, case, bytes) in cases() {
            let field = |name: &str| case["message"][name].as_str().unwrap().to_string();
            let id = || hex::decode_array(&field("id")).unwrap();
            let message = match case["message"]["type"].as_str() {
                Some("DeviceHello") if case["error"].is_null() => ToBox::Hello {
                    device_id: field("device_id"),
                    boot_id: hex::decode_array(&field("boot_id")).unwrap(),
                    last_seq: case["message"]["last_seq"].as_u64().unwrap(),
                    nonce: hex::decode_array(&field("nonce")).unwrap(),
                    mac: hex::decode_array(&field("mac")).unwrap(),
                },
                Some("Accepted") => ToBox::Accepted(id()),
                Some("Done") => ToBox::Done {
                    id: id(),
                    outcome: serde_json::from_value(case["message"]["outcome"].clone()).unwrap(),
                    detail: field("detail"),
                },
                Some("Pong") => ToBox::Pong(case["message"]["n"].as_u64().unwrap()),
                _ => continue,
            };
            let content = match case["seal"]["counter"].as_u64() {
                Some(counter) => sealed(&message, &key, counter),
                None => plain(&message),
            };
            let mut frame = Vec::new();
            write_frame(&mut frame, &content).unwrap();
            assert_eq!(hex::encode(&frame), hex::encode(&bytes), "{name}");
            written += 1;
        }
        assert!(written >= 7, "{written}");
    }
}
