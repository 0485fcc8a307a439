//! What is fetched when, and what has a place, against real Azurite.

use std::fs;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use comptoir::clock::{Clock, SystemClock};
use comptoir::digest::Digest;
use comptoir::telemetry::Code;

use super::azurite::Container;
use super::media_line::{Bench, comes, is_here, media_bytes, report};
use super::platform::eventually;
use super::shop::Shop;

const MIB: u64 = 1 << 20;

/// From `from_h` to `to_h` hours after now, as a span of the day in UTC.
fn window(from_h: i64, to_h: i64) -> String {
    let at = |hours: i64| {
        let at = SystemClock::default().wall() + jiff::SignedDuration::from_hours(hours);
        let time = TimeZone::UTC.to_datetime(at).time();
        format!("{:02}:{:02}", time.hour(), time.minute())
    };
    format!("{}-{}", at(from_h), at(to_h))
}

#[test]
fn outside_the_window_only_what_is_urgent_comes() {
    let bench = Bench::new(Container::public());
    let (patient, urgent) = (media_bytes(1, 1000), media_bytes(2, 1000));
    bench.publish("patient.mp4", &patient);
    bench.container.put("urgent.mp4", &urgent);
    bench.announce(
        "urgent.mp4",
        &urgent,
        json!({"urgent": true, "priority": 0}),
    );
    let mut shop = Shop::of(&bench.platform)
        .with("[site]\n", "[site]\ntime_zone = \"UTC0\"\n")
        .with_media(
            &bench.container,
            &bench.line,
            &format!("window = \"{}\"\n", window(2, 3)),
        )
        .start();
    comes(&shop, "the urgent one", &urgent);
    let closed = report(&shop, "the other waits", |report| report.fetched == 1);
    assert_eq!((closed.waiting, closed.window_open), (1, false));
    let opens_in_ms = closed.window_opens_ms.unwrap() - SystemClock::default().wall_ms();
    assert!(
        (110..=120).contains(&(opens_in_ms / 60_000)),
        "{opens_in_ms}"
    );
    assert!(!is_here(&shop, &patient));
    shop.stop();
    let mut shop = shop.with(&window(2, 3), &window(-1, 1));
    shop.start_again();
    comes(&shop, "the other", &patient);
    let open = report(&shop, "all is here", |report| report.fetched == 2);
    assert_eq!((open.window_open, open.window_opens_ms), (true, None));
}

#[test]
fn an_urgent_one_overtakes_large_ones_and_they_go_on_where_they_stopped() {
    let bench = Bench::new(Container::public());
    let large = [media_bytes(3, 6 * MIB), media_bytes(4, 6 * MIB)];
    let urgent = media_bytes(5, 200_000);
    bench.container.put("urgent.mp4", &urgent);
    bench.line.set_rate(MIB);
    for (name, bytes) in ["a.mp4", "b.mp4"].iter().zip(&large) {
        bench.publish(name, bytes);
    }
    // The cap holds the large ones back, not the urgent one.
    let shop = bench.shop("rate_cap_kib_s = 400\n");
    report(&shop, "both large ones are under way", |report| {
        report
            .downloads
            .iter()
            .filter(|download| download.bytes > 0)
            .count()
            == 2
    });
    bench.announce("urgent.mp4", &urgent, json!({"urgent": true}));
    comes(&shop, "the urgent one", &urgent);
    assert!(!large.iter().any(|bytes| is_here(&shop, bytes)));
    bench.line.set_rate(0);
    let mut shop = shop;
    shop.stop();
    let records = fs::read_dir(shop.dir().join("blobs/partial")).unwrap();
    let had: u64 = records
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .map(|record| {
            let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
            record["length"].as_u64().unwrap()
        })
        .sum();
    assert!(had > 0);
    let mut shop = shop.with("rate_cap_kib_s = 400\n", "");
    shop.start_again();
    for bytes in &large {
        comes(&shop, "a large one", bytes);
    }
    let transferred = shop.metric("comptoir_media_bytes_total");
    assert_eq!(had + transferred, 12 * MIB, "no byte came twice");
}

#[test]
fn what_is_scheduled_keeps_its_place_and_the_higher_priority_has_the_next() {
    let bench = Bench::new(Container::public());
    let blob = |n: u32| media_bytes(n, 400_000);
    let [low, middle, other, top] = [10, 11, 12, 13].map(blob);
    // One MiB: two of them fit.
    let shop = Shop::of(&bench.platform)
        .with_media(&bench.container, &bench.line, "")
        .with_quota_mib(1)
        .start();
    let publish = |name: &str, bytes: &[u8], priority: u8| {
        bench.container.put(name, bytes);
        bench.announce(name, bytes, json!({"priority": priority}));
    };
    publish("low.mp4", &low, 1);
    publish("middle.mp4", &middle, 5);
    comes(&shop, "the low one, while there is room", &low);
    comes(&shop, "the middle one", &middle);
    assert_eq!(shop.condition(Code::MediaWithoutPlace), None);
    publish("other.mp4", &other, 5);
    publish("top.mp4", &top, 9);
    report(&shop, "two are here and two have no place", |report| {
        let counts = (report.listed, report.fetched, report.waiting);
        report.without_place == 2 && counts == (4, 2, 0)
    });
    eventually("it is told", || shop.condition(Code::MediaWithoutPlace));
    assert!(is_here(&shop, &low) && is_here(&shop, &middle));
    // The end of one's time, and there is a place.
    let over = |name: &str, bytes: &[u8]| {
        bench.announce(name, bytes, json!({"valid_until": "2020-01-01T00:00:00Z"}));
    };
    over("low.mp4", &low);
    comes(&shop, "the top one", &top);
    report(&shop, "one has no place", |report| {
        report.without_place == 1
    });
    assert!(is_here(&shop, &middle) && !is_here(&shop, &other));
    over("middle.mp4", &middle);
    comes(&shop, "the last one", &other);
    eventually("all have a place", || {
        shop.condition(Code::MediaWithoutPlace)
            .is_none()
            .then_some(())
    });
    shop.counts("comptoir_media_fetched_total", 4);
    shop.counts("comptoir_media_refused_total", 0);
    assert!(shop.store().blobs.total_bytes() <= MIB);
}

#[test]
fn a_bad_entry_is_told_and_stops_nothing_and_one_object_is_fetched_once() {
    let bench = Bench::new(Container::public());
    let bytes = media_bytes(20, 100_000);
    bench.container.put("a b/ü.mp4", &bytes);
    bench
        .platform
        .put_document("media", "a-bad-one", &json!({"url": 7}));
    bench
        .platform
        .put_document("media", "b-bad-one", &json!({"size": -1}));
    for id in ["one", "two", &Digest::of(&bytes).to_string()] {
        let mut more = json!({"campaign": {"name": "Noël"}});
        let path = bench.container.path("a%20b/%C3%BC.mp4");
        more["url"] = json!(format!("{}{path}", bench.line.url()));
        let entry = super::media_line::entry(&bench.container, &bench.line, "", &bytes, more);
        bench.platform.put_document("media", id, &entry);
    }
    let shop = bench.shop("");
    comes(&shop, "the object", &bytes);
    let seen = report(&shop, "bad ones are counted", |report| {
        (report.refused_documents, report.fetched) == (2, 1)
    });
    assert_eq!((seen.listed, seen.waiting), (1, 0));
    let detail = shop.condition(Code::MediaDocumentRefused).unwrap();
    assert!(
        detail.contains("a-bad-one: not a media document"),
        "{detail}"
    );
    shop.counts("comptoir_media_fetched_total", 1);
    let kept = shop.document("media", "one").unwrap();
    assert!(String::from_utf8(kept.body).unwrap().contains("Noël"));
    let kind = shop.store().blobs.content_type(&Digest::of(&bytes));
    assert_eq!(kind.as_deref(), Some("video/mp4"));
    for id in ["a-bad-one", "b-bad-one"] {
        bench.platform.delete_document("media", id);
    }
    eventually("it is no worry any more", || {
        shop.condition(Code::MediaDocumentRefused)
            .is_none()
            .then_some(())
    });
}
