//! What makes bytes an order. Everything the box does not need is opaque and kept byte for byte.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest order id and role name, characters.
pub const MAX_NAME: usize = 64;
/// Largest order document, bytes.
pub const MAX_ORDER_BYTES: usize = 255 << 10;

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
    /// Not JSON, or a field of the wrong kind. The position is told, the content is not: it may be a customer's.
    #[error("not an order in JSON (line {line}, column {column}): {kind}")]
    NotJson {
        /// Line of the fault.
        line: usize,
        /// Column of the fault.
        column: usize,
        /// "syntax", "unexpected end" or "missing or wrong field".
        kind: &'static str,
    },
    /// A name that breaks the rule for names.
    #[error("`{field}` is not 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    BadName {
        /// The field.
        field: &'static str,
    },
    /// `placed_at` is no time.
    #[error("`placed_at` is not an RFC 3339 time")]
    BadTime,
}

#[derive(Deserialize)]
struct Head<'a> {
    order_id: String,
    placed_at: String,
    role: Option<String>,
    // Required, and a list; what a line is, only the platform and the device know.
    #[serde(borrow)]
    #[expect(dead_code, reason = "its presence and kind are what is checked")]
    lines: Vec<&'a RawValue>,
}

impl OrderDocument {
    /// Checks `bytes`; an order without a role gets `default_role`.
    ///
    /// # Errors
    /// [`OrderShapeError`] says what is missing.
    pub fn parse(bytes: &[u8], default_role: &str) -> Result<Self, OrderShapeError> {
        if bytes.len() > MAX_ORDER_BYTES {
            return Err(OrderShapeError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| OrderShapeError::NotText)?;
        let body: Box<RawValue> = serde_json::from_str(text).map_err(not_json)?;
        let head: Head<'_> = serde_json::from_str(body.get()).map_err(not_json)?;
        let role = head.role.unwrap_or_else(|| default_role.to_owned());
        check_name(&head.order_id, "order_id")?;
        check_name(&role, "role")?;
        let placed_at: Timestamp = head
            .placed_at
            .parse()
            .map_err(|_| OrderShapeError::BadTime)?;
        Ok(Self {
            order_id: head.order_id,
            placed_at_ms: placed_at.as_millisecond(),
            role,
            body,
        })
    }
}

// By value: it is handed to `map_err`.
#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
fn not_json(error: serde_json::Error) -> OrderShapeError {
    OrderShapeError::NotJson {
        line: error.line(),
        column: error.column(),
        kind: match error.classify() {
            serde_json::error::Category::Eof => "unexpected end",
            serde_json::error::Category::Data => "missing or wrong field",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "syntax",
        },
    }
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
    fn what_is_no_order_is_named_and_never_quoted() {
        let cases: &[(&[u8], &str)] = &[
            (b"\xff\xfe", "not UTF-8"),
            (b"", "unexpected end"),
            (b"{\"order_id\":", "unexpected end"),
            (b"[]", "missing or wrong field"),
            (b"nonsense Dupont", "syntax"),
            (br#"{"order_id":"o"}"#, "missing or wrong field"),
            (
                br#"{"order_id":"o","placed_at":"2026-05-01T10:00:00Z"}"#,
                "missing or wrong field",
            ),
            (
                br#"{"order_id":"o","placed_at":"yesterday","lines":[]}"#,
                "RFC 3339",
            ),
            (
                br#"{"order_id":"../x","placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
                "`order_id`",
            ),
            (
                br#"{"order_id":"a","order_id":"b","placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
                "missing or wrong field",
            ),
            (
                br#"{"order_id":"a","placed_at":"2026-05-01T10:00:00Z","lines":{}}"#,
                "missing or wrong field",
            ),
        ];
        for (bytes, expected) in cases {
            let error = OrderDocument::parse(bytes, "kitchen")
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("Dupont"), "{error}");
        }
        let deep = vec![b'['; 200_000];
        assert!(OrderDocument::parse(&deep, "kitchen").is_err());
        let large = vec![b' '; MAX_ORDER_BYTES + 1];
        assert_eq!(
            OrderDocument::parse(&large, "kitchen").unwrap_err(),
            OrderShapeError::TooLarge(MAX_ORDER_BYTES + 1)
        );
    }
}
