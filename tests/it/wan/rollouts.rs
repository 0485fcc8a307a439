//! Roll-outs: the real worker against the platform's hawkBit API.

use comptoir::digest::Digest;
use comptoir::store::{InboxMessage, OrderState, Source};
use comptoir::telemetry::{Code, UpdateState, UpdateWait};
use comptoir::wan::rollouts::{InstallBundleError, status_on_disk};
use serde_json::{Value, json};

use super::platform::{Platform, TOKEN, eventually};
use super::rollout_box::RolloutBox;

pub fn bundle(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Waits for the action's end and returns its last words.
pub fn ended(platform: &Platform, id: i64, status: &str) -> String {
    let rollout = eventually("the roll-out ends", || {
        let rollout = platform.rollout(id);
        (rollout["status"] == status).then_some(rollout)
    });
    words(&rollout).last().unwrap().clone()
}

/// Nothing of a bundle is left on the disk.
fn space_is_given_back(box_: &RolloutBox) {
    eventually("its space is given back", || {
        (box_.bundle_bytes() == 0).then_some(())
    });
}

/// What the box said of a roll-out: execution, result and details.
pub fn words(rollout: &Value) -> Vec<String> {
    let all = rollout["feedback"].as_array().unwrap().iter();
    all.filter(|said| said["body"]["status"].is_object())
        .map(|said| {
            let status = &said["body"]["status"];
            let (execution, finished) = (&status["execution"], &status["result"]["finished"]);
            format!(
                "{}/{}: {}",
                execution.as_str().unwrap(),
                finished.as_str().unwrap(),
                status["details"][0].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn success_is_told_only_after_the_commit() {
    let platform = Platform::start();
    let bytes = bundle(1, 300_000);
    let id = platform.order_rollout("version=2.0", &bytes);
    let mut box_ = RolloutBox::of(&platform).started();
    box_.restart_is_asked();
    box_.slots
        .with(|state| assert_eq!(state.installed, [Digest::of(&bytes)]));
    box_.reboot("boot-2", "2.0", true);
    eventually("the trial is told", || {
        let rollout = platform.rollout(id);
        assert_eq!(rollout["status"], "running", "{rollout}");
        words(&rollout).last()?.contains("on trial").then_some(())
    });
    assert_eq!(box_.status().ordered.unwrap().state, UpdateState::OnTrial);
    box_.slots.boot("boot-2", "2.0", false);
    let last = ended(&platform, id, "finished");
    assert_eq!(last, "closed/success: version 2.0 runs and is kept");
    eventually("the order is forgotten", || {
        let status = box_.status();
        (status.ordered.is_none() && status.last?.success).then_some(())
    });
    eventually("the disk says the same", || {
        (status_on_disk(box_.dir.path()) == box_.status()).then_some(())
    });
    space_is_given_back(&box_);
    let told = words(&platform.rollout(id));
    let closed = told.iter().filter(|words| words.starts_with("closed"));
    assert_eq!(closed.count(), 1, "{told:?}");
    eventually("the platform knows the version", || {
        let boxes = platform.controllers();
        let data = &boxes[0]["attributes"];
        assert_eq!(boxes[0]["id"], "box-0123456789ab");
        assert_eq!(data["hardware"], "test-box");
        (data["version"] == "2.0").then_some(())
    });
}

#[test]
fn a_rollback_is_a_failure_with_its_reason_and_the_version_is_not_tried_again() {
    let platform = Platform::start();
    let id = platform.order_rollout("version=2.0", &bundle(2, 50_000));
    let mut box_ = RolloutBox::of(&platform).started();
    box_.restart_is_asked();
    box_.slots.with(|state| {
        let failed = ("2.0".to_owned(), "port orders does not answer".to_owned());
        state.standing.failed.push(failed);
    });
    box_.reboot("boot-4", "1.0", false);
    let last = ended(&platform, id, "error");
    assert!(
        last.starts_with("closed/failure") && last.contains("port orders does not answer"),
        "{last}"
    );
    let telemetry = box_.telemetry().clone();
    eventually("the shop is told", || {
        telemetry.conditions.holds(Code::UpdateFailed).then_some(())
    });
    let again = platform.order_rollout("version=2.0", &bundle(2, 50_000));
    let last = ended(&platform, again, "error");
    assert!(last.contains("failed on this box before"), "{last}");
    assert_eq!(platform.asked(&["softwaremodules/2/"]), 0);
    // The next good one ends the condition, also over a restart.
    box_.reboot("boot-5", "1.0", false);
    eventually("it is told again", || {
        let conditions = &box_.telemetry().conditions;
        conditions.holds(Code::UpdateFailed).then_some(())
    });
    platform.order_rollout("version=1.0", b"runs already");
    eventually("the condition ends", || {
        (!box_.telemetry().conditions.holds(Code::UpdateFailed)).then_some(())
    });
}

#[test]
fn a_download_goes_on_over_cuts_and_restarts() {
    let platform = Platform::start();
    let bytes = bundle(3, 3_000_000);
    let path = "/softwaremodules/";
    platform.arm("truncate_after_bytes:1000000", "api", 1, None, path);
    platform.arm("stall_after_bytes:500000", "api", 1, None, path);
    platform.arm("status:503", "api", 1, None, path);
    platform.arm("slow:150000", "api", 1, None, path);
    let id = platform.order_rollout("version=2.0", &bytes);
    let mut box_ = RolloutBox::of(&platform).started();
    eventually("the slow transfer runs", || {
        (platform.faults_are_spent() && box_.bundle_bytes() > 1_600_000).then_some(())
    });
    box_.stop();
    let had = box_.bundle_bytes();
    assert!(had < 3_000_000, "{had}");
    box_.start();
    box_.restart_is_asked();
    box_.slots
        .with(|state| assert_eq!(state.installed, [Digest::of(&bytes)]));
    assert!(
        platform.asked(&[path, "206"]) >= 3,
        "{:?}",
        platform.requests()
    );
    assert_eq!(platform.asked(&[path, "\"status\":200"]), 1);
    let told = words(&platform.rollout(id));
    assert!(told.len() < 16, "hawkBit bounds what is said: {told:?}");
}

#[test]
fn a_bundle_that_is_not_what_was_announced_never_reaches_the_slots() {
    let platform = Platform::start();
    let id = platform.order_rollout("version=2.0", &bundle(4, 100_000));
    platform.exchange_bundle(id, &bundle(5, 100_000));
    let box_ = RolloutBox::of(&platform).started();
    let last = ended(&platform, id, "error");
    assert!(last.contains("another SHA-256 than announced"), "{last}");
    let longer = platform.order_rollout("version=2.1", &bundle(4, 100_000));
    platform.exchange_bundle(longer, &bundle(5, 100_001));
    // The wrong length shows at the first range, before the rest is fetched.
    let last = ended(&platform, longer, "error");
    assert!(last.contains("another bundle stands there"), "{last}");
    box_.slots.with(|state| assert!(state.installed.is_empty()));
    space_is_given_back(&box_);
}

#[test]
fn a_bundle_that_changes_under_way_is_fetched_from_the_start() {
    let platform = Platform::start();
    let (old, new) = (bundle(6, 400_000), bundle(7, 400_000));
    let path = "/softwaremodules/";
    platform.arm("truncate_after_bytes:100000", "api", 1, None, path);
    platform.arm("status:503", "api", 2, None, path);
    // Announced is what will stand there later.
    let id = platform.order_rollout("version=2.0", &new);
    platform.exchange_bundle(id, &old);
    let box_ = RolloutBox::of(&platform).started();
    eventually("the transfer broke", || {
        platform.faults_are_spent().then_some(())
    });
    platform.exchange_bundle(id, &new);
    box_.restart_is_asked();
    box_.slots
        .with(|state| assert_eq!(state.installed, [Digest::of(&new)]));
    assert!(
        platform.asked(&[path, "412"]) >= 1,
        "{:?}",
        platform.requests()
    );
}

#[test]
fn a_cancellation_is_granted_until_something_is_written() {
    let platform = Platform::start();
    platform.arm("slow:200000", "api", 9, None, "/softwaremodules/");
    let id = platform.order_rollout("version=2.0", &bundle(8, 5_000_000));
    let box_ = RolloutBox::of(&platform).started();
    eventually("the bundle comes in", || {
        (box_.bundle_bytes() > 0).then_some(())
    });
    platform.change_rollout(id, &json!({"cancel": true}));
    let last = ended(&platform, id, "canceled");
    assert_eq!(last, "closed/success: nothing was installed");
    space_is_given_back(&box_);

    let late = platform.order_rollout("version=2.1", &bundle(9, 1000));
    box_.restart_is_asked();
    platform.change_rollout(late, &json!({"cancel": true}));
    eventually("the cancellation is refused", || {
        let rollout = platform.rollout(late);
        let refused = words(&rollout)
            .iter()
            .any(|words| words.starts_with("rejected"));
        (refused && rollout["status"] == "running").then_some(())
    });
}

#[test]
fn an_order_that_is_withdrawn_is_forgotten() {
    let platform = Platform::start();
    let id = platform.order_rollout("version=2.0&window=unavailable", &bundle(10, 1000));
    let box_ = RolloutBox::of(&platform).started();
    box_.waits_for(UpdateWait::Platform);
    assert!(box_.bundle_bytes() > 0);
    platform.change_rollout(id, &json!({"force_quit": true}));
    eventually("the order is forgotten", || {
        box_.status().ordered.is_none().then_some(())
    });
    space_is_given_back(&box_);
}

#[test]
fn a_bundle_may_lie_on_the_media_host_too() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).started();
    // The media host is one of the contract's; the token of the API does not go there.
    let bytes = bundle(11, 70_000);
    let blob = platform.put_blob("two.raucb", &bytes, false);
    let place = blob["url"].as_str().unwrap();
    platform.order_rollout(&format!("version=2.2&redirect={place}"), &bytes);
    box_.restart_is_asked();
    assert_eq!(platform.asked(&["/images/two.raucb", "200"]), 1);
}

#[test]
fn a_soft_order_waits_for_the_shops_quiet_hours_and_a_forced_one_does_not() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).quiet_hours_ahead().started();
    let id = platform.order_rollout("version=2.0&urgency=soft", &bundle(12, 1000));
    box_.waits_for(UpdateWait::ShopsWindow);
    assert!(box_.status().ordered.unwrap().waits_until_ms.is_some());
    eventually("that is told", || {
        let told = words(&platform.rollout(id));
        let mut told = told.iter();
        told.any(|words| words.starts_with("scheduled"))
            .then_some(())
    });
    box_.slots.with(|state| assert!(state.installed.is_empty()));
    platform.change_rollout(id, &json!({"urgency": "forced"}));
    box_.restart_is_asked();
}

#[test]
fn the_platforms_window_holds_also_for_a_forced_order() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).started();
    let id = platform.order_rollout("version=2.0&window=unavailable", &bundle(13, 1000));
    box_.waits_for(UpdateWait::Platform);
    box_.slots.with(|state| assert!(state.installed.is_empty()));
    platform.change_rollout(id, &json!({"window": "available"}));
    box_.restart_is_asked();
}

#[test]
fn a_download_only_order_ends_when_it_is_there_and_serves_the_next_one() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).started();
    let bytes = bundle(14, 60_000);
    let id = platform.order_rollout("version=2.0&urgency=download_only", &bytes);
    ended(&platform, id, "downloaded");
    box_.slots.with(|state| assert!(state.installed.is_empty()));
    platform.order_rollout("version=2.0", &bytes);
    box_.restart_is_asked();
    box_.slots
        .with(|state| assert_eq!(state.installed, [Digest::of(&bytes)]));
    assert_eq!(platform.asked(&["softwaremodules"]), 1);
}

#[test]
fn consent_is_given_to_what_may_come_and_denied_to_what_may_not() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).started();
    let old = platform.order_rollout("version=0.9&urgency=soft&confirm=1", b"older");
    let answer = |id: i64| {
        let rollout = platform.rollout(id);
        let all = rollout["feedback"].as_array().unwrap().clone();
        all.into_iter()
            .map(|said| said["body"].clone())
            .find(|body| body["confirmation"].is_string())
    };
    let denied = eventually("the older one is denied", || answer(old));
    assert_eq!(denied["confirmation"], "denied");
    let why = denied["details"][0].as_str().unwrap();
    assert!(why.contains("older than 1.0"), "{why}");
    let new = platform.order_rollout("version=2.0&confirm=1", &bundle(15, 1000));
    let confirmed = eventually("the newer one is confirmed", || answer(new));
    assert_eq!(confirmed["confirmation"], "confirmed");
    box_.restart_is_asked();
}

#[test]
fn the_end_is_told_until_it_is_heard_and_counts_once() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).started();
    // Done, and the answer lost; then the platform is at fault; then it says that all is over already.
    platform.arm("lose_answer", "api", 1, Some("POST"), "/feedback");
    platform.arm("status:500", "api", 2, Some("POST"), "/feedback");
    let id = platform.order_rollout("version=1.0", b"runs already");
    assert_eq!(
        ended(&platform, id, "finished"),
        "closed/success: version 1.0 runs already"
    );
    eventually("the order is forgotten", || {
        let status = box_.status();
        (status.ordered.is_none() && status.last.is_some()).then_some(())
    });
    assert!(platform.faults_are_spent());
    assert_eq!(platform.asked(&["/feedback", "410"]), 1);
    assert_eq!(words(&platform.rollout(id)).len(), 1);
    assert_eq!(platform.asked(&["softwaremodules"]), 0);
}

#[test]
fn what_rauc_refuses_is_told_and_what_is_busy_is_waited_for() {
    let platform = Platform::start();
    let mut box_ = RolloutBox::of(&platform);
    box_.slots.with(|state| {
        let why = "RAUC failed to verify the bundle: signature verification failed";
        let refusal = InstallBundleError::Refused(why.into());
        state.refusals = [InstallBundleError::Busy, refusal].into();
    });
    box_.start();
    let id = platform.order_rollout("version=2.0", &bundle(16, 1000));
    box_.waits_for(UpdateWait::OtherUpdate);
    box_.stop();
    box_.start();
    let last = ended(&platform, id, "error");
    assert!(last.contains("signature verification failed"), "{last}");
    space_is_given_back(&box_);
}

#[test]
fn a_restart_waits_until_no_device_works_on_an_order() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform).started();
    let orders = &box_.store().orders;
    let message = InboxMessage {
        message_id: "m1".into(),
        source: Source::Bus,
        body: br#"{"order_id":"o1","placed_at":"2026-11-24T20:00:00Z","lines":[{"name":"x"}]}"#
            .to_vec(),
    };
    orders.receive(message).wait().unwrap();
    let advance = |to| orders.advance("o1", to, "test").wait().unwrap();
    advance(OrderState::Accepted);
    platform.order_rollout("version=2.0", &bundle(17, 1000));
    box_.waits_for(UpdateWait::QuietMoment);
    box_.slots.with(|state| assert_eq!(state.restarts, 0));
    advance(OrderState::Done);
    box_.restart_is_asked();
}

#[test]
fn a_bundle_that_is_gone_ends_the_order() {
    let platform = Platform::start();
    let path = "/softwaremodules/";
    platform.arm("status:404", "api", 3, None, path);
    let id = platform.order_rollout("version=2.0", &bundle(18, 1000));
    let _box = RolloutBox::of(&platform).started();
    let last = ended(&platform, id, "error");
    assert!(last.contains("the bundle can't be had"), "{last}");
    assert_eq!(platform.asked(&[path, "404"]), 3);
}

#[test]
fn a_token_that_is_refused_is_said() {
    let platform = Platform::start();
    let box_ = RolloutBox::of(&platform)
        .with(&format!("token = \"{TOKEN}\""), "token = \"stale\"")
        .started();
    eventually("the refusal is a condition", || {
        box_.telemetry()
            .conditions
            .holds(Code::Unauthorized)
            .then_some(())
    });
}
