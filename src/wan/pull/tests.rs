//! Pull against a platform that breaks its promises.

mod order;

use std::io::Write as _;
use std::sync::Arc;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::identity::Secret;
use crate::store::Store;
use crate::telemetry::{Code, Telemetry};
use crate::wan::contract::FlowId;
use crate::wan::credentials::Credentials;
use crate::wan::egress::Egress;
use crate::wan::snapshot;
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
    bench_of_heads(move |head| answer(head.split(' ').nth(1).unwrap()))
}

/// The same, given the whole head.
fn bench_of_heads(mut answer: impl FnMut(&str) -> Vec<u8> + Send + 'static) -> Bench {
    let host = TlsHost::start_with(&Certificate::default(), move |head| {
        if head.contains("/checksums ") {
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        }
        answer(head)
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::from_layers(&[]).unwrap();
    config.store.data_dir = dir.path().to_owned();
    config.wan.ca_files = vec![host.ca_file.clone()];
    config.wan.api_url = host.https();
    config.wan.token = Secret::new("token");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let store = Store::open(&config.store, Arc::clone(&clock)).unwrap();
    let telemetry = Telemetry::default();
    let time = PlatformTime::new(Arc::clone(&clock));
    let api = Api::new(
        Egress::new(&config.wan, &time).0.client(FlowId::Api),
        &config.wan.api_url,
        Credentials::from_settings("shop 1", &config.wan),
        time,
    );
    let report = PullReport::new(&telemetry, store.catalogue.clone(), Arc::clone(&clock));
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

    fn steps(&mut self, count: u32) {
        for _ in 0..count {
            self.step().unwrap();
        }
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

/// The plan of a snapshot of one part, or what `body` says as the part.
fn snapshot(path: &str, body: &str) -> Vec<u8> {
    if path.ends_with("/snapshot") {
        page(PLAN)
    } else {
        part("\"t1\"", body.as_bytes())
    }
}

const PLAN: &str = r#"{"snapshot":"s1","cursor":"c0","parts":[{"part":"all","class":"descriptions","documents":2,"bytes":9}],"new":1}"#;

fn part(etag: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("ETag: {etag}\r\n");
    answer("application/x-ndjson", &headers, body)
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
    let lines = "application/x-ndjson";
    let cases = [
        (
            part("\"t\"", TWO.as_bytes()),
            "without its end line, after 2 lines",
        ),
        (
            part(
                "\"t\"",
                format!("{TWO}{{\"end\":true,\"count\":3}}\n").as_bytes(),
            ),
            "says it has 3 documents, 2 came",
        ),
        (
            answer("text/html", "", b"<html>Login</html>"),
            "text/html where application/x-ndjson was agreed",
        ),
        (
            answer(lines, "Content-Encoding: br\r\n", b""),
            "the encoding br was not asked for",
        ),
    ];
    for (bytes, expected) in cases {
        let mut bench = bench(move |path| match path {
            path if path.ends_with("/snapshot") => page(PLAN),
            _ => bytes.clone(),
        });
        bench.step().unwrap();
        let error = bench.fails();
        assert!(error.contains(expected), "{error}");
        assert_eq!(bench.cursor(), None);
        let head = bench.host.requests.recv().unwrap();
        assert!(
            head.starts_with("GET /v1/sites/shop%201/snapshot HTTP/1.1\r\n"),
            "{head}"
        );
    }
    for plan in ["{}", "<html>", r#"{"snapshot":"","cursor":"c","parts":[]}"#] {
        let mut bench = bench(move |_| page(plan));
        let error = bench.fails();
        assert!(error.contains("no plan of a snapshot"), "{error}");
    }
}

#[test]
fn a_snapshot_with_lines_of_any_shape_is_taken_and_the_bad_ones_are_told() {
    let long = "x".repeat(snapshot::MAX_LINE_BYTES);
    let body = format!(
        "{TWO}\r\nno json\n{{\"collection\":\"a\",\"id\":\"{long}\"}}\n{{\"end\":true,\"count\":4}}"
    );
    let gzipped = gzip(body.as_bytes());
    let headers = "ETag: \"t1\"\r\nContent-Encoding: gzip\r\n";
    let mut bench = bench(move |path| match path {
        path if path.ends_with("/snapshot") => page(PLAN),
        _ => answer("application/x-ndjson", headers, &gzipped),
    });
    bench.steps(3);
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
    let aside = bench.store.catalogue.aside().unwrap();
    assert_eq!(aside.len(), 2);
    assert_eq!(aside[1].head, b"no json");
}

/// What the platform sends of `body` for the range a request asks for.
fn ranged(head: &str, etag: &str, body: &[u8]) -> Vec<u8> {
    let wanted = head.lines().find_map(|line| {
        let from = line.to_ascii_lowercase();
        from.strip_prefix("range: bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let Some(from) = wanted.filter(|_| head.contains(etag)) else {
        return part(etag, body);
    };
    let rest = &body[from..];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Type: application/x-ndjson\r\nETag: {etag}\r\n\
         Content-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        body.len() - 1,
        body.len(),
        rest.len()
    );
    [head.as_bytes(), rest].concat()
}

/// The same, of which the connection breaks off after `cut` bytes of the body.
fn cut(answer: Vec<u8>, cut: usize) -> Vec<u8> {
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let body = &answer[head + 4..];
    if cut >= body.len() {
        return answer;
    }
    [
        &answer[..head],
        b"\r\nConnection: close\r\n\r\n",
        &body[..cut],
    ]
    .concat()
}

#[test]
fn a_part_goes_on_at_the_byte_wherever_it_was_cut() {
    let whole = format!("{TWO}no json\n{{\"end\":true,\"count\":3}}\n");
    for at in (0..whole.len()).step_by(4) {
        let body = whole.clone();
        let mut first = true;
        let mut bench = bench_of_heads(move |head| {
            if head.contains("/snapshot HTTP") {
                return page(PLAN);
            }
            let answer = ranged(head, "\"t1\"", body.as_bytes());
            let at = if std::mem::take(&mut first) {
                at
            } else {
                usize::MAX
            };
            cut(answer, at)
        });
        bench.step().unwrap();
        bench.fails();
        let kept = bench
            .store
            .catalogue
            .running_snapshot()
            .unwrap()
            .unwrap()
            .place;
        let lines = whole[..at].matches('\n').count() as u64;
        // What was read whole is kept, but for a bad line and the one before it: a cut line must not be told as bad.
        assert!(
            kept.offset <= at as u64 && kept.lines + 2 >= lines,
            "{at}: {kept:?}"
        );
        bench.steps(2);
        assert_eq!(bench.cursor().as_deref(), Some("c0"), "cut at {at}");
        assert!(bench.has("1") && bench.has("2"));
        let asked: Vec<String> = bench.host.requests.try_iter().collect();
        let range = format!("range: bytes={}-", kept.offset);
        assert_eq!(
            asked[2].to_ascii_lowercase().contains(&range),
            kept.offset > 0
        );
        let feed = bench.store.catalogue.feed_end().unwrap().to_string();
        assert!(feed.ends_with("-2"), "each document once: {feed}");
    }
}

#[test]
fn a_network_that_drops_ranges_gives_the_whole_part_and_what_is_kept_is_passed_over() {
    let whole = format!("{TWO}{{\"end\":true,\"count\":2}}\n");
    let cut_at = TWO.len() + 3;
    let mut first = true;
    let mut bench = bench(move |path| {
        let answer = snapshot(path, &whole);
        let hit = !path.ends_with("/snapshot") && std::mem::take(&mut first);
        cut(answer, if hit { cut_at } else { usize::MAX })
    });
    bench.step().unwrap();
    bench.fails();
    bench.steps(2);
    assert_eq!(bench.cursor().as_deref(), Some("c0"));
}

#[test]
fn a_part_that_is_another_one_begins_the_snapshot_anew_and_says_so() {
    let gone = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_vec();
    let other = part("\"t2\"", TWO.as_bytes());
    for second in [gone, other] {
        let whole = format!("{TWO}{{\"end\":true,\"count\":2}}\n");
        let mut parts = 0;
        let mut bench = bench(move |path| {
            if path.ends_with("/snapshot") {
                return page(PLAN);
            }
            parts += 1;
            match parts {
                1 => cut(part("\"t1\"", whole.as_bytes()), TWO.len() + 3),
                2 => second.clone(),
                _ => part("\"t3\"", whole.as_bytes()),
            }
        });
        bench.step().unwrap();
        bench.fails();
        let error = bench.fails();
        assert!(error.contains("the snapshot begins anew"), "{error}");
        assert!(bench.has("1"), "what came is served");
        bench.steps(3);
        assert_eq!(bench.cursor().as_deref(), Some("c0"));
        let metrics = bench.telemetry.metrics.render();
        assert!(
            metrics.contains("comptoir_pull_snapshots_changed_total 1"),
            "{metrics}"
        );
    }
}

#[test]
fn a_platform_that_prepares_its_snapshot_is_asked_later() {
    let waits = b"HTTP/1.1 202 Accepted\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
    let mut bench = bench(move |_| waits.to_vec());
    assert_eq!(bench.step().unwrap(), Next::Rest(Duration::from_secs(7)));
}

#[test]
fn what_is_urgent_overtakes_while_there_is_much_to_catch_up() {
    let mut bench = bench(|path| {
        if path.contains("/snapshot") {
            return snapshot(path, "{\"end\":true,\"count\":0}\n");
        }
        if path.contains("class=prices") {
            assert!(path.contains("cursor=c1&"), "{path}");
            return page(
                r#"{"items":[{"collection":"a","id":"price","version":5,"data":{}}],"next":"c9","caught_up":true}"#,
            );
        }
        page(match path {
            path if path.contains("cursor=c0&") => {
                r#"{"items":[{"collection":"a","id":"1","version":1,"data":{}}],"next":"c1","caught_up":false}"#
            }
            _ => {
                r#"{"items":[{"collection":"a","id":"price","version":4,"data":{}}],"next":"c2","caught_up":true}"#
            }
        })
    });
    bench.steps(4);
    assert!(bench.has("price"), "before its turn");
    assert_eq!(bench.cursor().as_deref(), Some("c1"));
    bench.step().unwrap();
    assert_eq!(bench.cursor().as_deref(), Some("c2"));
    let price = bench
        .store
        .catalogue
        .document("a", "price")
        .unwrap()
        .unwrap();
    assert_eq!(
        price.version, 5,
        "the older change came after the newer one"
    );
    assert!(!bench.pull.ahead.is_on());
}

#[test]
fn bad_items_of_a_page_are_told_and_the_cursor_goes_on() {
    let mut bench = bench(|path| match path {
        path if path.contains("/snapshot") => {
            snapshot(path, &format!("{TWO}{{\"end\":true,\"count\":2}}\n"))
        }
        _ => page(
            r#"{"items":[{"collection":"a","id":"3","version":"seven","data":{}},
                {"collection":"a","id":"4","version":9,"data":{"x":1}},
                {"collection":"a","id":"1","version":2,"deleted":true}],"next":"c1","caught_up":true}"#,
        ),
    });
    bench.steps(3);
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
        path if path.contains("/snapshot") => snapshot(path, "{\"end\":true,\"count\":0}\n"),
        _ => page(r#"{"items":[],"next":"c0","caught_up":true}"#),
    });
    // Plan, part, end; the first page shows that all is caught up, and the checksums may be looked at.
    bench.steps(4);
    assert_eq!(bench.step().unwrap(), Next::Rest(SHORTEST_POLL));
}

#[test]
fn a_page_too_large_is_asked_again_with_fewer_items() {
    let bomb = gzip(&vec![b' '; MAX_PAGE.as_usize() + 1]);
    let mut bench = bench(move |path| {
        if path.contains("/snapshot") {
            snapshot(path, "{\"end\":true,\"count\":0}\n")
        } else if path.contains("limit=250&") {
            page(r#"{"items":[{"collection":"a","id":"5","version":1,"data":1}],"next":"c1"}"#)
        } else {
            answer("application/json", "Content-Encoding: gzip\r\n", &bomb)
        }
    });
    for _ in 0..6 {
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
            snapshot(path, "{\"end\":true,\"count\":0}\n")
        } else {
            answer("application/json", "", &large)
        }
    });
    bench.steps(3);
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
            (true, 5) => snapshot(path, TWO),
            (true, _) => snapshot(path, &format!("{TWO}{{\"end\":true,\"count\":2}}\n")),
            (false, _) => b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    });
    bench.steps(4);
    assert!(bench.pull.refetch);
    bench.steps(1);
    bench.fails();
    assert!(bench.pull.refetch, "the old cursor is not asked again");
    bench.steps(2);
    assert!(!bench.pull.refetch);
}
