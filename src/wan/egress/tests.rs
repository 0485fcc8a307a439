//! The door against a real TLS host of this process, which answers what each test tells it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Instant, SystemTime};

use super::*;
use crate::clock::ManualClock;
use crate::config::{Config as Settings, ProxyConfig, ProxyUrl};
use crate::identity::Secret;
use crate::wan::tls_host::{Certificate, TlsHost};

impl TlsHost {
    fn client(&self) -> Client {
        client(&self.url, &[self.ca_file.as_path()], None)
    }
}

/// An API at `url`, and deadlines none of which passes in a test that does not set it.
fn patient(url: &str) -> WanConfig {
    let mut config = Settings::from_layers(&[]).unwrap().wan;
    config.api_url = HttpsUrl::parse(url).unwrap();
    let deadlines = &mut config.deadlines;
    deadlines.resolve = PATIENCE;
    deadlines.connect = PATIENCE;
    deadlines.tls = PATIENCE;
    deadlines.send = PATIENCE;
    deadlines.first_byte = PATIENCE;
    deadlines.stall = PATIENCE;
    deadlines.total = 2 * PATIENCE;
    config
}

const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// A client whose clock nobody doubts.
fn egress(config: &WanConfig) -> Client {
    let time = PlatformTime::of_system();
    let client = Egress::new(config, &time).0.client(FlowId::Api);
    client.judging_at(time.now_s())
}

fn client(url: &str, ca_files: &[&Path], proxy: Option<&str>) -> Client {
    let mut config = patient(url);
    config.ca_files = ca_files.iter().map(|path| path.to_path_buf()).collect();
    config.proxy.shop = proxy.map(|url| ProxyConfig {
        url: ProxyUrl::parse(url).unwrap(),
        user: String::new(),
        password: Secret::default(),
    });
    egress(&config)
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
fn a_request_without_an_answer_says_so_and_the_next_answer_is_a_return() {
    let host = TlsHost::start(&Certificate::default(), OK);
    let client = host.client();
    let heard = client.settings.heard.clone();
    // In 1970 no certificate of the host is valid yet.
    let error = ask(&client.judging_at(0), Method::GET, &host.url);
    assert_eq!(error.err().unwrap().way_lost_at, Some(0));
    assert_eq!(heard.returns(), 0);
    let client = client.judging_at(PlatformTime::of_system().now_s());
    ask(&client, Method::GET, &host.url).unwrap();
    assert_eq!(heard.returns(), 1);
    ask(&client, Method::GET, &host.url).unwrap();
    assert_eq!(heard.returns(), 1);
}

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
    let stranger = client(&host.url, &[], None);
    let error = ask(&stranger, Method::GET, &host.url).err().unwrap();
    assert_eq!(error.cause, Cause::TlsIntercepted);
    let issuer = error.evidence().issuer.as_deref();
    assert_eq!(issuer, Some("Authority of this test"));
    assert_eq!(error.evidence().names, ["localhost"]);
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
}

#[test]
fn a_port_without_listener_is_refused_and_an_unknown_name_is_dns() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("https://127.0.0.1:{port}/");
    let closed = client(&url, &[], None);
    assert_eq!(cause(ask(&closed, Method::GET, &url)), Cause::TcpRefused);
    let url = "https://no-such-host.invalid/";
    let cause = cause(ask(&client(url, &[], None), Method::GET, url));
    assert!(
        matches!(cause, Cause::Dns | Cause::ResolveTimeout),
        "{cause:?}"
    );
}

/// What becomes of a request to `host` when only the deadline that `set` makes short can pass.
fn passing(host: &TlsHost, body: Option<&[u8]>, set: impl FnOnce(&mut Deadlines)) -> EgressError {
    let mut config = patient(&host.url);
    config.ca_files = vec![host.ca_file.clone()];
    set(&mut config.deadlines);
    let request = Request {
        method: if body.is_some() {
            Method::POST
        } else {
            Method::GET
        },
        url: &host.url,
        headers: &[],
        body,
        hold: Duration::ZERO,
    };
    let answer = egress(&config).send(&request);
    answer
        .and_then(|answer| answer.bytes(ByteSize::mib(64)))
        .expect_err("no deadline passed")
}

fn seen(error: &EgressError) -> (Cause, Phase) {
    (error.cause, error.evidence().phase)
}

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";

#[test]
fn each_deadline_of_an_exchange_passes_alone_and_under_its_own_name() {
    let silent = TlsHost::start(&Certificate::default(), "");
    let error = passing(&silent, None, |deadlines| deadlines.first_byte = SHORT);
    assert_eq!(seen(&error), (Cause::FirstByteTimeout, Phase::Exchange));
    let error = passing(&silent, None, |deadlines| deadlines.total = SHORT);
    assert_eq!(seen(&error), (Cause::TotalTimeout, Phase::Exchange));
    let stalled = TlsHost::start(&Certificate::default(), HALF);
    let error = passing(&stalled, None, |deadlines| deadlines.stall = SHORT);
    assert_eq!(seen(&error), (Cause::Stalled, Phase::Body));
    let error = passing(&stalled, None, |deadlines| deadlines.total = SHORT);
    assert_eq!(seen(&error), (Cause::TotalTimeout, Phase::Body));
}

#[test]
fn a_host_that_takes_nothing_is_a_matter_of_sending() {
    // The host's thread waits in its answer while the body fills every buffer on the way.
    let (release, held) = channel::<()>();
    let host = TlsHost::start_with(&Certificate::default(), move |_| {
        let _ = held.recv();
        Vec::new()
    });
    let body = vec![0; 32 * 1024 * 1024];
    let error = passing(&host, Some(&body), |deadlines| deadlines.send = SHORT);
    assert_eq!(seen(&error), (Cause::SendTimeout, Phase::Exchange));
    drop(release);
}

#[test]
fn each_deadline_of_a_connection_passes_alone_and_under_its_own_name() {
    // Takes the connection and never says a word.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let authority = mute.local_addr().unwrap();
    let fails = |proxy: Option<&str>, set: &dyn Fn(&mut Deadlines)| {
        let url = format!("https://{authority}/");
        let mut config = patient(&url);
        config.proxy.shop = proxy.map(|scheme| ProxyConfig {
            url: ProxyUrl::parse(&format!("{scheme}://{authority}")).unwrap(),
            user: String::new(),
            password: Secret::default(),
        });
        set(&mut config.deadlines);
        let error = ask(&egress(&config), Method::GET, &url).err().unwrap();
        seen(&error)
    };
    let tls = |deadlines: &mut Deadlines| deadlines.tls = SHORT;
    let (_listener, silent, _fillers) = dial::tests::silent();
    let url = format!("https://{silent}/");
    let mut config = patient(&url);
    config.deadlines.connect = SHORT;
    let error = ask(&egress(&config), Method::GET, &url).err().unwrap();
    assert_eq!(seen(&error), (Cause::TcpTimeout, Phase::Connect));
    let connect = |deadlines: &mut Deadlines| deadlines.connect = SHORT;
    let total = |deadlines: &mut Deadlines| deadlines.total = SHORT;
    assert_eq!(fails(None, &tls), (Cause::TlsTimeout, Phase::Tls));
    assert_eq!(fails(None, &total), (Cause::TotalTimeout, Phase::Tls));
    assert_eq!(
        fails(Some("http"), &connect),
        (Cause::ProxyTimeout, Phase::Tunnel)
    );
    assert_eq!(
        fails(Some("socks5"), &connect),
        (Cause::ProxyTimeout, Phase::Tunnel)
    );
    assert_eq!(
        fails(Some("https"), &tls),
        (Cause::ProxyTimeout, Phase::ProxyTls)
    );
    assert_eq!(
        fails(Some("http"), &total),
        (Cause::TotalTimeout, Phase::Tunnel)
    );
}

#[test]
fn a_download_may_last_longer_than_a_request_but_not_trickle() {
    let host = TlsHost::start(&Certificate::default(), OK);
    let mut config = patient(&host.url);
    config.ca_files = vec![host.ca_file.clone()];
    // A trickle: whatever comes, it is too little for the shortest stretch.
    config.deadlines.pace_stretch = Duration::from_nanos(1);
    let answer = ask(&egress(&config), Method::GET, &host.url).unwrap();
    let (mut reader, sort) = answer.into_reader();
    let error = sort(reader.read_to_end(&mut Vec::new()).unwrap_err());
    assert_eq!(seen(&error), (Cause::Slow, Phase::Body));
    // The end of the whole request matters to an answer that is read as a whole only.
    let host = TlsHost::start(&Certificate::default(), HALF);
    let mut config = patient(&host.url);
    config.ca_files = vec![host.ca_file.clone()];
    config.deadlines.pace_stretch = PATIENCE;
    config.deadlines.stall = SHORT;
    let mut answer = ask(&egress(&config), Method::GET, &host.url).unwrap();
    answer.end_now();
    let (mut reader, sort) = answer.into_reader();
    let error = sort(reader.read_to_end(&mut Vec::new()).unwrap_err());
    assert_eq!(seen(&error), (Cause::Stalled, Phase::Body));
}

#[test]
fn an_errors_body_that_never_ends_is_not_waited_for() {
    let drip = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9000\r\n\r\nsorry";
    let host = TlsHost::start(&Certificate::default(), drip);
    let mut config = patient(&host.url);
    config.ca_files = vec![host.ca_file.clone()];
    config.deadlines.stall = 10 * PATIENCE;
    config.deadlines.total = 10 * PATIENCE;
    for is_at_its_end in [true, false] {
        let mut answer = ask(&egress(&config), Method::GET, &host.url).unwrap();
        if is_at_its_end {
            answer.end_now();
        }
        let (told, error) = channel();
        thread::spawn(move || told.send(answer.success().err().map(|error| error.cause)));
        let cause = error.recv_timeout(PATIENCE);
        assert_eq!(cause, Ok(Some(Cause::Throttled)), "{is_at_its_end}");
    }
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
    // Silent to the first request alone.
    let mut answers = vec![OK, ""];
    let host = TlsHost::start_with(&Certificate::default(), move |_| {
        answers.pop().unwrap_or(OK).as_bytes().to_vec()
    });
    let client = host.client();
    let hanging = thread::spawn({
        let (client, url) = (client.clone(), host.url.clone());
        move || cause(ask(&client, Method::GET, &url))
    });
    host.requests.recv().unwrap();
    let start = Instant::now();
    client.interrupt();
    hanging.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    let answer = ask(&client, Method::GET, &host.url).unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn an_interrupted_client_leaves_a_connection_that_does_not_come_about() {
    let (_listener, silent, _fillers) = dial::tests::silent();
    // Takes the connection and never says a word: the handshake hangs.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for address in [silent, mute.local_addr().unwrap()] {
        let url = format!("https://{address}/");
        let client = egress(&patient(&url));
        let hanging = thread::spawn({
            let client = client.clone();
            move || ask(&client, Method::GET, &url).err()
        });
        // Interrupted again and again: the first may come before the request.
        while !hanging.is_finished() {
            client.interrupt();
            thread::yield_now();
        }
        let error = hanging.join().unwrap().unwrap();
        assert_eq!(error.cause, Cause::Stopped, "{error}");
    }
    // Closed, it does not even begin.
    let url = format!("https://{silent}/");
    let client = egress(&patient(&url));
    client.close();
    let error = ask(&client, Method::GET, &url);
    assert_eq!(error.err().unwrap().cause, Cause::Stopped);
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
    ] {
        let (url, requests) = proxy(answer);
        // A name that no resolver knows: only the proxy may be asked for it.
        let target = "https://no-such-host.invalid/";
        let client = client(target, &[], Some(&url));
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
    let client = client(&host.url, &[host.ca_file.as_path()], Some(&url));
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
    let mut config = patient(&host.url);
    config.ca_files = vec![host.ca_file.clone()];
    let judged = |client: &Client| {
        ask(client, Method::GET, &host.url)
            .map(|answer| answer.status())
            .map_err(|error| (error.cause, error.evidence().valid_from_s))
    };
    let at = |time: &str| {
        let clock = Arc::new(ManualClock::at(time.parse().unwrap()));
        let (egress, _) = Egress::new(&config, &PlatformTime::new(clock));
        egress.client(FlowId::Api)
    };
    // It is valid from 2020-01-01 on, for a year.
    let client = at("2020-06-01T00:00:00Z");
    assert_eq!(judged(&client), Ok(204));
    assert_eq!(
        judged(&client.judging_at(1_500_000_000)),
        Err((Cause::TlsNotYetValid, Some(1_577_836_800)))
    );
    assert_eq!(
        judged(&client.judging_at(1_700_000_000)),
        Err((Cause::TlsExpired, None))
    );
    assert_eq!(judged(&client.judging_at(1_600_000_000)), Ok(204));
    // Nobody has confirmed these clocks: a certificate out of its time by years tells of them.
    for (now, ahead_s) in [("2017-07-14T02:40:00Z", -1), ("2026-11-25T00:00:00Z", 1)] {
        let error = ask(&at(now), Method::GET, &host.url).err().unwrap();
        assert_eq!(error.cause, Cause::ClockSkew);
        let skew_s = error.evidence().skew_s.unwrap();
        assert_eq!(skew_s.signum(), ahead_s);
        assert!(skew_s.abs() > 365 * 24 * 3600, "{skew_s}");
    }
    let error = ask(&at("2021-01-02T00:00:00Z"), Method::GET, &host.url);
    assert_eq!(error.err().unwrap().cause, Cause::TlsExpired);
}
