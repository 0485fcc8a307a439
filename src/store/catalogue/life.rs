//! Numbers that are never given twice, although commits are not fsynced one by one.
//!
//! A power cut may take the last changes, and with them the numbers they had; devices keep both, as entity tags and
//! cursors. So every life of the database (from one opening to the next) counts on from a gap above what it finds, and
//! the gap is on the disk before the first number is given.

use rusqlite::Connection;

use super::read::fact;

/// More numbers than the changes a log holds that was never fsynced: it is at most [`crate::store::db::WAL_BOUND_BYTES`]
/// and one transaction. A start a minute would use up what a JSON number holds in a thousand years.
const GAP: i64 = 1 << 24;

/// The last number found at the last opening, and the first one that was not given then.
const LOST_AFTER: &str = "lost_after";
const LOST_BEFORE: &str = "lost_before";

/// Begins a life.
///
/// # Errors
/// When the disk does not take it: then no number may be given under this generation.
pub(super) fn begin(conn: &Connection) -> rusqlite::Result<()> {
    let before: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    let begun = leave_a_gap(conn);
    conn.pragma_update(None, "synchronous", before)?;
    begun
}

fn leave_a_gap(conn: &Connection) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    let last: i64 = fact(&tx, "seq")?.unwrap_or(0);
    // In its first life a database has given none.
    let is_first = fact::<i64>(&tx, LOST_BEFORE)?.is_none();
    let next = if is_first { last } else { last + GAP };
    for (name, value) in [(LOST_AFTER, last), (LOST_BEFORE, next), ("seq", next)] {
        tx.execute(
            "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
            (name, value),
        )?;
    }
    tx.commit()
}

/// Whether `seq` was given before the last opening and is not known any more: whoever has it saw what is lost.
pub(super) fn is_lost(conn: &Connection, seq: i64) -> rusqlite::Result<bool> {
    let after = fact(conn, LOST_AFTER)?.unwrap_or(0);
    let before = fact(conn, LOST_BEFORE)?.unwrap_or(0);
    Ok(after < seq && seq < before)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::store::Changes;
    use crate::store::catalogue::{FeedCursor, Stored};
    use crate::store::testing::{Bench, product};
    use crate::store::{Store, db};

    /// What a cut leaves when nothing was fsynced since: the files as they stand now.
    fn files(bench: &Bench) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        ["catalogue.db", "catalogue.db-wal"]
            .map(|name| bench.dir.path().join(name))
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .into()
    }

    fn cut(store: Store, left: &[(std::path::PathBuf, Vec<u8>)]) {
        drop(store);
        for (path, bytes) in left {
            fs::write(path, bytes).unwrap();
            // The log's index does not outlive the machine.
            let _ = fs::remove_file(db::with_suffix(path, "-shm"));
        }
    }

    fn publish(store: &Store, id: &str, cursor: &str) -> Stored {
        let page = vec![product(id, 1, "{}")];
        store.catalogue.apply_page(page, cursor).wait().unwrap();
        store.catalogue.document("products", id).unwrap().unwrap()
    }

    fn refetches(store: &Store, cursor: &FeedCursor) -> bool {
        let changes = store.catalogue.changes(Some(cursor), 10).unwrap();
        matches!(changes, Changes::Refetch)
    }

    #[test]
    fn a_number_that_a_power_cut_took_back_is_never_given_to_other_content() {
        let bench = Bench::new();
        let store = bench.open();
        publish(&store, "p1", "c1");
        let known = store.catalogue.feed_end().unwrap();
        let left = files(&bench);
        let seen = publish(&store, "p2", "c2");
        let (version, beyond) = (
            store.catalogue.version(),
            store.catalogue.feed_end().unwrap(),
        );
        cut(store, &left);

        let store = bench.open();
        assert!(
            store
                .catalogue
                .document("products", "p2")
                .unwrap()
                .is_none()
        );
        assert!(refetches(&store, &beyond), "it knows what is lost");
        assert!(!refetches(&store, &known));
        let other = publish(&store, "p3", "c2");
        assert_ne!(other.etag, seen.etag);
        assert_ne!(store.catalogue.version(), version);
        drop(store);

        // The gap is on the disk before anything else is; the next life leaves another.
        let store = bench.open();
        let left = files(&bench);
        let seen = publish(&store, "p4", "c3");
        cut(store, &left);
        let other = publish(&bench.open(), "p5", "c3");
        assert_ne!(other.etag, seen.etag);
    }

    #[test]
    fn where_the_gap_can_not_be_written_numbers_are_given_under_another_name() {
        let bench = Bench::new();
        let store = bench.open();
        let seen = publish(&store, "p1", "c1");
        drop(store);
        let path = bench.dir.path().join("catalogue.db");
        let conn = db::open_reader(&path, 0).unwrap();
        assert!(super::begin(&conn).is_err());
        let name = super::super::generation(&conn).unwrap();
        assert_ne!(seen.etag.split('-').next().unwrap()[1..], name);
    }
}
