//! `comptoir check` as an installer runs it, in networks as they are: each time exit code, cause and culprit, in both languages.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use super::platform::{Platform, SITE, TOKEN, eventually};
use super::squid::{
    API_HOST, BUS_HOST, Front, INSPECTOR, MEDIA_HOST, PASSWORD, SignIn, Squid, proxy_section,
};
use crate::loopback::{free_port, own_address};

/// The promise, whatever hangs.
const PROMISE: Duration = Duration::from_secs(10);

const NO_SUPPORT: &str = "[wan.logs]\nenabled = false\n[wan.support]\nenabled = false\n";

/// Settings that are tried before they are saved: no server has run with them.
struct Trial {
    dir: tempfile::TempDir,
}

impl Trial {
    fn new(wan: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[site]\nsite_id = \"{SITE}\"\n[wan]\n{wan}\n{more}\n[lan]\nbind = '{}'\nport_offset = 6900\n\
             [store]\ndata_dir = {:?}\n",
            own_address(),
            dir.path().join("data")
        );
        fs::write(dir.path().join("site.toml"), text).unwrap();
        Self { dir }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_comptoir"))
            .args(["check", "--image-file", "/nonexistent", "--site-file"])
            .arg(self.dir.path().join("site.toml"))
            .args(arguments)
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            !text.contains(PASSWORD) && !text.contains(TOKEN),
            "a secret in {text}"
        );
        (output.status.code().unwrap(), text)
    }

    fn report(&self) -> (i32, Value) {
        let (code, text) = self.run(&["--json"]);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["exit_code"], code);
        (code, report)
    }

    /// The API's way fails for `cause`, `kind` is to blame and `culprit` is named in both languages; exit code 2.
    fn blames(&self, cause: &str, kind: &str, culprit: &str) -> Value {
        let (code, report) = self.report();
        let api = report["flows"][0].clone();
        assert_eq!(api["cause"], cause, "{api:#}");
        assert_eq!(
            (code, &api["culprit"]["kind"]),
            (2, &Value::from(kind)),
            "{api:#}"
        );
        for (language, sign) in [("en", "FAILED"), ("fr", "ÉCHEC")] {
            let (code, text) = self.run(&["--flow", "api", "--lang", language]);
            assert_eq!(code, 2, "{text}");
            let named = text.lines().find(|line| line.contains(culprit));
            assert!(named.is_some(), "{culprit} is not named in {text}");
            assert!(text.contains(sign) && !text.contains('\x1b'), "{text}");
        }
        api
    }
}

fn urls(api: &str, bus: &str, media: &str) -> String {
    format!("api_url = \"{api}\"\nbus_url = \"{bus}\"\nmedia_url = \"{media}\"\n")
}

fn trust(files: &[PathBuf]) -> String {
    let files: Vec<_> = files.iter().map(|file| format!("{file:?}")).collect();
    format!("[wan.trust]\nca_files = [{}]\n", files.join(", "))
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

/// The production's names with the platform's ports, behind a proxy.
fn behind(platform: &Platform, squid: &Squid, password: &str, ca_files: &[PathBuf]) -> Trial {
    let url = |host: &str, of: &str| format!("https://{host}:{}", port_of(platform.text(of)));
    Trial::new(
        &urls(
            &url(API_HOST, "api_url"),
            &url(BUS_HOST, "bus_url"),
            &url(MEDIA_HOST, "blob_url"),
        ),
        &format!(
            "{}{}{NO_SUPPORT}",
            proxy_section(&squid.url("http"), password),
            trust(ca_files)
        ),
    )
}

#[test]
fn where_all_is_well_every_step_says_so_and_a_token_is_tried_too() {
    let platform = Platform::start();
    let hosts = urls(
        platform.text("api_url"),
        platform.text("bus_url"),
        platform.text("blob_url"),
    );
    let further = format!(
        "logs_url = \"{}\"\nsupport_url = \"{}\"\n",
        platform.text("logs_url"),
        platform.text("bus_url")
    );
    let shop = |token: &str| {
        let hosts = format!("{hosts}{further}token = \"{token}\"\n");
        Trial::new(&hosts, &trust(&[platform.ca_file()]))
    };
    for (language, words) in [("en", "All is well."), ("fr", "Tout va bien.")] {
        let (code, text) = shop(TOKEN).run(&["--lang", language]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(words), "{text}");
    }
    let (code, report) = shop("").report();
    assert_eq!(code, 0, "before enrolment: {report:#}");
    for flow in report["flows"].as_array().unwrap() {
        assert_eq!(flow["verdict"], "ok", "{flow:#}");
        let steps = flow["steps"].as_array().unwrap();
        let names: Vec<_> = steps
            .iter()
            .map(|step| step["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["lookup", "connect", "tls", "answer"]);
    }
    let (code, report) = shop("another-token").report();
    let api = &report["flows"][0];
    assert_eq!(
        (code, &api["cause"]),
        (2, &"unauthorized".into()),
        "{api:#}"
    );
    assert_eq!(api["culprit"]["kind"], "credentials");
    // A clock an hour behind the hosts is told, and the shop goes on.
    platform.set_clock_ahead(3600);
    for (language, words) in [
        ("en", "behind the hosts"),
        ("fr", "en retard sur les hôtes"),
    ] {
        let (code, text) = shop("").run(&["--lang", language]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_proxy_that_refuses_is_named_with_its_own_words() {
    let platform = Platform::start();
    let squid = Squid::start(&platform, SignIn::Basic, Front::Plain);
    let trusted = [platform.ca_file()];
    let (code, text) = behind(&platform, &squid, PASSWORD, &trusted).run(&["--lang", "en"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("CONNECT"), "{text}");

    let wrong = behind(&platform, &squid, "wrong", &trusted);
    let api = wrong.blames("proxy_407", "proxy", &squid.url("http"));
    assert_eq!(api["steps"][2]["verdict"], "failed", "{api:#}");
    assert_eq!(api["steps"][3]["verdict"], "skipped", "{api:#}");

    let blocked = format!(
        "https://blocked.example:{}",
        port_of(platform.text("api_url"))
    );
    let denied = Trial::new(
        &urls(&blocked, &blocked, &blocked),
        &format!(
            "{}{NO_SUPPORT}",
            proxy_section(&squid.url("http"), PASSWORD)
        ),
    );
    let api = denied.blames("proxy_denied", "proxy", &squid.url("http"));
    let seen = api["evidence"].to_string();
    assert!(seen.contains("ERR_ACCESS_DENIED"), "{seen}");
}

#[test]
fn an_interceptor_is_named_until_his_authority_is_trusted() {
    let platform = Platform::start();
    let squid = Squid::start(&platform, SignIn::Basic, Front::Inspecting);
    let stranger = behind(&platform, &squid, PASSWORD, &[platform.ca_file()]);
    stranger.blames("tls_intercepted", "interceptor", INSPECTOR);
    let trusted = [platform.ca_file(), squid.ca_file()];
    let (code, text) = behind(&platform, &squid, PASSWORD, &trusted).run(&["--lang", "fr"]);
    assert_eq!(code, 0, "{text}");
}

/// Answers every connection with `answer`, whatever was asked, and closes.
fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
            // What the other side still says is read, so that the answer is not lost in a reset.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

fn everywhere(address: SocketAddr) -> Trial {
    let url = format!("https://{address}");
    Trial::new(&urls(&url, &url, &url), NO_SUPPORT)
}

#[test]
fn a_login_page_is_named_by_where_it_leads() {
    let portal = answering(
        "HTTP/1.1 302 Found\r\nLocation: http://login.mall.example/start?mac=1\r\nContent-Length: 0\r\n\r\n",
    );
    everywhere(portal).blames("captive_portal", "captive_portal", "login.mall.example");
    let page = answering(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 40\r\n\r\n<html><title>Welcome, guest</title></html>",
    );
    everywhere(page).blames("captive_portal", "captive_portal", "Welcome, guest");
}

#[test]
fn dead_names_and_closed_doors_are_told_apart() {
    let nowhere = "https://no-such-host.invalid";
    let (code, report) = Trial::new(&urls(nowhere, nowhere, nowhere), NO_SUPPORT).report();
    let api = &report["flows"][0];
    assert_eq!(
        (code, &api["culprit"]["kind"]),
        (2, &"name_server".into()),
        "{api:#}"
    );
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    everywhere(closed).blames("tcp_refused", "firewall", &closed.to_string());
}

#[test]
fn when_everything_hangs_the_answer_comes_all_the_same() {
    // A full queue: connections get no answer.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let hole = listener.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<_> = (0..3)
        .filter_map(|_| TcpStream::connect_timeout(&hole, Duration::from_millis(200)).ok())
        .collect();
    // TCP answers, TLS never does.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mute = format!("https://{}", mute.local_addr().unwrap());
    let hole_url = format!("https://{hole}");
    let trial = Trial::new(
        &format!(
            "{}logs_url = \"{hole_url}\"\nsupport_url = \"{mute}\"\n",
            urls(&hole_url, &mute, &hole_url)
        ),
        "",
    );
    let start = Instant::now();
    let (code, report) = trial.report();
    let took = start.elapsed();
    assert!(took < PROMISE, "{took:?}");
    drop(waiting);
    assert_eq!(code, 2, "{report:#}");
    let cause = |at: usize| report["flows"][at]["cause"].as_str().unwrap().to_owned();
    assert_eq!(
        (cause(0), cause(1)),
        ("tcp_timeout".into(), "tls_timeout".into())
    );
    assert_eq!(report["flows"][0]["culprit"]["kind"], "firewall");
}

/// A real `openssl s_server` with a certificate of its own.
struct OpensslServer(Child);

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With a certificate that is valid between the years, and the authority to trust it by.
fn openssl_server(dir: &Path, from: i32, to: i32) -> (OpensslServer, SocketAddr, PathBuf) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(from, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let path = |name: &str| dir.join(format!("{from}-{name}"));
    fs::write(path("ca.pem"), ca.pem()).unwrap();
    fs::write(path("cert.pem"), leaf.pem()).unwrap();
    fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let child = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &address.to_string(),
        ])
        .arg("-cert")
        .arg(path("cert.pem"))
        .arg("-key")
        .arg(path("key.pem"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = OpensslServer(child);
    eventually("openssl listens", || TcpStream::connect(address).ok());
    (server, address, path("ca.pem"))
}

#[test]
fn an_old_certificate_is_the_hosts_and_one_of_the_future_tells_of_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let this_year = jiff::Timestamp::now()
        .strftime("%Y")
        .to_string()
        .parse::<i32>()
        .unwrap();
    // The whole of last year: over for less than a year, so that the clock is not in doubt.
    let (_old, address, ca) = openssl_server(dir.path(), this_year - 1, this_year);
    let url = format!("https://{address}");
    let trial = Trial::new(
        &urls(&url, &url, &url),
        &format!("{}{NO_SUPPORT}", trust(&[ca])),
    );
    trial.blames("tls_expired", "host", "127.0.0.1");
    let (_new, address, ca) = openssl_server(dir.path(), this_year + 2, this_year + 3);
    let url = format!("https://{address}");
    let trial = Trial::new(
        &urls(&url, &url, &url),
        &format!("{}{NO_SUPPORT}", trust(&[ca])),
    );
    let api = trial.blames("clock_skew", "clock", " s");
    let name = api["culprit"]["name"].as_str().unwrap();
    assert!(name.starts_with('-'), "the box is behind: {name}");
}

#[test]
fn the_sheet_of_a_shop_is_printed_from_its_settings() {
    let trial = Trial::new("", &proxy_section("http://10.9.8.7:3128", PASSWORD));
    for (language, word) in [
        ("en", "the proxy is the only destination"),
        ("fr", "le proxy est la seule destination"),
    ] {
        let (code, text) = trial.run(&["--sheet", "--lang", language]);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains(word) && text.contains("10.9.8.7:3128"),
            "{text}"
        );
        assert!(text.contains(SITE) && text.contains("TCP 8081"), "{text}");
    }
    let (_, text) = trial.run(&["--sheet", "--json"]);
    let sheet: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sheet["flows"][0]["proxy"], "10.9.8.7:3128");
    assert_eq!(sheet["name_servers"], "", "the proxy looks the names up");
}
