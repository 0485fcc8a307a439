//! How often each flow's host has answered: a worker that had nothing to ask is no proof that its line works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wan::contract::{CONTRACT, FlowId};

/// Answers of every flow since the start. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<[AtomicU64; CONTRACT.len()]>);

impl Heard {
    /// Answers of the flow's host so far, whatever they said.
    #[must_use]
    pub fn of(&self, flow: FlowId) -> u64 {
        self.0[flow as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn add_one(&self, flow: FlowId) {
        self.0[flow as usize].fetch_add(1, Ordering::Relaxed);
    }
}
