//! What makes bytes an order. Everything the box does not need is opaque and kept byte for byte.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest order id and role name, characters.
pub const MAX_NAME: usize = 64;
/// Largest order document, bytes.
pub const MAX_ORDER_BYTES: usize = 255 << 10;

/// The form of order documents that this box knows; one that names none has this.
pub const FORMAT_VERSION: u64 = 1;

/// A checked order.
#[derive(Debug, Clone)]
pub struct OrderDocument {
    /// Minted once, by the order's first holder.
    pub order_id: String,
    /// When the customer placed it, milliseconds since 1970.
    pub placed_at_ms: i64,
    /// Which devices are to carry it out.
    pub role: String,
    /// The document as it came.
    pub body: Box<RawValue>,
}

/// Why bytes are no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderShapeError {
    /// More than [`MAX_ORDER_BYTES`].
    #[error("the document has {0} bytes, more than {MAX_ORDER_BYTES}")]
    TooLarge(usize),
    /// Not UTF-8.
    #[error("the document is not UTF-8 text")]
    NotText,
    /// Not JSON. The position is told, the content is not: it may be a customer's.
    #[error("not JSON (line {line}, column {column}): {kind}")]
    NotJson {
        /// Line of the fault.
        line: usize,
        /// Column of the fault.
        column: usize,
        /// "syntax" or "unexpected end".
        kind: &'static str,
    },
    /// JSON of another kind.
    #[error("the document is not a JSON object")]
    NotObject,
    /// A form of document that came after this box.
    #[error("format_version is {0}, this box knows up to {FORMAT_VERSION}")]
    UnknownVersion(u64),
    /// A field that every order has is absent, or null.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field holds another kind of value.
    #[error("{field} is not {expected}")]
    WrongKind {
        /// The field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A field stands there more than once: which one counts, two readers could see differently.
    #[error("{field} stands there twice")]
    Twice {
        /// The field.
        field: &'static str,
    },
    /// A name that breaks the rule for names.
    #[error("{field} is not 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    BadName {
        /// The field.
        field: &'static str,
    },
    /// `placed_at` is no time.
    #[error("placed_at is not an RFC 3339 time")]
    BadTime,
}

/// The fields the box reads. Each is looked at by itself, so that a fault has its name.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    format_version: Option<&'a RawValue>,
    order_id: Option<&'a RawValue>,
    placed_at: Option<&'a RawValue>,
    role: Option<&'a RawValue>,
    // Required, and a list; what a line is, only the platform and the device know.
    lines: Option<&'a RawValue>,
}

const FIELDS: [&str; 5] = ["format_version", "order_id", "placed_at", "role", "lines"];

impl OrderDocument {
    /// Checks `bytes`; an order without a role gets `default_role`.
    ///
    /// # Errors
    /// [`OrderShapeError`] says which field is missing or wrong.
    pub fn parse(bytes: &[u8], default_role: &str) -> Result<Self, OrderShapeError> {
        if bytes.len() > MAX_ORDER_BYTES {
            return Err(OrderShapeError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| OrderShapeError::NotText)?;
        let body: Box<RawValue> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        // A list of the right values would be read as the fields in their order.
        if !body.get().starts_with('{') {
            return Err(OrderShapeError::NotObject);
        }
        let head: Head<'_> = serde_json::from_str(body.get()).map_err(|error| not_head(&error))?;
        check_version(head.format_version)?;
        let order_id = text_of(head.order_id, "order_id")?;
        let placed_at = text_of(head.placed_at, "placed_at")?;
        let role = match head.role {
            None => default_role.to_owned(),
            role => text_of(role, "role")?,
        };
        let lines = head
            .lines
            .ok_or(OrderShapeError::Missing { field: "lines" })?;
        if !lines.get().starts_with('[') {
            let (field, expected) = ("lines", "a list");
            return Err(OrderShapeError::WrongKind { field, expected });
        }
        check_name(&order_id, "order_id")?;
        check_name(&role, "role")?;
        let placed_at: Timestamp = placed_at.parse().map_err(|_| OrderShapeError::BadTime)?;
        Ok(Self {
            order_id,
            placed_at_ms: placed_at.as_millisecond(),
            role,
            body,
        })
    }
}

/// Looked at first: what a later form means by the other fields, this box does not know.
fn check_version(value: Option<&RawValue>) -> Result<(), OrderShapeError> {
    let Some(value) = value else { return Ok(()) };
    match serde_json::from_str(value.get()) {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(version) => Err(OrderShapeError::UnknownVersion(version)),
        Err(_) => {
            let (field, expected) = ("format_version", "a whole number");
            Err(OrderShapeError::WrongKind { field, expected })
        }
    }
}

fn text_of(value: Option<&RawValue>, field: &'static str) -> Result<String, OrderShapeError> {
    let value = value.ok_or(OrderShapeError::Missing { field })?;
    serde_json::from_str(value.get()).map_err(|_| {
        let expected = "a text";
        OrderShapeError::WrongKind { field, expected }
    })
}

fn not_json(error: &serde_json::Error) -> OrderShapeError {
    OrderShapeError::NotJson {
        line: error.line(),
        column: error.column(),
        kind: if error.is_eof() {
            "unexpected end"
        } else {
            "syntax"
        },
    }
}

/// A field that stands twice is all that can be wrong with an object whose fields may hold anything, and which one that is
/// the error says in words only.
fn not_head(error: &serde_json::Error) -> OrderShapeError {
    let words = error.to_string();
    FIELDS
        .into_iter()
        .find(|field| words.starts_with(&format!("duplicate field `{field}`")))
        .map_or_else(|| not_json(error), |field| OrderShapeError::Twice { field })
}

fn check_name(name: &str, field: &'static str) -> Result<(), OrderShapeError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if fits {
        Ok(())
    } else {
        Err(OrderShapeError::BadName { field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"order_id":"o-1","placed_at":"2026-05-01T10:00:00Z","lines":[{"x": 1.10}], "extra":{"é":1}}"#;

    #[test]
    fn an_order_keeps_every_byte() {
        let order = OrderDocument::parse(GOOD.as_bytes(), "kitchen").unwrap();
        assert_eq!(order.order_id, "o-1");
        assert_eq!(order.role, "kitchen");
        assert_eq!(order.placed_at_ms, 1_777_629_600_000);
        assert_eq!(order.body.get(), GOOD);
    }

    #[test]
    fn what_is_no_order_is_refused_by_field_and_never_quoted() {
        let cases: &[(&[u8], &str)] = &[
            (b"\xff\xfe", "not UTF-8"),
            (b"", "unexpected end"),
            (b"{\"order_id\":", "unexpected end"),
            (b"[]", "not a JSON object"),
            (
                br#"["o","2026-05-01T10:00:00Z","kitchen",[]]"#,
                "not a JSON object",
            ),
            (b"nonsense Dupont", "syntax"),
            (b"{}", "order_id is missing"),
            (br#"{"order_id":"o"}"#, "placed_at is missing"),
            (
                br#"{"order_id":null,"placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
                "order_id is missing",
            ),
            (
                br#"{"order_id":"o","placed_at":"2026-05-01T10:00:00Z"}"#,
                "lines is missing",
            ),
            (
                br#"{"order_id":7,"placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
                "order_id is not a text",
            ),
            (
                br#"{"order_id":"o","placed_at":{"Dupont":1},"lines":[]}"#,
                "placed_at is not a text",
            ),
            (
                br#"{"order_id":"o","placed_at":"2026-05-01T10:00:00Z","lines":[],"role":["Dupont"]}"#,
                "role is not a text",
            ),
            (
                br#"{"order_id":"o","placed_at":"Dupont","lines":[]}"#,
                "placed_at is not an RFC 3339 time",
            ),
            (
                br#"{"order_id":"../Dupont","placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
                "order_id is not 1 to 64",
            ),
            (
                br#"{"order_id":"o","placed_at":"2026-05-01T10:00:00Z","lines":[],"role":"chef Dupont"}"#,
                "role is not 1 to 64",
            ),
            (
                br#"{"order_id":"a","order_id":"Dupont","placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
                "order_id stands there twice",
            ),
            (
                br#"{"order_id":"a","placed_at":"2026-05-01T10:00:00Z","lines":{"Dupont":1}}"#,
                "lines is not a list",
            ),
        ];
        for (bytes, expected) in cases {
            let error = OrderDocument::parse(bytes, "kitchen")
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("Dupont"), "{error}");
        }
        let later = br#"{"format_version":2,"order_id":{"Dupont":1}}"#;
        assert_eq!(
            OrderDocument::parse(later, "kitchen").unwrap_err(),
            OrderShapeError::UnknownVersion(2)
        );
        let deep = vec![b'['; 200_000];
        assert!(OrderDocument::parse(&deep, "kitchen").is_err());
        let large = vec![b' '; MAX_ORDER_BYTES + 1];
        assert_eq!(
            OrderDocument::parse(&large, "kitchen").unwrap_err(),
            OrderShapeError::TooLarge(MAX_ORDER_BYTES + 1)
        );
    }
}
