//! The commands the device remembers, in `commands.jsonl` of its state folder: one line when a command is accepted, one when
//! it is done, each fsynced. At start the file is rewritten with what is still to be remembered.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::pairing::replace_file;
use crate::wire::{Command, Outcome};

const FILE: &str = "commands.jsonl";

/// How many commands are remembered; the oldest finished one is forgotten first.
pub const REMEMBERED: usize = 1024;

/// After so many lines for each command remembered the file is rewritten.
const LINES_PER_COMMAND: usize = 4;

/// A command's place in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// On disk, to be executed.
    Accepted(Box<Command>),
    /// Over.
    Done {
        /// How.
        outcome: Outcome,
        /// In words.
        detail: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    Began {
        lost: bool,
        last_seq: u64,
    },
    Accepted {
        command: Command,
    },
    Done {
        #[serde(with = "crate::hex::array")]
        id: [u8; 16],
        seq: u64,
        outcome: Outcome,
        detail: String,
    },
}

/// The memory, and the file behind it.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    file: File,
    remembered: usize,
    lines: usize,
    lost: bool,
    last_seq: u64,
    order: VecDeque<[u8; 16]>,
    states: HashMap<[u8; 16], (u64, State)>,
}

impl Memory {
    /// Opens the memory in `state`. A memory that is not there, though the device is paired (`paired_before`), was lost.
    pub fn open(state: &Path, paired_before: bool) -> anyhow::Result<Self> {
        Self::open_bounded(state, paired_before, REMEMBERED)
    }

    fn open_bounded(state: &Path, paired_before: bool, remembered: usize) -> anyhow::Result<Self> {
        let path = state.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let lost = text.is_none() && paired_before;
        let mut memory = Self {
            file: OpenOptions::new().create(true).append(true).open(&path)?,
            path,
            remembered,
            lines: 0,
            lost,
            last_seq: 0,
            order: VecDeque::new(),
            states: HashMap::new(),
        };
        for line in text.unwrap_or_default().lines() {
            // A line that a power cut left half written was never answered for.
            if let Ok(line) = serde_json::from_str(line) {
                memory.apply(line);
            }
        }
        memory.rewrite()?;
        Ok(memory)
    }

    /// What is known of a command.
    pub fn state(&self, id: &[u8; 16]) -> Option<&State> {
        self.states.get(id).map(|(_, state)| state)
    }

    /// The commands still to be executed, oldest first.
    pub fn open_commands(&self) -> Vec<Command> {
        self.order
            .iter()
            .filter_map(|id| match self.state(id) {
                Some(State::Accepted(command)) => Some(command.as_ref().clone()),
                _ => None,
            })
            .collect()
    }

    /// How many commands are remembered.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// The highest `seq` that is finished and remembered.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Whether there was a memory before this one: an unknown command may have been executed then.
    pub fn was_lost(&self) -> bool {
        self.lost
    }

    /// Remembers a command as accepted; durable on return.
    pub fn accept(&mut self, command: &Command) -> anyhow::Result<()> {
        self.append(Line::Accepted {
            command: command.clone(),
        })
    }

    /// Remembers a command's end; durable on return.
    pub fn finish(
        &mut self,
        id: [u8; 16],
        seq: u64,
        outcome: Outcome,
        detail: &str,
    ) -> anyhow::Result<()> {
        self.append(Line::Done {
            id,
            seq,
            outcome,
            detail: detail.into(),
        })
    }

    /// Loses everything.
    pub fn forget(&mut self) -> anyhow::Result<()> {
        self.order.clear();
        self.states.clear();
        self.last_seq = 0;
        self.lost = true;
        self.rewrite()
    }

    fn append(&mut self, line: Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.lines += 1;
        self.apply(line);
        if self.lines > LINES_PER_COMMAND * self.remembered {
            self.rewrite()?;
        }
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Began { lost, last_seq } => {
                self.lost = lost;
                self.last_seq = last_seq;
            }
            Line::Accepted { command } => {
                let (id, seq) = (command.id, command.seq);
                self.set(id, seq, State::Accepted(Box::new(command)));
            }
            Line::Done {
                id,
                seq,
                outcome,
                detail,
            } => {
                self.last_seq = self.last_seq.max(seq);
                self.set(id, seq, State::Done { outcome, detail });
            }
        }
    }

    fn set(&mut self, id: [u8; 16], seq: u64, state: State) {
        if self.states.insert(id, (seq, state)).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.remembered {
            let finished = self
                .order
                .iter()
                .position(|id| matches!(self.state(id), Some(State::Done { .. })));
            // More open commands than that cannot be: the box sends one at a time.
            let oldest = self.order.remove(finished.unwrap_or(0));
            oldest.map(|id| self.states.remove(&id));
        }
    }

    fn rewrite(&mut self) -> anyhow::Result<()> {
        let mut lines = vec![Line::Began {
            lost: self.lost,
            last_seq: self.last_seq,
        }];
        for id in &self.order {
            lines.push(match &self.states[id] {
                (_, State::Accepted(command)) => Line::Accepted {
                    command: command.as_ref().clone(),
                },
                (seq, State::Done { outcome, detail }) => Line::Done {
                    id: *id,
                    seq: *seq,
                    outcome: *outcome,
                    detail: detail.clone(),
                },
            });
        }
        let mut text = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        replace_file(&self.path, &text)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.lines = lines.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(n: u64) -> Command {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Command {
            id,
            seq: n,
            issued_at_ms: 0,
            expires_at_ms: 0,
            possible_duplicate: false,
            kind: "order".into(),
            body: b"{}".to_vec(),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("device-memory-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn memory_survives_a_restart_and_a_torn_last_line() {
        let dir = scratch("restart");
        let mut memory = Memory::open(&dir, false).unwrap();
        memory.accept(&command(1)).unwrap();
        memory
            .finish(command(1).id, 1, Outcome::Failed, "no paper")
            .unwrap();
        memory.accept(&command(2)).unwrap();
        drop(memory);
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.join(FILE))
            .unwrap();
        file.write_all(b"{\"line\":\"done\",\"id\":\"00").unwrap();

        let memory = Memory::open(&dir, true).unwrap();
        assert!(!memory.was_lost());
        assert_eq!(memory.last_seq(), 1);
        assert_eq!(memory.open_commands(), [command(2)]);
        assert_eq!(
            memory.state(&command(1).id),
            Some(&State::Done {
                outcome: Outcome::Failed,
                detail: "no paper".into()
            })
        );
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_the_last_are_remembered_and_a_lost_memory_knows_that_it_was() {
        let dir = scratch("bound");
        let mut memory = Memory::open_bounded(&dir, false, 8).unwrap();
        for n in 1..=40 {
            memory.accept(&command(n)).unwrap();
            memory.finish(command(n).id, n, Outcome::Ok, "").unwrap();
        }
        assert_eq!(memory.len(), 8);
        assert!(memory.state(&command(32).id).is_none());
        assert!(memory.state(&command(33).id).is_some());
        let text = fs::read_to_string(dir.join(FILE)).unwrap();
        assert!(text.lines().count() <= 8 * LINES_PER_COMMAND + 1);
        drop(memory);
        fs::remove_file(dir.join(FILE)).unwrap();
        assert!(Memory::open(&dir, true).unwrap().was_lost());
        assert!(
            Memory::open(&dir, true).unwrap().was_lost(),
            "known for good"
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
