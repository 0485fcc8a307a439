//! The time, with the platform's own answers as its only source.

use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::{Clock, ManualClock, SystemClock};
use comptoir::config::Config;
use comptoir::devices::{Dispatch, DispatchParts};
use comptoir::shutdown::Shutdown;
use comptoir::store::devices::NewDevice;
use comptoir::store::orders::{Lane, OrderState};
use comptoir::telemetry::{Code, Telemetry};
use comptoir::wan::time::Quality;
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;

use tokio::runtime::Runtime;

use super::line::Line;
use super::platform::{PATIENCE, Platform, SOONER_THAN_A_PAUSE, eventually, within};
use super::shop::Shop;
use crate::kitchen::Kitchen;
use crate::shop::identity;

/// A machine whose wall clock stands where it was set, while its monotonic time runs.
struct StandingClock {
    wall: ManualClock,
    real: SystemClock,
}

impl StandingClock {
    fn at(wall: &str) -> Arc<Self> {
        Arc::new(Self {
            wall: ManualClock::at(wall.parse().unwrap()),
            real: SystemClock::default(),
        })
    }
}

impl Clock for StandingClock {
    fn wall(&self) -> Timestamp {
        self.wall.wall()
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic()
    }
}

/// How far the box's time is from the right one.
fn off_ms(shop: &Shop) -> i64 {
    shop.time().now_ms() - SystemClock::default().wall_ms()
}

#[test]
fn a_box_of_1970_or_of_2080_pulls_pushes_and_receives_with_the_right_time() {
    for wall in ["1970-01-01T00:00:10Z", "2080-06-01T00:00:00Z"] {
        let platform = Platform::start();
        platform.load_products(20);
        platform.order("order-1");
        let shop = Shop::of(&platform)
            .with_clock(StandingClock::at(wall))
            .start();
        shop.filled();
        eventually("the order comes", || {
            (shop.order_ids() == ["order-1"]).then_some(())
        });
        eventually("two hosts agree", || {
            (shop.time().quality() == Quality::Good).then_some(())
        });
        assert!(off_ms(&shop).abs() < 3000, "{wall}: {}", off_ms(&shop));
        let body = RawValue::from_string("{}".to_owned()).unwrap();
        let push = shop
            .store()
            .orders
            .outbox_push(Lane::Orders, "test.stamped", body);
        push.wait().unwrap();
        let event = eventually("the event arrives", || platform.events().pop());
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:").to_string();
        let occurred_at = event["occurred_at"].as_str().unwrap();
        let last_hour = (Timestamp::now() - jiff::SignedDuration::from_mins(2))
            .strftime("%Y-%m-%dT%H:")
            .to_string();
        assert!(
            occurred_at.starts_with(&now) || occurred_at.starts_with(&last_hour),
            "{wall}: {occurred_at}"
        );
        shop.is_over(Code::Unauthorized);
        shop.is_over(Code::ClockUnsure);
    }
}

#[test]
fn a_refusal_that_comes_when_the_time_is_known_already_is_not_taken_for_a_wrong_key() {
    let platform = Platform::start();
    platform.order("order-1");
    // The bus answers so slowly that its first answer says nothing about the time; the API has said it by then.
    let line = Line::to(platform.text("bus").parse().unwrap());
    line.set_rate(400);
    let bus_url = |url: &str| format!("bus_url = \"{url}\"");
    let shop = Shop::of(&platform)
        .with(&bus_url(platform.text("bus_url")), &bus_url(&line.url()))
        .with_clock(StandingClock::at("1970-01-01T00:00:10Z"))
        .start();
    within(SOONER_THAN_A_PAUSE, "the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    let requests = platform.requests();
    let refused = requests
        .iter()
        .filter(|line| line.contains("/messages/head") && line.contains("\"status\":401"));
    assert_eq!(refused.count(), 1, "{requests:?}");
    shop.is_over(Code::Unauthorized);
}

#[test]
fn a_start_in_2080_without_the_internet_delivers_the_order_that_waited_once() {
    let platform = Platform::start();
    platform.load_products(1);
    let mut shop = Shop::of(&platform).start();
    shop.filled();
    platform.order_again("closed", "message-1");
    platform.order_again("waits", "message-2");
    eventually("both orders come", || {
        (shop.order_ids().len() == 2).then_some(())
    });
    let orders = &shop.store().orders;
    let closed = orders.advance("closed", OrderState::Done, "till");
    closed.wait().unwrap();
    eventually("two hosts agree", || {
        (shop.time().quality() == Quality::Good).then_some(())
    });
    shop.stop();

    platform.set_offline(true);
    let mut shop = shop.with_clock(StandingClock::at("2080-06-01T00:00:00Z"));
    shop.start_again();
    let dispatching = dispatching(&shop);
    // Said by the tick that looks for what is late, after it did.
    eventually("the order is seen to wait", || {
        let conditions = &dispatching.telemetry.conditions;
        conditions.holds(Code::NoDeviceForRole).then_some(())
    });
    let kitchen = kitchen(&shop);
    assert_eq!(kitchen.wait_seen(1), ["waits"]);

    platform.set_offline(false);
    eventually("two hosts agree again", || {
        (shop.time().quality() == Quality::Good).then_some(())
    });
    assert!(off_ms(&shop).abs() < 3000, "{}", off_ms(&shop));
    // The broker gives both again, and an order that comes after them is the sign that they were seen.
    platform.order_again("closed", "message-1");
    platform.order_again("waits", "message-2");
    platform.order_again("last", "message-3");
    assert_eq!(kitchen.wait_seen(2), ["waits", "last"]);
    let told = eventually("the platform is told", || {
        let told = platform.events_of("command.done");
        (told.len() == 2).then_some(told)
    });
    for told in told {
        assert_eq!(told["event"]["body"]["outcome"], "ok", "{told}");
    }
    dispatching.shutdown.trigger();
    dispatching.runtime.shutdown_timeout(PATIENCE);
}

/// What carries a shop's orders to its devices, running.
struct Dispatching {
    telemetry: Telemetry,
    shutdown: Shutdown,
    runtime: Runtime,
}

fn dispatching(shop: &Shop) -> Dispatching {
    let telemetry = Telemetry::default();
    let (dispatch, _handle) = Dispatch::new(DispatchParts {
        store: shop.store().clone(),
        identity: Arc::new(identity()),
        config: Config::from_layers(&[]).unwrap().devices,
        clock: Arc::new(shop.time()),
        telemetry: telemetry.clone(),
    });
    let (runtime, shutdown) = (Runtime::new().unwrap(), Shutdown::default());
    runtime.spawn(dispatch.run(shutdown.clone()));
    Dispatching {
        telemetry,
        shutdown,
        runtime,
    }
}

/// A device for the shop's orders, which the box knows the address of.
fn kitchen(shop: &Shop) -> Kitchen {
    let device = NewDevice {
        name: "Kitchen".into(),
        role: "kitchen".into(),
        address: None,
    };
    let devices = &shop.store().devices;
    let paired = devices.pair(device).wait().unwrap();
    let (dir, identity) = (shop.dir().join("kitchen"), identity());
    let mut kitchen = Kitchen::paired(&dir, &paired, identity.id(), &identity.public_key());
    let address = kitchen.start();
    let known = devices.set_address(&paired.device_id, address.ip(), Some(address.port()));
    assert!(known.wait().unwrap());
    kitchen
}

#[test]
fn a_machines_clock_that_jumps_while_the_box_works_changes_nothing() {
    let platform = Platform::start();
    platform.load_products(5);
    let clock = StandingClock::at("2026-06-01T00:00:00Z");
    let shop = Shop::of(&platform).with_clock(clock.clone()).start();
    shop.filled();
    eventually("two hosts agree", || {
        (shop.time().quality() == Quality::Good).then_some(())
    });
    for (n, wall) in ["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z"]
        .into_iter()
        .enumerate()
    {
        clock.wall.set_wall(wall.parse().unwrap());
        let id = format!("after-{n}");
        platform.put_document("products", &id, &json!({"name": "New"}));
        platform.order(&format!("order-{n}"));
        eventually("the feed goes on", || shop.document("products", &id));
        eventually("orders come", || {
            (shop.order_ids().len() == n + 1).then_some(())
        });
        assert!(off_ms(&shop).abs() < 3000, "{wall}: {}", off_ms(&shop));
    }
    shop.is_over(Code::Unauthorized);
}

#[test]
fn a_platform_whose_time_moves_is_followed_and_never_below_what_was_known() {
    let platform = Platform::start();
    platform.load_products(5);
    let mut shop = Shop::of(&platform).start();
    shop.filled();
    eventually("two hosts agree", || {
        (shop.time().quality() == Quality::Good).then_some(())
    });
    platform.set_clock(40 * 24 * 3600);
    // Any answer by the way shows it; the hosts are then asked.
    platform.put_document("products", "nudge", &json!({"name": "Nudge"}));
    let forty_days_ms = 40 * 24 * 3_600_000_i64;
    eventually("the time follows", || {
        ((off_ms(&shop) - forty_days_ms).abs() < 5000).then_some(())
    });
    // Kept, it is the floor of the next start: a platform that is back in the past is not followed.
    shop.stop();
    platform.set_clock(0);
    shop.start_again();
    assert_eq!(shop.time().quality(), Quality::Floor);
    assert!((off_ms(&shop) - forty_days_ms).abs() < 60_000);
    platform.put_document("products", "late", &json!({"name": "Late"}));
    eventually("the shop is served on", || {
        shop.document("products", "late")
    });
    assert!((off_ms(&shop) - forty_days_ms).abs() < 60_000);
}
