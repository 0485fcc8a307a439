//! Cursors. Opaque to clients: base64url of `{incarnation}:{seq}`. The incarnation makes a cursor of another
//! store (a platform restored from nothing) void instead of silently wrong.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::store::feed::Position;

/// The cursor after change `seq`.
pub fn encode(position: &Position, seq: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{seq}", position.incarnation))
}

/// The sequence number of a cursor this feed can go on from; `None` means "refetch".
pub fn decode(text: &str, position: &Position) -> Option<i64> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (incarnation, seq) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    let seq: i64 = seq.parse().ok()?;
    let known = incarnation == position.incarnation;
    (known && (position.horizon_seq..=position.last_seq).contains(&seq)).then_some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_of_this_store_within_the_horizon_are_known() {
        let position = Position {
            incarnation: "aa".into(),
            horizon_seq: 10,
            last_seq: 20,
            horizon_ms: None,
        };
        for seq in [10, 15, 20] {
            assert_eq!(decode(&encode(&position, seq), &position), Some(seq));
        }
        for seq in [-1, 9, 21] {
            assert_eq!(decode(&encode(&position, seq), &position), None);
        }
        let other = Position {
            incarnation: "bb".into(),
            ..position.clone()
        };
        assert_eq!(decode(&encode(&other, 15), &position), None);
        for text in ["", "15", "!!", "YWE"] {
            assert_eq!(decode(text, &position), None, "{text}");
        }
    }
}
