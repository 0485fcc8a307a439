//! Product lists as they are: NDJSON, one object a line, sometimes with a byte order mark, CRLF, empty lines,
//! half a line, no id, the same id twice. A bad line is counted and told with its number; it never stops the rest.

use std::io::{self, BufRead, Read};

use rusqlite::Connection;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::store::documents::{Rewrite, put};
use crate::store::{Store, StoreError};

/// Longest line; a longer one is bad.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Longest id, in bytes.
pub const MAX_ID_BYTES: usize = 200;
/// Lines committed together.
const BATCH: usize = 5000;
/// Bad lines told one by one; further ones are only counted.
const TOLD_BAD_LINES: usize = 20;

/// What loading came to.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Lines that made or changed a document.
    pub changed: u64,
    /// Lines equal to what was there.
    pub unchanged: u64,
    /// Documents whose id was made from their content.
    pub ids_made: u64,
    /// Lines that could not be used.
    pub bad: u64,
    /// The first of them.
    pub bad_lines: Vec<BadLine>,
}

/// A line that could not be used.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Counted from 1.
    pub line: u64,
    /// Why.
    pub error: String,
}

/// Loads every usable line of `input` into `collection`, in transactions of [`BATCH`] lines; `progress` is told
/// the line number after each.
pub fn load(
    store: &Store,
    collection: &str,
    mut input: impl BufRead,
    now_ms: i64,
    mut progress: impl FnMut(u64),
) -> Result<Loaded, StoreError> {
    let (mut loaded, mut number, mut line) = (Loaded::default(), 0, Vec::new());
    let mut more = true;
    while more {
        store.call_blocking(|connection| {
            let transaction = connection.transaction()?;
            for _ in 0..BATCH {
                more = read_line(&mut input, &mut line)?;
                if !more {
                    break;
                }
                number += 1;
                load_line(&transaction, collection, &line, now_ms, number, &mut loaded)?;
            }
            Ok(transaction.commit()?)
        })?;
        progress(number);
    }
    Ok(loaded)
}

fn load_line(
    connection: &Connection,
    collection: &str,
    line: &[u8],
    now_ms: i64,
    number: u64,
    loaded: &mut Loaded,
) -> Result<(), StoreError> {
    let line = if number == 1 {
        line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
    } else {
        line
    };
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    match check(line) {
        Ok((id, made, text)) => {
            let written = put(
                connection,
                (collection, &id),
                text,
                Rewrite::OnlyIfDifferent,
                now_ms,
            )?;
            loaded.ids_made += u64::from(made);
            if written.changed {
                loaded.changed += 1;
            } else {
                loaded.unchanged += 1;
            }
        }
        Err(error) => {
            loaded.bad += 1;
            if loaded.bad_lines.len() < TOLD_BAD_LINES {
                loaded.bad_lines.push(BadLine {
                    line: number,
                    error,
                });
            }
        }
    }
    Ok(())
}

/// The id, whether it was made here, and the document's text.
fn check(line: &[u8]) -> Result<(String, bool, &str), String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("longer than {MAX_LINE_BYTES} bytes"));
    }
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let named = ["id", "sku"]
        .iter()
        .find_map(|field| match object.get(*field)? {
            Value::String(id) if !id.trim().is_empty() => Some(id.trim().to_owned()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        });
    let (id, made) = match named {
        Some(id) => (id, false),
        None => (
            format!("h{}", hex(&Sha256::digest(text.as_bytes())[..12])),
            true,
        ),
    };
    if id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        return Err(format!(
            "id is longer than {MAX_ID_BYTES} bytes or holds control characters"
        ));
    }
    Ok((id, made, text))
}

/// Reads up to the next line end; false at the end of the input. Of a line that is too long only as much is kept
/// as shows that it is too long.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limit = MAX_LINE_BYTES as u64 + 2;
    if input.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') && line.len() as u64 == limit {
        skip_line(input)?;
    }
    Ok(true)
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::documents::{count, read};

    fn load_bytes(store: &Store, bytes: &[u8]) -> Loaded {
        load(store, "products", bytes, 1, |_| {}).unwrap()
    }

    #[test]
    fn messy_list_loads_what_is_usable_and_names_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut list = b"\xef\xbb\xbf{\"id\":\"a\",\"name\":\"one\"}\r\n\n{\"sku\":42}\n{\"name\":\"no id\"}\n".to_vec();
        list.extend(b"[1]\n{\"id\":\"b\"\n\"\xff\"\n{\"id\":\"  \",\"sku\":\"s\"}\n");
        list.extend(format!("{{\"id\":\"{}\"}}\n", "x".repeat(MAX_ID_BYTES + 1)).bytes());
        list.extend(
            format!(
                "{{\"id\":\"long\",\"n\":\"{}\"}}\n",
                "x".repeat(MAX_LINE_BYTES)
            )
            .bytes(),
        );
        list.extend(b"{\"id\":\"a\",\"name\":\"two\"}");
        let loaded = load_bytes(&store, &list);
        assert_eq!(
            (
                loaded.changed,
                loaded.unchanged,
                loaded.ids_made,
                loaded.bad
            ),
            (5, 0, 1, 5)
        );
        let lines: Vec<u64> = loaded.bad_lines.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [5, 6, 7, 9, 10]);
        store
            .call_blocking(|c| {
                assert_eq!(count(c)?, 4);
                let a = read(c, "products", "a")?.unwrap();
                assert_eq!(
                    (a.version, a.data.as_str()),
                    (2, "{\"id\":\"a\",\"name\":\"two\"}")
                );
                assert!(
                    read(c, "products", "42")?.is_some() && read(c, "products", "s")?.is_some()
                );
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn same_list_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let list = b"{\"id\":1}\n{\"x\":2}\n";
        assert_eq!(load_bytes(&store, list).changed, 2);
        let again = load_bytes(&store, list);
        assert_eq!((again.changed, again.unchanged), (0, 2));
    }
}
