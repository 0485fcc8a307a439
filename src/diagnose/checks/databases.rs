//! Are the databases sound?
//!
//! Opened read-only beside the running server, each is asked for its version and for `PRAGMA quick_check`.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{Asked, Finding};

/// The databases of the store.
const NAMES: [&str; 3] = ["orders.db", "devices.db", "catalogue.db"];

/// Wait for a lock at most this long.
const BUSY_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn ask(asked: &Asked) -> Finding {
    let mut seen = Vec::new();
    let (mut damaged, mut missing) = (false, false);
    for name in NAMES {
        let path = asked.config.store.data_dir.join(name);
        if !path.exists() {
            missing = true;
            seen.push(format!("{name} is not there"));
            continue;
        }
        match quick_check(&path) {
            Ok((version, words)) if words == "ok" => {
                seen.push(format!("{name} version {version} sound"))
            }
            Ok((_, words)) => {
                damaged = true;
                seen.push(format!("{name} is damaged: {words}"));
            }
            Err(error) => {
                damaged = true;
                seen.push(format!("{name} cannot be read: {error}"));
            }
        }
    }
    let seen = seen.join(", ");
    match (damaged, missing) {
        (true, _) => Finding::failed(
            seen,
            "restart the server: it sets a damaged database aside; then call support",
        ),
        (false, true) => Finding::warning(seen, "the server has not run on this data folder yet"),
        (false, false) => Finding::ok(seen),
    }
}

fn quick_check(path: &Path) -> rusqlite::Result<(i64, String)> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.busy_timeout(BUSY_WITHIN)?;
    let version = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // One finding is enough to know.
    let words = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((version, words))
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::asked};
    use super::*;

    fn database(path: &Path) {
        let database = Connection::open(path).unwrap();
        database
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA user_version=7; CREATE TABLE t(x); CREATE INDEX i ON t(x);")
            .unwrap();
        let rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
                    INSERT INTO t SELECT 'row ' || x FROM n";
        database.execute(rows, []).unwrap();
    }

    #[test]
    fn sound_missing_and_damaged_databases_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let asked = asked(dir.path());
        assert_eq!(ask(&asked).verdict, Verdict::Warning);
        NAMES
            .iter()
            .for_each(|name| database(&dir.path().join(name)));
        let sound = ask(&asked);
        assert_eq!(sound.verdict, Verdict::Ok);
        assert!(
            sound.seen.contains("orders.db version 7 sound"),
            "{}",
            sound.seen
        );

        let path = dir.path().join("catalogue.db");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let damaged = ask(&asked);
        assert_eq!(damaged.verdict, Verdict::Failed, "{}", damaged.seen);
        assert!(damaged.seen.contains("catalogue.db"), "{}", damaged.seen);
    }
}
