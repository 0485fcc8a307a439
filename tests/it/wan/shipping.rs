//! Logs and support events, to the log input and the support bus.

use std::collections::BTreeSet;
use std::fs;

use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::{Value, json};

use super::platform::{LOGS_KEY, Platform, eventually};
use super::shop::Shop;

/// `count` events that may leave, numbered from `from`.
fn tell(shop: &Shop, from: u64, count: u64) {
    shop.tell(|| {
        for items in from..from + count {
            tracing::info!(
                target: "comptoir::test",
                event = "test.told",
                items,
                worker = "pull",
                detail = "Madame Dupont",
                id = "o-1"
            );
        }
    });
}

/// The numbers that came in, in their order.
fn numbers(platform: &Platform) -> Vec<u64> {
    platform
        .log_entries()
        .iter()
        .filter_map(|entry| entry["entry"]["fields"]["items"].as_u64())
        .collect()
}

fn wait_for_numbers(platform: &Platform, count: u64) {
    eventually("all events come", || {
        let all: BTreeSet<u64> = numbers(platform).into_iter().collect();
        (all == (0..count).collect()).then_some(())
    });
}

#[test]
fn a_log_line_leaves_with_who_when_and_what_and_nothing_else() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).shipping(&platform).start();
    tell(&shop, 0, 25);
    wait_for_numbers(&platform, 25);
    assert_eq!(
        numbers(&platform),
        (0..25).collect::<Vec<_>>(),
        "in order, once"
    );
    let entries = platform.log_entries();
    for batch in 1..=entries.last().unwrap()["batch"].as_u64().unwrap() {
        let size = entries
            .iter()
            .filter(|entry| entry["batch"] == batch)
            .count();
        assert!(
            size <= 10,
            "Logmatic's clients send no more at once: {size}"
        );
    }
    let entry = &entries[0]["entry"];
    for (key, value) in [
        ("message", json!("test.told")),
        ("hostname", json!("box-1")),
        ("site", json!("shop-1")),
        ("severity", json!("info")),
        ("fields", json!({"items": 0, "worker": "pull"})),
    ] {
        assert_eq!(entry[key], value, "{entry}");
    }
    let keys: Vec<&String> = entry.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "@marker",
            "appname",
            "fields",
            "hostname",
            "id",
            "message",
            "severity",
            "site",
            "time",
            "timestamp",
            "version"
        ]
    );
    let status = eventually("the box knows that they have come", || {
        Some(shop.stream("logs")).filter(|status| status.sent >= 25)
    });
    assert!(status.on && status.today_bytes > 0, "{status:?}");
    assert_eq!((status.sent, status.lost), (25, 0), "{status:?}");
    let sent = eventually("what was sent can be read", || {
        fs::read_to_string(shop.dir().join("outgoing/logs/sent.json")).ok()
    });
    assert!(
        sent.contains("test.told") && !sent.contains(LOGS_KEY),
        "{sent}"
    );
}

#[test]
fn datadogs_dialect_is_spoken_in_larger_batches() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.logs]\n", "[wan.logs]\ndialect = \"datadog\"\n")
        .start();
    tell(&shop, 0, 200);
    wait_for_numbers(&platform, 200);
    let entries = platform.log_entries();
    assert!(entries.iter().all(|entry| entry["dialect"] == "datadog"));
    assert!(entries.iter().all(|entry| entry["too_old"] == false));
    let last = entries.last().unwrap();
    assert!(last["batch"].as_u64().unwrap() <= 5, "{last}");
    assert_eq!(last["entry"]["ddtags"], "site:shop-1");
}

#[test]
fn switched_off_nothing_leaves_and_nothing_is_kept() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.logs]\n", "[wan.logs]\nenabled = false\n")
        .with("[wan.support]\n", "[wan.support]\nenabled = false\n")
        .start();
    tell(&shop, 0, 5);
    shop.filled();
    drop(shop);
    assert!(platform.log_entries().is_empty());
    assert_eq!(platform.asked(&["\"logs\""]), 0);
}

#[test]
fn without_a_key_nothing_leaves_and_the_disk_is_left_alone() {
    let platform = Platform::start();
    let mut shop = Shop::of(&platform)
        .shipping(&platform)
        .with(&format!("key = \"{LOGS_KEY}\""), "key = \"\"")
        .start();
    let outcome = eventually("it says what it waits for", || shop.outcome(Worker::Logs));
    assert_eq!(outcome.cause, Some("no_credentials"));
    assert_eq!(outcome.detail, "wan.logs.key is empty");
    tell(&shop, 0, 5);
    shop.filled();
    shop.stop();
    let segments = fs::read_dir(shop.dir().join("outgoing/logs"))
        .unwrap()
        .count();
    assert_eq!(segments, 0);
    assert_eq!(platform.asked(&["\"logs\""]), 0);
}

#[test]
fn what_is_too_much_at_once_is_halved_until_it_fits() {
    let platform = Platform::start();
    platform.take_log_entries_at_once(3);
    let shop = Shop::of(&platform).shipping(&platform).start();
    tell(&shop, 0, 40);
    wait_for_numbers(&platform, 40);
    assert_eq!(shop.stream("logs").lost, 0);
    assert!(platform.asked(&["\"logs\"", "413"]) > 0);
}

#[test]
fn a_batch_that_is_refused_for_good_is_dropped_counted_and_told_and_the_next_one_goes() {
    let platform = Platform::start();
    platform.arm("status:400", "logs", 1, None, "/v1/input");
    let shop = Shop::of(&platform).shipping(&platform).start();
    tell(&shop, 0, 3);
    let detail = eventually("it is told", || shop.condition(Code::LogsRefused));
    assert_eq!(detail, "HTTP 400");
    tell(&shop, 3, 2);
    eventually("the next ones come", || {
        (numbers(&platform) == [3, 4]).then_some(())
    });
    eventually("the condition ends", || {
        shop.condition(Code::LogsRefused).is_none().then_some(())
    });
    eventually("the loss is counted", || {
        (shop.stream("logs").lost == 3).then_some(())
    });
}

#[test]
fn a_wrong_key_pauses_and_loses_nothing() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with(LOGS_KEY, "wrong-key")
        .start();
    tell(&shop, 0, 3);
    let detail = eventually("it is told", || shop.condition(Code::LogsUnreachable));
    assert!(detail.contains("forbidden"), "{detail}");
    assert!(!detail.contains("wrong-key"), "no key in {detail}");
    assert_eq!(shop.condition(Code::Unauthorized), None);
    eventually("they wait", || {
        (shop.stream("logs").waiting >= 3).then_some(())
    });
    assert_eq!(
        platform.asked(&["\"logs\"", "\"POST\""]),
        1,
        "it does not knock again and again"
    );
}

#[test]
fn a_busy_or_silent_host_costs_time_only() {
    let platform = Platform::start();
    platform.arm("stall", "logs", 1, None, "/v1/input");
    platform.arm("status:429", "logs", 1, None, "/v1/input");
    platform.arm("lose_answer", "logs", 1, None, "/v1/input");
    let shop = Shop::of(&platform).impatient().shipping(&platform).start();
    tell(&shop, 0, 5);
    eventually("nothing waits", || {
        (shop.stream("logs").sent == 5).then_some(())
    });
    assert!(platform.faults_are_spent());
    // What was taken and not answered came again, under the same ids.
    let entries = platform.log_entries();
    let ids: BTreeSet<&str> = entries
        .iter()
        .map(|entry| entry["entry"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 5);
}

#[test]
fn what_could_not_be_sent_survives_a_restart() {
    let platform = Platform::start();
    let mut shop = Shop::of(&platform).shipping(&platform).start();
    shop.filled();
    platform.set_offline(true);
    tell(&shop, 0, 30);
    eventually("the outage is told", || {
        shop.condition(Code::LogsUnreachable)
    });
    shop.stop();
    platform.set_offline(false);
    shop.start_again();
    wait_for_numbers(&platform, 30);
    eventually("nothing waits", || {
        (shop.stream("logs").waiting == 0).then_some(())
    });
    assert_eq!(numbers(&platform).len(), 30);
    eventually("the disk gets its space back", || {
        segments(&shop).is_empty().then_some(())
    });
}

fn segments(shop: &Shop) -> Vec<String> {
    fs::read_dir(shop.dir().join("outgoing/logs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".seg"))
        .collect()
}

#[test]
fn a_damaged_ring_is_told_and_set_aside_and_what_stands_before_the_damage_is_sent() {
    let platform = Platform::start();
    let mut shop = Shop::of(&platform).shipping(&platform).start();
    shop.filled();
    platform.set_offline(true);
    tell(&shop, 0, 30);
    eventually("the outage is told", || {
        shop.condition(Code::LogsUnreachable)
    });
    shop.stop();
    let path = shop.dir().join("outgoing/logs").join(&segments(&shop)[0]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    shop.start_again();
    assert_eq!(
        shop.condition(Code::OutgoingDamaged).as_deref(),
        Some("logs")
    );
    platform.set_offline(false);
    tell(&shop, 30, 1);
    eventually("the ring goes on", || {
        numbers(&platform).contains(&30).then_some(())
    });
    let came = numbers(&platform);
    assert!((5..30).contains(&came.len()), "{came:?}");
    assert_eq!(
        came[..came.len() - 1],
        (0..came.len() as u64 - 1).collect::<Vec<_>>()
    );
    eventually("the condition ends", || {
        shop.condition(Code::OutgoingDamaged)
            .is_none()
            .then_some(())
    });
    assert!(shop.dir().join("outgoing/logs/damaged.bad").is_file());
}

#[test]
fn a_day_has_its_budget_and_the_next_day_another() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.logs]\n", "[wan.logs]\ndaily_budget_kib = 16\n")
        .start();
    shop.filled();
    tell(&shop, 0, 300);
    let detail = eventually("it is told", || shop.condition(Code::LogsBudgetUsed));
    assert_eq!(detail, "16.0 KiB a day");
    let today = shop.stream("logs").today_bytes;
    assert!(today <= 16 * 1024, "{today}");
    assert!(numbers(&platform).len() < 100);
    let (mut shop, sent) = (shop, numbers(&platform).len());
    shop.stop();
    shop.start_again();
    eventually("it is told again", || shop.condition(Code::LogsBudgetUsed));
    assert!(
        numbers(&platform).len() <= sent + 4,
        "a start brings no new budget"
    );
    shop.stop();
    platform.set_clock_ahead(24 * 3600);
    let before = numbers(&platform).len();
    shop.start_again();
    eventually("the next day's come", || {
        (numbers(&platform).len() > before + 10).then_some(())
    });
}

#[test]
fn support_is_told_by_the_bus_once_however_often_it_is_sent() {
    let platform = Platform::start();
    platform.detect_duplicate_support_events();
    platform.arm(
        "lose_answer",
        "bus",
        1,
        Some("POST"),
        "/support-events/messages",
    );
    let shop = Shop::of(&platform).shipping(&platform).start();
    shop.tell(|| {
        tracing::warn!(
            target: "comptoir::test",
            event = "conditions.raised",
            code = "wan.api_unreachable",
            severity = "warning",
            detail = "Madame Dupont"
        );
        tracing::info!(target: "comptoir::test", event = "test.not_for_support", items = 1);
    });
    let events = eventually("support is told", || {
        Some(platform.support_events()).filter(|_| shop.stream("support").sent == 1)
    });
    assert_eq!(events.len(), 1, "{events:?}");
    let fields = json!({"code": "wan.api_unreachable", "severity": "warning"});
    assert_eq!(
        (&events[0]["event"], &events[0]["fields"], &events[0]["box"]),
        (&json!("conditions.raised"), &fields, &json!("box-1"))
    );
    assert!(platform.faults_are_spent());
}

#[test]
fn support_is_told_by_an_event_hub_too() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.support]\n", "[wan.support]\nkind = \"hub\"\n")
        .start();
    shop.tell(
        || tracing::info!(target: "comptoir::test", event = "daemon.serves", version = "0.1.0"),
    );
    let events = eventually("support is told", || {
        Some(platform.support_events()).filter(|events| !events.is_empty())
    });
    assert_eq!(events[0]["fields"], json!({"version": "0.1.0"}));
    assert_eq!(
        platform.asked(&["/support-events/publishers/box-1/messages"]),
        1
    );
}

#[test]
fn a_support_queue_that_is_not_there_is_asked_slowly_and_told() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.support]\n", "[wan.support]\nentity = \"nowhere\"\n")
        .start();
    shop.tell(
        || tracing::info!(target: "comptoir::test", event = "daemon.serves", version = "0.1.0"),
    );
    let outcome = eventually("the refusal is known", || {
        shop.outcome(Worker::Support)
            .filter(|outcome| outcome.failures > 0)
    });
    assert_eq!(outcome.cause, Some("gone"), "{}", outcome.detail);
    assert_eq!(platform.asked(&["/nowhere/messages"]), 1);
    let waiting: Vec<Value> = platform.support_events();
    assert!(waiting.is_empty());
}

/// Tells support `count` things, numbered from `from`.
fn tell_support(shop: &Shop, from: u64, count: u64) {
    shop.tell(|| {
        for items in from..from + count {
            let code = "wan.api_unreachable";
            tracing::warn!(target: "comptoir::test", event = "conditions.raised", code, items);
        }
    });
}

/// The numbers of what support was told.
fn told(platform: &Platform) -> BTreeSet<u64> {
    let events = platform.support_events();
    let numbers = events
        .iter()
        .filter_map(|event| event["fields"]["items"].as_u64());
    numbers.collect()
}

#[test]
fn a_message_that_support_refuses_for_good_is_dropped_counted_and_told_and_the_next_one_goes() {
    let platform = Platform::start();
    let path = "/support-events/messages";
    platform.arm("status:400", "bus", 1, Some("POST"), path);
    let shop = Shop::of(&platform).shipping(&platform).start();
    tell_support(&shop, 0, 1);
    let detail = eventually("it is told", || shop.condition(Code::SupportRefused));
    assert_eq!(detail, "HTTP 400");
    assert_eq!(shop.condition(Code::LogsRefused), None);
    eventually("the loss is counted", || {
        (shop.stream("support").lost == 1).then_some(())
    });
    tell_support(&shop, 1, 1);
    eventually("the next one comes", || {
        (told(&platform) == BTreeSet::from([1])).then_some(())
    });
    eventually("the condition ends", || {
        shop.condition(Code::SupportRefused).is_none().then_some(())
    });
    assert_eq!(shop.stream("support").lost, 1);
}

#[test]
fn support_has_a_days_budget_of_its_own_and_hears_the_rest_the_next_day() {
    let platform = Platform::start();
    let mut shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.support]\n", "[wan.support]\ndaily_budget_kib = 16\n")
        .start();
    shop.filled();
    tell_support(&shop, 0, 100);
    let detail = eventually("it is told", || shop.condition(Code::SupportBudgetUsed));
    assert_eq!(detail, "16.0 KiB a day");
    let status = shop.stream("support");
    assert!(status.today_bytes <= 16 * 1024, "{status:?}");
    assert_eq!(shop.condition(Code::LogsBudgetUsed), None);
    // A batch of all of them would be more than any day's budget: what fits went.
    let today = told(&platform).len();
    assert!((1..100).contains(&today), "{today}");
    shop.stop();
    platform.set_clock_ahead(24 * 3600);
    shop.start_again();
    eventually("the next day's come", || {
        (told(&platform).len() > today).then_some(())
    });
}
