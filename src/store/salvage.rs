//! Bringing over from a damaged database whatever can still be read.
//!
//! Each table is read forwards until the damage, backwards until the damage, and between the two row by row where rows
//! have numbers. If not even the first page (header and schema) can be read, a copy is tried whose first page comes
//! from the new database: same migrations, same layout of the first pages.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

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
}

/// Copies what is readable of the database at `damaged_path` into `fresh`, which lies at `fresh_path`.
pub(super) fn salvage(
    damaged_path: &Path,
    fresh: &Connection,
    fresh_path: &Path,
) -> rusqlite::Result<Salvaged> {
    let tables = tables(fresh)?;
    let scratch_path = with_suffix(damaged_path, ".scratch");
    let damaged = match open_damaged(damaged_path) {
        Ok(damaged) => Some(damaged),
        Err(_) => with_new_head(damaged_path, fresh_path, &scratch_path, fresh)
            .ok()
            .and_then(|()| open_damaged(&scratch_path).ok()),
    };
    let mut salvaged = Salvaged::default();
    if let Some(damaged) = damaged {
        fresh.execute_batch("PRAGMA foreign_keys=OFF; BEGIN IMMEDIATE")?;
        for table in &tables {
            let complete = copy_table(&damaged, fresh, table, &mut salvaged.rows)?;
            if !complete {
                salvaged.incomplete.push(table.name.clone());
            }
        }
        copy_sequences(&damaged, fresh)?;
        fresh.execute_batch("COMMIT; PRAGMA foreign_keys=ON")?;
    } else {
        salvaged.incomplete = tables.into_iter().map(|table| table.name).collect();
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
                .prepare("SELECT name, pk FROM pragma_table_info(?1)")?
                .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(String, i64)>>>()?;
            let mut key: Vec<_> = columns.iter().filter(|(_, pk)| *pk > 0).collect();
            key.sort_by_key(|(_, pk)| *pk);
            let order = if without_rowid {
                let key: Vec<_> = key.iter().map(|(column, _)| column.as_str()).collect();
                key.join(" {}, ") + " {}"
            } else {
                "rowid {}".to_owned()
            };
            Ok(Table {
                columns: columns.into_iter().map(|(column, _)| column).collect(),
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
    rows: &mut u64,
) -> rusqlite::Result<bool> {
    let marks = vec!["?"; table.columns.len()].join(", ");
    let mut insert = fresh.prepare(&format!(
        "INSERT OR IGNORE INTO {} VALUES ({marks})",
        table.name
    ))?;
    let columns = table.columns.join(", ");
    let number = if table.numbered { "rowid" } else { "0" };
    let mut refused = 0;
    let mut take = |values: Vec<Value>| -> rusqlite::Result<()> {
        let new = insert.execute(params_from_iter(values))?;
        *rows += new as u64;
        // Rows that stand there already are those of the fresh database itself, or read from both ends.
        refused += 1 - new;
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
fn copy_sequences(damaged: &Connection, fresh: &Connection) -> rusqlite::Result<()> {
    let has_sequences = fresh
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")?
        .exists([])?;
    if !has_sequences {
        return Ok(());
    }
    let Ok(mut query) = damaged.prepare("SELECT name, seq FROM sqlite_sequence") else {
        return Ok(());
    };
    let mut rows = query.query([])?;
    while let Ok(Some(row)) = rows.next() {
        let (Ok(name), Ok(seq)) = (row.get::<_, String>(0), row.get::<_, i64>(1)) else {
            continue;
        };
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
    Ok(())
}

/// Makes `scratch_path` a copy of the damaged database with the first page of a fresh one.
fn with_new_head(
    damaged_path: &Path,
    fresh_path: &Path,
    scratch_path: &Path,
    fresh: &Connection,
) -> io::Result<()> {
    fresh
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(io::Error::other)?;
    let mut head = vec![0; usize::try_from(PAGE_BYTES).unwrap_or(4096)];
    File::open(fresh_path)?.read_exact(&mut head)?;
    let size = fs::copy(damaged_path, scratch_path)?;
    let pages = u32::try_from(size / PAGE_BYTES).unwrap_or(u32::MAX);
    // SQLite file format, 1.3: 28 size in pages, believed if 24 (change counter) equals 92; 32 and 36 free list.
    head[28..32].copy_from_slice(&pages.to_be_bytes());
    head.copy_within(24..28, 92);
    head[32..40].fill(0);
    let mut scratch = OpenOptions::new().write(true).open(scratch_path)?;
    scratch.seek(SeekFrom::Start(0))?;
    scratch.write_all(&head)?;
    if wal_path(damaged_path).exists() {
        fs::copy(wal_path(damaged_path), wal_path(scratch_path))?;
    }
    Ok(())
}
