//! Port 8002.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use comptoir::config::LanPort;
use serde_json::json;

use super::served::Served;

const PORT: LanPort = LanPort::Events;

/// A reader of an event stream.
struct Stream(BufReader<TcpStream>);

#[derive(Debug, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: String,
}

impl Stream {
    fn open(served: &Served, last: Option<&str>) -> Self {
        let mut request = served.ask(PORT, "GET", "/v1/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let mut reader = BufReader::new(request.open());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
            assert!(!line.to_lowercase().starts_with("content-length"));
        }
        Self(reader)
    }

    /// The next event; chunk sizes, comments and blank lines are passed over.
    fn next(&mut self) -> Event {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            let line = line.trim_end();
            if let Some(value) = line.strip_prefix("id: ") {
                id = value.to_owned();
            } else if let Some(value) = line.strip_prefix("event: ") {
                name = value.to_owned();
            } else if let Some(value) = line.strip_prefix("data: ") {
                return Event {
                    id,
                    name,
                    data: value.to_owned(),
                };
            }
        }
    }
}

#[test]
fn a_reader_hears_of_changes_and_resumes_where_it_stopped() {
    let served = Served::start();
    let mut stream = Stream::open(&served, None);
    assert_eq!(stream.next().name, "hello");
    served.publish(&[("products", "p1", 1, Some("{}"))]);
    let first = stream.next();
    assert_eq!(first.name, "catalogue");
    drop(stream);

    served.publish(&[("products", "p2", 1, Some("{}"))]);
    let order = json!({"order_id": "o1", "placed_at": "2026-05-01T10:00:00Z", "lines": []});
    let answer = served
        .ask(LanPort::Orders, "POST", "/v1/orders")
        .header("idempotency-key", "k")
        .json(&order)
        .send();
    assert_eq!(answer.status, 201);
    let mut stream = Stream::open(&served, Some(&first.id));
    assert_eq!(stream.next().name, "catalogue");
    let event = stream.next();
    assert_eq!(event.name, "order");
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!(
        (data["order_id"].as_str(), data["state"].as_str()),
        (Some("o1"), Some("received"))
    );
    assert!(
        !event.data.contains("lines"),
        "events carry no customer's data"
    );
}

#[test]
fn a_reader_that_missed_too_much_or_comes_from_before_a_restart_is_reset() {
    let served = Served::start();
    for last in ["00000000-1", "rubbish", "ffffffff-99999999999999999999"] {
        let mut stream = Stream::open(&served, Some(last));
        let reset = stream.next();
        assert_eq!(reset.name, "reset", "{last}");
        served.publish(&[("products", last, 1, Some("{}"))]);
        assert_eq!(stream.next().name, "catalogue");
    }
}

#[test]
fn a_long_poll_answers_at_once_when_there_is_something_and_waits_otherwise() {
    let served = Served::start();
    let now = served.get(PORT, "/v1/events?wait_s=0").json();
    assert_eq!((&now["items"], &now["reset"]), (&json!([]), &json!(false)));
    let after = now["next"].as_str().unwrap().to_owned();
    let answer = std::thread::scope(|scope| {
        let path = format!("/v1/events?wait_s=30&after={after}");
        let waiting = scope.spawn({
            let served = &served;
            move || served.get(PORT, &path).json()
        });
        served.publish(&[("products", "p1", 1, Some("{}"))]);
        waiting.join().unwrap()
    });
    assert_eq!(answer["items"][0]["event"], "catalogue");
    assert_eq!(answer["items"][0]["id"], answer["next"]);
    let again = served
        .get(PORT, &format!("/v1/events?after={after}"))
        .json();
    assert_eq!(again["items"], answer["items"]);
    let lost = served.get(PORT, "/v1/events?after=rubbish").json();
    assert_eq!(
        (&lost["reset"], &lost["next"]),
        (&json!(true), &answer["next"])
    );
    for wait in ["61", "-1", "x"] {
        served
            .get(PORT, &format!("/v1/events?wait_s={wait}"))
            .is_problem(400, "bad-request");
    }
}

#[test]
fn the_streams_have_a_bound_and_a_place_is_given_back() {
    // More connections than a source may have otherwise.
    let served = Served::with("[lan.limits]\nmax_connections = 2048\n");
    let mut streams: Vec<_> = (0..256).map(|_| Stream::open(&served, None)).collect();
    let refused = served.get(PORT, "/v1/events");
    refused.is_problem(503, "busy");
    assert!(refused.header("retry-after").is_some());
    streams.pop();
    crate::kitchen::wait_for("a free place", || {
        (served.get(PORT, "/v1/events?wait_s=0").status == 200).then_some(())
    });
}

#[test]
fn a_reader_that_does_not_read_costs_nothing_and_is_dropped() {
    let served = Served::start();
    let stream = served.ask(PORT, "GET", "/v1/events").open_narrow();
    // More than the ring, the pieces on their way and the socket's buffers hold.
    let dropped = || {
        let text = String::from_utf8(served.get(LanPort::Support, "/metrics").body).unwrap();
        text.contains("comptoir_lan_streams_dropped_total{port=\"events\"} 1")
            .then_some(())
    };
    let mut version = 0;
    crate::kitchen::wait_for("the drop", || {
        for _ in 0..200 {
            version += 1;
            served.publish(&[("products", "p1", version, Some("{}"))]);
        }
        dropped()
    });
    drop(stream);
}
