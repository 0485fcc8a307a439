//! Reading a table's rows out of its leaf pages, when the pages above them are gone.
//!
//! Facts of SQLite's file format (sqlite.org/fileformat2.html): 1.6 b-tree pages, 1.7 overflow pages, 1.8 pointer maps
//! (every page of a database with auto_vacuum is told its parent there, so a leaf knows its table even when the page
//! between them is broken), 2.1 records. Pages are [`PAGE_BYTES`] long without a reserved end, texts are UTF-8.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rusqlite::types::Value;

use super::db::PAGE_BYTES;

/// Deepest b-tree believed; SQLite's own bound.
const MAX_DEPTH: usize = 20;
/// Largest row believed.
const MAX_ROW: usize = 8 << 20;
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);
/// Pages told their parent by one pointer map page, which itself comes before them.
const MAPPED: usize = PAGE / 5;
const ROOT: u8 = 1;
const BTREE: u8 = 5;
const TABLE_LEAF: u8 = 0x0d;

/// A database file as bytes.
pub(super) struct Pages(Vec<u8>);

impl Pages {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        fs::read(path).map(Self)
    }

    /// The rows of the table with root page `root`, by their number; `number_column` is the column that repeats it.
    pub(super) fn rows(
        &self,
        root: usize,
        columns: usize,
        number_column: Option<usize>,
    ) -> BTreeMap<i64, Vec<Value>> {
        let mut rows = BTreeMap::new();
        for page in 2..=self.0.len() / PAGE {
            if self.belongs_to(page, root) {
                // A page that does not parse gives the rows before the fault.
                let _ = self.leaf_rows(page, columns, number_column, &mut rows);
            }
        }
        rows
    }

    // Pages are numbered from 1.
    fn page(&self, number: usize) -> Option<&[u8]> {
        let end = number.checked_mul(PAGE)?;
        self.0.get(end.checked_sub(PAGE)?..end)
    }

    fn parent(&self, page: usize) -> Option<(u8, usize)> {
        let group = page.checked_sub(2)? / (MAPPED + 1);
        let map = 2 + group * (MAPPED + 1);
        let at = 5 * page.checked_sub(map + 1)?;
        let entry = self.page(map)?.get(at..at + 5)?;
        Some((entry[0], be32(&entry[1..])?))
    }

    fn belongs_to(&self, page: usize, root: usize) -> bool {
        let mut at = page;
        for _ in 0..MAX_DEPTH {
            if at == root {
                return true;
            }
            match self.parent(at) {
                Some((BTREE, parent)) => at = parent,
                Some((ROOT, _)) => return at == root,
                _ => return false,
            }
        }
        false
    }

    fn leaf_rows(
        &self,
        number: usize,
        columns: usize,
        number_column: Option<usize>,
        rows: &mut BTreeMap<i64, Vec<Value>>,
    ) -> Option<()> {
        let page = self.page(number)?;
        if page[0] != TABLE_LEAF {
            return None;
        }
        let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
        for cell in 0..cells {
            let pointer = page.get(8 + 2 * cell..10 + 2 * cell)?;
            let at = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
            let Some((rowid, payload)) = self.cell(page, at) else {
                continue;
            };
            if let Some(mut values) = record(&payload, columns) {
                if let Some(column) = number_column {
                    values[column] = Value::Integer(rowid);
                }
                rows.entry(rowid).or_insert(values);
            }
        }
        Some(())
    }

    fn cell(&self, page: &[u8], at: usize) -> Option<(i64, Vec<u8>)> {
        let mut rest = page.get(at..)?;
        let size = usize::try_from(varint(&mut rest)?).ok()?;
        let rowid = varint(&mut rest)?;
        if size > MAX_ROW {
            return None;
        }
        // 1.6: what does not fit into a leaf goes on in overflow pages.
        let (most, least) = (PAGE - 35, (PAGE - 12) * 32 / 255 - 23);
        let local = if size <= most {
            size
        } else {
            let fit = least + (size - least) % (PAGE - 4);
            if fit <= most { fit } else { least }
        };
        let mut payload = rest.get(..local)?.to_vec();
        let mut next = if local < size {
            be32(rest.get(local..)?)?
        } else {
            0
        };
        while payload.len() < size {
            let overflow = self.page(next)?;
            let more = (size - payload.len()).min(PAGE - 4);
            payload.extend_from_slice(&overflow[4..4 + more]);
            next = be32(overflow)?;
        }
        Some((rowid, payload))
    }
}

/// The values of a record; columns that a record of an older schema lacks are null.
fn record(payload: &[u8], columns: usize) -> Option<Vec<Value>> {
    let mut head = payload;
    let head_size = usize::try_from(varint(&mut head)?).ok()?;
    let mut body = payload.get(head_size..)?;
    let mut types = payload.get(payload.len() - head.len()..head_size)?;
    let mut values = Vec::with_capacity(columns);
    while !types.is_empty() && values.len() < columns {
        values.push(value(varint(&mut types)?, &mut body)?);
    }
    values.resize(columns, Value::Null);
    Some(values)
}

fn value(serial_type: i64, body: &mut &[u8]) -> Option<Value> {
    Some(match serial_type {
        0 => Value::Null,
        1..=6 => {
            let size = [1, 2, 3, 4, 6, 8][usize::try_from(serial_type - 1).ok()?];
            let bytes = take(body, size)?;
            let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
            Value::Integer(
                bytes
                    .iter()
                    .fold(sign, |number: i64, byte| number << 8 | i64::from(*byte)),
            )
        }
        7 => Value::Real(f64::from_be_bytes(take(body, 8)?.try_into().ok()?)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        12.. => {
            let size = usize::try_from((serial_type - 12) / 2).ok()?;
            let bytes = take(body, size)?.to_vec();
            if serial_type % 2 == 0 {
                Value::Blob(bytes)
            } else {
                Value::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
        _ => return None,
    })
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}

/// 1.6: seven bits a byte, the first bit says that more follow; the ninth byte has eight.
fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut number: i64 = 0;
    for index in 0..9 {
        let byte = take(from, 1)?[0];
        if index == 8 {
            return Some(number << 8 | i64::from(byte));
        }
        number = number << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn be32(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.get(..4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn rows_are_read_without_any_page_above_their_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "PRAGMA auto_vacuum=INCREMENTAL;
             CREATE TABLE other (x);
             CREATE TABLE t (id INTEGER PRIMARY KEY, n, r REAL, s TEXT, b BLOB, big BLOB);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000)
             INSERT INTO t SELECT i * 7 - 5000, (i - 1000) * i * i * i, i + 0.5, 'é' || i, randomblob(i % 9),
                zeroblob(CASE WHEN i % 100 = 0 THEN i * 10 ELSE i % 3 END) FROM c;
             INSERT INTO other SELECT s FROM t;",
        )
        .unwrap();
        let root: usize = conn
            .query_row(
                "SELECT rootpage FROM sqlite_schema WHERE name = 't'",
                [],
                |row| row.get::<_, i64>(0),
            )
            .unwrap()
            .try_into()
            .unwrap();
        let expected: BTreeMap<i64, Vec<Value>> = conn
            .prepare("SELECT * FROM t")
            .unwrap()
            .query_map([], |row| {
                Ok((row.get(0)?, (0..6).map(|i| row.get(i).unwrap()).collect()))
            })
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        drop(conn);
        let mut pages = Pages::read(&path).unwrap();
        assert!(pages.page(root).unwrap()[0] != TABLE_LEAF, "one page only");
        pages.0[(root - 1) * PAGE..root * PAGE].fill(0xa5);
        let rows = pages.rows(root, 6, Some(0));
        assert_eq!(rows.len(), 2000);
        assert!(rows == expected);
    }

    #[test]
    fn no_bytes_make_it_panic_or_turn_for_ever() {
        let mut seed = 7_u64;
        for _ in 0..200 {
            let bytes = (0..4 * PAGE)
                .map(|at| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    match at % PAGE {
                        0 => TABLE_LEAF,
                        _ => (seed >> 33) as u8,
                    }
                })
                .collect();
            let pages = Pages(bytes);
            for root in 1..5 {
                pages.rows(root, 5, Some(0));
            }
        }
    }
}
