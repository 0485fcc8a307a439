//! Enrolment against the platform: shown, claimed by the code, renewed, revoked, claimed again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use comptoir::store::orders::Lane;
use comptoir::telemetry::{Code, EnrolmentState};
use comptoir::wan::Worker;
use comptoir::wan::credentials::BusAccess;
use serde_json::json;
use serde_json::value::RawValue;

use super::platform::{Platform, eventually};
use super::shop::{CLAIM_CODE, Shop};

const DAY_S: i64 = 24 * 3600;

fn reaches(shop: &Shop, state: EnrolmentState) {
    eventually("the enrolment's state", || {
        (shop.enrolment().state == state).then_some(())
    });
}

/// A box that was claimed and works.
fn claimed(platform: &Platform) -> Shop {
    let shop = Shop::of(platform).unenrolled().start();
    eventually("the box shows itself", || platform.enrolling());
    assert_eq!(platform.claim(CLAIM_CODE), 200);
    reaches(&shop, EnrolmentState::Enrolled);
    shop
}

#[test]
fn a_new_box_is_claimed_by_its_code_and_works_without_a_restart() {
    let platform = Platform::start();
    platform.load_products(10);
    platform.order("order-1");
    let mut shop = Shop::of(&platform).unenrolled().start();
    reaches(&shop, EnrolmentState::WaitingForClaim);
    eventually("it says that it is not enrolled", || {
        shop.condition(Code::NotEnrolled)
    });
    assert_eq!(
        shop.outcome(Worker::Pull).unwrap().cause,
        Some("no_credentials")
    );
    assert_eq!(platform.claim("another-code"), 404);
    assert_eq!(platform.handed_out(), 0);
    // Typed as people do.
    assert_eq!(platform.claim("ab12 cd34 ef"), 200);
    shop.filled();
    eventually("orders come by the site's own signature", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    let body = RawValue::from_string("{}".to_owned()).unwrap();
    let push = shop
        .store()
        .orders
        .outbox_push(Lane::Orders, "test.enrolled", body);
    push.wait().unwrap();
    eventually("events go", || (platform.events().len() == 1).then_some(()));
    eventually("the condition ends", || {
        shop.condition(Code::NotEnrolled).is_none().then_some(())
    });
    let status = shop.enrolment();
    assert_eq!(status.state, EnrolmentState::Enrolled);
    let life_ms = status.valid_until_ms.unwrap() - shop.time().now_ms();
    assert!((life_ms / 1000 - 7 * DAY_S).abs() < 60, "{life_ms}");
    assert!(status.since_ms.is_some());
    assert_eq!(platform.handed_out(), 1);
    // For the second namespace, too: what it names and a signature for that, though no setting speaks of it.
    let credentials = shop.credentials();
    assert_eq!(credentials.support_entity(), "support");
    let Some(BusAccess::Sas { token, .. }) = credentials.support() else {
        panic!("no signature for support events");
    };
    assert!(
        token.expose().contains("%2Fsupport&"),
        "for that queue alone"
    );

    let kept = fs::metadata(shop.path("state/enrolment.json")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    // The next start needs nobody.
    shop.stop();
    platform.order("order-2");
    shop.start_again();
    eventually("the next order comes", || {
        (shop.order_ids() == ["order-1", "order-2"]).then_some(())
    });
    assert_eq!(platform.handed_out(), 1);
}

#[test]
fn a_refused_token_is_exchanged_once_and_nobody_notices() {
    let platform = Platform::start();
    platform.load_products(10);
    let shop = claimed(&platform);
    shop.filled();
    platform.enrolled("rotate");
    platform.put_document("products", "late", &json!({"name": "Late"}));
    eventually(
        "the next question is refused and leads to another token",
        || (platform.handed_out() == 2).then_some(()),
    );
    platform.put_document("products", "later", &json!({"name": "Later"}));
    eventually("the feed goes on", || shop.document("products", "later"));
    assert_eq!(platform.handed_out(), 2);
    assert_eq!(shop.condition(Code::Unauthorized), None);
}

#[test]
fn credentials_are_renewed_at_two_thirds_of_their_life_by_the_platforms_time() {
    let platform = Platform::start();
    platform.load_products(10);
    let shop = claimed(&platform);
    shop.filled();
    let first = shop.enrolment().valid_until_ms.unwrap();
    // Two thirds of seven days are four and a half: the platform's days pass, not this machine's.
    platform.set_clock(5 * DAY_S);
    platform.put_document("products", "late", &json!({"name": "Late"}));
    eventually("they are renewed", || {
        (platform.handed_out() == 2).then_some(())
    });
    let second = eventually("the new ones are in use", || {
        shop.enrolment()
            .valid_until_ms
            .filter(|valid_until_ms| *valid_until_ms != first)
    });
    assert!((second - first - 5 * DAY_S * 1000).abs() < 60_000);
    eventually("the feed goes on", || shop.document("products", "late"));
    assert_eq!(shop.condition(Code::Unauthorized), None);
}

#[test]
fn credentials_that_are_due_again_at_once_are_not_exchanged_in_a_loop() {
    let platform = Platform::start();
    platform.load_products(10);
    platform.set_credentials(30 * DAY_S, 25 * DAY_S);
    let shop = claimed(&platform);
    shop.filled();
    eventually("they are exchanged once", || {
        (platform.handed_out() >= 2).then_some(())
    });
    for n in 0..5 {
        let id = format!("late-{n}");
        platform.put_document("products", &id, &json!({"name": "Late"}));
        eventually("the feed goes on", || shop.document("products", &id));
    }
    assert_eq!(platform.handed_out(), 2);
}

#[test]
fn credentials_that_end_within_a_minute_are_refused_and_said() {
    let platform = Platform::start();
    platform.load_products(10);
    platform.set_credentials(30, 0);
    let shop = Shop::of(&platform).unenrolled().start();
    eventually("the box shows itself", || platform.enrolling());
    assert_eq!(platform.claim(CLAIM_CODE), 200);
    let detail = eventually("it is said", || shop.condition(Code::ApiUnreachable));
    assert!(detail.contains("they end within a minute"), "{detail}");
    assert!(!shop.path("state/enrolment.json").exists());
    platform.set_credentials(DAY_S, 0);
    shop.filled();
    eventually("the condition ends", || {
        shop.condition(Code::ApiUnreachable).is_none().then_some(())
    });
}

#[test]
fn a_revoked_box_stops_its_flows_forgets_and_can_be_claimed_again() {
    let platform = Platform::start();
    platform.load_products(10);
    let mut shop = claimed(&platform);
    shop.filled();
    platform.enrolled("revoke");
    eventually("it is told", || shop.condition(Code::Revoked));
    reaches(&shop, EnrolmentState::Revoked);
    eventually("the flows stop", || {
        let outcome = shop.outcome(Worker::Bus)?;
        (outcome.cause == Some("no_credentials")).then_some(())
    });
    assert!(!shop.path("state/enrolment.json").exists());
    platform.put_document("products", "late", &json!({"name": "Late"}));
    assert_eq!(shop.documents("products"), 10, "the shop is served on");
    // A restart does not make it forget that it was told off.
    shop.stop();
    shop.start_again();
    eventually("it is told again", || shop.condition(Code::Revoked));
    assert_eq!(platform.claim(CLAIM_CODE), 200);
    eventually("the feed goes on", || shop.document("products", "late"));
    eventually("the condition ends", || {
        shop.condition(Code::Revoked).is_none().then_some(())
    });
}

#[test]
fn torn_credentials_are_fetched_anew_and_the_settings_go_first() {
    let platform = Platform::start();
    platform.load_products(10);
    let mut shop = claimed(&platform);
    shop.filled();
    shop.stop();
    let path = shop.path("state/enrolment.json");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    platform.put_document("products", "late", &json!({"name": "Late"}));
    shop.start_again();
    eventually("the feed goes on", || shop.document("products", "late"));
    assert_eq!(platform.handed_out(), 2);

    let other = Platform::start();
    other.load_products(5);
    let shop = Shop::of(&other).start();
    shop.filled();
    assert_eq!(shop.enrolment().state, EnrolmentState::BySettings);
    assert_eq!(other.asked(&["/v1/enrol"]), 0);
}

#[test]
fn codes_can_not_be_guessed_one_after_the_other() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).unenrolled().start();
    reaches(&shop, EnrolmentState::WaitingForClaim);
    for guess in 0..5 {
        assert_eq!(platform.claim(&format!("guess-{guess}")), 404);
    }
    assert_eq!(platform.claim(CLAIM_CODE), 429, "not even the right one");
    assert_eq!(shop.enrolment().state, EnrolmentState::WaitingForClaim);
}
