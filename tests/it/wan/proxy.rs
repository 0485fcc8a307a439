//! Through a real squid with Basic authentication, which alone knows where the production host names are.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use comptoir::digest::Digest;
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::shop::Shop;

const USER: &str = "till 7";
/// Characters that a URL, a shell or a careless split would break.
const PASSWORD: &str = "p%40@ss:w/rd \\\"é?#&";
const API_HOST: &str = "api.server.commerce-hub.io";
const BUS_HOST: &str = "e-serversync-ns.servicebus.windows.net";
const MEDIA_HOST: &str = "simplementedata.blob.core.windows.net";

struct Squid {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Squid {
    /// Lets `USER` through to the platform's three ports, and nowhere else.
    fn start(platform: &Platform) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // squid gives its rights up: its user must be able to read and write here.
        open_to_all(dir.path());
        let path = |name: &str| dir.path().join(name);
        let hashed = hash(PASSWORD);
        write(path("users"), &format!("{USER}:{hashed}\n"));
        write(
            path("hosts"),
            &format!("127.0.0.1 {API_HOST} {BUS_HOST} {MEDIA_HOST}\n"),
        );
        let ports: Vec<&str> = ["api", "bus", "blob"]
            .map(|flow| platform.text(flow).rsplit_once(':').unwrap().1)
            .to_vec();
        let port = free_port();
        let config = format!(
            "http_port 127.0.0.1:{port}\npid_filename none\ncache deny all\nhosts_file {hosts}\n\
             cache_log {dir}/cache.log\naccess_log stdio:{log}\ncoredump_dir {dir}\n\
             shutdown_lifetime 0 seconds\nvisible_hostname proxy.shop.example\n\
             auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}\n\
             auth_param basic realm shop\nauth_param basic utf8 on\n\
             acl authed proxy_auth REQUIRED\nacl CONNECT method CONNECT\nacl platform port {ports}\n\
             http_access deny CONNECT !platform\nhttp_access allow authed\nhttp_access deny all\n",
            hosts = path("hosts").display(),
            dir = dir.path().display(),
            log = path("access.log").display(),
            users = path("users").display(),
            ports = ports.join(" "),
        );
        write(path("squid.conf"), &config);
        let child = Command::new("squid")
            .args(["-N", "-f"])
            .arg(path("squid.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("squid is installed: apt-get install --no-install-recommends squid");
        let mut squid = Self { child, port, dir };
        eventually("squid listens", || {
            let ended = squid.child.try_wait().unwrap();
            assert!(ended.is_none(), "squid ended: {}", squid.log("cache.log"));
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        squid
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

fn write(path: PathBuf, text: &str) {
    fs::write(&path, text).unwrap();
    open_to_all(&path);
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o777 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// As `htpasswd` writes it.
fn hash(password: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["passwd", "-apr1", "-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(password.as_bytes()).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The shop with the production's host names, which only the proxy can resolve to this machine.
fn shop_behind(platform: &Platform, port: u16, password: &str) -> Shop {
    let mut shop = Shop::of(platform);
    for (url, host) in [
        ("api_url", API_HOST),
        ("bus_url", BUS_HOST),
        ("media_url", MEDIA_HOST),
    ] {
        let known = if url == "media_url" { "blob_url" } else { url };
        let address = platform.text(known);
        let port = address.rsplit_once(':').unwrap().1;
        shop = shop.with(
            &format!("{url} = \"{address}\""),
            &format!("{url} = \"https://{host}:{port}\""),
        );
    }
    let proxy = format!(
        "[wan.proxy]\nurl = \"http://127.0.0.1:{port}\"\nuser = '{USER}'\npassword = '{password}'\n"
    );
    shop.with("[wan.pull]\n", &format!("{proxy}[wan.pull]\n"))
}

#[test]
fn everything_goes_through_the_shops_proxy_under_the_production_names() {
    let platform = Platform::start();
    platform.load_products(200);
    platform.order("order-1");
    let squid = Squid::start(&platform);
    let shop = shop_behind(&platform, squid.port, PASSWORD).start();
    shop.filled();
    assert_eq!(shop.documents("products"), 200);
    eventually("the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    let bytes = vec![7; 10_000];
    let data = platform.put_blob("a.png", &bytes, false);
    let digest = Digest::of(&bytes);
    let address = platform.text("blob_url");
    let port = address.rsplit_once(':').unwrap().1;
    let url = data["url"].as_str().unwrap();
    let url = url.replace(address, &format!("https://{MEDIA_HOST}:{port}"));
    let document = json!({"url": url, "sha256": digest.to_string(), "size": bytes.len()});
    platform.put_document("media", &digest.to_string(), &document);
    eventually("the blob comes", || {
        shop.store().blobs.contains(&digest).then_some(())
    });
    drop(shop);
    let log = eventually("squid has logged", || {
        let log = squid.log("access.log");
        [API_HOST, BUS_HOST, MEDIA_HOST]
            .iter()
            .all(|host| log.contains(&format!("CONNECT {host}:")))
            .then_some(log)
    });
    assert!(!log.contains("TCP_DENIED"), "{log}");
}

#[test]
fn a_wrong_proxy_password_is_named_and_nothing_walks_around_the_proxy() {
    let platform = Platform::start();
    let squid = Squid::start(&platform);
    let shop = shop_behind(&platform, squid.port, "wrong").start();
    let outcome = eventually("the refusal is known", || {
        shop.outcome(Worker::Pull)
            .filter(|outcome| outcome.cause.is_some())
    });
    assert_eq!(outcome.cause, Some("proxy_407"), "{}", outcome.detail);
    let detail = eventually("it is told", || shop.condition(Code::ApiUnreachable));
    assert!(!detail.contains("wrong"), "no secret in {detail}");
    assert!(platform.requests().is_empty());
}

#[test]
fn a_host_the_proxy_forbids_is_named() {
    let platform = Platform::start();
    let squid = Squid::start(&platform);
    let api_port = platform.text("api_url").rsplit_once(':').unwrap().1;
    let shop = shop_behind(&platform, squid.port, PASSWORD)
        .with(&format!("{API_HOST}:{api_port}"), &format!("{API_HOST}:1"))
        .start();
    let outcome = eventually("the refusal is known", || {
        shop.outcome(Worker::Pull)
            .filter(|outcome| outcome.cause.is_some())
    });
    assert_eq!(outcome.cause, Some("proxy_denied"), "{}", outcome.detail);
}

#[test]
fn a_bypassed_host_is_reached_without_the_proxy() {
    let platform = Platform::start();
    platform.load_products(3);
    let proxy = format!(
        "[wan.proxy]\nurl = \"http://127.0.0.1:{}\"\nbypass = [\"127.0.0.1\"]\n[wan.pull]\n",
        free_port()
    );
    let shop = Shop::of(&platform).with("[wan.pull]\n", &proxy).start();
    shop.filled();
    assert_eq!(shop.documents("products"), 3);
}

/// Runs the named test of this binary in a process whose environment names a proxy that is not there.
#[test]
fn the_environments_proxy_is_never_asked() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "HTTP_PROXY",
    ] {
        command.env(name, &dead);
    }
    let output = command
        .args([
            "--exact",
            "wan::pull::a_forgotten_cursor_leads_to_a_new_snapshot_that_sweeps",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}
