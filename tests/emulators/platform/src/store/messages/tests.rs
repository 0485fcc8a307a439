use super::*;
use crate::store::Store;
use crate::store::entities::{self, Settings};

struct Bench {
    store: Store,
    source: Source,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let entity = store
            .call_blocking(|c| {
                entities::create(c, "q", Kind::Queue, &settings)?;
                entities::find(c, "q")
            })
            .unwrap()
            .unwrap();
        Self {
            store,
            source: Source {
                entity,
                dead: false,
            },
            _dir: dir,
        }
    }

    fn send(&self, id: &str, now_ms: i64) -> Option<i64> {
        self.send_with(
            NewMessage {
                message_id: id.into(),
                ..NewMessage::default()
            },
            now_ms,
        )
    }

    fn send_with(&self, message: NewMessage, now_ms: i64) -> Option<i64> {
        self.store
            .call_blocking(|c| send(c, &self.source.entity, &message, now_ms))
            .unwrap()
    }

    fn lock(&self, token: &str, now_ms: i64) -> Option<Message> {
        self.store
            .call_blocking(|c| receive(c, &self.source, Some(token), now_ms))
            .unwrap()
    }

    fn dead(&self, now_ms: i64) -> Option<Message> {
        let source = Source {
            entity: self.source.entity.clone(),
            dead: true,
        };
        self.store
            .call_blocking(|c| receive(c, &source, Some("dd"), now_ms))
            .unwrap()
    }

    fn settle(&self, id: &str, token: &str, how: Settle, now_ms: i64) -> bool {
        self.store
            .call_blocking(|c| settle(c, &self.source, (id, token), how, now_ms))
            .unwrap()
    }
}

#[test]
fn locked_message_is_hidden_until_its_lock_expires() {
    let bench = Bench::new(Settings {
        lock_ms: 100,
        ..Settings::default()
    });
    let seq = bench.send("m", 0).unwrap();
    assert_eq!(bench.lock("a", 0).unwrap().delivery_count, 1);
    assert!(bench.lock("b", 99).is_none());
    let due = bench
        .store
        .call_blocking(|c| next_due(c, &bench.source, 50))
        .unwrap();
    assert_eq!(due, Some(100));
    assert_eq!(bench.lock("b", 100).unwrap().delivery_count, 2);
    assert!(
        !bench.settle("m", "a", Settle::Complete, 101),
        "an old lock settles nothing"
    );
    assert!(bench.settle("m", "B", Settle::Renew, 150));
    assert!(bench.lock("c", 249).is_none());
    assert!(bench.settle(&seq.to_string(), "b", Settle::Complete, 249));
    assert!(!bench.settle("m", "b", Settle::Complete, 249), "it is gone");
}

#[test]
fn message_that_is_never_completed_ends_in_the_dead_letter_queue() {
    let bench = Bench::new(Settings {
        lock_ms: 10,
        max_delivery_count: 2,
        ..Settings::default()
    });
    bench.send("m", 0);
    bench.lock("a", 0).unwrap();
    assert!(bench.settle("m", "a", Settle::Unlock, 1));
    assert!(bench.lock("b", 1).is_some());
    assert!(
        bench.lock("c", 11).is_none(),
        "the second delivery was the last"
    );
    let dead = bench.dead(12).unwrap();
    assert_eq!(
        dead.dead_reason.as_deref(),
        Some("MaxDeliveryCountExceeded")
    );
    assert!(
        bench.dead(1000).is_some(),
        "the dead-letter queue has no delivery limit"
    );
}

#[test]
fn unlock_at_the_delivery_limit_buries_at_once() {
    let bench = Bench::new(Settings {
        max_delivery_count: 1,
        ..Settings::default()
    });
    bench.send("m", 0);
    bench.lock("a", 0).unwrap();
    assert!(bench.settle("m", "a", Settle::Unlock, 1));
    assert!(bench.lock("b", 2).is_none() && bench.dead(2).is_some());
}

#[test]
fn expired_message_is_dropped_or_buried_as_the_queue_says() {
    for buried in [false, true] {
        let bench = Bench::new(Settings {
            dead_letter_expired: buried,
            ttl_ms: Some(500),
            ..Settings::default()
        });
        bench.send_with(
            NewMessage {
                message_id: "m".into(),
                ttl_ms: Some(50),
                ..NewMessage::default()
            },
            0,
        );
        assert!(bench.lock("a", 50).is_none());
        assert_eq!(bench.dead(51).is_some(), buried);
    }
}

#[test]
fn duplicate_is_dropped_within_the_window_only() {
    let bench = Bench::new(Settings {
        duplicate_window_ms: 100,
        ..Settings::default()
    });
    assert!(bench.send("m", 0).is_some());
    assert_eq!(bench.send("m", 99), None);
    assert!(bench.send("m", 100).is_some());
}

#[test]
fn scheduled_message_waits_for_its_time() {
    let bench = Bench::new(Settings::default());
    bench.send_with(
        NewMessage {
            message_id: "m".into(),
            visible_ms: Some(70),
            ..NewMessage::default()
        },
        0,
    );
    assert!(bench.lock("a", 69).is_none());
    assert!(bench.lock("a", 70).is_some());
}
