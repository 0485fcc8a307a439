//! The door against a real TLS host of this process, which answers what each test tells it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Instant, SystemTime};

use super::*;
use crate::clock::ManualClock;
use crate::config::{Config as Settings, ProxyConfig};
use crate::identity::Secret;
use crate::wan::tls_host::{Certificate, TlsHost};

impl TlsHost {
    fn client(&self) -> Client {
        client(&[self.ca_file.as_path()], None)
    }
}

fn client(ca_files: &[&Path], proxy: Option<&str>) -> Client {
    let mut config = Settings::from_layers(&[]).unwrap().wan;
    config.ca_files = ca_files.iter().map(|path| path.to_path_buf()).collect();
    config.deadlines.first_byte = Duration::from_millis(400);
    config.deadlines.stall = Duration::from_millis(400);
    config.deadlines.connect = Duration::from_millis(1500);
    config.proxy = proxy.map(|url| ProxyConfig {
        url: url.to_owned(),
        user: String::new(),
        password: Secret::default(),
        bypass: Vec::new(),
    });
    Egress::new(&config, &PlatformTime::of_system())
        .unwrap()
        .0
        .client(FlowId::Api)
}

fn ask(client: &Client, method: Method, url: &str) -> Result<Answer, EgressError> {
    client.send(&Request {
        method,
        url,
        headers: &[],
        body: None,
        hold: Duration::ZERO,
    })
}

fn cause(result: Result<Answer, EgressError>) -> Cause {
    match result {
        Ok(answer) => panic!("an answer with status {}", answer.status()),
        Err(error) => error.cause,
    }
}

const OK: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhi";

#[test]
fn an_answer_comes_through_with_its_date_and_bounded_body() {
    let host = TlsHost::start(&Certificate::default(), OK);
    let client = host.client();
    let answer = ask(&client, Method::GET, &host.url).unwrap();
    assert_eq!(answer.status(), 200);
    let date = answer.date().unwrap();
    assert_eq!(
        date.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
        784_111_777
    );
    assert_eq!(answer.bytes(ByteSize::bytes(2)).unwrap(), b"hi");
    let answer = ask(&client, Method::GET, &host.url).unwrap();
    let error = answer.bytes(ByteSize::bytes(1)).unwrap_err();
    assert_eq!(error.cause, Cause::TooLarge);
    let head = host.requests.recv().unwrap().to_lowercase();
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: comptoir/"), "{head}");
}

#[test]
fn an_empty_post_or_delete_says_so() {
    let host = TlsHost::start(&Certificate::default(), OK);
    let client = host.client();
    for method in [Method::POST, Method::DELETE, Method::PUT] {
        ask(&client, method.clone(), &format!("{}/a?b=c", host.url)).unwrap();
        let head = host.requests.recv().unwrap();
        assert!(
            head.starts_with(&format!("{method} /a?b=c HTTP/1.1\r\n")),
            "{head}"
        );
        assert!(
            head.to_lowercase().contains("\r\ncontent-length: 0\r\n"),
            "{head}"
        );
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    }
}

#[test]
fn every_bad_certificate_is_refused_under_its_own_name() {
    let host = TlsHost::start(&Certificate::default(), OK);
    let stranger = client(&[], None);
    assert_eq!(
        cause(ask(&stranger, Method::GET, &host.url)),
        Cause::TlsUnknownIssuer
    );
    let certificate = Certificate {
        name: Some("other.example"),
        ..Certificate::default()
    };
    let host = TlsHost::start(&certificate, OK);
    assert_eq!(
        cause(ask(&host.client(), Method::GET, &host.url)),
        Cause::TlsWrongHost
    );
    let certificate = Certificate {
        expired: true,
        ..Certificate::default()
    };
    let host = TlsHost::start(&certificate, OK);
    assert_eq!(
        cause(ask(&host.client(), Method::GET, &host.url)),
        Cause::TlsExpired
    );
    let error = ask(&stranger, Method::GET, "http://localhost:1/")
        .err()
        .unwrap();
    assert_eq!(error.cause, Cause::BadAnswer, "{error}");
}

#[test]
fn a_port_without_listener_is_refused_and_an_unknown_name_is_dns() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let client = client(&[], None);
    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(cause(ask(&client, Method::GET, &url)), Cause::TcpRefused);
    let url = "https://no-such-host.invalid/";
    let cause = cause(ask(&client, Method::GET, url));
    assert!(
        matches!(cause, Cause::Dns | Cause::ResolveTimeout),
        "{cause:?}"
    );
}

#[test]
fn a_silent_host_is_told_from_a_stalled_transfer_and_a_hanging_handshake() {
    let silent = TlsHost::start(&Certificate::default(), "");
    assert_eq!(
        cause(ask(&silent.client(), Method::GET, &silent.url)),
        Cause::FirstByteTimeout
    );
    let stalled = TlsHost::start(
        &Certificate::default(),
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    );
    let answer = ask(&stalled.client(), Method::GET, &stalled.url).unwrap();
    let error = answer.bytes(ByteSize::kib(1)).unwrap_err();
    assert_eq!(error.cause, Cause::Stalled, "{error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!(
        "https://127.0.0.1:{}/",
        listener.local_addr().unwrap().port()
    );
    assert_eq!(
        cause(ask(&client(&[], None), Method::GET, &url)),
        Cause::TlsTimeout
    );
}

#[test]
fn a_login_page_is_not_followed() {
    let host = TlsHost::start(
        &Certificate::default(),
        "HTTP/1.1 302 Found\r\nLocation: https://portal.example/login\r\nContent-Length: 0\r\n\r\n",
    );
    let answer = ask(&host.client(), Method::GET, &host.url).unwrap();
    let error = answer.success().err().unwrap();
    assert_eq!(error.cause, Cause::Redirected);
}

#[test]
fn an_interrupted_client_leaves_at_once_and_works_on() {
    let host = TlsHost::start(&Certificate::default(), "");
    let mut config = Settings::from_layers(&[]).unwrap().wan;
    config.ca_files = vec![host.ca_file.clone()];
    let client = Egress::new(&config, &PlatformTime::of_system())
        .unwrap()
        .0
        .client(FlowId::Api);
    let hanging = thread::spawn({
        let (client, url) = (client.clone(), host.url.clone());
        move || cause(ask(&client, Method::GET, &url))
    });
    host.requests.recv().unwrap();
    let start = Instant::now();
    client.interrupt();
    hanging.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    let host = TlsHost::start(&Certificate::default(), OK);
    // The next request fails for its own reason (another authority), not because the client was ended.
    assert_eq!(
        cause(ask(&client, Method::GET, &host.url)),
        Cause::TlsUnknownIssuer
    );
}

/// Answers CONNECT with `answer` and counts what arrives.
fn proxy(answer: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") && matches!(reader.read_line(&mut head), Ok(1..)) {}
            let _ = seen.send(head);
            let _ = stream.write_all(answer.as_bytes());
            if answer.is_empty() {
                // Holds the connection open without a word.
                let _ = reader.read_line(&mut String::new());
            }
        }
    });
    (url, requests)
}

#[test]
fn a_proxys_refusals_are_told_apart_and_the_name_is_left_to_it() {
    for (answer, expected) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            Cause::ProxyAuth,
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", Cause::ProxyDenied),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            Cause::ProxyFailed,
        ),
        ("", Cause::ProxyTimeout),
    ] {
        let (url, requests) = proxy(answer);
        let client = client(&[], Some(&url));
        // A name that no resolver knows: only the proxy may be asked for it.
        let target = "https://no-such-host.invalid/";
        assert_eq!(cause(ask(&client, Method::GET, target)), expected);
        let head = requests.recv().unwrap();
        assert!(
            head.starts_with("CONNECT no-such-host.invalid:443 "),
            "{head}"
        );
    }
}

#[test]
fn a_proxy_that_is_down_is_never_walked_around() {
    let host = TlsHost::start(&Certificate::default(), OK);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = client(&[host.ca_file.as_path()], Some(&url));
    assert_eq!(
        cause(ask(&client, Method::GET, &host.url)),
        Cause::ProxyUnreachable
    );
    assert!(host.requests.try_recv().is_err());
}

#[test]
fn a_certificate_is_judged_by_the_boxs_best_time_and_not_by_the_machines_clock() {
    let host = TlsHost::start(
        &Certificate {
            expired: true,
            ..Certificate::default()
        },
        "HTTP/1.1 204 No Content\r\n\r\n",
    );
    let mut config = Settings::from_layers(&[]).unwrap().wan;
    config.ca_files = vec![host.ca_file.clone()];
    let judged = |client: &Client| {
        ask(client, Method::GET, &host.url)
            .map(|answer| answer.status())
            .map_err(|error| (error.cause, error.evidence().valid_from_s))
    };
    // It is valid from 2020-01-01 on, for a year.
    let in_2020 = Arc::new(ManualClock::at("2020-06-01T00:00:00Z".parse().unwrap()));
    let (egress, _) = Egress::new(&config, &PlatformTime::new(in_2020)).unwrap();
    let client = egress.client(FlowId::Api);
    assert_eq!(judged(&client), Ok(204));
    assert_eq!(
        judged(&client.judging_at(1_500_000_000)),
        Err((Cause::TlsNotYetValid, Some(1_577_836_800)))
    );
    let (egress, _) = Egress::new(&config, &PlatformTime::of_system()).unwrap();
    let client = egress.client(FlowId::Api);
    assert_eq!(judged(&client), Err((Cause::TlsExpired, None)));
    assert_eq!(judged(&client.judging_at(1_600_000_000)), Ok(204));
}
