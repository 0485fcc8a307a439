//! Two hosts and a wire: the box alone in its namespace, and beyond the wire everything else: router, proxy, name server, the
//! platform under the production's names and on 443, and a device.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::net::{http, ip, on};
use crate::kitchen::{Kitchen, binary, wait_for};
use crate::wan::squid;

pub const WIRE: &str = "wire";
pub const BOX: &str = "10.98.0.2";
/// Proxy and name server too.
pub const ROUTER: &str = "10.98.0.1";
pub const ROUTER_V6: &str = "fd98::1";
pub const DEVICE: &str = "10.98.0.21";
/// Of a network kept for documentation (RFC 5737): nobody's.
pub const PLATFORM: &str = "203.0.113.10";
pub const PROXY_PORT: u16 = 3128;
const CONTROL: &str = "10.98.0.1:8446";
pub const HOSTS_SORTED: [&str; 5] = [
    "api.logmatic.io",
    "api.server.commerce-hub.io",
    "e-serversync-ns.servicebus.windows.net",
    "koostodesapp-ns.servicebus.windows.net",
    "simplementedata.blob.core.windows.net",
];
const SITE: &str = "shop-1";
/// The one that the platform names at enrolment.
pub const SUPPORT_QUEUE: &str = "support";
pub const CLAIM_CODE: &str = "ABCD-EFGH";

/// The town.
pub struct Town {
    dir: tempfile::TempDir,
    box_host: String,
    outside: String,
    children: Vec<(&'static str, Child)>,
    pub kitchen: Option<Kitchen>,
    proxy_name: squid::Name,
}

impl Drop for Town {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in [
                "box.log",
                "proxy.log",
                "squid.log",
                "platform.log",
                "names.log",
            ] {
                let text = fs::read_to_string(self.path(name)).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(60).collect();
                eprintln!("--- the last of {name}, newest first\n{}", tail.join("\n"));
            }
        }
        self.kitchen = None;
        while let Some((name, _)) = self.children.last() {
            let name = *name;
            self.end(name);
        }
        for host in [&self.box_host, &self.outside] {
            ip(&["netns", "del", host]);
        }
    }
}

impl Town {
    /// With everything running but the box; `None` where this machine cannot make one.
    pub fn build(with_proxy: bool) -> Option<Self> {
        for program in ["ip", "tcpdump", "squid", "dnsmasq"] {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            found.ok().filter(|found| found.status.success())?;
        }
        let id = format!("{}-{}", std::process::id(), u8::from(with_proxy) + next());
        let mut town = Self {
            dir: tempfile::tempdir().unwrap(),
            box_host: format!("cmpt-audit-box-{id}"),
            outside: format!("cmpt-audit-out-{id}"),
            children: Vec::new(),
            kitchen: None,
            proxy_name: squid::Name::own(),
        };
        open_to_all(town.dir.path());
        town.lay_wire().then_some(())?;
        town.start_platform();
        if with_proxy {
            town.start_proxy();
        }
        town.start_names();
        town.write_site_file(with_proxy);
        Some(town)
    }

    fn lay_wire(&self) -> bool {
        let (a, b) = (self.box_host.as_str(), self.outside.as_str());
        let on = |host: &str, arguments: &str| {
            let all: Vec<&str> = ["-n", host]
                .into_iter()
                .chain(arguments.split(' '))
                .collect();
            ip(&all)
        };
        if !ip(&["netns", "add", a]) {
            return false;
        }
        ip(&["netns", "add", b])
            && on(
                a,
                &format!("link add {WIRE} type veth peer name {WIRE} netns {b}"),
            )
            && on(a, &format!("addr add {BOX}/24 broadcast + dev {WIRE}"))
            && on(a, &format!("addr add fd98::2/64 dev {WIRE} nodad"))
            && on(b, &format!("addr add {ROUTER}/24 broadcast + dev {WIRE}"))
            && on(b, &format!("addr add {ROUTER_V6}/64 dev {WIRE} nodad"))
            && on(b, &format!("addr add {DEVICE}/24 broadcast + dev {WIRE}"))
            && on(b, &format!("addr add {PLATFORM}/32 dev lo"))
            && on(a, "link set lo up")
            && on(b, "link set lo up")
            && on(a, &format!("link set {WIRE} up"))
            && on(b, &format!("link set {WIRE} up"))
            && on(a, &format!("route add default via {ROUTER}"))
            && on(a, &format!("-6 route add default via {ROUTER_V6}"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn box_host(&self) -> &str {
        &self.box_host
    }

    /// Starts a program on a host; its output goes to `NAME.log`.
    fn start(&mut self, name: &'static str, host: &str, program: &Path, arguments: &[&str]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", host])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push((name, child));
    }

    /// Ends a program in good order.
    pub fn end(&mut self, name: &str) {
        let Some(at) = self.children.iter().position(|(known, _)| *known == name) else {
            return;
        };
        let (_, mut child) = self.children.remove(at);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    fn start_platform(&mut self) {
        let (ca, data, ready) = (
            self.path("ca"),
            self.path("platform"),
            self.path("ready.json"),
        );
        let text = |path: &Path| path.display().to_string();
        let arguments = [
            "--listen",
            &format!("{PLATFORM}:443"),
            "--control",
            CONTROL,
            "--site",
            SITE,
            "--token",
            "token-of-shop",
            "--bus-key-name",
            "box",
            "--bus-key",
            "a2V5",
            "--logs-key",
            "key-of-logs",
            "--queue",
            SUPPORT_QUEUE,
            "--ca-dir",
            &text(&ca),
            "--data",
            &text(&data),
            "--ready-file",
            &text(&ready),
        ];
        let outside = self.outside.clone();
        self.start(
            "platform",
            &outside,
            &binary("platform-emulator"),
            &arguments,
        );
        wait_for("the platform serves", || fs::read(&ready).ok());
    }

    /// Knows the names, and lets nothing through but 443.
    pub fn start_proxy(&mut self) {
        let hosts = self.path("proxy.hosts");
        fs::write(&hosts, format!("{PLATFORM} {}\n", HOSTS_SORTED.join(" "))).unwrap();
        open_to_all(&hosts);
        let config = self.path("squid.conf");
        let dir = self.dir.path().display().to_string();
        let text = format!(
            "http_port {ROUTER}:{PROXY_PORT}\npid_filename none\ncache deny all\nhosts_file {hosts}\n\
             cache_log {dir}/squid.log\naccess_log stdio:{dir}/proxy.access\ncoredump_dir {dir}\n\
             shutdown_lifetime 0 seconds\nvisible_hostname proxy.shop.example\ndns_nameservers {ROUTER}\n\
             acl CONNECT method CONNECT\nacl https port 443\n\
             http_access allow CONNECT https\nhttp_access deny all\n",
            hosts = hosts.display(),
        );
        fs::write(&config, text).unwrap();
        open_to_all(&config);
        let outside = self.outside.clone();
        let (name, config) = (self.proxy_name.as_str().to_owned(), config.display());
        self.start(
            "proxy",
            &outside,
            Path::new("squid"),
            &["-n", &name, "-N", "-f", &config.to_string()],
        );
        self.wait_listens(&format!("{ROUTER}:{PROXY_PORT}"));
    }

    fn start_names(&mut self) {
        let addresses: Vec<String> = HOSTS_SORTED
            .iter()
            .map(|host| format!("--address=/{host}/{PLATFORM}"))
            .collect();
        let listen = format!("--listen-address={ROUTER}");
        let mut arguments = vec![
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            "--conf-file=/dev/null",
            "--log-queries",
            "--log-facility=-",
            &listen,
        ];
        arguments.extend(addresses.iter().map(String::as_str));
        let outside = self.outside.clone();
        self.start("names", &outside, Path::new("dnsmasq"), &arguments);
        self.wait_listens(&format!("{ROUTER}:53"));
        fs::write(
            self.path("resolv.conf"),
            format!("nameserver {ROUTER}\noptions timeout:2 attempts:2\n"),
        )
        .unwrap();
    }

    fn wait_listens(&self, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        wait_for(&format!("{address} listens"), || {
            self.outside(move || TcpStream::connect(address).ok().map(drop))
        });
    }

    /// No site and no credentials: the box gets them at its enrolment.
    fn write_site_file(&self, with_proxy: bool) {
        let proxy = format!("[wan.proxy]\nurl = \"http://{ROUTER}:{PROXY_PORT}\"\n");
        let proxy = if with_proxy { proxy.as_str() } else { "" };
        let text = format!(
            "[site]\nclaim_code = \"{CLAIM_CODE}\"\n\
             [wan]\nretry_first_ms = 100\nretry_max_s = 1\n{proxy}\
             [wan.trust]\nca_files = [\"{ca}\"]\n\
             [wan.pull]\nwait_s = 2\n[wan.bus]\nwait_s = 2\n\
             [wan.logs]\nlinger_s = 0\n[wan.support]\nlinger_s = 0\n\
             [lan.support]\nenabled = true\n[telemetry]\nformat = \"text\"\n\
             [store]\ndata_dir = \"{data}\"\norders_reserve_mib = 8\n",
            ca = self.path("ca/ca.pem").display(),
            data = self.path("data").display(),
        );
        fs::write(self.path("site.toml"), text).unwrap();
    }

    /// `comptoir` with its own view of the name server, in the box's namespace alone.
    fn comptoir(&self, site_file: &Path, arguments: &str) -> Vec<String> {
        let script = format!(
            "mount --bind {resolv} /etc/resolv.conf && exec {comptoir} --site-file {site} {arguments}",
            resolv = self.path("resolv.conf").display(),
            comptoir = binary("comptoir").display(),
            site = site_file.display(),
        );
        vec!["-c".into(), script]
    }

    /// The box: the real supervisor with the real server.
    pub fn start_box(&mut self) {
        let arguments = self.comptoir(&self.path("site.toml"), "supervise");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let host = self.box_host.clone();
        self.start("box", &host, Path::new("sh"), &arguments);
        wait_for("the box serves", || {
            let (status, _) = self.ask_box(80, "GET", "/livez", "", "")?;
            (status == 200).then_some(())
        });
    }

    /// Kills the server under its supervisor.
    pub fn kill_server(&self) {
        let supervisor = &self
            .children
            .iter()
            .find(|(name, _)| *name == "box")
            .unwrap()
            .1;
        let pid = supervisor.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let server = children.split_whitespace().next().unwrap().parse().unwrap();
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
    }

    /// `comptoir check` on the box; what it printed.
    pub fn check(&self) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.box_host, "sh"])
            .args(self.comptoir(&self.path("site.toml"), "check --json"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same by a site file that says nothing of the proxy.
    pub fn check_without_proxy(&self) {
        let site = fs::read_to_string(self.path("site.toml")).unwrap();
        let proxy = site
            .lines()
            .find(|line| line.starts_with("url = \"http://"))
            .unwrap();
        let path = self.path("no-proxy.toml");
        fs::write(&path, site.replace(proxy, "")).unwrap();
        let status = Command::new("ip")
            .args(["netns", "exec", &self.box_host, "sh"])
            .args(self.comptoir(&path, "check --json"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.code().is_some(), "it ran");
    }

    /// The device comes, finds the box, pairs, and takes commands on 8081.
    pub fn start_kitchen(&mut self) {
        let mut kitchen = Kitchen::unpaired(&self.path("kitchen"))
            .on_host(&self.outside, DEVICE)
            .with(&[
                "--pair-code",
                CLAIM_CODE,
                "--discover",
                DEVICE,
                "--heartbeat-s",
                "1",
            ]);
        kitchen.start();
        self.kitchen = Some(kitchen);
    }

    /// Runs `work` beyond the wire: on a thread that lives there.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(&self.outside, work)
    }

    /// A request to a port of the box, from beyond the wire; `None` when it is not answered.
    pub fn ask_box(
        &self,
        port: u16,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> Option<(u16, String)> {
        let address = SocketAddr::new(BOX.parse::<IpAddr>().unwrap(), port);
        self.outside(|| http(address, method, path, token, body))
    }

    /// A call of the platform's control API.
    pub fn control(&self, method: &str, path: &str, body: &str) -> Value {
        let (path, address) = (format!("/control/{path}"), CONTROL.parse().unwrap());
        let (status, body) = self
            .outside(|| http(address, method, &path, "", body))
            .unwrap();
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {body}"
        );
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    /// A broadcast from beyond the wire that nobody answers.
    pub fn mark_the_end(&self, mark: &[u8]) {
        self.outside(|| {
            let socket = UdpSocket::bind((DEVICE, 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(mark, ("10.98.0.255", 57854)).unwrap();
        });
    }

    /// One datagram from the box's namespace.
    pub fn stray_datagram(&self, to: &str) {
        on(&self.box_host, || {
            let socket = UdpSocket::bind((BOX, 0)).unwrap();
            socket.send_to(b"what time is it", to).unwrap();
        });
    }

    /// One connection, or the try, from the box's namespace.
    pub fn stray_connection(&self, to: &str) {
        let to: SocketAddr = to.parse().unwrap();
        on(&self.box_host, || {
            let _ = TcpStream::connect_timeout(&to, Duration::from_secs(2));
        });
    }

    /// The proxy's own book: every request a CONNECT to a host of the contract on 443, and each host asked for.
    pub fn assert_proxy_saw_the_contract_only(&self) {
        // squid writes a tunnel down when it ends.
        let log = wait_for("every host in the proxy's book", || {
            let log = fs::read_to_string(self.path("proxy.access")).ok()?;
            let all = HOSTS_SORTED
                .iter()
                .all(|host| log.contains(&format!("CONNECT {host}:443")));
            all.then_some(log)
        });
        for line in log.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let fits = fields[5] == "CONNECT"
                && HOSTS_SORTED
                    .iter()
                    .any(|host| fields[6] == format!("{host}:443"));
            // The probe that the proxy listens: a connection without a request.
            assert!(fits || fields[6].starts_with("error:"), "{line}");
        }
    }
}

fn next() -> u8 {
    use std::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(0);
    NEXT.fetch_add(2, Ordering::Relaxed)
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o777 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
