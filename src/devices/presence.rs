//! Which devices are paired, lost and back, told the platform: one event each time, in the lane of events.
//!
//! Lost is who could not be reached for a while, as the condition says; back is who was reached or heard since. What was
//! told before a restart is not known after it: a device that is lost still is told once more.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::to_raw_value;

use crate::store::orders::Lane;
use crate::store::{Orders, Reply};

/// What became of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It belongs to the shop from now on.
    Paired,
    /// It could not be reached for a while.
    Lost,
    /// It was reached or heard again.
    Back,
}

impl Turn {
    /// Kind of the event.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Paired => "device.paired",
            Self::Lost => "device.lost",
            Self::Back => "device.back",
        }
    }
}

/// Body of an event of a device. Its name may be a person's, and stays here.
#[derive(Serialize)]
struct Told<'a> {
    device_id: &'a str,
    role: &'a str,
}

/// Has the platform told of it.
pub fn tell_turn(orders: &Orders, turn: Turn, device_id: &str, role: &str) -> Reply<i64> {
    let body = to_raw_value(&Told { device_id, role }).expect("text is JSON");
    orders.outbox_push(Lane::Events, turn.kind(), body)
}

/// What was told. Bounded by the number of paired devices.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Since when, in the box's time.
    lost: BTreeMap<String, i64>,
}

impl Presence {
    /// What is new, where `gone` cannot be reached, `heard` says whether a device was reached or heard after a time, and
    /// `None` that there is no such device any more.
    pub(super) fn turns(
        &mut self,
        gone: &[String],
        now_ms: i64,
        heard: impl Fn(&str, i64) -> Option<bool>,
    ) -> Vec<(String, Turn)> {
        let mut turns = Vec::new();
        self.lost.retain(|device_id, since_ms| {
            if gone.contains(device_id) {
                return true;
            }
            match heard(device_id, *since_ms) {
                Some(true) => {
                    turns.push((device_id.clone(), Turn::Back));
                    false
                }
                Some(false) => true,
                None => false,
            }
        });
        for device_id in gone {
            if !self.lost.contains_key(device_id) {
                self.lost.insert(device_id.clone(), now_ms);
                turns.push((device_id.clone(), Turn::Lost));
            }
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_is_told_once_and_back_only_who_was_heard() {
        let mut presence = Presence::default();
        let gone = ["a".to_owned()];
        let named = |turn| vec![("a".to_owned(), turn)];
        assert_eq!(presence.turns(&gone, 10, |_, _| None), named(Turn::Lost));
        assert_eq!(presence.turns(&gone, 11, |_, _| Some(true)), []);
        // Nobody tries to reach it any more, and it says nothing: still lost, and not told again when it is tried again.
        assert_eq!(presence.turns(&[], 12, |_, since| Some(since > 10)), []);
        assert_eq!(presence.turns(&gone, 13, |_, _| Some(false)), []);
        assert_eq!(
            presence.turns(&[], 14, |_, since| Some(since == 10)),
            named(Turn::Back)
        );
        assert_eq!(presence.turns(&[], 15, |_, _| Some(true)), []);
        // Who is no device any more is neither.
        assert_eq!(presence.turns(&gone, 16, |_, _| None), named(Turn::Lost));
        assert_eq!(presence.turns(&[], 17, |_, _| None), []);
    }
}
