//! The box's time, against clocks that are wrong and hosts that say what they like.

use super::*;
use crate::clock::ManualClock;

const NOW_MS: i64 = 1_790_000_000_000;
const YEAR_MS: i64 = 365 * 24 * 3_600_000;

struct Bench {
    machine: Arc<ManualClock>,
    time: PlatformTime,
}

/// A box whose machine's clock stands at `machine_ms`, and which knows that it is not before `floor_ms`.
fn bench(machine_ms: i64, floor_ms: i64) -> Bench {
    let at = Timestamp::from_millisecond(machine_ms).unwrap();
    let machine = Arc::new(ManualClock::at(at));
    let floor = Floor {
        at_ms: floor_ms,
        unsure_since_ms: None,
    };
    Bench {
        time: PlatformTime::above(floor, machine.clone()),
        machine,
    }
}

impl Bench {
    /// A host says `said_ms`; a step is taken as the worker does.
    fn says(&self, flow: FlowId, said_ms: i64) {
        let at = self.machine.monotonic();
        let sample = Sample {
            flow,
            base_ms: said_ms - milliseconds(at),
            at,
        };
        if let Some(step) = self.time.consider(sample) {
            self.time.take(step);
        }
    }

    fn pass(&self, seconds: u64) {
        self.machine.advance(Duration::from_secs(seconds));
    }
}

#[test]
fn a_box_of_1970_begins_at_its_floor_and_learns_the_time_from_two_hosts() {
    let bench = bench(0, NOW_MS - YEAR_MS);
    assert_eq!(bench.time.quality(), Quality::Floor);
    assert_eq!(bench.time.now_ms(), NOW_MS - YEAR_MS);
    bench.says(FlowId::Api, NOW_MS);
    assert_eq!(
        (bench.time.quality(), bench.time.now_ms()),
        (Quality::Weak, NOW_MS)
    );
    bench.pass(10);
    bench.says(FlowId::Bus, NOW_MS + 10_000);
    assert_eq!(bench.time.quality(), Quality::Good);
    assert_eq!(bench.time.now_ms(), NOW_MS + 10_000);
    assert_eq!(bench.time.status().machine_ahead_ms, -NOW_MS);
}

#[test]
fn a_clock_years_ahead_is_brought_back_but_never_below_the_floor() {
    let bench = bench(NOW_MS + 11 * YEAR_MS, NOW_MS - YEAR_MS);
    assert_eq!(bench.time.quality(), Quality::Unset);
    bench.says(FlowId::Api, NOW_MS - 2 * YEAR_MS);
    assert_eq!(bench.time.quality(), Quality::Unset, "below the floor");
    bench.says(FlowId::Api, NOW_MS);
    bench.says(FlowId::Media, NOW_MS);
    assert_eq!(
        (bench.time.quality(), bench.time.now_ms()),
        (Quality::Good, NOW_MS)
    );
    bench.says(FlowId::Api, NOW_MS - 2 * YEAR_MS);
    bench.says(FlowId::Bus, NOW_MS - 2 * YEAR_MS);
    assert_eq!(bench.time.now_ms(), NOW_MS);
}

#[test]
fn what_happens_to_the_machines_clock_afterwards_does_not_matter() {
    let bench = bench(NOW_MS, NOW_MS - YEAR_MS);
    bench.says(FlowId::Api, NOW_MS);
    bench.says(FlowId::Bus, NOW_MS);
    bench.machine.set_wall(Timestamp::UNIX_EPOCH);
    bench.pass(5);
    assert_eq!(bench.time.now_ms(), NOW_MS + 5000);
    assert_eq!(bench.time.wall_ms(), NOW_MS + 5000);
    bench
        .machine
        .set_wall("2077-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(bench.time.now_ms(), NOW_MS + 5000);
    assert!(bench.time.status().machine_ahead_ms > 40 * YEAR_MS);
}

#[test]
fn a_host_that_lies_moves_nothing_that_two_agreed_on_and_can_not_walk_it_away() {
    let bench = bench(NOW_MS, NOW_MS - YEAR_MS);
    bench.says(FlowId::Api, NOW_MS);
    bench.says(FlowId::Bus, NOW_MS);
    bench.says(FlowId::Media, NOW_MS + YEAR_MS);
    assert_eq!(
        (bench.time.quality(), bench.time.now_ms()),
        (Quality::Good, NOW_MS)
    );
    // Alone, six hours later, when the others' words have grown old, and by little each time.
    bench.pass(7 * 3600);
    let before_ms = bench.time.now_ms();
    for step in 1..20 {
        bench.says(FlowId::Media, before_ms + step * 4000);
    }
    assert_eq!(bench.time.now_ms(), before_ms);
    // A day later the box's own drift counts for more than what was agreed.
    bench.pass(25 * 3600);
    assert_eq!(bench.time.quality(), Quality::Weak);
    bench.says(FlowId::Api, bench.time.now_ms() + 4000);
    assert_eq!(bench.time.now_ms(), before_ms + 25 * 3_600_000 + 4000);
}

#[test]
fn a_large_correction_is_given_back_with_what_it_concerns() {
    let bench = bench(0, NOW_MS - YEAR_MS);
    bench.pass(60);
    let sample = Sample {
        flow: FlowId::Api,
        base_ms: NOW_MS,
        at: bench.machine.monotonic(),
    };
    let step = bench.time.consider(sample).unwrap();
    assert_eq!(
        (step.since_ms, step.delta_ms),
        (NOW_MS - YEAR_MS, YEAR_MS),
        "all that was stamped since the start"
    );
    assert_eq!(bench.time.now_ms(), NOW_MS - YEAR_MS + 60_000, "not yet");
    bench.time.take(step);
    assert_eq!(bench.time.now_ms(), NOW_MS + 60_000);
}

#[test]
fn what_an_earlier_start_stamped_is_judged_by_the_floor_until_two_hosts_agree() {
    let ahead_ms = NOW_MS + 54 * YEAR_MS;
    let bench = bench(ahead_ms, NOW_MS);
    bench.pass(60);
    let reckoning = bench.time.reckoning();
    assert_eq!(
        (reckoning.now_ms, reckoning.since_ms, reckoning.earliest_ms),
        (ahead_ms + 60_000, ahead_ms, NOW_MS + 60_000)
    );
    // One host alone may lie.
    bench.says(FlowId::Api, NOW_MS + YEAR_MS);
    let reckoning = bench.time.reckoning();
    assert_eq!(reckoning.now_ms, NOW_MS + YEAR_MS);
    assert_eq!(reckoning.since_ms, NOW_MS + YEAR_MS - 60_000);
    assert_eq!(reckoning.earliest_ms, NOW_MS + 60_000);
    bench.says(FlowId::Bus, NOW_MS + 60_000);
    bench.says(FlowId::Media, NOW_MS + 60_000);
    assert_eq!(bench.time.reckoning(), Reckoning::by(NOW_MS + 60_000));
    // That word grows old, and jumps nowhere.
    bench.pass(GOOD_LIFE.as_secs() + 60);
    assert_eq!(bench.time.quality(), Quality::Weak);
    assert_eq!(bench.time.reckoning(), Reckoning::by(bench.time.now_ms()));
}

#[test]
fn a_step_back_moves_no_stamp_of_an_earlier_start_that_may_be_right() {
    let at = Timestamp::from_millisecond(NOW_MS + 54 * YEAR_MS).unwrap();
    let machine = Arc::new(ManualClock::at(at));
    let floor = Floor {
        at_ms: NOW_MS - YEAR_MS,
        unsure_since_ms: Some(NOW_MS - 3_600_000),
    };
    let time = PlatformTime::above(floor, machine);
    let sample = Sample {
        flow: FlowId::Api,
        base_ms: NOW_MS,
        at: Duration::ZERO,
    };
    let step = time.consider(sample).unwrap();
    assert_eq!(
        (step.since_ms, step.delta_ms),
        (NOW_MS, -54 * YEAR_MS),
        "what lies ahead of the right time moves, the hour before it does not"
    );
}

#[test]
fn one_hosts_word_is_not_kept_as_a_floor_and_two_hosts_are() {
    let bench = bench(0, NOW_MS - YEAR_MS);
    bench.pass(60);
    let kept = bench.time.to_keep();
    assert_eq!(
        kept.at_ms,
        NOW_MS - YEAR_MS + 60_000,
        "a floor rises with time"
    );
    assert_eq!(kept.unsure_since_ms, Some(NOW_MS - YEAR_MS));
    bench.says(FlowId::Api, NOW_MS + 3 * YEAR_MS);
    assert_eq!(bench.time.to_keep().at_ms, NOW_MS - YEAR_MS + 60_000);
    bench.says(FlowId::Bus, NOW_MS);
    bench.says(FlowId::Media, NOW_MS);
    let kept = bench.time.to_keep();
    assert_eq!((kept.at_ms, kept.unsure_since_ms), (NOW_MS, None));
    // The next start knows since when its predecessor was unsure.
    let again = PlatformTime::above(
        Floor {
            at_ms: NOW_MS,
            unsure_since_ms: Some(7),
        },
        bench.machine.clone(),
    );
    assert_eq!(again.to_keep().unsure_since_ms, Some(7));
}
