//! A start with a clock that is ahead, and that nobody vouches for: nothing looks old by it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;
use crate::clock::{Clock, ManualClock, Reckoning};

/// Longest wait of a test for what must happen anyway.
const DEADLINE: Duration = Duration::from_secs(60);

/// The machine's clock, which is wrong, and what is known all the same.
struct Ahead {
    machine: ManualClock,
    since_ms: i64,
    earliest_ms: i64,
}

impl Clock for Ahead {
    fn wall(&self) -> Timestamp {
        self.machine.wall()
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn reckoning(&self) -> Reckoning {
        Reckoning {
            now_ms: self.wall_ms(),
            since_ms: self.since_ms,
            earliest_ms: self.earliest_ms,
        }
    }
}

#[test]
fn a_start_decades_ahead_expires_and_forgets_nothing_of_before_and_goes_by_its_clock_since() {
    let bench = Bench::new();
    {
        let orders = bench.open().orders;
        for n in 1..=2 {
            orders
                .receive(message(&format!("m{n}"), &format!("o{n}")))
                .wait()
                .unwrap();
        }
        let closed = orders.advance("o1", OrderState::Done, "till");
        closed.wait().unwrap();
    }
    let clock = Arc::new(Ahead {
        machine: ManualClock::at("2080-06-01T00:00:00Z".parse().unwrap()),
        since_ms: "2080-06-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_millisecond(),
        earliest_ms: bench.now_ms(),
    });
    let store = Store::open(&bench.config(), clock.clone()).unwrap();
    let orders = &store.orders;
    // The writer's own housekeeping has been there once what is old for sure is gone.
    let ancient = orders.writer.submit(|tx| {
        tx.call_for_housekeeping();
        tx.conn.execute(
            "INSERT INTO inbox (message_id, source, received_ms) VALUES ('ancient', 0, 0)",
            [],
        )
    });
    ancient.wait().unwrap();
    let is_there = || {
        orders.readers.read(|conn| {
            let sql = "SELECT count(*) FROM inbox WHERE message_id = 'ancient'";
            conn.query_row(sql, [], |row| row.get::<_, i64>(0))
        })
    };
    let deadline = Instant::now() + DEADLINE;
    while is_there().unwrap() > 0 {
        assert!(Instant::now() < deadline, "housekeeping never came");
        std::thread::yield_now();
    }
    assert!(orders.order("o1").unwrap().is_some());
    let again = orders.receive(message("m1", "o1")).wait().unwrap();
    assert_eq!(again, Received::DuplicateMessage);

    assert_eq!(orders.expire_commands(clock.reckoning()).wait().unwrap(), 0);
    orders.receive(message("m4", "o4")).wait().unwrap();
    let next = |device| {
        orders
            .next_command(device, "kitchen")
            .wait()
            .unwrap()
            .unwrap()
    };
    let (old, new) = (next("dev-1"), next("dev-2"));
    assert_eq!((&*old.order_id, &*new.order_id), ("o2", "o4"));
    // Both still have their four hours by the clock that the device is told.
    for command in [old, new] {
        let left_ms = command.expires_at_ms - clock.wall_ms();
        assert_eq!(left_ms, 4 * 3_600_000, "{}", command.order_id);
    }
    clock.machine.advance(Duration::from_secs(5 * 3600));
    // What this start stamped expires by its clock; the older one waits until it is late for sure.
    assert_eq!(orders.expire_commands(clock.reckoning()).wait().unwrap(), 1);
    let late = Reckoning {
        earliest_ms: clock.earliest_ms + 5 * 3_600_000,
        ..clock.reckoning()
    };
    assert_eq!(orders.expire_commands(late).wait().unwrap(), 1);
}
