//! The datagrams of discovery, version 1 (`docs/device-protocol.md` is the normative text). All begin alike:
//!
//! ```text
//!   "CMPT" | u8 version = 1 | u8 number | 16 bytes nonce | ...
//!
//!   1 WHO_IS_BOX       device asks, 256 bytes:   zeros
//!   2 BOX_HERE         box answers:              u8 n | n * u16 port | text box id | u16 front port | key 32 | signature 64
//!   3 WHO_ARE_DEVICES  box asks, 256 bytes:      key 32 | signature 64 | zeros
//!   4 DEVICE_HERE      device answers:           text device id | u16 command port | mac 32
//! ```
//!
//! Numbers are big-endian, a text is its length in one byte and its bytes in UTF-8. A question fills [`DATAGRAM_LIMIT`]
//! bytes and no answer is longer, so that nobody can use the box to make traffic grow.

use crate::identity::BoxIdentity;

/// Bytes of every question, and the most an answer may have.
pub const DATAGRAM_LIMIT: usize = 256;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 16;

/// The most ports a `BOX_HERE` names.
pub const PORTS_LIMIT: usize = 8;

/// The longest id, in bytes.
pub const ID_LIMIT: usize = 64;

const MAGIC: &[u8; 4] = b"CMPT";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 6;
const MAC_LEN: usize = 32;

const WHO_IS_BOX: u8 = 1;
const BOX_HERE: u8 = 2;
const WHO_ARE_DEVICES: u8 = 3;
const DEVICE_HERE: u8 = 4;

/// What a question and its answer have in common.
pub type Nonce = [u8; NONCE_LEN];

/// A datagram the box listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    /// A device asks for the box.
    WhoIsBox {
        /// To be echoed.
        nonce: Nonce,
    },
    /// A device answers the box.
    DeviceHere(DeviceHere<'a>),
}

/// A device's answer, not yet proven: see [`DeviceHere::proven_part`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceHere<'a> {
    /// The box's, echoed.
    pub nonce: Nonce,
    /// Who it says it is.
    pub device_id: &'a str,
    /// Where it listens for commands.
    pub command_port: u16,
    /// Proof over [`DeviceHere::proven_part`].
    pub mac: [u8; MAC_LEN],
    /// Every byte before the mac.
    pub proven_part: &'a [u8],
}

/// Why a datagram is not for the box. It is dropped; nobody gets an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Shorter than what it says it is.
    #[error("datagram of {length} bytes is too short")]
    Truncated {
        /// What there is.
        length: usize,
    },
    /// Longer than a datagram may be.
    #[error("datagram is longer than {DATAGRAM_LIMIT} bytes")]
    Oversized,
    /// Somebody else's protocol.
    #[error("datagram of another protocol")]
    BadMagic,
    /// Another version of this protocol.
    #[error("datagram of version {version}, not {VERSION}")]
    BadVersion {
        /// Which one.
        version: u8,
    },
    /// A number this version does not have.
    #[error("unknown datagram number {number}")]
    UnknownDatagram {
        /// Which one.
        number: u8,
    },
    /// A datagram boxes send: another box is on this network, or our own words came back.
    #[error("datagram number {number} is not for a box")]
    NotForBox {
        /// Which one.
        number: u8,
    },
    /// An id that is empty, too long or no text.
    #[error("datagram with a malformed id")]
    Malformed,
    /// Bytes after the end.
    #[error("{count} bytes after the datagram's end")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

impl DatagramError {
    /// A stable name for logs and test vectors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Oversized => "oversized",
            Self::BadMagic => "bad_magic",
            Self::BadVersion { .. } => "bad_version",
            Self::UnknownDatagram { .. } => "unknown_datagram",
            Self::NotForBox { .. } => "not_for_box",
            Self::Malformed => "malformed",
            Self::TrailingBytes { .. } => "trailing_bytes",
        }
    }
}

/// Reads a datagram that came in on the box's port.
///
/// # Errors
/// [`DatagramError`] for all that is not a question or an answer of a device.
pub fn read(datagram: &[u8]) -> Result<Received<'_>, DatagramError> {
    if datagram.len() > DATAGRAM_LIMIT {
        return Err(DatagramError::Oversized);
    }
    let mut rest = Reader {
        whole: datagram,
        at: 0,
    };
    if rest.array::<4>()? != *MAGIC {
        return Err(DatagramError::BadMagic);
    }
    let [version, number] = rest.array()?;
    if version != VERSION {
        return Err(DatagramError::BadVersion { version });
    }
    match number {
        WHO_IS_BOX if datagram.len() < DATAGRAM_LIMIT => Err(DatagramError::Truncated {
            length: datagram.len(),
        }),
        WHO_IS_BOX => Ok(Received::WhoIsBox {
            nonce: rest.array()?,
        }),
        DEVICE_HERE => rest.device_here().map(Received::DeviceHere),
        BOX_HERE | WHO_ARE_DEVICES => Err(DatagramError::NotForBox { number }),
        _ => Err(DatagramError::UnknownDatagram { number }),
    }
}

/// The box's answer to `WHO_IS_BOX`. Ports over [`PORTS_LIMIT`] are left out.
#[must_use]
pub fn box_here(identity: &BoxIdentity, nonce: &Nonce, ports: &[u16], front_port: u16) -> Vec<u8> {
    let id = identity.id().as_bytes();
    debug_assert!(id.len() <= ID_LIMIT, "a box's id is 16 characters");
    box_here_of(id, identity, nonce, ports, front_port)
}

fn box_here_of(
    id: &[u8],
    identity: &BoxIdentity,
    nonce: &Nonce,
    ports: &[u16],
    front_port: u16,
) -> Vec<u8> {
    let ports = &ports[..ports.len().min(PORTS_LIMIT)];
    let mut datagram = header(BOX_HERE, nonce);
    datagram.push(u8::try_from(ports.len()).expect("at most PORTS_LIMIT"));
    for port in ports {
        datagram.extend_from_slice(&port.to_be_bytes());
    }
    datagram.push(u8::try_from(id.len()).expect("at most ID_LIMIT"));
    datagram.extend_from_slice(id);
    datagram.extend_from_slice(&front_port.to_be_bytes());
    datagram.extend_from_slice(&identity.public_key());
    let signature = identity.sign(&datagram);
    datagram.extend_from_slice(&signature);
    datagram
}

/// The box's own question to its devices.
#[must_use]
pub fn who_are_devices(identity: &BoxIdentity, nonce: &Nonce) -> Vec<u8> {
    let mut datagram = header(WHO_ARE_DEVICES, nonce);
    datagram.extend_from_slice(&identity.public_key());
    let signature = identity.sign(&datagram);
    datagram.extend_from_slice(&signature);
    datagram.resize(DATAGRAM_LIMIT, 0);
    datagram
}

fn header(number: u8, nonce: &Nonce) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(DATAGRAM_LIMIT);
    datagram.extend_from_slice(MAGIC);
    datagram.extend_from_slice(&[VERSION, number]);
    datagram.extend_from_slice(nonce);
    debug_assert_eq!(datagram.len(), HEADER_LEN + NONCE_LEN);
    datagram
}

struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], DatagramError> {
        let bytes = self
            .whole
            .get(self.at..self.at + count)
            .ok_or(DatagramError::Truncated {
                length: self.whole.len(),
            })?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DatagramError> {
        Ok(self.bytes(N)?.try_into().expect("bytes(N) gives N bytes"))
    }

    fn id(&mut self) -> Result<&'a str, DatagramError> {
        let [length] = self.array()?;
        let length = usize::from(length);
        if length == 0 || length > ID_LIMIT {
            return Err(DatagramError::Malformed);
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| DatagramError::Malformed)
    }

    fn device_here(mut self) -> Result<DeviceHere<'a>, DatagramError> {
        let nonce = self.array()?;
        let device_id = self.id()?;
        let command_port = u16::from_be_bytes(self.array()?);
        let proven_part = &self.whole[..self.at];
        let mac = self.array()?;
        let count = self.whole.len() - self.at;
        if count > 0 {
            return Err(DatagramError::TrailingBytes { count });
        }
        Ok(DeviceHere {
            nonce,
            device_id,
            command_port,
            mac,
            proven_part,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::devices::handshake::CommandKey;
    use crate::digest::from_hex;

    struct Case {
        name: String,
        case: Value,
        bytes: Vec<u8>,
    }

    impl Case {
        fn text(&self, field: &str) -> &str {
            self.case[field].as_str().unwrap_or_default()
        }

        fn array<const N: usize>(&self, field: &str) -> [u8; N] {
            from_hex(self.text(field))
                .expect("hex")
                .try_into()
                .expect("length")
        }

        fn port(&self, field: &str) -> u16 {
            u16::try_from(self.case[field].as_u64().expect("a port")).expect("a port")
        }

        fn identity(&self) -> BoxIdentity {
            BoxIdentity::from_seed(self.array("box_secret"))
        }
    }

    fn cases() -> Vec<Case> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/datagrams");
        let cases: Vec<Case> = fs::read_dir(dir)
            .expect("golden datagrams")
            .map(|entry| entry.expect("entry").path())
            .map(|dir| Case {
                name: dir
                    .file_name()
                    .expect("name")
                    .to_string_lossy()
                    .into_owned(),
                case: serde_json::from_slice(&fs::read(dir.join("case.json")).expect("case.json"))
                    .expect("JSON"),
                bytes: from_hex(
                    &fs::read_to_string(dir.join("datagram.hex"))
                        .expect("datagram.hex")
                        .replace('\n', ""),
                )
                .expect("hex"),
            })
            .collect();
        assert!(cases.len() > 15, "the golden datagrams are there");
        cases
    }

    #[test]
    fn golden_datagrams_of_the_box_are_written_to_the_byte() {
        let mut seen = 0;
        for case in cases().iter().filter(|c| c.case["error"].is_null()) {
            let nonce = || case.array("nonce");
            let written = match case.text("type") {
                "BOX_HERE" => {
                    let ports: Vec<u16> =
                        serde_json::from_value(case.case["ports"].clone()).expect("ports");
                    let id = case.text("box_id").as_bytes();
                    box_here_of(
                        id,
                        &case.identity(),
                        &nonce(),
                        &ports,
                        case.port("front_port"),
                    )
                }
                "WHO_ARE_DEVICES" => who_are_devices(&case.identity(), &nonce()),
                _ => continue,
            };
            assert_eq!(written, case.bytes, "{}", case.name);
            assert!(written.len() <= DATAGRAM_LIMIT, "{}", case.name);
            seen += 1;
        }
        assert!(seen >= 4);
    }

    #[test]
    fn golden_datagrams_for_the_box_are_read() {
        let mut seen = 0;
        for case in cases().iter().filter(|c| c.case["error"].is_null()) {
            match case.text("type") {
                "WHO_IS_BOX" => assert_eq!(
                    read(&case.bytes),
                    Ok(Received::WhoIsBox {
                        nonce: case.array("nonce")
                    }),
                    "{}",
                    case.name
                ),
                "DEVICE_HERE" => {
                    let Ok(Received::DeviceHere(here)) = read(&case.bytes) else {
                        panic!("{}: no DEVICE_HERE", case.name);
                    };
                    assert_eq!(here.nonce, case.array("nonce"), "{}", case.name);
                    assert_eq!(here.device_id, case.text("device_id"), "{}", case.name);
                    assert_eq!(here.command_port, case.port("command_port"));
                    let key = CommandKey::new(case.array("command_key"));
                    assert!(key.verifies_here(here.proven_part, &here.mac));
                }
                _ => continue,
            }
            seen += 1;
        }
        assert!(seen >= 3);
    }

    #[test]
    fn bad_golden_datagrams_are_refused_by_name() {
        let mut seen = 0;
        for case in cases().iter().filter(|c| !c.case["error"].is_null()) {
            let name = match (case.text("type"), read(&case.bytes)) {
                ("BOX_HERE" | "WHO_ARE_DEVICES", result) => {
                    assert!(
                        matches!(result, Err(DatagramError::NotForBox { .. })),
                        "{}: {result:?}",
                        case.name
                    );
                    continue;
                }
                (_, Err(error)) => error.name(),
                (_, Ok(Received::DeviceHere(here))) => {
                    let key = CommandKey::new(case.array("command_key"));
                    assert!(
                        !key.verifies_here(here.proven_part, &here.mac),
                        "{}",
                        case.name
                    );
                    "bad_mac"
                }
                (_, Ok(other)) => panic!("{}: read as {other:?}", case.name),
            };
            assert_eq!(name, case.text("error"), "{}", case.name);
            seen += 1;
        }
        assert!(seen >= 8);
    }

    #[test]
    fn no_answer_is_longer_than_its_question() {
        let identity = BoxIdentity::from_seed([7; 32]);
        let longest = box_here_of(
            &[b'b'; ID_LIMIT],
            &identity,
            &[0; NONCE_LEN],
            &[1; 20],
            65_535,
        );
        assert!(longest.len() <= DATAGRAM_LIMIT, "{}", longest.len());
        for length in 0..DATAGRAM_LIMIT {
            let mut question = header(WHO_IS_BOX, &[0; NONCE_LEN]);
            question.resize(length, 0);
            assert!(read(&question).is_err(), "a question of {length} bytes");
        }
    }

    #[test]
    fn random_and_cut_datagrams_never_panic() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut read_well = 0;
        for _ in 0..50_000 {
            let length = usize::try_from(random() % 300).expect("small");
            let mut bytes = header(u8::try_from(random() % 6).expect("small"), &[0; NONCE_LEN]);
            bytes.extend((0..length).map(|_| random().to_le_bytes()[0]));
            if random() % 4 == 0 {
                let at = usize::try_from(random() % 6).expect("small");
                bytes[at] ^= 1;
            }
            if random() % 4 == 0 {
                bytes.resize(DATAGRAM_LIMIT, 0);
            }
            read_well += usize::from(read(&bytes).is_ok());
        }
        assert!(
            read_well > 0,
            "the generator reaches the accepting paths too"
        );
    }
}
