//! The datagrams of discovery, written out by hand from section 8 of `docs/device-protocol.md`.

use anyhow::{Context, ensure};
use ed25519_dalek::{Signature, VerifyingKey};

use crate::wire::hmac;

/// Bytes of a question, and the most of an answer.
pub const LIMIT: usize = 256;

const SIGNATURE_LEN: usize = 64;

/// A box that answered; its signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxHere {
    pub nonce: [u8; 16],
    pub ports: Vec<u16>,
    pub box_id: String,
    pub front_port: u16,
    pub box_key: [u8; 32],
}

/// A box's question; its signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoAreDevices {
    pub nonce: [u8; 16],
    pub box_key: [u8; 32],
}

/// The question for the box.
pub fn who_is_box(nonce: &[u8; 16]) -> Vec<u8> {
    let mut datagram = header(1, nonce);
    datagram.resize(LIMIT, 0);
    datagram
}

/// The answer to a box.
pub fn device_here(
    nonce: &[u8; 16],
    device_id: &str,
    command_port: u16,
    key: &[u8; 32],
) -> anyhow::Result<Vec<u8>> {
    let mut datagram = header(4, nonce);
    ensure!((1..=64).contains(&device_id.len()), "device id of no use");
    datagram.push(u8::try_from(device_id.len())?);
    datagram.extend(device_id.as_bytes());
    datagram.extend(command_port.to_be_bytes());
    datagram.extend(hmac(key, &[b"comptoir-here-1", &datagram]));
    Ok(datagram)
}

/// Reads a box's answer and checks its signature.
pub fn read_box_here(datagram: &[u8]) -> anyhow::Result<BoxHere> {
    ensure!(datagram.len() <= LIMIT, "oversized");
    let mut rest = after_header(datagram, 2)?;
    let nonce = array(&mut rest)?;
    let [count] = array(&mut rest)?;
    ensure!(count <= 8, "malformed: {count} ports");
    let ports = (0..count)
        .map(|_| array(&mut rest).map(u16::from_be_bytes))
        .collect::<Result<_, _>>()?;
    let [length] = array(&mut rest)?;
    ensure!(
        (1..=64).contains(&length),
        "malformed: id of {length} bytes"
    );
    let id = rest
        .split_off(..usize::from(length))
        .context("truncated: id")?;
    let box_id = std::str::from_utf8(id).context("malformed: id")?.into();
    let front_port = u16::from_be_bytes(array(&mut rest)?);
    let box_key = array(&mut rest)?;
    let signed = &datagram[..datagram.len() - rest.len()];
    verify(&box_key, signed, array(&mut rest)?)?;
    ensure!(rest.is_empty(), "trailing_bytes");
    Ok(BoxHere {
        nonce,
        ports,
        box_id,
        front_port,
        box_key,
    })
}

/// Reads a box's question and checks its signature.
pub fn read_who_are_devices(datagram: &[u8]) -> anyhow::Result<WhoAreDevices> {
    ensure!(datagram.len() >= LIMIT, "truncated");
    ensure!(datagram.len() <= LIMIT, "oversized");
    let mut rest = after_header(datagram, 3)?;
    let nonce = array(&mut rest)?;
    let box_key = array(&mut rest)?;
    let signed = &datagram[..datagram.len() - rest.len()];
    verify(&box_key, signed, array(&mut rest)?)?;
    Ok(WhoAreDevices { nonce, box_key })
}

fn header(number: u8, nonce: &[u8; 16]) -> Vec<u8> {
    [&b"CMPT"[..], &[1, number], nonce].concat()
}

fn after_header(datagram: &[u8], number: u8) -> anyhow::Result<&[u8]> {
    let (header, rest) = datagram.split_at_checked(6).context("truncated")?;
    ensure!(header[..4] == *b"CMPT", "bad_magic");
    ensure!(header[4] == 1, "bad_version");
    ensure!(header[5] == number, "unknown_datagram, or not this one");
    Ok(rest)
}

fn verify(key: &[u8; 32], signed: &[u8], signature: [u8; SIGNATURE_LEN]) -> anyhow::Result<()> {
    VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(signed, &Signature::from_bytes(&signature)))
        .map_err(|_| anyhow::anyhow!("bad_signature"))
}

fn array<const N: usize>(rest: &mut &[u8]) -> anyhow::Result<[u8; N]> {
    let taken = rest.split_off(..N).context("truncated")?;
    Ok(taken.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::hex;

    fn cases() -> Vec<(String, Value, Vec<u8>)> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/datagrams");
        let cases: Vec<_> = fs::read_dir(golden)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|dir| {
                let case = fs::read(dir.join("case.json")).unwrap();
                let datagram = fs::read_to_string(dir.join("datagram.hex")).unwrap();
                (
                    dir.file_name().unwrap().to_string_lossy().into_owned(),
                    serde_json::from_slice(&case).unwrap(),
                    hex::decode(&datagram.replace('\n', "")).unwrap(),
                )
            })
            .collect();
        assert!(cases.len() > 15);
        cases
    }

    #[test]
    fn golden_datagrams_of_both_sides_are_read_and_written_to_the_byte() {
        let mut seen = 0;
        for (name, case, bytes) in cases() {
            if !case["error"].is_null() {
                continue;
            }
            let nonce = hex::decode_array(case["nonce"].as_str().unwrap()).unwrap();
            match case["type"].as_str().unwrap() {
                "WHO_IS_BOX" => assert_eq!(who_is_box(&nonce), bytes, "{name}"),
                "BOX_HERE" => {
                    let here = read_box_here(&bytes).unwrap_or_else(|e| panic!("{name}: {e:#}"));
                    assert_eq!(here.nonce, nonce);
                    assert_eq!(here.box_id, case["box_id"].as_str().unwrap());
                    assert_eq!(here.front_port, case["front_port"].as_u64().unwrap() as u16);
                    assert_eq!(serde_json::json!(here.ports), case["ports"]);
                }
                "WHO_ARE_DEVICES" => {
                    assert_eq!(read_who_are_devices(&bytes).unwrap().nonce, nonce);
                }
                "DEVICE_HERE" => {
                    let key = hex::decode_array(case["command_key"].as_str().unwrap()).unwrap();
                    let id = case["device_id"].as_str().unwrap();
                    let port = case["command_port"].as_u64().unwrap() as u16;
                    assert_eq!(device_here(&nonce, id, port, &key).unwrap(), bytes);
                }
                other => panic!("{other}"),
            }
            seen += 1;
        }
        assert!(seen >= 7, "{seen}");
    }

    #[test]
    fn bad_golden_datagrams_of_a_box_are_refused_by_name() {
        let mut seen = 0;
        for (name, case, bytes) in cases() {
            let Some(error) = case["error"].as_str() else {
                continue;
            };
            let refused = match case["type"].as_str().unwrap() {
                "BOX_HERE" => read_box_here(&bytes).map(drop),
                "WHO_ARE_DEVICES" => read_who_are_devices(&bytes).map(drop),
                _ => continue,
            };
            let refused = refused.expect_err(&name);
            assert!(
                format!("{refused:#}").contains(error),
                "{name}: {refused:#}"
            );
            seen += 1;
        }
        assert!(seen >= 3, "{seen}");
    }
}
