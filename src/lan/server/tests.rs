//! Clients of every kind, on real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::*;
use crate::config::LanPort;
use crate::lan::answer::{Answer, Body, typed};
use crate::lan::request::Ask;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Fixture;

impl Service for Fixture {
    async fn answer(&self, _port: LanPort, mut ask: Ask) -> Answer {
        match ask.head.uri.path() {
            "/panic" => panic!("as the test wants"),
            "/never" => std::future::pending().await,
            "/echo" => match ask.body().await {
                Ok(body) => typed(StatusCode::OK, "text/plain", body),
                Err(problem) => problem.into_answer("/echo"),
            },
            "/big" => Answer::new(Body::bytes(vec![b'x'; 64 << 20])),
            _ => typed(StatusCode::OK, "text/plain", "hello"),
        }
    }

    fn stamp(&self) -> HeaderMap {
        HeaderMap::from_iter([(STAMP, HeaderValue::from_static("seen"))])
    }
}

/// What the fixture stamps on its answers.
const STAMP: HeaderName = HeaderName::from_static("x-stamp");

struct Running {
    addr: SocketAddr,
    shutdown: Shutdown,
    probe: LoopProbe,
    count: PortCount,
    task: tokio::task::JoinHandle<()>,
}

const LIMITS: Limits = Limits {
    connections: 4,
    per_source: 3,
    header: Duration::from_millis(300),
    idle: Duration::from_millis(1500),
    request: Duration::from_millis(500),
    stall: Duration::from_millis(300),
    head_bytes: 8192,
    body_bytes: 1000,
};

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = Shutdown::default();
    let count = PortCount::of(LanPort::Front, &Metrics::default());
    let port = Port::new(LanPort::Front, LIMITS, count.clone());
    let (run, probe) = serve(listener, port, Fixture, shutdown.clone());
    Running {
        addr,
        shutdown,
        probe,
        count,
        task: tokio::spawn(run),
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// From 127.0.0.`last`: another source.
    async fn connect_from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(self.addr).await.unwrap()
    }

    /// Sends `bytes` and reads until the server closes.
    async fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    // A reset after the answer is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got))
        .await
        .expect("the server closes in time");
    String::from_utf8_lossy(&got).into_owned()
}

/// Reads one answer with a content-length.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&got);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap()
                .parse()
                .unwrap();
            if body.len() >= length {
                return text.into_owned();
            }
        }
        let n = timeout(PATIENCE, stream.read(&mut piece))
            .await
            .unwrap()
            .unwrap();
        assert!(n > 0, "closed after {text:?}");
        got.extend_from_slice(&piece[..n]);
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: box\r\n\r\n";
const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_request_after_request_also_pipelined() {
    let server = start().await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(HELLO).await.unwrap();
        assert!(read_answer(&mut stream).await.ends_with("hello"));
    }
    let three = server.talk(&[HELLO, HELLO, LAST].concat()).await;
    assert_eq!(three.matches("HTTP/1.1 200").count(), 3);
    assert_eq!(server.count.requests.value(), 6);
}

#[tokio::test]
async fn rubbish_after_a_request_gets_its_own_refusal_and_ends_the_connection() {
    let server = start().await;
    let answer = server
        .talk(&[HELLO, b"\x00\x01rubbish\r\n\r\n"].concat())
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
    assert!(server.talk(LAST).await.contains("hello"));
}

#[tokio::test]
async fn what_is_no_http_1_1_is_refused_and_the_port_goes_on() {
    let server = start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\nabc",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
    ] {
        let answer = server.talk(bytes).await;
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {answer}"
        );
    }
    assert!(server.talk(LAST).await.contains("hello"));
    until("connections end", || server.count.connections.value() == 0).await;
}

#[tokio::test]
async fn bare_line_feeds_end_lines_as_rfc_9112_allows() {
    let server = start().await;
    let answer = server
        .talk(b"GET / HTTP/1.1\nhost: box\nconnection: close\n\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_431() {
    let server = start().await;
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    let answer = server.talk(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    let answer = server.talk(many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_body_within_the_bound_is_read_and_one_above_is_413() {
    let server = start().await;
    let post = |length: usize| {
        format!(
            "POST /echo HTTP/1.1\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{}",
            "b".repeat(length)
        )
    };
    assert!(
        server
            .talk(post(1000).as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        server
            .talk(post(1001).as_bytes())
            .await
            .starts_with("HTTP/1.1 413")
    );
    assert!(
        server
            .talk(post(900_000).as_bytes())
            .await
            .starts_with("HTTP/1.1 413")
    );
    let chunked = format!(
        "POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        "fa\r\n".to_owned() + &"c".repeat(250) + "\r\n"
    );
    let over = chunked.replace(
        "0\r\n\r\n",
        &("fa\r\n".to_owned() + &"c".repeat(250) + "\r\n").repeat(4),
    ) + "0\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(chunked.as_bytes()).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert!(
        server
            .talk(over.as_bytes())
            .await
            .starts_with("HTTP/1.1 413")
    );
}

#[tokio::test]
async fn a_silent_client_is_cut_at_the_idle_deadline() {
    let server = start().await;
    let started = Instant::now();
    assert_eq!(server.talk(b"").await, "");
    assert!(started.elapsed() >= LIMITS.idle);
    // Between requests too.
    let mut stream = server.connect().await;
    stream.write_all(HELLO).await.unwrap();
    read_answer(&mut stream).await;
    let started = Instant::now();
    assert_eq!(read_to_end(&mut stream).await, "");
    let waited = started.elapsed();
    assert!(
        waited >= LIMITS.idle - Duration::from_millis(50),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_client_that_drips_its_head_is_cut_at_the_header_deadline() {
    let server = start().await;
    for first in [&b""[..], HELLO] {
        let (mut reader, mut writer) = server.connect().await.into_split();
        if !first.is_empty() {
            writer.write_all(first).await.unwrap();
            let mut piece = [0; 1024];
            assert!(reader.read(&mut piece).await.unwrap() > 0);
        }
        let drip = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nhost: "
                .iter()
                .chain(std::iter::repeat(&b'x'))
            {
                if writer.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let started = Instant::now();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, reader.read_to_end(&mut rest))
            .await
            .unwrap();
        let took = started.elapsed();
        assert!(
            took >= LIMITS.header - Duration::from_millis(50),
            "{took:?}"
        );
        assert!(
            took < LIMITS.idle,
            "the header deadline, not the idle one: {took:?}"
        );
        timeout(PATIENCE, drip).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_body_that_never_ends_and_an_answer_that_never_comes_are_408() {
    let server = start().await;
    let answer = server
        .talk(b"POST /echo HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = server.talk(b"GET /never HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn every_answer_is_stamped_whoever_makes_it() {
    let server = start().await;
    let large = b"POST /echo HTTP/1.1\r\nconnection: close\r\ncontent-length: 1001\r\n\r\n";
    let large = [&large[..], &[b'x'; 1001]].concat();
    for (request, status) in [
        (LAST, 200),
        (&b"GET /never HTTP/1.1\r\n\r\n"[..], 408),
        (
            &b"POST /echo HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc"[..],
            408,
        ),
        (&large[..], 413),
        (
            &b"GET /panic HTTP/1.1\r\nconnection: close\r\n\r\n"[..],
            500,
        ),
    ] {
        let answer = server.talk(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_eq!(answer.matches("x-stamp: seen\r\n").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_gives_the_place_back() {
    let server = start().await;
    for _ in 0..8 {
        let mut stream = server.connect().await;
        stream
            .write_all(b"POST /echo HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
            .await
            .unwrap();
        drop(stream);
    }
    until("places are free", || server.count.connections.value() == 0).await;
    assert!(server.talk(LAST).await.contains("hello"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let server = start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.addr).await.unwrap();
    stream
        .write_all(b"GET /big HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    until("it is open", || server.count.requests.value() == 1).await;
    until("it is cut", || server.count.connections.value() == 0).await;
    drop(stream);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_port_goes_on() {
    let server = start().await;
    let answer = server
        .talk(b"GET /panic HTTP/1.1\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("urn:comptoir:internal"), "{answer}");
    assert_eq!(server.count.panics.value(), 1);
    assert!(server.talk(LAST).await.contains("hello"));
}

#[tokio::test]
async fn the_client_above_the_bound_is_told_503_and_a_freed_place_is_taken() {
    let server = start().await;
    let mut held = Vec::new();
    for place in 0..LIMITS.connections {
        // The last place is left to another source.
        let source = u8::try_from(1 + place / LIMITS.per_source).unwrap();
        let mut stream = server.connect_from(source).await;
        stream.write_all(HELLO).await.unwrap();
        read_answer(&mut stream).await;
        held.push(stream);
    }
    let mut stream = server.connect_from(9).await;
    stream.write_all(HELLO).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(answer.matches("x-stamp: seen\r\n").count(), 1, "{answer}");
    assert_eq!(server.count.turned_away.value(), 1);
    drop(held.remove(0));
    until("a place is free", || {
        server.count.connections.value() < i64::try_from(LIMITS.connections).unwrap()
    })
    .await;
    assert!(server.talk(LAST).await.contains("hello"));
}

#[tokio::test]
async fn the_end_lets_a_request_finish_and_closes_idle_connections() {
    let server = start().await;
    let mut idle = server.connect().await;
    idle.write_all(HELLO).await.unwrap();
    read_answer(&mut idle).await;
    let mut busy = server.connect().await;
    busy.write_all(b"POST /echo HTTP/1.1\r\ncontent-length: 4\r\n\r\nab")
        .await
        .unwrap();
    until("both are open", || server.count.connections.value() == 2).await;
    server.shutdown.trigger();
    assert_eq!(read_to_end(&mut idle).await, "");
    busy.write_all(b"cd").await.unwrap();
    assert!(read_to_end(&mut busy).await.ends_with("abcd"));
    timeout(PATIENCE, server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_loop_does_the_work_it_is_asked_for() {
    let server = start().await;
    let (done, wait) = tokio::sync::oneshot::channel();
    server.probe.ask(move || {
        done.send(()).unwrap();
    });
    timeout(PATIENCE, wait).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_source_leaves_room_for_the_others() {
    let server = start().await;
    let mut held = Vec::new();
    for _ in 0..LIMITS.per_source {
        let mut stream = server.connect_from(5).await;
        stream.write_all(HELLO).await.unwrap();
        assert!(read_answer(&mut stream).await.ends_with("hello"));
        held.push(stream);
    }
    let mut stream = server.connect_from(5).await;
    stream.write_all(HELLO).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 503"));
    let mut stream = server.connect_from(6).await;
    stream.write_all(HELLO).await.unwrap();
    assert!(read_answer(&mut stream).await.ends_with("hello"));
}
