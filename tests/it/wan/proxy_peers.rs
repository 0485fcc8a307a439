//! The way out through proxies as they are in the wild: squid with every kind of sign-in, behind TLS, opening TLS;
//! tinyproxy; microsocks. Each by the door itself, and whoever works also with a whole shop behind it.

use std::fs;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use comptoir::config::Config;
use comptoir::wan::contract::FlowId;
use comptoir::wan::egress::{Egress, EgressError, Method, Phase, Request};
use comptoir::wan::time::PlatformTime;

use super::platform::{Platform, eventually};
use super::shop::Shop;
use super::squid::{
    API_HOST, Front, INSPECTOR, PASSWORD, SignIn, Squid, USER, proxy_section, shop_behind, write,
};
use crate::loopback::free_port;

/// Asks `host` on the platform's API port through the door, set up by `settings`; the status of what is answered.
fn ask(
    platform: &Platform,
    host: &str,
    settings: &str,
    ca_files: &[PathBuf],
) -> Result<u16, EgressError> {
    let files: Vec<String> = ca_files
        .iter()
        .map(|file| format!("\"{}\"", file.display()))
        .collect();
    let port = platform.text("api_url").rsplit_once(':').unwrap().1;
    let url = format!("https://{host}:{port}");
    let text = format!(
        "[wan]\napi_url = \"{url}\"\n{settings}[wan.trust]\nca_files = [{}]\n",
        files.join(",")
    );
    let config = Config::from_layers(&[(Path::new("site.toml"), &text)]).unwrap();
    let (egress, problems) = Egress::new(&config.wan, &PlatformTime::of_system());
    assert!(problems.is_empty(), "{problems:?}");
    let request = Request {
        method: Method::GET,
        url: &url,
        headers: &[],
        body: None,
        hold: Duration::ZERO,
    };
    let answer = egress.client(FlowId::Api).send(&request)?;
    Ok(answer.status())
}

fn refused(
    platform: &Platform,
    host: &str,
    settings: &str,
    ca_files: &[PathBuf],
) -> (&'static str, EgressError) {
    let error = ask(platform, host, settings, ca_files).unwrap_err();
    let text = format!("{error} {:?}", error.evidence());
    assert!(!text.contains(PASSWORD), "the password is in {text}");
    (error.cause.as_str(), error)
}

/// The whole shop is filled through the proxy.
fn fills(platform: &Platform, shop: Shop) {
    platform.load_products(20);
    platform.order("order-1");
    let shop = shop.start();
    shop.filled();
    assert_eq!(shop.documents("products"), 20);
    eventually("the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
}

#[test]
fn what_kinds_of_sign_in_a_proxy_offers_decides_what_is_said_of_it() {
    let platform = Platform::start();
    let trusted = [platform.ca_file()];
    for (sign_in, expected, offered) in [
        (SignIn::Digest, "proxy_digest_only", "Digest"),
        (SignIn::Ntlm, "proxy_ntlm_only", "NTLM"),
    ] {
        let squid = Squid::start(&platform, sign_in, Front::Plain);
        let settings = proxy_section(&squid.url("http"), PASSWORD);
        let (cause, error) = refused(&platform, API_HOST, &settings, &trusted);
        assert_eq!(cause, expected, "{error}");
        assert_eq!(error.evidence().proxy_schemes, [offered]);
        assert_eq!(error.evidence().status, Some(407));
        assert_eq!(error.evidence().phase, Phase::Tunnel);
    }
    let squid = Squid::start(&platform, SignIn::All, Front::Plain);
    let settings = proxy_section(&squid.url("http"), "wrong");
    let (cause, error) = refused(&platform, API_HOST, &settings, &trusted);
    assert_eq!(cause, "proxy_407");
    let mut schemes = error.evidence().proxy_schemes.clone();
    schemes.sort();
    assert_eq!(schemes, ["Basic", "Digest", "NTLM"]);
    let settings = proxy_section(&squid.url("http"), PASSWORD);
    fills(&platform, shop_behind(&platform, &settings));
}

#[test]
fn a_proxys_refusals_come_with_its_own_words() {
    let platform = Platform::start();
    let trusted = [platform.ca_file()];
    let squid = Squid::start(&platform, SignIn::Nobody, Front::Plain);
    let settings = format!("[wan.proxy]\nurl = \"{}\"\n", squid.url("http"));
    let (cause, error) = refused(&platform, "blocked.example", &settings, &trusted);
    assert_eq!(cause, "proxy_denied");
    let said = error.evidence().proxy_said.as_deref().unwrap();
    assert!(said.contains("Access Denied"), "{said}");
    let code = error.evidence().host_code.as_deref();
    assert_eq!(code, Some("ERR_ACCESS_DENIED 0"));
    let (cause, error) = refused(&platform, "no-such-host.invalid", &settings, &trusted);
    assert_eq!(cause, "proxy_failed", "{error}");
    let said = error.evidence().proxy_said.as_deref().unwrap();
    assert!(said.contains("no-such-host.invalid"), "{said}");
    assert_eq!(ask(&platform, API_HOST, &settings, &trusted).unwrap(), 401);
}

#[test]
fn a_proxy_behind_tls_is_held_to_its_own_name_and_the_host_to_its_own() {
    let platform = Platform::start();
    let squid = Squid::start(&platform, SignIn::Basic, Front::Tls);
    let settings = proxy_section(&squid.url("https"), PASSWORD);
    let trusted = [platform.ca_file(), squid.ca_file()];
    assert_eq!(ask(&platform, API_HOST, &settings, &trusted).unwrap(), 401);
    // Its authority is unknown: this is no interception, it is the proxy itself.
    let (cause, error) = refused(&platform, API_HOST, &settings, &[platform.ca_file()]);
    assert_eq!(cause, "tls_unknown_issuer", "{error}");
    assert_eq!(error.evidence().phase, Phase::ProxyTls);
    assert_eq!(error.evidence().issuer.as_deref(), Some(INSPECTOR));
    let other_name = settings.replace("127.0.0.1", "localhost");
    let (cause, error) = refused(&platform, API_HOST, &other_name, &trusted);
    assert_eq!(cause, "tls_wrong_host", "{error}");
    assert_eq!(error.evidence().phase, Phase::ProxyTls);
    // Plain where TLS is expected, and the other way round.
    let plain = Squid::basic(&platform);
    let settings_plain = proxy_section(&plain.url("https"), PASSWORD);
    let (cause, error) = refused(&platform, API_HOST, &settings_plain, &trusted);
    assert_eq!(cause, "proxy_scheme", "{error}");
    let mut ca_files = vec![squid.ca_file()];
    ca_files.push(platform.ca_file());
    let list = format!(
        "\"{}\", \"{}\"",
        ca_files[0].display(),
        ca_files[1].display()
    );
    let known = format!("\"{}\"", platform.ca_file().display());
    fills(
        &platform,
        shop_behind(&platform, &settings).with(&known, &list),
    );
}

#[test]
fn who_opens_tls_on_the_way_is_named_and_let_in_only_with_his_authority() {
    let platform = Platform::start();
    let squid = Squid::start(&platform, SignIn::Nobody, Front::Inspecting);
    let settings = format!("[wan.proxy]\nurl = \"{}\"\n", squid.url("http"));
    let (cause, error) = refused(&platform, API_HOST, &settings, &[platform.ca_file()]);
    assert_eq!(cause, "tls_intercepted", "{error}");
    let evidence = error.evidence();
    assert_eq!(evidence.issuer.as_deref(), Some(INSPECTOR));
    assert!(
        evidence.names.contains(&API_HOST.to_owned()),
        "{evidence:?}"
    );
    assert!(platform.requests().is_empty(), "nothing was said to it");
    // Only the inspector's authority is trusted: whatever is answered went through its hands.
    let only_him = format!("\"{}\"", squid.ca_file().display());
    let known = format!("\"{}\"", platform.ca_file().display());
    fills(
        &platform,
        shop_behind(&platform, &settings).with(&known, &only_him),
    );
}

/// microsocks with `USER` and `PASSWORD`.
fn socks() -> Peer {
    Peer::start(|port, _| {
        let port = port.to_string();
        [
            "microsocks",
            "-i",
            "127.0.0.1",
            "-p",
            &port,
            "-u",
            USER,
            "-P",
            PASSWORD,
        ]
        .map(str::to_owned)
        .to_vec()
    })
}

/// A proxy that resolves names by the system: its process sees a hosts file of its own.
struct Peer {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Runs what `command` gives for a free port and a folder, where `API_HOST` and its like are this machine.
    fn start(command: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let hosts = dir.path().join("hosts");
        let names = "e-serversync-ns.servicebus.windows.net simplementedata.blob.core.windows.net";
        write(
            hosts.clone(),
            &format!("127.0.0.1 localhost {API_HOST} {names}\n"),
        );
        let command = command(port, dir.path());
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(&hosts)
            .args(&command)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut peer = Self {
            child,
            port,
            _dir: dir,
        };
        eventually("the proxy listens", || {
            let ended = peer.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{command:?} ended: is it installed (scripts/setup peers)?"
            );
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        peer
    }
}

#[test]
fn tinyproxy_is_understood_although_it_speaks_http_1_0() {
    let platform = Platform::start();
    let ports: Vec<String> = ["api", "bus", "blob"]
        .iter()
        .map(|flow| platform.text(flow).rsplit_once(':').unwrap().1.to_owned())
        .collect();
    let proxy = Peer::start(|port, dir| {
        let (config, filter) = (dir.join("tinyproxy.conf"), dir.join("filter"));
        fs::write(&filter, "blocked\\.example\n").unwrap();
        let mut text = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nBasicAuth till7 p4ssword\nFilter \"{}\"\n",
            filter.display()
        );
        for port in &ports {
            text.push_str(&format!("ConnectPort {port}\n"));
        }
        fs::write(&config, text).unwrap();
        let config = config.display().to_string();
        vec!["tinyproxy".into(), "-d".into(), "-c".into(), config]
    });
    let settings = |password: &str| {
        format!(
            "[wan.proxy]\nurl = \"http://127.0.0.1:{}\"\nuser = \"till7\"\npassword = \"{password}\"\n",
            proxy.port
        )
    };
    let good = settings("p4ssword");
    let trusted = [platform.ca_file()];
    // It says 401 to a wrong password and 407 to none.
    let nobody = good.replace("user = \"till7\"\npassword = \"p4ssword\"\n", "");
    for (settings, status) in [(settings("wrong"), 401), (nobody, 407)] {
        let (cause, error) = refused(&platform, API_HOST, &settings, &trusted);
        assert_eq!(cause, "proxy_407", "{error}");
        assert_eq!(error.evidence().status, Some(status));
    }
    let (cause, error) = refused(&platform, "blocked.example", &good, &trusted);
    assert_eq!(cause, "proxy_denied", "{error}");
    assert!(error.evidence().proxy_said.is_some(), "{error}");
    let (cause, error) = refused(&platform, "no-such-host.invalid", &good, &trusted);
    assert_eq!(cause, "proxy_failed", "{error}");
    fills(&platform, shop_behind(&platform, &good));
}

#[test]
fn a_socks_proxy_resolves_the_names_and_knows_the_box_by_any_password() {
    let platform = Platform::start();
    let proxy = socks();
    let url = format!("socks5://127.0.0.1:{}", proxy.port);
    let good = proxy_section(&url, PASSWORD);
    let trusted = [platform.ca_file()];
    let (cause, error) = refused(&platform, API_HOST, &proxy_section(&url, "wrong"), &trusted);
    assert_eq!(cause, "proxy_407", "{error}");
    let (cause, error) = refused(&platform, "no-such-host.invalid", &good, &trusted);
    assert_eq!(cause, "proxy_failed", "{error}");
    // A proxy of another kind at that address.
    let (cause, error) = refused(
        &platform,
        API_HOST,
        &good.replace("socks5:", "http:"),
        &trusted,
    );
    assert!(matches!(cause, "proxy_scheme" | "proxy_failed"), "{error}");
    fills(&platform, shop_behind(&platform, &good));
}

/// Set for the process that has a network of its own.
const ALONE: &str = "COMPTOIR_TEST_ALONE_WITH_A_NAME_SERVER";
/// The name server of that network.
const NAME_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);

/// Runs itself once more in a network whose name server hears every question and answers none.
#[test]
fn with_a_proxy_not_even_a_dns_question_leaves() {
    if std::env::var_os(ALONE).is_some() {
        return alone_with_a_name_server();
    }
    let dir = tempfile::tempdir().unwrap();
    let (resolv, hosts) = (dir.path().join("resolv.conf"), dir.path().join("hosts"));
    fs::write(
        &resolv,
        "nameserver 127.0.0.1\noptions timeout:20 attempts:2\n",
    )
    .unwrap();
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let script = "ip link set lo up && mount --bind \"$0\" /etc/resolv.conf && mount --bind \"$1\" /etc/hosts \
                  && shift && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(&resolv)
        .arg(&hosts)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("wan::proxy_peers::with_a_proxy_not_even_a_dns_question_leaves")
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ran = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && ran.contains("1 passed"),
        "{said}{ran}"
    );
}

fn alone_with_a_name_server() {
    let server = UdpSocket::bind(NAME_SERVER).unwrap();
    server.set_nonblocking(true).unwrap();
    let questions = || {
        let mut packet = [0; 512];
        std::iter::from_fn(|| server.recv(&mut packet).ok()).count()
    };
    let platform = Platform::start();
    let squid = Squid::basic(&platform);
    let microsocks = socks();
    let before = questions();
    assert_eq!(before, 0, "the peers themselves ask nothing");
    for url in [
        squid.url("http"),
        format!("socks5://127.0.0.1:{}", microsocks.port),
    ] {
        let settings = proxy_section(&url, PASSWORD);
        let shop = shop_behind(&platform, &settings).start();
        shop.filled();
        let asked = ask(&platform, API_HOST, &settings, &[platform.ca_file()]);
        assert_eq!(asked.unwrap(), 401);
    }
    // A proxy that is not there, and one that refuses, are no reason to ask either.
    for url in ["http://127.0.0.1:1".to_owned(), squid.url("http")] {
        let settings = proxy_section(&url, "wrong");
        refused(&platform, API_HOST, &settings, &[platform.ca_file()]);
    }
    assert_eq!(
        questions(),
        0,
        "with a proxy the name server is asked nothing"
    );
    // Without one it is: the ear works.
    let (cause, _) = refused(&platform, API_HOST, "", &[platform.ca_file()]);
    assert!(
        matches!(cause, "dns" | "timeout_resolve" | "no_link"),
        "{cause}"
    );
    assert!(questions() > 0);
}
