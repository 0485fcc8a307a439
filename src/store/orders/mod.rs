//! Orders, the commands they become, and what waits for the platform: `orders.db`.
//!
//! ```text
//!  bus, feed -receive--> inbox (message id, once) --.
//!  devices --submit--> idempotency (key, once) -----+--> orders --> commands --next_command--> devices
//!                                                   |       |           |
//!                                                   '-------+-----------+--> outbox --outbox_due--> platform
//! ```
//! Each arrow is one transaction: an order exists with its command and its event, or not at all.

mod claims;
mod commands;
mod count;
mod desk;
mod document;
mod idle;
mod inbox;
mod intake;
mod keep;
mod outbox;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::check::Suspicion;
use super::db::{self, OpenDatabaseError, Plan};
use super::events::StoreEvents;
use super::readers::{ReadError, Readers};
use super::writer::{Reply, Writer, WriterParts};
use crate::clock::Clock;

#[cfg(test)]
pub(super) use keep::hold_bound;

pub use claims::DueClaim;
pub use commands::{Command, CommandChanged, Outcome, WorkWaiting};
pub use count::StateCount;
pub use desk::{Desk, DeskError};
pub use document::{FORMAT_VERSION, MAX_NAME, MAX_ORDER_BYTES, OrderDocument, OrderShapeError};
pub use inbox::{Content, InboxMessage, ParkCode, Received};
pub use intake::{Advanced, Source, Submission, Submitted};
pub use outbox::{Lane, LaneCounts, OutboxCounts, OutboxItem, Receipt, ReceiptTaken};
pub use schema::{KEPT_MS, OUTBOX_BOUND, TELEMETRY_BOUND};
pub use state::{AdvanceOrderError, OrderState};
pub use view::{OrderView, ParkedMessage};

/// Items one read gives at most, whatever was asked.
pub const LIST_BOUND: usize = 1000;
/// Page cache of the writing connection and of the readers together, KiB each.
const CACHE_KIB: u64 = 1024;

/// What the house decides about orders that do not say it themselves.
#[derive(Debug, Clone)]
pub struct OrderRules {
    /// Role of an order that names none.
    pub default_role: String,
    /// From issue to expiry of a command.
    pub command_ttl: Duration,
}

impl Default for OrderRules {
    fn default() -> Self {
        Self {
            default_role: "kitchen".to_owned(),
            command_ttl: Duration::from_secs(4 * 3600),
        }
    }
}

/// Handle on `orders.db`. Clones share it.
#[derive(Clone)]
pub struct Orders {
    // Dropped before the writer, so that its connection is the last and empties the log.
    readers: Arc<Readers>,
    pub(super) writer: Writer,
    rules: Arc<OrderRules>,
    idle: idle::Idle,
}

impl Orders {
    pub(super) fn open(
        path: &Path,
        conn: Connection,
        suspicion: Arc<Suspicion>,
        rules: OrderRules,
        clock: Arc<dyn Clock>,
        events: StoreEvents,
    ) -> Result<Self, OpenDatabaseError> {
        let readers = Readers::open(path, CACHE_KIB, Arc::clone(&suspicion)).map_err(|source| {
            OpenDatabaseError::Sqlite {
                attempt: "open for reading",
                path: path.to_path_buf(),
                source,
            }
        })?;
        let readers = Arc::new(readers);
        let wal_readers = Arc::clone(&readers);
        let wal_of: PathBuf = path.to_path_buf();
        let writer = Writer::start(
            path,
            WriterParts {
                name: PLAN.name,
                conn,
                suspicion,
                clock,
                events,
                housekeeping: Box::new(keep::keep_house),
                after_commit: Box::new(move |conn| db::bound_wal(conn, &wal_of, &wal_readers)),
            },
        )?;
        Ok(Self {
            writer,
            readers,
            rules: Arc::new(rules),
            idle: idle::Idle::default(),
        })
    }

    /// Writes answered so far, with success or not: the progress a watchdog looks at.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.writer.progress()
    }

    /// Pages of the file that hold nothing; housekeeping gives them back when they are many.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn free_pages(&self) -> Result<i64, ReadError> {
        self.readers
            .read(|conn| conn.pragma_query_value(None, "freelist_count", |row| row.get(0)))
    }

    /// An empty write that goes through the queue: proves that the writer works.
    pub fn tick(&self) -> Reply<()> {
        self.writer.submit(|_| Ok(()))
    }
}

pub(super) const PLAN: Plan = Plan {
    name: "orders",
    synchronous: "FULL",
    migrations: schema::MIGRATIONS,
    checkpoint_pages: 1000,
    cache_kib: CACHE_KIB,
    salvage: Some(keep::put_in_order),
};
