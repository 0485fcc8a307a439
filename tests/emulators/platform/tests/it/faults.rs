//! What goes wrong on command.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ureq::http::Request;

use crate::emulator::Emulator;

const EVENT: &str = r#"{"kind":"k","occurred_at":"2026-01-02T03:04:05Z","body":{}}"#;

fn snapshot_status(emulator: &Emulator) -> Result<u16, String> {
    emulator
        .api("GET", "/snapshot", &[], "")
        .map(|answer| answer.status)
        .map_err(|error| error.to_string())
}

#[test]
fn offline_refuses_new_and_resets_open_connections_until_online() {
    let emulator = Emulator::start(&[]);
    assert_eq!(snapshot_status(&emulator), Ok(200));
    let addr = emulator.ready["api"].as_str().unwrap();
    let mut open = TcpStream::connect(addr).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();

    emulator.control("PUT", "/offline", r#"{"offline":true}"#);
    assert_eq!(
        TcpStream::connect(addr).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    // Reset, or closed if its handshake had not begun.
    assert!(matches!(open.read(&mut [0; 16]), Ok(0) | Err(_)));
    assert!(snapshot_status(&emulator).is_err());
    // The control API stays.
    assert_eq!(emulator.control("GET", "/state", "")["offline"], true);

    emulator.control("PUT", "/offline", r#"{"offline":false}"#);
    assert_eq!(snapshot_status(&emulator), Ok(200));
}

#[test]
fn each_fault_hits_as_often_as_it_was_armed() {
    let emulator = Emulator::start(&[]);
    emulator.control(
        "POST",
        "/faults",
        r#"{"fault":"status:503","flow":"api","times":2}"#,
    );
    assert_eq!(snapshot_status(&emulator), Ok(503));
    assert_eq!(snapshot_status(&emulator), Ok(503));
    assert_eq!(snapshot_status(&emulator), Ok(200));

    emulator.control("POST", "/faults", r#"{"fault":"refuse","flow":"api"}"#);
    assert!(snapshot_status(&emulator).is_err());
    assert_eq!(snapshot_status(&emulator), Ok(200));

    emulator.control(
        "POST",
        "/faults",
        r#"{"fault":"truncate_after_bytes:5","flow":"api"}"#,
    );
    assert!(snapshot_status(&emulator).is_err());
    assert_eq!(snapshot_status(&emulator), Ok(200));

    let requests = emulator.control("GET", "/requests", "");
    let statuses: Vec<_> = requests["last"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].clone())
        .collect();
    assert!(
        statuses.contains(&503.into()) && statuses.contains(&200.into()),
        "{statuses:?}"
    );
}

#[test]
fn slow_body_takes_its_time_and_arrives_whole() {
    let emulator = Emulator::start(&[]);
    emulator.control(
        "PUT",
        "/documents/products/a",
        format!("{{\"text\":\"{}\"}}", "x".repeat(900)),
    );
    let (plan, _) = emulator.snapshot();
    let path = format!(
        "/snapshot/{}/descriptions",
        plan["snapshot"].as_str().unwrap()
    );
    let whole = emulator.api("GET", &path, &[], "").unwrap().body;
    emulator.control("POST", "/faults", r#"{"fault":"slow:1000","flow":"api"}"#);
    let started = Instant::now();
    assert_eq!(emulator.api("GET", &path, &[], "").unwrap().body, whole);
    assert!(
        started.elapsed() > Duration::from_millis(700),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn stalled_request_and_stalled_body_are_never_finished() {
    let emulator = Emulator::start(&[]);
    emulator.control("PUT", "/blobs/c/x", "0123456789");
    for fault in ["stall", "stall_after_bytes:4"] {
        emulator.control(
            "POST",
            "/faults",
            format!(r#"{{"fault":"{fault}","flow":"blob"}}"#),
        );
        let outcome = emulator.send_within(Duration::from_secs(3), blob_request(&emulator));
        assert!(
            matches!(outcome, Err(ureq::Error::Timeout(_))),
            "{fault}: {outcome:?}"
        );
        assert_eq!(
            emulator.send(blob_request(&emulator)).unwrap().body,
            "0123456789"
        );
    }
}

fn blob_request(emulator: &Emulator) -> Request<String> {
    Request::get(format!("{}/c/x", emulator.url("blob")))
        .body(String::new())
        .unwrap()
}

#[test]
fn cut_body_arrives_up_to_the_cut() {
    let emulator = Emulator::start(&[]);
    emulator.control("PUT", "/blobs/c/x", "0123456789");
    emulator.control(
        "POST",
        "/faults",
        r#"{"fault":"truncate_after_bytes:4","flow":"blob"}"#,
    );
    let mut response = emulator.open(blob_request(&emulator)).unwrap();
    let mut got = String::new();
    let outcome = response.body_mut().as_reader().read_to_string(&mut got);
    assert!(outcome.is_err());
    assert_eq!(
        (
            got.as_str(),
            response.headers()["content-length"].to_str().unwrap()
        ),
        ("0123", "10")
    );
}

#[test]
fn date_follows_the_clock_that_was_set() {
    let emulator = Emulator::start(&[]);
    emulator.control("PUT", "/clock", r#"{"offset_s":-315360000}"#);
    let date = emulator
        .api("GET", "/snapshot", &[], "")
        .unwrap()
        .header("date")
        .to_owned();
    let year: i64 = date.split(' ').nth(3).unwrap().parse().unwrap();
    let now_year = i64::from(
        jiff::Timestamp::now()
            .to_zoned(jiff::tz::TimeZone::UTC)
            .year(),
    );
    assert!((9..=11).contains(&(now_year - year)), "{date}");
}

#[test]
fn lost_answer_leaves_the_event_stored() {
    let emulator = Emulator::start(&[]);
    emulator.control(
        "POST",
        "/faults",
        r#"{"fault":"lose_answer","flow":"api","method":"POST"}"#,
    );
    assert!(
        emulator
            .api("POST", "/events", &[("Idempotency-Key", "k")], EVENT)
            .is_err()
    );
    assert_eq!(
        emulator.control("GET", "/events?wait_s=5", "")["events"][0]["key"],
        "k"
    );
    assert_eq!(
        emulator
            .api("POST", "/events", &[("Idempotency-Key", "k")], EVENT)
            .unwrap()
            .status,
        200
    );
}
