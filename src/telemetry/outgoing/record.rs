//! A record: what may leave, and nothing else, by type.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// How grave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody must come, or data are lost.
    Error,
    /// Odd, but recovered.
    Warn,
    /// A change of state.
    Info,
    /// Per request.
    Debug,
}

impl Level {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// A short name out of the code's own vocabulary, such as `orders.order_received` or `proxy_407`. Its shape is the point: a
/// name of a person, a sentence, a token, a key, a signature or an address does not fit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Word(String);

/// Letters at most; the longest event name has 30.
const MAX_WORD: usize = 40;
/// Digits at most: `proxy_407` has three, a hexadecimal token has more.
const MAX_DIGITS: usize = 3;

impl Word {
    /// `text` if it is a word: lower-case ASCII letters, few digits, `_` and `.` between them.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let fits = text.len() <= MAX_WORD
            && digits <= MAX_DIGITS
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'.');
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Word {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("not a word")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Yes or no.
    Flag(bool),
    /// A count, a size, a span, a status.
    Number(i64),
    /// A word.
    Word(Word),
    /// The firmware's version, of a shape of its own.
    Version(Version),
}

/// A version: digits, letters, `.`, `-`, `+`, no longer than versions are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Version(String);

/// `1.20.300-rc4+20261124` has 21.
const MAX_VERSION: usize = 24;

impl Version {
    /// `text` if it begins as versions do, `NUMBER.NUMBER`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let is_number = |part: Option<&str>| {
            part.is_some_and(|part| {
                (1..=4).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit())
            })
        };
        let fits = text.len() <= MAX_VERSION
            && is_number(parts.next())
            && is_number(parts.next())
            && text
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b".-+".contains(&c));
        fits.then(|| Self(text.to_owned()))
    }
}

impl TryFrom<String> for Version {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("not a version")
    }
}

/// Told just now; its wall time is found when it leaves this process's memory, by then the clock may be better.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) told: Instant,
    pub(crate) id: String,
    pub(crate) level: Level,
    pub(crate) event: Word,
    pub(crate) version: Version,
    pub(crate) fields: Vec<(&'static str, Scalar)>,
}

/// What is kept and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique; the same when it is sent again.
    pub id: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// How well the time was known: `unset`, `floor`, `weak`, `good`.
    pub time: Word,
    /// How grave.
    pub level: Level,
    /// What, as `room.noun_verb`.
    pub event: Word,
    /// The firmware that told it.
    pub version: Version,
    /// The allowed fields.
    pub fields: BTreeMap<String, Scalar>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_codes_own_and_nothing_else_fits() {
        for word in [
            "orders.order_received",
            "proxy_407",
            "good",
            "tls_not_yet_valid",
        ] {
            assert!(Word::new(word).is_some(), "{word}");
        }
        for text in [
            "",
            "Madame Dupont",
            "dupont@example.org",
            "0612345678",
            "12 rue de la Paix",
            "token-of-shop-1",
            "a2V5IG9mIHRoZSBidXM=",
            "deadbeef00112233445566778899aabb",
            "SharedAccessSignature sr=x",
            "10.0.0.17",
            "é",
            "a_name_that_is_far_longer_than_any_the_code_has",
        ] {
            assert!(Word::new(text).is_none(), "{text}");
        }
    }

    #[test]
    fn versions_are_versions() {
        for version in ["0.1.0", "1.20.300-rc4+20261124"] {
            assert!(Version::new(version).is_some(), "{version}");
        }
        for text in [
            "",
            "1",
            "10.0.0.0/8 x",
            "eyJh.eyJz.sig",
            "20261124.1",
            "1.x",
        ] {
            assert!(Version::new(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_and_a_forged_one_does_not() {
        let record = Record {
            id: "ab-1".into(),
            at_ms: 7,
            time: Word::new("good").unwrap(),
            level: Level::Warn,
            event: Word::new("conditions.raised").unwrap(),
            version: Version::new("0.1.0").unwrap(),
            fields: BTreeMap::from([
                ("code".into(), Scalar::Word(Word::new("wan.stuck").unwrap())),
                ("items".into(), Scalar::Number(-3)),
                (
                    "version".into(),
                    Scalar::Version(Version::new("0.1.0").unwrap()),
                ),
                ("ok".into(), Scalar::Flag(true)),
            ]),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let forged = text.replace("wan.stuck", "Madame Dupont");
        assert!(serde_json::from_str::<Record>(&forged).is_err());
    }
}
