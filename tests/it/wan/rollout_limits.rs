//! Roll-outs at their limits: no room, a bundle elsewhere, a shop that is never quiet, and a cancellation at every stage.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use comptoir::digest::Digest;
use comptoir::store::{InboxMessage, OrderState, Source};
use comptoir::telemetry::{Code, UpdateState, UpdateWait};
use serde_json::json;

use super::azurite::Container;
use super::media_line::StepClock;
use super::platform::{PATIENCE, Platform, eventually};
use super::rollout_box::RolloutBox;
use super::rollouts::{bundle, ended, words};
use crate::full_disk::on_a_small_disk;

const MIB: usize = 1 << 20;

/// Waits until the box has asked twice more what there is to do: what it found out before, it has acted on.
fn polls_on(platform: &Platform) {
    let polls = || platform.asked(&["\"GET\"", "/controller/v1/box-0123456789ab\""]);
    let before = polls();
    eventually("the box polls on", || (polls() >= before + 2).then_some(()));
}

#[test]
fn a_bundle_that_finds_no_room_is_told_once_and_leaves_the_disk_to_orders() {
    on_a_small_disk(
        "wan::rollout_limits::a_bundle_that_finds_no_room_is_told_once_and_leaves_the_disk_to_orders",
        "14m",
        without_room,
    );
}

/// 14 MiB in all, 8 of them for orders.
fn without_room(dir: &Path) {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).in_dir(dir).started();
    let told = |id: i64| {
        let words = words(&platform.rollout(id));
        words
            .iter()
            .filter(|words| words.contains("no room"))
            .count()
    };
    let too_large = platform.order_rollout("version=2.0", &bundle(20, 7 * MIB));
    box_.waits_for(UpdateWait::Room);
    polls_on(&platform);
    assert_eq!(told(too_large), 1, "{:?}", platform.rollout(too_large));
    assert_eq!(platform.asked(&["softwaremodules"]), 0, "not even begun");

    // One that fits, until others take the disk in mid-file.
    platform.arm("slow:400000", "api", 100, None, "/softwaremodules/");
    let bytes = bundle(21, 3 * MIB);
    let id = platform.order_rollout("version=2.1", &bytes);
    eventually("it comes in", || (box_.bundle_bytes() > 0).then_some(()));
    platform.set_poll_sleep("00:00:10");
    let filler = dir.join("filler");
    fs::write(&filler, vec![0; 4 * MIB]).unwrap();
    box_.waits_for(UpdateWait::Room);
    platform.set_poll_sleep("00:00:01");
    assert_eq!(box_.bundle_bytes(), 0, "what had come is given back");
    eventually("it is told", || (told(id) == 1).then_some(()));
    polls_on(&platform);
    assert_eq!(told(id), 1);
    fs::remove_file(filler).unwrap();
    box_.restart_is_asked();
    box_.slots
        .with(|state| assert_eq!(state.installed, [Digest::of(&bytes)]));
}

#[test]
fn a_redirect_to_a_signed_address_at_the_media_host_is_followed_and_not_kept() {
    let platform = Platform::start();
    let container = Container::private();
    let bytes = bundle(22, 300_000);
    container.put("two.raucb", &bytes);
    let box_ = RolloutBox::of(&platform)
        .with_media_host(&platform, &container)
        .started();
    let order = |version: &str, for_s: i64| {
        let place = container.path("two.raucb");
        let url = format!(
            "https://{}{place}?{}",
            container.addr(),
            container.sign(for_s)
        );
        let url = url.replace('%', "%25").replace('&', "%26");
        platform.order_rollout(&format!("version={version}&redirect={url}"), &bytes)
    };
    // A signature that is over: the order waits for another, and nobody blames the shop's own credentials.
    let over = order("2.0", -60);
    box_.waits_for(UpdateWait::Platform);
    polls_on(&platform);
    let rollout = platform.rollout(over);
    assert_eq!(rollout["status"], "running");
    assert_eq!(
        words(&rollout),
        ["proceeding/none: the bundle's own address answers HTTP 403"]
    );
    assert!(platform.asked(&["softwaremodules", "302"]) >= 2);
    assert!(!box_.telemetry().conditions.holds(Code::Unauthorized));
    box_.slots.with(|state| assert!(state.installed.is_empty()));

    order("2.1", 3600);
    box_.restart_is_asked();
    box_.slots
        .with(|state| assert_eq!(state.installed, [Digest::of(&bytes)]));
    for file in fs::read_dir(box_.dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        let holds = bytes.windows(4).any(|text| text == b"sig=");
        assert!(!holds, "a signature in {}", path.display());
    }
}

#[test]
fn a_shop_that_is_never_quiet_holds_up_the_restart_for_half_an_hour() {
    let platform = Platform::start();
    let clock = Arc::new(StepClock::default());
    let box_ = RolloutBox::of(&platform)
        .with_clock(clock.clone())
        .started();
    let orders = &box_.store().orders;
    let message = InboxMessage {
        message_id: "m1".into(),
        source: Source::Bus,
        body: br#"{"order_id":"o1","placed_at":"2026-11-24T20:00:00Z","lines":[{"name":"x"}]}"#
            .to_vec(),
    };
    orders.receive(message).wait().unwrap();
    let accepted = orders.advance("o1", OrderState::Accepted, "test");
    accepted.wait().unwrap();
    platform.order_rollout("version=2.0", &bundle(23, 1000));
    box_.waits_for(UpdateWait::QuietMoment);
    clock.advance(25 * 60);
    polls_on(&platform);
    box_.slots.with(|state| assert_eq!(state.restarts, 0));
    clock.advance(5 * 60);
    box_.restart_is_asked();
}

#[test]
fn a_cancellation_of_what_waits_for_quiet_hours_gives_its_space_back() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).quiet_hours_ahead().started();
    let id = platform.order_rollout("version=2.0&urgency=soft", &bundle(24, 1000));
    box_.waits_for(UpdateWait::ShopsWindow);
    assert!(box_.bundle_bytes() > 0);
    platform.change_rollout(id, &json!({"cancel": true}));
    assert_eq!(
        ended(&platform, id, "canceled"),
        "closed/success: nothing was installed"
    );
    assert_eq!(box_.bundle_bytes(), 0);
    assert!(box_.status().ordered.is_none());
    box_.slots.with(|state| assert!(state.installed.is_empty()));
}

#[test]
fn a_cancellation_during_installation_or_trial_is_refused_and_the_trial_decides() {
    let platform = Platform::start();
    let mut box_ = RolloutBox::of(&platform);
    let (began, is_writing) = channel();
    let (go_on, may_go_on) = channel::<()>();
    box_.slots.with(|state| {
        state.meanwhile = Some(Box::new(move || {
            began.send(()).unwrap();
            may_go_on.recv_timeout(PATIENCE).unwrap();
        }));
    });
    box_.start();
    let id = platform.order_rollout("version=2.0", &bundle(25, 1000));
    is_writing.recv_timeout(PATIENCE).unwrap();
    platform.change_rollout(id, &json!({"cancel": true}));
    go_on.send(()).unwrap();
    let refused = |times: usize| {
        eventually("the cancellation is refused", || {
            let rollout = platform.rollout(id);
            let said = words(&rollout);
            let rejected = said.iter().filter(|words| words.starts_with("rejected"));
            (rejected.count() == times && rollout["status"] == "running").then_some(())
        });
    };
    refused(1);
    box_.restart_is_asked();
    box_.reboot("boot-2", "2.0", true);
    eventually("the trial runs", || {
        (box_.status().ordered?.state == UpdateState::OnTrial).then_some(())
    });
    platform.change_rollout(id, &json!({"cancel": true}));
    refused(2);
    box_.slots.boot("boot-2", "2.0", false);
    assert_eq!(
        ended(&platform, id, "finished"),
        "closed/success: version 2.0 runs and is kept"
    );
}
