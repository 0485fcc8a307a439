//! What the WAN side writes to the log: enough to follow it, no secret, nothing of a customer.

use std::process::Command;

use comptoir::digest::Digest;
use comptoir::store::orders::Lane;
use comptoir::telemetry::Code;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::platform::{KEY, LOGS_KEY, Platform, TOKEN, eventually};
use super::shop::{CLAIM_CODE, Shop};

/// Set for the process that writes the log.
const WRITER: &str = "COMPTOIR_TEST_LOG_WRITER";
/// Before the token that enrolment brought, on the standard output of that process.
const HANDED_OUT: &str = "handed out: ";
const CUSTOMER: &str = "Madame Dupont-Secret";
const SIGNATURE: &str = "c2VjcmV0LXNpZ25hdHVyZQ";
const WRONG: &str = "d3Jvbmcta2V5";

/// Runs itself once more with logs at their most talkative, and reads what that wrote.
#[test]
fn no_secret_and_nothing_of_a_customer_is_ever_logged() {
    if std::env::var_os(WRITER).is_some() {
        return write_a_log();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("wan::logs::no_secret_and_nothing_of_a_customer_is_ever_logged")
        .env(WRITER, "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    let handed_out = said
        .lines()
        .find_map(|line| line.split_once(HANDED_OUT))
        .map(|(_, token)| token.trim().to_owned())
        .expect("the box was handed a token");
    assert!(output.status.success(), "{log}");
    for event in [
        "pull.snapshot_finished",
        "orders.order_received",
        "orders.message_parked",
        "media.blob_set_aside",
        "push.item_parked",
        "wan.step_failed",
        "enrol.state_changed",
        "time.known",
    ] {
        assert!(log.contains(event), "no {event} in:\n{log}");
    }
    for secret in [
        TOKEN,
        KEY,
        WRONG,
        CUSTOMER,
        SIGNATURE,
        "SharedAccessSignature",
        "Bearer",
        LOGS_KEY,
        CLAIM_CODE,
        &handed_out,
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

/// What support sees from afar: that it happened, and nothing of what it was.
fn nothing_of_it_has_left(platform: &Platform) {
    let left = |what: &str| {
        let mut text: Vec<String> = platform
            .log_entries()
            .iter()
            .map(|entry| entry["entry"].to_string())
            .collect();
        text.extend(platform.support_events().iter().map(Value::to_string));
        text.into_iter().find(|line| line.contains(what))
    };
    for told in [
        "orders.order_received",
        "orders.message_parked",
        "push.item_parked",
        "wan.step_failed",
        "wan.unauthorized",
        "bus.order_parked",
    ] {
        eventually(told, || left(told));
    }
    for secret in [
        TOKEN,
        KEY,
        WRONG,
        LOGS_KEY,
        CUSTOMER,
        "Dupont",
        "dupont",
        SIGNATURE,
        "SharedAccessSignature",
        "Bearer",
        "order-1",
        "message-1",
        "127.0.0.1",
        "HTTP 4",
    ] {
        assert_eq!(left(secret), None, "{secret} has left");
    }
}

fn write_a_log() {
    let platform = Platform::start();
    platform.load_products(10);
    let order = json!({"order_id": "order-1", "placed_at": "2026-01-01T00:00:00Z", "lines": [], "name": CUSTOMER});
    platform.message("message-1", order.to_string().as_bytes());
    platform.message(
        "message-2",
        format!("{{\"order_id\": {CUSTOMER}").as_bytes(),
    );
    let digest = Digest::of(b"nowhere");
    let url = format!(
        "{}/images/none.png?sig={SIGNATURE}",
        platform.text("blob_url")
    );
    let document = json!({"url": url, "sha256": digest.to_string(), "size": 7});
    platform.put_document("media", &digest.to_string(), &document);
    platform.refuse_events("test.parked", 422, 1);
    let shop = Shop::of(&platform)
        .shipping(&platform)
        .with("[wan.logs]\n", "[wan.logs]\nlevel = \"debug\"\n")
        .with("[site]\n", "[telemetry]\nlevel = \"trace\"\n[site]\n")
        .logging_for_all()
        .start();
    let body = RawValue::from_string(format!("{{\"name\":\"{CUSTOMER}\"}}")).unwrap();
    let push = shop
        .store()
        .orders
        .outbox_push(Lane::Orders, "test.parked", body);
    push.wait().unwrap();
    shop.filled();
    eventually("the order", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    eventually("the poison", || shop.condition(Code::OrderParked));
    eventually("the parked event", || shop.condition(Code::OutboxParked));
    eventually("the missing blob", || {
        (shop.metric("comptoir_media_refused_total") == 1).then_some(())
    });
    let enrolled = Shop::of(&platform).unenrolled().start();
    eventually("the box shows itself", || platform.enrolling());
    assert_eq!(platform.claim(CLAIM_CODE), 200);
    enrolled.filled();
    let kept = std::fs::read_to_string(enrolled.path("state/enrolment.json")).unwrap();
    let kept: Value = serde_json::from_str(kept.split_once('\n').unwrap().1).unwrap();
    println!("{HANDED_OUT}{}", kept["api"]["token"].as_str().unwrap());
    let refused = Shop::of(&platform)
        .with(TOKEN, WRONG)
        .with(KEY, WRONG)
        .start();
    eventually("both refusals", || {
        let detail = refused.condition(Code::Unauthorized)?;
        (detail.contains("pull") && detail.contains("bus")).then_some(())
    });
    nothing_of_it_has_left(&platform);
}
