//! What holds on each port alike: whose path it is, who asks, how much, how slowly, and in which framing.

use std::io::{Read, Write};

use comptoir::config::LanPort;

use super::client::{connect, raw};
use super::served::Served;
use crate::kitchen::wait_for;

/// A path of each port that is answered 200 to the paired device.
const GOOD: &[(LanPort, &str)] = &[
    (LanPort::Front, "/livez"),
    (LanPort::Catalogue, "/v1/changes"),
    (LanPort::Orders, "/v1/orders"),
    (LanPort::Events, "/v1/events?wait_s=0"),
    (LanPort::Support, "/metrics"),
    (LanPort::Support, "/v1/sent"),
];

/// A path of each port, whatever it takes.
const PATHS: &[(LanPort, &str, &str)] = &[
    (LanPort::Front, "GET", "/readyz"),
    (LanPort::Catalogue, "GET", "/v1/documents/products/p1"),
    (LanPort::Orders, "POST", "/v1/orders"),
    (LanPort::Events, "GET", "/v1/events"),
    (LanPort::Media, "GET", "/v1/media/00"),
    (LanPort::Care, "POST", "/v1/heartbeat"),
    (LanPort::Support, "GET", "/v1/checks"),
];

#[test]
fn a_path_is_answered_on_its_port_and_misdirected_on_every_other() {
    let served = Served::start();
    for (port, path) in GOOD {
        assert_eq!(served.get(*port, path).status, 200, "{path}");
        assert_eq!(served.ask(*port, "HEAD", path).send().status, 200, "{path}");
    }
    for (own, method, path) in PATHS {
        for port in LanPort::ALL.into_iter().filter(|port| port != own) {
            let answer = served.ask(port, method, path).send();
            answer.is_problem(421, "wrong-port");
            assert_eq!(
                answer.json()["port"],
                own.number(),
                "{path} on {}",
                port.name()
            );
        }
    }
}

#[test]
fn every_answer_on_every_port_says_which_state_of_the_catalogue_and_how_old() {
    let served = Served::start();
    served.publish(&[("products", "p1", 1, Some("{}"))]);
    let mut seen = std::collections::BTreeSet::new();
    let mut look = |port: LanPort, answer: &super::client::Answer| {
        let what = format!("{} {}", port.name(), answer.status);
        let version = answer.header("comptoir-catalogue-version");
        let age = answer.header("comptoir-catalogue-age");
        assert!(version.is_some_and(|version| !version.is_empty()), "{what}");
        assert!(age.is_some_and(|age| age.parse::<u64>().is_ok()), "{what}");
        seen.insert(answer.status);
    };
    wait_for("the age", || {
        let answer = served.get(LanPort::Front, "/livez");
        answer.header("comptoir-catalogue-age").map(|_| ())
    });
    for (port, path) in GOOD {
        look(*port, &served.get(*port, path));
        look(*port, &served.ask(*port, "HEAD", path).send());
    }
    for (own, method, path) in PATHS {
        for port in LanPort::ALL {
            if port != *own {
                look(port, &served.ask(port, method, path).send());
            }
            look(port, &served.stranger(port, "DELETE", path).send());
        }
        if ![LanPort::Front, LanPort::Support].contains(own) {
            look(*own, &served.stranger(*own, method, path).send());
        }
    }
    for port in LanPort::ALL {
        look(port, &served.get(port, "/v2/nothing"));
    }
    let seen: Vec<_> = seen.into_iter().collect();
    assert_eq!(seen, [200, 401, 404, 405, 421]);
}

#[test]
fn who_has_no_token_or_a_wrong_one_is_told_how_to_get_in() {
    let served = Served::start();
    for (port, method, path) in PATHS {
        if [LanPort::Front, LanPort::Support].contains(port) {
            continue;
        }
        for token in [None, Some("Bearer 00"), Some("Basic YTpi"), Some("Bearer")] {
            let mut request = served.stranger(*port, method, path);
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let answer = request.send();
            answer.is_problem(401, "unauthorized");
            assert!(
                answer
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer")
            );
        }
    }
    let two = served
        .ask(LanPort::Orders, "GET", "/v1/orders")
        .header("authorization", "Bearer 00")
        .send();
    two.is_problem(401, "unauthorized");
}

#[test]
fn a_revoked_device_is_a_stranger_at_once() {
    let served = Served::start();
    assert_eq!(served.get(LanPort::Orders, "/v1/orders").status, 200);
    served
        .store
        .devices
        .revoke(&served.device_id)
        .wait()
        .unwrap();
    served
        .get(LanPort::Orders, "/v1/orders")
        .is_problem(401, "unauthorized");
}

#[test]
fn unknown_paths_and_wrong_methods_are_named() {
    let served = Served::start();
    for port in LanPort::ALL {
        served.get(port, "/v2/nothing").is_problem(404, "not-found");
        served
            .get(port, "/../etc/passwd")
            .is_problem(404, "not-found");
    }
    for (port, _, path) in PATHS {
        let answer = served.ask(*port, "DELETE", path).send();
        answer.is_problem(405, "method-not-allowed");
        assert!(answer.header("allow").is_some());
    }
}

#[test]
fn bodies_have_a_bound_and_the_answer_arrives_though_the_sender_still_sends() {
    let served = Served::start();
    for (port, path, max) in [
        (LanPort::Orders, "/v1/orders", 256 * 1024),
        (LanPort::Care, "/v1/heartbeat", 64 * 1024),
        (LanPort::Care, "/v1/pair", 64 * 1024),
    ] {
        let over = served
            .ask(port, "POST", path)
            .header("idempotency-key", "k")
            .body(vec![b' '; max + 1])
            .send();
        over.is_problem(413, "too-large");
        assert_eq!(over.json()["max_bytes"], max);
        let within = served
            .ask(port, "POST", path)
            .header("idempotency-key", "k")
            .body(vec![b' '; max])
            .send();
        assert_ne!(within.status, 413);
    }
}

#[test]
fn cut_off_requests_pipelined_rubbish_and_bare_line_feeds_harm_nobody() {
    let served = Served::start();
    for port in LanPort::ALL {
        let addr = served.addr(port);
        for bytes in [
            &b"GET"[..],
            b"GET /livez HTTP/1.1\r\nhost",
            b"POST /v1/orders HTTP/1.1\r\ncontent-length: 100\r\n\r\n{\"order",
        ] {
            let mut stream = connect(addr);
            stream.write_all(bytes).unwrap();
        }
        let answer = raw(
            addr,
            b"GET /nothing HTTP/1.1\r\n\r\n\xff\xfe\x00rubbish\r\n\r\n",
        );
        assert_eq!(answer.status, 404);
        assert!(String::from_utf8_lossy(&answer.body).contains("HTTP/1.1 400"));
        let answer = raw(addr, b"GET /nothing HTTP/1.1\nconnection: close\n\n");
        assert_eq!(answer.status, 404);
        assert_eq!(raw(addr, b"GET /nothing HTTP/1.0\r\n\r\n").status, 404);
    }
    for (port, path) in GOOD {
        assert_eq!(served.get(*port, path).status, 200);
    }
}

#[test]
fn a_client_slower_than_the_header_deadline_is_cut_and_counted() {
    let served = Served::with("[lan.limits]\nheader_timeout_s = 1\nidle_timeout_s = 30\n");
    let addr = served.addr(LanPort::Catalogue);
    let started = std::time::Instant::now();
    let mut stream = connect(addr);
    let mut dripped = 0;
    // A byte every 100 ms: never idle, never complete.
    while stream.write_all(b"G").is_ok() {
        dripped += 1;
        assert!(dripped < 200, "nobody cut it");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(started.elapsed().as_millis() >= 1000);
    let line = "comptoir_lan_connections_cut_total{port=\"catalogue\",deadline=\"header\"} 1";
    wait_for(line, || {
        let metrics = served.get(LanPort::Support, "/metrics");
        let text = String::from_utf8(metrics.body).unwrap();
        text.contains(line).then_some(())
    });
}

#[test]
fn the_end_closes_the_ports_in_good_order() {
    let mut served = Served::start();
    let addr = served.addr(LanPort::Events);
    let mut stream = served.ask(LanPort::Events, "GET", "/v1/events").open();
    let mut first = [0; 16];
    stream.read_exact(&mut first).unwrap();
    served.end();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        rest.ends_with("\r\n0\r\n\r\n"),
        "the stream was not ended, but cut: {rest}"
    );
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn clients_that_send_large_bodies_slowly_do_not_hold_up_small_ones() {
    let served = Served::with("[lan.limits]\nrequest_timeout_s = 10\n");
    let large = || {
        let mut stream = served
            .ask(LanPort::Orders, "POST", "/v1/orders")
            .header("idempotency-key", "k")
            .header("content-length", "200000")
            .open();
        stream.write_all(&[b' '; 40_000]).unwrap();
        stream
    };
    let held: Vec<_> = (0..40).map(|_| large()).collect();
    let order =
        serde_json::json!({"order_id": "o1", "placed_at": "2026-05-01T10:00:00Z", "lines": []});
    let small = served
        .ask(LanPort::Orders, "POST", "/v1/orders")
        .header("idempotency-key", "k1")
        .json(&order)
        .send();
    assert_eq!(small.status, 201);
    for stream in &held {
        stream.set_nonblocking(true).unwrap();
        let answered = stream.peek(&mut [0]);
        assert!(answered.is_err(), "it waited for the large ones");
        stream.set_nonblocking(false).unwrap();
    }
    for mut stream in held {
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"HTTP/1.1 408");
    }
}
