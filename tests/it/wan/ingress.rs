//! Orders into the real binary while everything goes wrong between it and the platform: each is seen once on the device.
//!
//! `COMPTOIR_ORDERS=100000` makes a long run of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::kill::{Server, serve};
use super::platform::{KEY, KEY_NAME, Platform, SITE, TOKEN, eventually};
use crate::kitchen::Kitchen;
use crate::loopback::own_address;

/// In an ordinary run.
const ORDERS: usize = 600;
/// Orders between two strokes of misfortune.
const ROUND: usize = 100;
/// Locks end so soon that some are lost; those of a dead box are not waited for long.
const LOCK_MS: u64 = 1500;
/// Between two looks at a long file.
const LOOK: Duration = Duration::from_millis(100);
/// Without one more order in the kitchen for so long, the test has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const CODE: &str = "ABCD-EFGH";

fn site_file(platform: &Platform, dir: &Path, address: &str) -> String {
    format!(
        "[site]\nsite_id = \"{SITE}\"\nclaim_code = \"{CODE}\"\n\
         [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\ntoken = \"{TOKEN}\"\n\
         retry_first_ms = 100\nretry_max_s = 1\n\
         [wan.trust]\nca_files = [\"{}\"]\n\
         [wan.bus]\nkey_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\nwait_s = 1\n\
         [wan.orders_feed]\nperiod_s = 1\n\
         [wan.deadlines]\nfirst_byte_s = 2\nstall_s = 2\n\
         [lan]\nbind = \"{address}\"\nport_offset = 3000\n\
         [discovery]\nenabled = false\n\
         [store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n",
        platform.text("api_url"),
        platform.text("bus_url"),
        platform.text("blob_url"),
        platform.ca_file().display(),
        dir.join("data").display(),
    )
}

/// The ids the kitchen has seen, in their order.
fn seen(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["body"]["order_id"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// One stroke; the box is killed where it hurts.
fn misfortune(round: usize, platform: &Platform, server: Server, site_file: &Path) -> Server {
    let completing = Some("DELETE");
    match round % 6 {
        // Done at the broker or not, the box does not know.
        0 => platform.arm("lose_answer", "bus", 5, completing, "/messages/"),
        1 => platform.arm("status:500", "bus", 5, completing, "/messages/"),
        2 => platform.arm("refuse", "bus", 5, completing, "/messages/"),
        3 => platform.drop_locks(),
        4 => platform.arm("throttle:1", "bus", 2, None, "/messages/head"),
        _ => {
            // Between commit and completion.
            platform.arm("stall", "bus", 1, completing, "/messages/");
            // One more message: the box may have completed all that came before.
            platform.order_again("order-000000", &format!("again-{round}"));
            eventually("a completion hangs", || {
                platform.faults_are_spent().then_some(())
            });
            drop(server);
            return serve(site_file);
        }
    }
    server
}

#[test]
fn whatever_the_bus_does_no_order_is_lost_and_none_is_seen_twice() {
    let orders = std::env::var("COMPTOIR_ORDERS").map_or(ORDERS, |text| text.parse().unwrap());
    let platform = Platform::start();
    let settings = json!({"lock_ms": LOCK_MS, "max_delivery_count": 1000});
    platform.entity(&format!("queues/site-{SITE}"), &settings);
    let dir = tempfile::tempdir().unwrap();
    let address = own_address();
    let site_path = dir.path().join("site.toml");
    fs::write(&site_path, site_file(&platform, dir.path(), &address)).unwrap();
    let mut server = serve(&site_path);
    let care_url = format!("http://{address}:11004");
    eventually("the box serves", || {
        std::net::TcpStream::connect(format!("{address}:11004")).ok()
    });
    let kitchen_dir = dir.path().join("kitchen");
    let mut kitchen = Kitchen::unpaired(&kitchen_dir).with(&[
        "--care-url",
        &care_url,
        "--pair-code",
        CODE,
        "--heartbeat-s",
        "1",
    ]);
    kitchen.start();

    let mut sent = BTreeSet::new();
    for (round, from) in (0..orders).step_by(ROUND).enumerate() {
        for n in from..orders.min(from + ROUND) {
            let order_id = format!("order-{n:06}");
            platform.order_via(&order_id, ["bus", "both", "bus", "feed"][n % 4]);
            if n % 10 == 0 {
                // Another message of the sender with the same order.
                platform.order_again(&order_id, &format!("again-{n}"));
            }
            sent.insert(order_id);
        }
        server = misfortune(round, &platform, server, &site_path);
    }
    let log = kitchen_dir.join("kitchen.jsonl");
    let mut seen_count = 0;
    let mut moved_at = Instant::now();
    while seen_count < orders {
        let count = fs::read(&log).unwrap_or_default();
        let count = count.iter().filter(|byte| **byte == b'\n').count();
        if count > seen_count {
            (seen_count, moved_at) = (count, Instant::now());
        }
        assert!(
            moved_at.elapsed() < PATIENCE,
            "{seen_count} of {orders} in the kitchen"
        );
        std::thread::sleep(LOOK);
    }
    eventually("nothing is left at the broker", || {
        (platform.queued() == 0).then_some(())
    });
    eventually("the platform is told of all", || {
        (platform.event_count() >= orders).then_some(())
    });
    let told = eventually("each order's end is told", || {
        Some(platform.events_of("command.done").len()).filter(|told| *told >= orders)
    });
    assert_eq!(told, orders, "of each order once");
    drop(server);
    let seen = seen(&log);
    assert_eq!(seen.len(), orders, "an order was seen twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), sent);
    println!("{orders} orders: each seen once, each told once");
}
