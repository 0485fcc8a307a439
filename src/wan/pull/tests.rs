//! Pull against a platform that breaks its promises.

use std::io::Write as _;
use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::identity::Secret;
use crate::store::Store;
use crate::wan::credentials::Credentials;
use crate::wan::egress::Egress;
use crate::wan::time::PlatformTime;
use crate::wan::tls_host::{Certificate, TlsHost};

struct Bench {
    pull: Pull,
    store: Store,
    telemetry: Telemetry,
    life: Life,
    host: TlsHost,
    _dir: tempfile::TempDir,
}

/// A platform that answers each request by `answer`, given the request's path and query.
fn bench(mut answer: impl FnMut(&str) -> Vec<u8> + Send + 'static) -> Bench {
    let host = TlsHost::start_with(&Certificate::default(), move |head| {
        answer(head.split(' ').nth(1).unwrap())
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::from_layers(&[]).unwrap();
    config.store.data_dir = dir.path().to_owned();
    config.wan.ca_files = vec![host.ca_file.clone()];
    config.wan.token = Secret::new("token");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let store = Store::open(&config.store, Arc::clone(&clock)).unwrap();
    let telemetry = Telemetry::default();
    let time = PlatformTime::new(Arc::clone(&clock));
    let api = Api::new(
        Egress::new(&config.wan, &time).0.client(FlowId::Api),
        &crate::config::HttpsUrl::parse(&host.url).unwrap(),
        Credentials::from_settings("shop 1", &config.wan),
        time,
    );
    let report = PullReport::new(&telemetry, Arc::clone(&clock));
    Bench {
        pull: Pull::new(api, store.catalogue.clone(), config.wan.pull, report),
        store,
        telemetry,
        life: Life::new(clock),
        host,
        _dir: dir,
    }
}

impl Bench {
    fn step(&mut self) -> Result<Next, StepError> {
        self.pull.step(&self.life)
    }

    fn fails(&mut self) -> String {
        self.step().unwrap_err().to_string()
    }

    fn cursor(&self) -> Option<String> {
        self.store.catalogue.cursor().unwrap()
    }

    fn has(&self, id: &str) -> bool {
        let found = self.store.catalogue.document("a", id).unwrap();
        found.is_some()
    }
}

fn answer(kind: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn snapshot(body: &str) -> Vec<u8> {
    answer(
        "application/x-ndjson",
        "Feed-Cursor: c0\r\n",
        body.as_bytes(),
    )
}

fn page(body: &str) -> Vec<u8> {
    answer("application/json; charset=utf-8", "", body.as_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const TWO: &str = "{\"collection\":\"a\",\"id\":\"1\",\"version\":1,\"data\":{}}\n\
                   {\"collection\":\"a\",\"id\":\"2\",\"version\":1,\"data\":[]}\n";

#[test]
fn what_is_no_whole_snapshot_sets_no_cursor() {
    let cases = [
        (snapshot(TWO), "without its end line, after 2 lines"),
        (
            snapshot(&format!("{TWO}{{\"end\":true,\"count\":3}}\n")),
            "says it has 3 documents, 2 came",
        ),
        (
            answer("application/x-ndjson", "", b"{\"end\":true,\"count\":0}\n"),
            "without Feed-Cursor",
        ),
        (
            answer("text/html", "Feed-Cursor: c0\r\n", b"<html>Login</html>"),
            "text/html where application/x-ndjson was agreed",
        ),
        (
            answer(
                "application/x-ndjson",
                "Feed-Cursor: c0\r\nContent-Encoding: br\r\n",
                b"",
            ),
            "the encoding br was not asked for",
        ),
    ];
    for (bytes, expected) in cases {
        let mut bench = bench(move |_| bytes.clone());
        let error = bench.fails();
        assert!(error.contains(expected), "{error}");
        assert_eq!(bench.cursor(), None);
        let head = bench.host.requests.recv().unwrap();
        assert!(
            head.starts_with("GET /v1/sites/shop%201/snapshot HTTP/1.1\r\n"),
            "{head}"
        );
    }
}

#[test]
fn a_snapshot_with_lines_of_any_shape_is_taken_and_the_bad_ones_are_told() {
    let long = "x".repeat(snapshot::MAX_LINE_BYTES);
    let body = format!(
        "{TWO}\r\nno json\n{{\"collection\":\"a\",\"id\":\"{long}\"}}\n{{\"end\":true,\"count\":4}}"
    );
    let gzipped = gzip(body.as_bytes());
    let headers = "Feed-Cursor: c0\r\nContent-Encoding: gzip\r\n";
    let mut bench = bench(move |_| answer("application/x-ndjson", headers, &gzipped));
    bench.step().unwrap();
    assert_eq!(bench.cursor().as_deref(), Some("c0"));
    assert!(bench.has("1") && bench.has("2"));
    let (_, condition) = bench.telemetry.conditions.list().remove(0);
    assert_eq!(condition.code, "pull.item_refused");
    assert!(
        condition
            .detail
            .starts_with("2 items, the last one: a line of more"),
        "{condition:?}"
    );
}

#[test]
fn bad_items_of_a_page_are_told_and_the_cursor_goes_on() {
    let mut bench = bench(|path| match path {
        path if path.contains("/snapshot") => {
            snapshot(&format!("{TWO}{{\"end\":true,\"count\":2}}\n"))
        }
        _ => page(
            r#"{"items":[{"collection":"a","id":"3","version":"seven","data":{}},
                {"collection":"a","id":"4","version":9,"data":{"x":1}},
                {"collection":"a","id":"1","version":2,"deleted":true}],"next":"c1","caught_up":true}"#,
        ),
    });
    bench.step().unwrap();
    assert_eq!(bench.step().unwrap(), Next::Again);
    assert_eq!(bench.cursor().as_deref(), Some("c1"));
    assert!(bench.has("4") && !bench.has("1") && !bench.has("3"));
    assert!(bench.telemetry.conditions.holds(Code::FeedItemRefused));
    // The same page again does not move the cursor: asking on would never end.
    let error = bench.fails();
    assert!(error.contains("the cursor does not move on"), "{error}");
}

#[test]
fn an_empty_page_that_was_not_held_is_not_asked_in_a_loop() {
    let mut bench = bench(|path| match path {
        path if path.contains("/snapshot") => snapshot("{\"end\":true,\"count\":0}\n"),
        _ => page(r#"{"items":[],"next":"c0","caught_up":true}"#),
    });
    bench.step().unwrap();
    assert_eq!(bench.step().unwrap(), Next::Rest(SHORTEST_POLL));
}

#[test]
fn a_page_too_large_is_asked_again_with_fewer_items() {
    let bomb = gzip(&vec![b' '; MAX_PAGE.as_usize() + 1]);
    let mut bench = bench(move |path| {
        if path.contains("/snapshot") {
            snapshot("{\"end\":true,\"count\":0}\n")
        } else if path.contains("limit=250&") {
            page(r#"{"items":[{"collection":"a","id":"5","version":1,"data":1}],"next":"c1"}"#)
        } else {
            answer("application/json", "Content-Encoding: gzip\r\n", &bomb)
        }
    });
    for _ in 0..4 {
        assert_eq!(bench.step().unwrap(), Next::Again);
    }
    assert!(bench.has("5"));
    // It may have been one large document: the next pages grow again.
    assert_eq!(bench.pull.page_items, 500);
}

#[test]
fn one_change_larger_than_a_page_is_passed_over_by_a_snapshot() {
    let large = vec![b' '; MAX_PAGE.as_usize() + 1];
    let mut bench = bench(move |path| {
        if path.contains("/snapshot") {
            snapshot("{\"end\":true,\"count\":0}\n")
        } else {
            answer("application/json", "", &large)
        }
    });
    bench.step().unwrap();
    bench.pull.page_items = 1;
    bench.step().unwrap();
    assert!(bench.telemetry.conditions.holds(Code::FeedItemRefused));
    bench.step().unwrap();
    let asked: Vec<String> = bench.host.requests.try_iter().collect();
    assert!(asked.last().unwrap().contains("/snapshot"), "{asked:?}");
}

#[test]
fn a_refetch_is_remembered_until_a_snapshot_is_whole() {
    let mut asked = 0;
    let mut bench = bench(move |path| {
        asked += 1;
        match (path.contains("/snapshot"), asked) {
            (true, 3) => snapshot(TWO),
            (true, _) => snapshot(&format!("{TWO}{{\"end\":true,\"count\":2}}\n")),
            (false, _) => b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    });
    bench.step().unwrap();
    bench.step().unwrap();
    assert!(bench.pull.refetch);
    bench.fails();
    assert!(bench.pull.refetch, "the old cursor is not asked again");
    bench.step().unwrap();
    assert!(!bench.pull.refetch);
}
