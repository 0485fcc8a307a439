//! What the kitchen sees: one JSON line a command that was executed.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};

use crate::hex;
use crate::wire::Command;

/// Where the lines go.
#[derive(Debug)]
pub enum Kitchen {
    /// A terminal: gone after a restart.
    Terminal,
    /// A file, made durable line by line: a screen that still shows after a restart what it showed before.
    Screen {
        /// Open for appending.
        file: File,
        /// Where, to look at it again.
        path: PathBuf,
    },
}

impl Kitchen {
    /// Opens the file, and cuts off a line that a power cut left half written: nobody could have read it.
    pub fn open(log: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = log else {
            return Ok(Self::Terminal);
        };
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let shown = fs::read(path)?;
            let whole = shown
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            file.set_len(whole as u64)?;
            file.sync_all()?;
            Ok(file)
        };
        Ok(Self::Screen {
            file: open().with_context(|| format!("cannot open {}", path.display()))?,
            path: path.into(),
        })
    }

    /// The ids it still shows; `None` when it cannot tell.
    pub fn shown(&self) -> anyhow::Result<Option<HashSet<[u8; 16]>>> {
        let Self::Screen { path, .. } = self else {
            return Ok(None);
        };
        let text = fs::read_to_string(path)?;
        Ok(Some(
            text.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .filter_map(|line| hex::decode_array(line["id"].as_str()?))
                .collect(),
        ))
    }

    /// The visible effect of a command.
    pub fn show(&mut self, command: &Command, marked_as_duplicate: bool) -> anyhow::Result<()> {
        let body = serde_json::from_slice(&command.body)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&command.body)));
        let line = json!({
            "id": hex::encode(&command.id),
            "seq": command.seq,
            "kind": command.kind,
            "possible_duplicate": command.possible_duplicate,
            "marked_as_duplicate": marked_as_duplicate,
            "shown_at_ms": wall_ms(),
            "body": body,
        });
        let line = format!("{line}\n");
        match self {
            Self::Terminal => {
                let mut out = io::stdout().lock();
                out.write_all(line.as_bytes())?;
                out.flush()?;
            }
            Self::Screen { file, .. } => {
                file.write_all(line.as_bytes())?;
                file.sync_data()?;
            }
        }
        Ok(())
    }
}

/// This machine's wall time.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
