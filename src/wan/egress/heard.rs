//! What the hosts' answers prove: that a line works (a worker that had nothing to ask is no proof), and that the way to a
//! host is back after requests found none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::wan::contract::{CONTRACT, FlowId};

/// Answers of every flow since the start. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    answers: [AtomicU64; CONTRACT.len()],
    /// The last request of the flow that ended got no answer.
    is_lost: [AtomicBool; CONTRACT.len()],
    returns: AtomicU64,
}

impl Heard {
    /// Answers of the flow's host so far, whatever they said.
    #[must_use]
    pub fn of(&self, flow: FlowId) -> u64 {
        self.0.answers[flow as usize].load(Ordering::Relaxed)
    }

    /// How often the way to a host came back.
    #[must_use]
    pub fn returns(&self) -> u64 {
        self.0.returns.load(Ordering::SeqCst)
    }

    pub(crate) fn add_one(&self, flow: FlowId) {
        self.0.answers[flow as usize].fetch_add(1, Ordering::Relaxed);
        if self.0.is_lost[flow as usize].swap(false, Ordering::SeqCst) {
            self.way_is_back();
        }
    }

    /// A request of the flow got no answer.
    pub(super) fn nothing(&self, flow: FlowId) {
        self.0.is_lost[flow as usize].store(true, Ordering::SeqCst);
    }

    /// Something other than an answer says so: a cable that was plugged in.
    pub(in crate::wan) fn way_is_back(&self) {
        self.0.returns.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_answer_after_a_loss_is_a_return() {
        let heard = Heard::default();
        heard.add_one(FlowId::Api);
        assert_eq!(heard.returns(), 0);
        heard.nothing(FlowId::Api);
        heard.nothing(FlowId::Api);
        heard.add_one(FlowId::Bus);
        assert_eq!(heard.returns(), 0, "the bus was not lost");
        heard.add_one(FlowId::Api);
        heard.add_one(FlowId::Api);
        assert_eq!((heard.returns(), heard.of(FlowId::Api)), (1, 3));
    }
}
