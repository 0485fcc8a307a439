//! The last events, numbered. Readers hold a position, not a queue: a slow one costs nothing and simply falls behind.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use tokio::sync::watch;

use crate::identity::random_bytes;
use crate::store::OrderState;

/// Events that are kept. Who missed more starts over.
pub const RING_BOUND: usize = 1024;

/// Where a reader stands: the event it saw last. The generation is new at every start of the server, because events are
/// only kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    generation: u32,
    seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.generation, self.seq)
    }
}

/// Text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this box")]
pub struct ParsePositionError;

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (generation, seq) = text.split_once('-').ok_or(ParsePositionError)?;
        Ok(Self {
            generation: u32::from_str_radix(generation, 16).map_err(|_| ParsePositionError)?,
            seq: seq.parse().map_err(|_| ParsePositionError)?,
        })
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where a reader stands who has seen it.
    pub position: Position,
    /// `order`, `catalogue` or `device`.
    pub name: &'static str,
    /// JSON.
    pub data: Arc<str>,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Read {
    /// These, in order; none when it has seen everything.
    Events(Vec<Event>),
    /// Events are missing: it reads the state afresh and goes on from here.
    Reset(Position),
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    generation: u32,
    last: u64,
    events: VecDeque<Event>,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                generation: u32::from_le_bytes(random_bytes()),
                last: 0,
                events: VecDeque::new(),
            }),
            changed: watch::Sender::new(()),
        }
    }
}

impl Ring {
    /// An order is new or has changed.
    pub fn order(&self, order_id: &str, state: OrderState, seq: i64) {
        let data = json!({"order_id": order_id, "state": state.name(), "seq": seq});
        self.push("order", data.to_string().into());
    }

    /// Documents have changed.
    pub fn catalogue(&self, seq: i64) {
        self.push("catalogue", json!({"seq": seq}).to_string().into());
    }

    /// A device was paired, moved or revoked.
    pub fn device(&self, device_id: &str) {
        self.push("device", json!({"device_id": device_id}).to_string().into());
    }

    /// Events were lost on the way here: every reader starts over.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        state.last = 0;
        state.events.clear();
        drop(state);
        self.changed.send_replace(());
    }

    /// The position of a reader who wants only what comes next.
    pub fn end(&self) -> Position {
        self.lock().end()
    }

    /// At most `limit` events after `position`.
    pub fn after(&self, position: Position, limit: usize) -> Read {
        let state = self.lock();
        let first = state
            .events
            .front()
            .map_or(state.last + 1, |event| event.position.seq);
        let known = position.generation == state.generation
            && position.seq <= state.last
            && position.seq + 1 >= first;
        if !known {
            return Read::Reset(state.end());
        }
        let skip = usize::try_from(position.seq + 1 - first).unwrap_or(usize::MAX);
        Read::Events(
            state
                .events
                .iter()
                .skip(skip)
                .take(limit)
                .cloned()
                .collect(),
        )
    }

    /// Rings when there is something new. Subscribe before reading.
    pub fn bell(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn push(&self, name: &'static str, data: Arc<str>) {
        let mut state = self.lock();
        if state.events.len() == RING_BOUND {
            state.events.pop_front();
        }
        state.last += 1;
        let position = state.end();
        state.events.push_back(Event {
            position,
            name,
            data,
        });
        drop(state);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    const fn end(&self) -> Position {
        Position {
            generation: self.generation,
            seq: self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(read: Read) -> Vec<u64> {
        match read {
            Read::Events(events) => events.iter().map(|event| event.position.seq).collect(),
            Read::Reset(position) => panic!("reset to {position}"),
        }
    }

    #[test]
    fn a_reader_resumes_where_it_stood() {
        let ring = Ring::default();
        let start = ring.end();
        for seq in 0..5 {
            ring.catalogue(seq);
        }
        assert_eq!(seqs(ring.after(start, 3)), [1, 2, 3]);
        let third: Position = format!("{:08x}-3", start.generation).parse().unwrap();
        assert_eq!(seqs(ring.after(third, 10)), [4, 5]);
        assert_eq!(seqs(ring.after(ring.end(), 10)), [0; 0]);
    }

    #[test]
    fn who_missed_too_much_or_comes_from_elsewhere_starts_over() {
        let ring = Ring::default();
        let start = ring.end();
        for seq in 0..=RING_BOUND {
            ring.catalogue(i64::try_from(seq).unwrap());
        }
        assert!(matches!(ring.after(start, 10), Read::Reset(end) if end == ring.end()));
        let oldest = Position { seq: 1, ..start };
        assert_eq!(seqs(ring.after(oldest, usize::MAX)).len(), RING_BOUND);
        let foreign = Position {
            generation: start.generation.wrapping_add(7),
            seq: 5,
        };
        assert!(matches!(ring.after(foreign, 10), Read::Reset(_)));
        let future = Position {
            seq: 999_999,
            ..start
        };
        assert!(matches!(ring.after(future, 10), Read::Reset(_)));
        ring.restart();
        assert!(matches!(ring.after(oldest, 10), Read::Reset(_)));
    }

    #[test]
    fn rubbish_is_no_position() {
        for text in ["", "-", "x-1", "1", "00000000-x", "1-2-3", "fffffffff-1"] {
            assert_eq!(text.parse::<Position>(), Err(ParsePositionError), "{text}");
        }
    }
}
