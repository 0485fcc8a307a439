//! Are the databases sound?
//!
//! Opened read-only beside the running server, each is asked for its version and for `PRAGMA quick_check`.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Asked, Finding};
use crate::language::Said;

/// The databases of the store.
const NAMES: [&str; 3] = ["orders.db", "devices.db", "catalogue.db"];

/// Wait for a lock at most this long.
const BUSY_WITHIN: Duration = Duration::from_secs(2);

/// All databases together: a catalogue of gigabytes is not read to its end while somebody waits for the answer.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at the time, in steps of the database's virtual machine.
const STEPS: i32 = 1000;

/// How a database was found.
enum Found {
    Missing,
    Sound {
        version: i64,
    },
    /// Nothing wrong as far as it was read in time.
    Unread {
        version: i64,
    },
    Damaged(Said),
}

pub(super) fn ask(asked: &Asked) -> Finding {
    let until = Instant::now() + READ_WITHIN;
    let mut seen = Vec::new();
    let (mut damaged, mut present) = (false, false);
    for name in NAMES {
        let found = look(&asked.config.store.data_dir.join(name), until);
        present |= !matches!(found, Found::Missing);
        seen.push(match found {
            Found::Missing => Said::new(
                format!("{name} is not there"),
                format!("{name} est absente"),
            ),
            Found::Sound { version } => Said::new(
                format!("{name} version {version} sound"),
                format!("{name} version {version} saine"),
            ),
            Found::Unread { version } => Said::new(
                format!("{name} version {version} sound as far as read"),
                format!("{name} version {version} saine pour ce qui a été lu"),
            ),
            Found::Damaged(why) => {
                damaged = true;
                Said::new(
                    format!("{name} is damaged: {}", why.en),
                    format!("{name} est abîmée : {}", why.fr),
                )
            }
        });
    }
    let seen = Said::join(&seen, ", ");
    match (damaged, present) {
        (true, _) => Finding::failed(
            seen,
            "Restart the server: it sets a damaged database aside; then call support.",
            "Redémarrez le serveur : il met de côté une base abîmée ; appelez ensuite l'assistance.",
        ),
        (false, false) => Finding::skipped(Said::new(
            "the server has not run on this data folder yet",
            "le serveur n'a pas encore fonctionné avec ce dossier de données",
        )),
        (false, true) => Finding::ok(seen),
    }
}

fn look(path: &Path, until: Instant) -> Found {
    if !path.exists() {
        return Found::Missing;
    }
    match quick_check(path, until) {
        Ok((version, Some(words))) if words == "ok" => Found::Sound { version },
        Ok((_, Some(words))) => Found::Damaged(Said::same(words)),
        Ok((version, None)) => Found::Unread { version },
        Err(error) => Found::Damaged(Said::same(error.to_string())),
    }
}

/// Its version and what it says of itself, `None` when the time is over first.
fn quick_check(path: &Path, until: Instant) -> rusqlite::Result<(i64, Option<String>)> {
    let mut database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.busy_timeout(BUSY_WITHIN)?;
    let version = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    database.progress_handler(STEPS, Some(move || Instant::now() > until))?;
    // One finding is enough to know.
    match database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)) {
        Ok(words) => Ok((version, Some(words))),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok((version, None))
        }
        Err(error) => Err(error),
    }
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
        assert_eq!(ask(&asked).verdict, Verdict::Skipped);
        NAMES
            .iter()
            .for_each(|name| database(&dir.path().join(name)));
        let sound = ask(&asked);
        assert_eq!(sound.verdict, Verdict::Ok);
        assert!(
            sound.seen.en.contains("orders.db version 7 sound"),
            "{:?}",
            sound.seen
        );

        let path = dir.path().join("catalogue.db");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let damaged = ask(&asked);
        assert_eq!(damaged.verdict, Verdict::Failed, "{:?}", damaged.seen);
        assert!(
            damaged.seen.fr.contains("catalogue.db est abîmée"),
            "{:?}",
            damaged.seen
        );
    }

    #[test]
    fn a_database_too_large_for_the_time_is_no_finding() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.db");
        database(&path);
        assert!(matches!(
            look(&path, Instant::now()),
            Found::Unread { version: 7 }
        ));
    }
}
