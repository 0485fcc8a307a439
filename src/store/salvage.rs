//! Bringing over from a damaged database whatever can still be read.
//!
//! Each table is read forwards until the damage, backwards until the damage, and between the two row by row where rows
//! have numbers. What is below a broken inner page is then carved out of its leaves. If not even the first page (header and schema) can be read, a copy is tried whose first page comes
//! from the new database: same migrations, same layout of the first pages.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::carve::Pages;
use super::db::{PAGE_BYTES, wal_path, with_suffix};
use super::recover::open_damaged;

/// Rows probed one by one between the readable ends of a table; a wider gap is left.
const PROBE_BOUND: i64 = 200_000;

/// What was brought over.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    pub(super) rows: u64,
    pub(super) incomplete: Vec<String>,
}

struct Table {
    name: String,
    columns: Vec<String>,
    order: String,
    numbered: bool,
    root: usize,
    number_column: Option<usize>,
}

/// Copies what is readable of the database at `damaged_path` into `fresh`, which lies at `fresh_path`.
pub(super) fn salvage(
    damaged_path: &Path,
    fresh: &Connection,
    fresh_path: &Path,
) -> rusqlite::Result<Salvaged> {
    let tables = tables(fresh)?;
    let scratch_path = with_suffix(damaged_path, ".scratch");
    let mut new_head = false;
    let damaged = open_damaged(damaged_path).ok().or_else(|| {
        new_head = true;
        copy_with_head(damaged_path, &scratch_path, Some((fresh, fresh_path))).ok()?;
        open_damaged(&scratch_path).ok()
    });
    let mut salvaged = Salvaged::default();
    if let Some(damaged) = &damaged {
        fresh.execute_batch("PRAGMA foreign_keys=OFF; BEGIN IMMEDIATE")?;
        // Keys are made of these numbers and the random prefixes among the facts: both are kept, or none.
        let keeps_keys = copy_sequences(damaged, fresh)?;
        for table in &tables {
            let conflict = if keeps_keys && table.name == "facts" {
                "REPLACE"
            } else {
                "IGNORE"
            };
            let complete = copy_table(damaged, fresh, table, conflict, &mut salvaged.rows)?;
            if !complete {
                salvaged.incomplete.push(table.name.clone());
            }
        }
        fresh.execute_batch("COMMIT; PRAGMA foreign_keys=ON")?;
    } else {
        salvaged.incomplete = tables.iter().map(|table| table.name.clone()).collect();
    }
    drop(damaged);
    if !salvaged.incomplete.is_empty() {
        let head = new_head.then_some((fresh, fresh_path));
        if let Ok(pages) = flat_pages(damaged_path, &scratch_path, head) {
            for table in &tables {
                if table.numbered && salvaged.incomplete.contains(&table.name) {
                    carve_table(&pages, fresh, table, &mut salvaged.rows)?;
                }
            }
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        // Left behind it is only overwritten by the next salvage.
        let _ = fs::remove_file(with_suffix(&scratch_path, suffix));
    }
    Ok(salvaged)
}

fn tables(fresh: &Connection) -> rusqlite::Result<Vec<Table>> {
    let found = fresh
        .prepare(
            "SELECT name, wr FROM pragma_table_list
             WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, bool)>>>()?;
    found
        .into_iter()
        .map(|(name, without_rowid)| {
            let columns = fresh
                .prepare("SELECT name, pk, type FROM pragma_table_info(?1)")?
                .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(String, i64, String)>>>()?;
            let mut key: Vec<_> = columns.iter().filter(|(_, pk, _)| *pk > 0).collect();
            key.sort_by_key(|(_, pk, _)| *pk);
            let order = if without_rowid {
                let key: Vec<_> = key.iter().map(|(column, _, _)| column.as_str()).collect();
                key.join(" {}, ") + " {}"
            } else {
                "rowid {}".to_owned()
            };
            Ok(Table {
                root: fresh.query_row(
                    "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                    [&name],
                    |row| row.get::<_, u32>(0),
                )? as usize,
                // The only key columns of numbered tables here that are integers are names of the number.
                number_column: columns
                    .iter()
                    .position(|(_, pk, kind)| !without_rowid && *pk > 0 && kind == "INTEGER"),
                columns: columns.into_iter().map(|(column, _, _)| column).collect(),
                numbered: !without_rowid,
                name,
                order,
            })
        })
        .collect()
}

/// Whether the whole table could be read.
fn copy_table(
    damaged: &Connection,
    fresh: &Connection,
    table: &Table,
    conflict: &str,
    rows: &mut u64,
) -> rusqlite::Result<bool> {
    let mut insert = fresh.prepare(&insert_into(table, conflict))?;
    let columns = table.columns.join(", ");
    let number = if table.numbered { "rowid" } else { "0" };
    let mut take = |values: Vec<Value>| -> rusqlite::Result<()> {
        // Ignored are rows of the fresh database itself, and rows read from both ends.
        *rows += insert.execute(params_from_iter(values))? as u64;
        Ok(())
    };
    let (mut first_lost, mut last_lost) = (i64::MIN, i64::MAX);
    for direction in ["ASC", "DESC"] {
        let order = table.order.replace("{}", direction);
        let sql = format!(
            "SELECT {number}, {columns} FROM {} NOT INDEXED ORDER BY {order}",
            table.name
        );
        let mut damage = false;
        if let Ok(mut query) = damaged.prepare(&sql) {
            let mut found = query.query([])?;
            loop {
                match found.next() {
                    Ok(Some(row)) => {
                        let (at, values) = values(row, table.columns.len())?;
                        if table.numbered && direction == "DESC" && at <= first_lost {
                            break;
                        }
                        if direction == "ASC" {
                            first_lost = at;
                        } else {
                            last_lost = at;
                        }
                        take(values)?;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        damage = true;
                        break;
                    }
                }
            }
        } else {
            damage = true;
        }
        if !damage && direction == "ASC" {
            return Ok(true);
        }
    }
    if table.numbered {
        let from = if first_lost == i64::MIN {
            0
        } else {
            first_lost
        };
        let to = if last_lost == i64::MAX {
            from.saturating_add(PROBE_BOUND)
        } else {
            last_lost
        };
        let sql = format!(
            "SELECT rowid, {columns} FROM {} WHERE rowid = ?1",
            table.name
        );
        if let Ok(mut probe) = damaged.prepare(&sql) {
            for at in (from + 1..to).take(usize::try_from(PROBE_BOUND).unwrap_or(usize::MAX)) {
                let found = probe.query_row([at], |row| values(row, table.columns.len()));
                if let Ok((_, values)) = found {
                    take(values)?;
                }
            }
        }
    }
    Ok(false)
}

fn values(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<(i64, Vec<Value>)> {
    let values = (1..=columns)
        .map(|index| row.get::<_, Value>(index))
        .collect::<Result<_, _>>()?;
    Ok((row.get(0)?, values))
}

/// Numbers given out by a table must not be given again, even if its rows are gone.
fn copy_sequences(damaged: &Connection, fresh: &Connection) -> rusqlite::Result<bool> {
    let has_sequences = fresh
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")?
        .exists([])?;
    if !has_sequences {
        return Ok(true);
    }
    let Ok(mut query) = damaged.prepare("SELECT name, seq FROM sqlite_sequence") else {
        return Ok(false);
    };
    let Ok(sequences) = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, i64)>>>()
    else {
        return Ok(false);
    };
    for (name, seq) in sequences {
        let raised = fresh.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1",
            (&name, seq),
        )?;
        if raised == 0 {
            fresh.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                (&name, seq),
            )?;
        }
    }
    Ok(true)
}

/// Brings over what is in the table's leaf pages and is not there yet.
fn carve_table(
    pages: &Pages,
    fresh: &Connection,
    table: &Table,
    rows: &mut u64,
) -> rusqlite::Result<()> {
    fresh.execute_batch("PRAGMA foreign_keys=OFF; BEGIN IMMEDIATE")?;
    let mut insert = fresh.prepare(&insert_into(table, "IGNORE"))?;
    for values in pages
        .rows(table.root, table.columns.len(), table.number_column)
        .into_values()
    {
        *rows += insert.execute(params_from_iter(values))? as u64;
    }
    drop(insert);
    fresh.execute_batch("COMMIT; PRAGMA foreign_keys=ON")
}

fn insert_into(table: &Table, conflict: &str) -> String {
    let marks = vec!["?"; table.columns.len()].join(", ");
    format!("INSERT OR {conflict} INTO {} VALUES ({marks})", table.name)
}

/// The pages of the damaged database with its log worked in.
fn flat_pages(
    damaged_path: &Path,
    scratch_path: &Path,
    head: Option<(&Connection, &Path)>,
) -> io::Result<Pages> {
    for suffix in ["-wal", "-shm"] {
        // Those of an earlier look; what is in the way of the copy shows there.
        let _ = fs::remove_file(with_suffix(scratch_path, suffix));
    }
    copy_with_head(damaged_path, scratch_path, head)?;
    let conn = Connection::open(scratch_path).map_err(io::Error::other)?;
    // Copies pages without looking into them. Where it fails the main file still has most.
    let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    drop(conn);
    Pages::read(scratch_path)
}

/// Makes `scratch_path` a copy of the damaged database and its log, with the first page of a fresh one if one is given.
fn copy_with_head(
    damaged_path: &Path,
    scratch_path: &Path,
    head: Option<(&Connection, &Path)>,
) -> io::Result<()> {
    let size = fs::copy(damaged_path, scratch_path)?;
    if wal_path(damaged_path).exists() {
        fs::copy(wal_path(damaged_path), wal_path(scratch_path))?;
    }
    let Some((fresh, fresh_path)) = head else {
        return Ok(());
    };
    fresh
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(io::Error::other)?;
    let mut head = vec![0; usize::try_from(PAGE_BYTES).unwrap_or(4096)];
    File::open(fresh_path)?.read_exact(&mut head)?;
    let pages = u32::try_from(size / PAGE_BYTES).unwrap_or(u32::MAX);
    // SQLite file format, 1.3: 28 size in pages, believed if 24 (change counter) equals 92; 32 and 36 free list.
    head[28..32].copy_from_slice(&pages.to_be_bytes());
    head.copy_within(24..28, 92);
    head[32..40].fill(0);
    let mut scratch = OpenOptions::new().write(true).open(scratch_path)?;
    scratch.seek(SeekFrom::Start(0))?;
    scratch.write_all(&head)
}
