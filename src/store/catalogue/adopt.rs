//! What an older firmware left has neither checksums nor dated prices: they are made once, at the first start.

use rusqlite::Connection;

use super::apply::{date, priced};
use super::checksum::Ledger;
use super::read::fact;
use super::schema::PRICED_COLLECTIONS;

/// Documents read at a time.
const SLICE: i64 = 1000;

struct Found {
    doc: i64,
    collection: String,
    id: String,
    version: i64,
    body: Option<Vec<u8>>,
}

/// Adds up all documents unless that was done; in one transaction, so that a start that is cut does it anew.
pub(super) fn adopt(conn: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    if fact::<i64>(conn, "unsummed")?.is_none() {
        return Ok(());
    }
    let tx = conn.unchecked_transaction()?;
    let mut after = 0;
    loop {
        let page = page(&tx, after)?;
        let Some(last) = page.last() else { break };
        after = last.doc;
        let mut sums = Ledger::default();
        for found in &page {
            sums.moved(&found.collection, &found.id, None, Some(found.version));
            let Some(body) = &found.body else { continue };
            let priced = priced(body, now_ms);
            if priced.current.is_some() {
                tx.prepare_cached("UPDATE documents SET price = ?2 WHERE doc = ?1")?
                    .execute((found.doc, priced.current.as_deref().map(str::as_bytes)))?;
            }
            date(&tx, found.doc, &priced, false)?;
        }
        sums.write(&tx)?;
    }
    tx.execute("DELETE FROM facts WHERE name = 'unsummed'", [])?;
    tx.commit()
}

fn page(conn: &Connection, after: i64) -> rusqlite::Result<Vec<Found>> {
    let [first, second] = PRICED_COLLECTIONS;
    conn.prepare_cached(
        "SELECT doc, collection, id, version, CASE WHEN collection IN (?3, ?4) THEN body END FROM documents
         WHERE doc > ?1 AND body IS NOT NULL ORDER BY doc LIMIT ?2",
    )?
    .query_map((after, SLICE, first, second), |row| {
        Ok(Found {
            doc: row.get(0)?,
            collection: row.get(1)?,
            id: row.get(2)?,
            version: row.get(3)?,
            body: row.get(4)?,
        })
    })?
    .collect()
}
