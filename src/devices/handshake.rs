//! The handshake of a device session as pure functions: both sides prove the command key, neither ever sends it.
//!
//! ```text
//!   box                                        device
//!    | -- BoxHello(box_id, box nonce) ----------> |
//!    | <- DeviceHello(device_id, nonce, mac) ---- |   mac = device_proof: the device knows the key
//!    | -- BoxProof(mac) ------------------------> |   mac = box_proof:    the box knows the key
//!    |    from here every frame carries a tag made with session_key
//! ```
//!
//! The three labels keep a proof of one kind from being used as another, the two nonces keep it from being used again.

use std::fmt;

use crate::digest::{equal_in_constant_time, hmac_sha256};

/// Bytes of a key: command key and session key alike.
pub const KEY_LEN: usize = 32;

/// Bytes of a nonce of either side.
pub const NONCE_LEN: usize = 32;

const DEVICE_LABEL: &[u8] = b"comptoir-device-1";
const BOX_LABEL: &[u8] = b"comptoir-box-1";
const SESSION_LABEL: &[u8] = b"comptoir-session-1";
const HERE_LABEL: &[u8] = b"comptoir-here-1";

/// The key box and device agreed on when they were paired. It never leaves either of them, and never appears in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandKey([u8; KEY_LEN]);

/// The key of one session, made from the command key and both nonces.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey([u8; KEY_LEN]);

/// The two nonces of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonces {
    /// What the box sent in its `BoxHello`.
    pub of_box: [u8; NONCE_LEN],
    /// What the device sent in its `DeviceHello`.
    pub of_device: [u8; NONCE_LEN],
}

impl CommandKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// What the device with this id has to send in its `DeviceHello`.
    #[must_use]
    pub fn device_proof(&self, nonces: &Nonces, device_id: &str) -> [u8; KEY_LEN] {
        hmac_sha256(
            &self.0,
            &[
                DEVICE_LABEL,
                &nonces.of_box,
                &nonces.of_device,
                device_id.as_bytes(),
            ],
        )
    }

    /// Whether `proof` is the device's proof; takes the same time whatever the answer is.
    #[must_use]
    pub fn verifies_device(&self, nonces: &Nonces, device_id: &str, proof: &[u8; KEY_LEN]) -> bool {
        equal_in_constant_time(&self.device_proof(nonces, device_id), proof)
    }

    /// What the box has to send in its `BoxProof`.
    #[must_use]
    pub fn box_proof(&self, nonces: &Nonces, box_id: &str) -> [u8; KEY_LEN] {
        hmac_sha256(
            &self.0,
            &[
                BOX_LABEL,
                &nonces.of_device,
                &nonces.of_box,
                box_id.as_bytes(),
            ],
        )
    }

    /// The key of the session with these nonces.
    #[must_use]
    pub fn session_key(&self, nonces: &Nonces) -> SessionKey {
        SessionKey(hmac_sha256(
            &self.0,
            &[SESSION_LABEL, &nonces.of_box, &nonces.of_device],
        ))
    }

    /// Whether `mac` belongs to a `DEVICE_HERE` datagram whose bytes before the mac are `datagram`.
    #[must_use]
    pub fn verifies_here(&self, datagram: &[u8], mac: &[u8; KEY_LEN]) -> bool {
        equal_in_constant_time(&hmac_sha256(&self.0, &[HERE_LABEL, datagram]), mac)
    }
}

impl SessionKey {
    /// The key with these bytes (test vectors; a session makes its own with [`CommandKey::session_key`]).
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// A mac over these parts, one after the other.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; KEY_LEN] {
        hmac_sha256(&self.0, parts)
    }
}

// Keys must not reach a log by way of a derived Debug.
impl fmt::Debug for CommandKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandKey(..)")
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCES: Nonces = Nonces {
        of_box: [1; NONCE_LEN],
        of_device: [2; NONCE_LEN],
    };

    #[test]
    fn a_proof_is_good_for_its_key_nonces_and_device_only() {
        let key = CommandKey::new([9; KEY_LEN]);
        let proof = key.device_proof(&NONCES, "kitchen");
        assert!(key.verifies_device(&NONCES, "kitchen", &proof));
        assert!(!key.verifies_device(&NONCES, "bar", &proof));
        assert!(!CommandKey::new([8; KEY_LEN]).verifies_device(&NONCES, "kitchen", &proof));
        let other = Nonces {
            of_box: [3; NONCE_LEN],
            ..NONCES
        };
        assert!(!key.verifies_device(&other, "kitchen", &proof));
        let swapped = Nonces {
            of_box: NONCES.of_device,
            of_device: NONCES.of_box,
        };
        assert!(!key.verifies_device(&swapped, "kitchen", &proof));
    }

    #[test]
    fn the_proofs_of_both_sides_and_the_session_key_all_differ() {
        let key = CommandKey::new([9; KEY_LEN]);
        let device = key.device_proof(&NONCES, "same");
        let server = key.box_proof(&NONCES, "same");
        assert_ne!(device, server);
        assert_ne!(key.session_key(&NONCES), SessionKey::new(device));
        assert_ne!(key.session_key(&NONCES), SessionKey::new(server));
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let shown = format!(
            "{:?} {:?}",
            CommandKey::new([0xab; KEY_LEN]),
            SessionKey::new([0xab; KEY_LEN])
        );
        assert_eq!(shown, "CommandKey(..) SessionKey(..)");
    }
}
