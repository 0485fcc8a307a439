//! Ends waits that no socket can be shut down for yet: looking a name up, opening a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Such a wait looks at the signal this often.
pub(super) const STOP_SLICE: Duration = Duration::from_millis(50);

/// The signal. Clones share it; once given it stays given.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn give(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_given(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
