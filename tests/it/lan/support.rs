//! Port 8005.

use comptoir::config::LanPort;
use serde_json::json;

use super::served::Served;

const PORT: LanPort = LanPort::Support;

#[test]
fn metrics_count_what_was_asked() {
    let served = Served::start();
    served.publish(&[("products", "p1", 1, Some("{}"))]);
    for _ in 0..3 {
        served.get(LanPort::Catalogue, "/v1/documents/products/p1");
    }
    served.get(LanPort::Catalogue, "/v1/documents/products/p2");
    let answer = served.stranger(PORT, "GET", "/metrics").send();
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "comptoir_lan_requests_total{port=\"catalogue\"} 4",
        "comptoir_lan_responses_total{port=\"catalogue\",class=\"2xx\"} 3",
        "comptoir_lan_responses_total{port=\"catalogue\",class=\"4xx\"} 1",
        "comptoir_documents{collection=\"products\"} 1",
        "comptoir_devices 1",
        "comptoir_open_orders{state=\"received\"} 0",
        "comptoir_outbox_waiting{lane=\"orders\"} 0",
    ] {
        assert!(
            text.contains(&format!("\n{line}\n")),
            "{line} is not in\n{text}"
        );
    }
    assert!(!text.contains(&served.token));
}

#[test]
fn the_checks_are_those_of_the_self_diagnosis() {
    let served = Served::start();
    let answer = served.stranger(PORT, "GET", "/v1/checks").send();
    assert_eq!(
        answer.json(),
        json!([{"name": "store.open", "verdict": "ok"}])
    );
}
