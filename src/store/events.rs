//! What the store tells its neighbours: broadcast events for tasks, bells for threads.
//!
//! Both are told after the commit that made them true, never before. They are hints: whoever misses one finds the
//! truth in the database, so a receiver that lags re-reads and goes on.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::broadcast;

use super::orders::OrderState;

/// Events a slow subscriber may lie behind; the oldest are then dropped for it (`RecvError::Lagged`).
pub const EVENT_BOUND: usize = 1024;

/// Something that is now durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// An order is new or has changed its state.
    Order {
        /// Which order.
        order_id: String,
        /// The state it is in now.
        state: OrderState,
        /// The change's number, as in [`super::orders::OrderView::seq`].
        seq: i64,
    },
    /// Documents of collection `media` changed.
    Media,
    /// Documents changed.
    Catalogue {
        /// Highest sequence number of the change feed.
        seq: i64,
    },
    /// A device was paired, revoked, or moved to another address.
    Device {
        /// Which device.
        device_id: String,
    },
    /// Something waits in the outbox.
    Outbox,
    /// A command is new or was released.
    Command,
}

/// What a thread can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Something waits in the outbox.
    Outbox,
    /// A command is new or was released.
    Commands,
    /// A document of collection `media` changed, so blobs may have to be fetched.
    Blobs,
}

/// The sending and subscribing end; clones share one channel.
#[derive(Debug, Clone)]
pub struct StoreEvents {
    channel: broadcast::Sender<StoreEvent>,
    bells: Arc<[Chime; 3]>,
}

#[derive(Debug, Default)]
struct Chime {
    strokes: Mutex<u64>,
    struck: Condvar,
}

/// A thread's ear on one topic. A stroke between two waits is not lost: the next wait returns at once.
#[derive(Debug)]
pub struct Bell {
    bells: Arc<[Chime; 3]>,
    topic: Topic,
    heard: Mutex<u64>,
}

impl Default for StoreEvents {
    fn default() -> Self {
        Self {
            channel: broadcast::Sender::new(EVENT_BOUND),
            bells: Arc::default(),
        }
    }
}

impl StoreEvents {
    /// A receiver of all events from now on; bound [`EVENT_BOUND`].
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.channel.subscribe()
    }

    /// A bell that has heard everything up to now.
    #[must_use]
    pub fn bell(&self, topic: Topic) -> Bell {
        let heard = *lock(&self.bells[topic as usize].strokes);
        Bell {
            bells: Arc::clone(&self.bells),
            topic,
            heard: Mutex::new(heard),
        }
    }

    pub(super) fn tell(&self, event: StoreEvent) {
        match event {
            StoreEvent::Outbox => self.ring(Topic::Outbox),
            StoreEvent::Command => self.ring(Topic::Commands),
            StoreEvent::Media => self.ring(Topic::Blobs),
            StoreEvent::Order { .. } | StoreEvent::Catalogue { .. } | StoreEvent::Device { .. } => {
            }
        }
        // An error says that nobody listens.
        let _ = self.channel.send(event);
    }

    fn ring(&self, topic: Topic) {
        let chime = &self.bells[topic as usize];
        *lock(&chime.strokes) += 1;
        chime.struck.notify_all();
    }
}

impl Bell {
    /// Waits at most `timeout` for a stroke this bell has not reported yet; true when there was one.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let chime = &self.bells[self.topic as usize];
        let mut heard = lock(&self.heard);
        let strokes = lock(&chime.strokes);
        let (strokes, _) = chime
            .struck
            .wait_timeout_while(strokes, timeout, |strokes| *strokes == *heard)
            .expect("no holder of this lock panics");
        let rung = *strokes != *heard;
        *heard = *strokes;
        rung
    }
}

fn lock(mutex: &Mutex<u64>) -> std::sync::MutexGuard<'_, u64> {
    mutex.lock().expect("no holder of this lock panics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stroke_between_two_waits_is_heard_once() {
        let events = StoreEvents::default();
        let bell = events.bell(Topic::Outbox);
        events.tell(StoreEvent::Outbox);
        events.tell(StoreEvent::Outbox);
        assert!(bell.wait(Duration::ZERO));
        assert!(!bell.wait(Duration::ZERO));
        assert!(!events.bell(Topic::Commands).wait(Duration::ZERO));
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let events = StoreEvents::default();
        let bell = events.bell(Topic::Commands);
        let thread = std::thread::spawn(move || bell.wait(Duration::from_secs(30)));
        events.tell(StoreEvent::Command);
        assert!(thread.join().unwrap());
    }
}
