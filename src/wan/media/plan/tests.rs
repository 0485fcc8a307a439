use super::*;
use crate::store::blobs::SOON_MS;

const NOW_MS: i64 = 1_000_000_000_000;
const MIB: u64 = 1 << 20;

/// A blob that is always valid.
fn item(name: &str, priority: u8, size: u64) -> Listed {
    Listed {
        digest: Digest::of(name.as_bytes()),
        size,
        priority,
        urgent: false,
        from_ms: i64::MIN,
        until_ms: i64::MAX,
        kind: 0,
        document: Some(name.into()),
        source: 0,
        documents: 1,
    }
}

fn valid(mut item: Listed, from_ms: i64, until_ms: i64) -> Listed {
    (item.from_ms, item.until_ms) = (from_ms, until_ms);
    item
}

struct Bench {
    shelf: Shelf,
    here: Vec<String>,
    aside: Aside,
    in_hand: Vec<Digest>,
    capacity: u64,
    window_open: bool,
    now: Duration,
}

impl Bench {
    fn new(items: &[Listed]) -> Self {
        Self {
            shelf: Shelf::new(items.to_vec(), Vec::new()),
            here: Vec::new(),
            aside: Aside::default(),
            in_hand: Vec::new(),
            capacity: u64::MAX,
            window_open: true,
            now: Duration::ZERO,
        }
    }

    fn plan(&self) -> Plan {
        let here: Vec<bool> = self
            .shelf
            .items()
            .iter()
            .map(|item| {
                self.here
                    .iter()
                    .any(|name| item.document.as_deref() == Some(name))
            })
            .collect();
        draw(
            &self.shelf,
            &Circumstances {
                here: &here,
                aside: &self.aside,
                in_hand: &self.in_hand,
                now_ms: NOW_MS,
                now: self.now,
                capacity: self.capacity,
                window_open: self.window_open,
            },
        )
    }

    fn order(&self) -> Vec<String> {
        let queue = self.plan().queue;
        let names = queue.into_iter().filter_map(|job| job.document);
        names.map(String::from).collect()
    }
}

#[test]
fn urgent_ones_come_first_then_what_is_due_by_priority_then_what_comes_by_its_time() {
    let hour = 3_600_000;
    let mut urgent = item("urgent", 0, MIB);
    urgent.urgent = true;
    let bench = Bench::new(&[
        valid(
            item("in-a-month", 9, MIB),
            NOW_MS + 30 * 24 * hour,
            i64::MAX,
        ),
        valid(item("in-three-days", 9, MIB), NOW_MS + 72 * hour, i64::MAX),
        valid(item("in-two-days", 1, MIB), NOW_MS + 48 * hour, i64::MAX),
        valid(item("over", 9, MIB), i64::MIN, NOW_MS),
        item("low", 2, MIB),
        item("high", 7, 9 * MIB),
        item("high-and-small", 7, MIB),
        valid(item("in-an-hour", 7, 1), NOW_MS + hour, i64::MAX),
        urgent,
    ]);
    assert_eq!(
        bench.order(),
        [
            "urgent",
            "high-and-small",
            "high",
            "in-an-hour",
            "low",
            "in-two-days",
            "in-three-days",
            "in-a-month"
        ]
    );
    assert_eq!(bench.plan().counts.listed, 8, "what is over is not counted");
}

#[test]
fn outside_the_window_only_urgent_ones_are_fetched() {
    let mut urgent = item("urgent", 0, MIB);
    urgent.urgent = true;
    let mut bench = Bench::new(&[item("other", 9, MIB), urgent]);
    bench.window_open = false;
    assert_eq!(bench.order(), ["urgent"]);
    assert_eq!(bench.plan().counts.waiting, 2);
}

#[test]
fn when_not_all_fit_the_higher_priority_has_the_place_but_what_is_here_keeps_it() {
    let mut bench = Bench::new(&[
        item("a", 5, 4 * MIB),
        item("b", 5, 4 * MIB),
        item("c", 5, 4 * MIB),
        item("top", 9, 4 * MIB),
        item("tiny", 1, MIB),
    ]);
    bench.capacity = 9 * MIB;
    let first = bench.order();
    assert_eq!((first.len(), first[0].as_str()), (3, "top"));
    assert_eq!(first[2], "tiny", "what is left over is not wasted");
    let counts = bench.plan().counts;
    assert_eq!((counts.waiting, counts.without_place), (3, 2));
    // Once those are here, nothing moves any more.
    bench.here = first;
    let plan = bench.plan();
    assert_eq!(plan.queue, []);
    assert_eq!((plan.counts.fetched, plan.counts.without_place), (3, 2));
    bench.here = vec!["b".into(), "c".into()];
    let plan = bench.plan();
    assert_eq!(bench.order(), ["tiny"]);
    assert_eq!((plan.counts.fetched, plan.counts.without_place), (2, 2));
}

#[test]
fn what_comes_later_takes_no_place_of_what_is_scheduled_and_is_no_worry() {
    let far = NOW_MS + 2 * SOON_MS;
    let mut bench = Bench::new(&[
        valid(item("later", 9, 4 * MIB), far, i64::MAX),
        item("now", 0, 4 * MIB),
    ]);
    bench.capacity = 4 * MIB;
    assert_eq!(bench.order(), ["now"]);
    assert_eq!(bench.plan().counts.without_place, 0);
}

#[test]
fn what_is_set_aside_waits_and_what_is_missing_or_wrong_is_told() {
    let mut bench = Bench::new(&[
        item("missing", 9, 1),
        item("busy", 8, 1),
        item("good", 1, 1),
    ]);
    let key = |name: &str| (Digest::of(name.as_bytes()), 0);
    let now = bench.now;
    bench.aside.put(key("missing"), Why::Missing, None, now, 0);
    bench.aside.put(key("busy"), Why::Barren, None, now, 0);
    assert_eq!(bench.order(), ["good"]);
    let plan = bench.plan();
    assert_eq!((plan.counts.failed, plan.counts.waiting), (1, 2));
    assert_eq!(plan.failed_first, Some((key("missing").0, Why::Missing)));
    bench.now += Duration::from_secs(7200);
    assert_eq!(bench.order(), ["missing", "busy", "good"]);
    assert_eq!(bench.plan().counts.failed, 1, "until it is had");
    assert!(bench.plan().needs_host);
    let mut alone = Bench::new(&[item("missing", 9, 1)]);
    alone.aside.put(key("missing"), Why::Missing, None, now, 0);
    assert!(!alone.plan().needs_host, "the host did all it could");
    alone.aside.put(key("missing"), Why::Refused, None, now, 0);
    assert!(alone.plan().needs_host);
}

#[test]
fn a_plan_of_thousands_hands_out_a_bounded_queue() {
    let items: Vec<_> = (0..3000).map(|n| item(&n.to_string(), 5, 1)).collect();
    let plan = Bench::new(&items).plan();
    assert_eq!((plan.queue.len(), plan.counts.waiting), (QUEUE_BOUND, 3000));
}

#[test]
fn what_nobody_wants_any_more_is_not_fetched_to_its_end() {
    let mut bench = Bench::new(&[
        item("wanted", 5, MIB),
        valid(item("over", 5, MIB), i64::MIN, NOW_MS),
        item("too-large", 1, 9 * MIB),
    ]);
    bench.capacity = 2 * MIB;
    let [wanted, over, too_large, unlisted] =
        ["wanted", "over", "too-large", "unlisted"].map(|name| Digest::of(name.as_bytes()));
    bench.in_hand = vec![wanted, over, too_large, unlisted];
    assert_eq!(bench.plan().useless, [over, too_large, unlisted]);
}
