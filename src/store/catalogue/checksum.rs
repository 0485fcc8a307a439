//! What a collection adds up to, to compare with the platform at little cost.
//!
//! Each live document adds one number to its bucket. The bucket is the first byte of SHA-256(id); the number is the
//! first eight bytes, big-endian, of SHA-256(id, a zero byte, the version in decimal digits). Numbers are added modulo
//! 2^64, so their order does not matter and a change costs one subtraction and one addition, in the transaction of the
//! document itself.

use std::collections::BTreeMap;

use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::Catalogue;
use crate::store::readers::ReadError;

/// Buckets of a collection.
pub const BUCKETS: usize = 256;
/// Documents looked at in one read while the documents of a bucket are looked for.
const SCAN_PAGE: i64 = 5000;

/// Number of documents, and what they add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Live documents.
    pub count: i64,
    /// Their numbers, added modulo 2^64.
    pub sum: u64,
}

impl std::ops::AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The bucket of a document.
#[must_use]
pub fn bucket(id: &str) -> u8 {
    Sha256::digest(id.as_bytes())[0]
}

/// The number that a document adds.
#[must_use]
pub fn number(id: &str, version: i64) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(id.as_bytes());
    hasher.update([0]);
    hasher.update(version.to_string().as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let (first, _) = digest.split_first_chunk::<8>().expect("32 bytes hold 8");
    u64::from_be_bytes(*first)
}

/// Changes of checksums gathered over a batch.
#[derive(Debug, Default)]
pub(super) struct Ledger<'d>(BTreeMap<(&'d str, u8), Sum>);

impl<'d> Ledger<'d> {
    /// A document went from one state to another; `None` where it was or is deleted or unknown.
    pub(super) fn moved(
        &mut self,
        collection: &'d str,
        id: &str,
        old: Option<i64>,
        new: Option<i64>,
    ) {
        let entry = self.0.entry((collection, bucket(id))).or_default();
        if let Some(version) = old {
            entry.count -= 1;
            entry.sum = entry.sum.wrapping_sub(number(id, version));
        }
        if let Some(version) = new {
            entry.count += 1;
            entry.sum = entry.sum.wrapping_add(number(id, version));
        }
    }

    pub(super) fn write(self, conn: &Connection) -> rusqlite::Result<()> {
        let mut read = conn.prepare_cached(
            "SELECT live, sum FROM checksums WHERE collection = ?1 AND bucket = ?2",
        )?;
        let mut write =
            conn.prepare_cached("INSERT OR REPLACE INTO checksums VALUES (?1, ?2, ?3, ?4)")?;
        for ((collection, bucket), change) in self.0 {
            if change == Sum::default() {
                continue;
            }
            let mut rows = read.query((collection, bucket))?;
            let mut sum = match rows.next()? {
                Some(row) => Sum {
                    count: row.get(0)?,
                    sum: row.get::<_, i64>(1)?.cast_unsigned(),
                },
                None => Sum::default(),
            };
            sum += change;
            write.execute((collection, bucket, sum.count, sum.sum.cast_signed()))?;
        }
        Ok(())
    }
}

impl Catalogue {
    /// What each collection adds up to, and the cursor of the platform's feed it is true at.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn checksums(&self) -> Result<(Option<String>, BTreeMap<String, Sum>), ReadError> {
        self.readers.read_together(|conn| {
            let mut totals: BTreeMap<String, Sum> = BTreeMap::new();
            let mut query = conn.prepare_cached("SELECT collection, live, sum FROM checksums")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                *totals.entry(row.get(0)?).or_default() += sum(row, 1)?;
            }
            totals.retain(|_, sum| *sum != Sum::default());
            Ok((super::read::fact(conn, "cursor")?, totals))
        })
    }

    /// The same of one collection, bucket by bucket; buckets without documents are left out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn bucket_sums(
        &self,
        collection: &str,
    ) -> Result<(Option<String>, BTreeMap<u8, Sum>), ReadError> {
        self.readers.read_together(|conn| {
            let sums = conn
                .prepare_cached("SELECT bucket, live, sum FROM checksums WHERE collection = ?1")?
                .query_map([collection], |row| Ok((row.get(0)?, sum(row, 1)?)))?
                .filter(|row| !matches!(row, Ok((_, found)) if *found == Sum::default()))
                .collect::<rusqlite::Result<_>>()?;
            Ok((super::read::fact(conn, "cursor")?, sums))
        })
    }

    /// Ids and versions of a bucket's live documents. Reads all ids of the collection, page by page, so that others
    /// read between.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn bucket_documents(
        &self,
        collection: &str,
        wanted: u8,
    ) -> Result<Vec<(String, i64)>, ReadError> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page: Vec<(String, i64, bool)> = self.readers.read(|conn| {
                conn.prepare_cached(
                    "SELECT id, version, body IS NOT NULL FROM documents
                     WHERE collection = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
                )?
                .query_map((collection, &after, SCAN_PAGE), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect()
            })?;
            let Some((last, ..)) = page.last() else {
                return Ok(found);
            };
            after.clone_from(last);
            found.extend(
                page.into_iter()
                    .filter(|(id, _, live)| *live && bucket(id) == wanted)
                    .map(|(id, version, _)| (id, version)),
            );
        }
    }
}

fn sum(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Sum> {
    Ok(Sum {
        count: row.get(at)?,
        sum: row.get::<_, i64>(at + 1)?.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract() {
        // printf 'p1' | sha256sum; printf 'p1\0007' | sha256sum
        assert_eq!(bucket("p1"), 0xf6);
        assert_eq!(number("p1", 7), 0x49ac_8c42_4ead_4bb1);
    }

    #[test]
    fn a_document_that_comes_and_goes_leaves_nothing() {
        let mut ledger = Ledger::default();
        ledger.moved("c", "a", None, Some(1));
        ledger.moved("c", "a", Some(1), Some(2));
        ledger.moved("c", "a", Some(2), None);
        assert!(ledger.0.values().all(|sum| *sum == Sum::default()));
    }
}
