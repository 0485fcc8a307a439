//! A real squid, set up as shops' networks have it, which alone knows where the production's host names are.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use super::platform::{Platform, eventually};
use super::shop::Shop;
use crate::loopback::free_port;

pub const USER: &str = "till 7";
/// Characters that a URL, a shell or a careless split would break.
pub const PASSWORD: &str = "p%40@ss:w/rd \\\"é?#&";
pub const API_HOST: &str = "api.server.commerce-hub.io";
pub const BUS_HOST: &str = "e-serversync-ns.servicebus.windows.net";
pub const MEDIA_HOST: &str = "simplementedata.blob.core.windows.net";
/// The authority that signs in other hosts' names, when told to.
pub const INSPECTOR: &str = "Inspecting Authority of the Mall";

/// How it asks who one is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    Nobody,
    Basic,
    Digest,
    Ntlm,
    /// Everything at once, as proxies in an Active Directory do.
    All,
}

/// How it is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Front {
    Plain,
    /// Behind TLS of its own.
    Tls,
    /// Plain, and it opens every tunnel.
    Inspecting,
}

/// What one squid is called among those of this machine. Squids of one name share segments of memory: one that starts while
/// another ends finds them half there, and stops.
pub struct Name(String);

impl Name {
    pub fn own() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("cmpt{}x{number}", std::process::id()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    /// A killed squid leaves its segments behind.
    fn drop(&mut self) {
        let segments = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        for segment in segments {
            let name = segment.file_name();
            if name.to_string_lossy().starts_with(&format!("{}-", self.0)) {
                let _ = fs::remove_file(segment.path());
            }
        }
    }
}

pub struct Squid {
    child: Child,
    _name: Name,
    pub port: u16,
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
    pub fn basic(platform: &Platform) -> Self {
        Self::start(platform, SignIn::Basic, Front::Plain)
    }

    pub fn start(platform: &Platform, sign_in: SignIn, front: Front) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // squid gives its rights up: its user must be able to read and write here.
        open_to_all(dir.path());
        let path = |name: &str| dir.path().join(name);
        write(path("users"), &format!("{USER}:{}\n", hash(PASSWORD)));
        write(path("digests"), &format!("{USER}:{PASSWORD}\n"));
        let hosts = format!("127.0.0.1 {API_HOST} {BUS_HOST} {MEDIA_HOST} blocked.example\n");
        write(path("hosts"), &hosts);
        let ports: Vec<&str> = ["api", "bus", "blob"]
            .map(|flow| platform.text(flow).rsplit_once(':').unwrap().1)
            .to_vec();
        let port = free_port();
        let mut config = format!(
            "pid_filename none\ncache deny all\nhosts_file {hosts}\ndns_nameservers 127.0.0.9\ndns_timeout 1 seconds\n\
             cache_log {dir}/cache.log\naccess_log stdio:{log}\ncoredump_dir {dir}\n\
             shutdown_lifetime 0 seconds\nvisible_hostname proxy.shop.example\n\
             acl CONNECT method CONNECT\nacl platform port {ports}\nacl blocked dstdomain blocked.example\n\
             http_access deny blocked\nhttp_access deny CONNECT !platform\n",
            hosts = path("hosts").display(),
            dir = dir.path().display(),
            log = path("access.log").display(),
            ports = ports.join(" "),
        );
        config.push_str(&front_lines(front, port, dir.path(), platform));
        config.push_str(&sign_in_lines(sign_in, dir.path()));
        config.push_str("http_access deny all\n");
        write(path("squid.conf"), &config);
        let name = Name::own();
        let child = Command::new("squid")
            .args(["-n", name.as_str(), "-N", "-f"])
            .arg(path("squid.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("squid is installed: apt-get install --no-install-recommends squid-openssl");
        let mut squid = Self {
            child,
            _name: name,
            port,
            dir,
        };
        eventually("squid listens", || {
            let ended = squid.child.try_wait().unwrap();
            assert!(ended.is_none(), "squid ended: {}", squid.log("cache.log"));
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        squid
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// The authority of its own certificate (TLS front), or that it signs with (inspecting).
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

fn front_lines(front: Front, port: u16, dir: &Path, platform: &Platform) -> String {
    if front == Front::Plain {
        return format!("http_port 127.0.0.1:{port}\n");
    }
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, INSPECTOR);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let ca_key = key.serialize_pem();
    let ca = CertifiedIssuer::self_signed(params, key).unwrap();
    write(dir.join("ca.pem"), &ca.pem());
    let pair = dir.join("pair.pem");
    if front == Front::Inspecting {
        write(pair.clone(), &format!("{}{ca_key}", ca.pem()));
        let database = dir.join("made");
        let made = Command::new("/usr/lib/squid/security_file_certgen")
            .args(["-c", "-s"])
            .arg(&database)
            .args(["-M", "4MB"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "no database for certificates");
        for path in [&database, &database.join("certs")] {
            open_to_all(path);
        }
        for file in ["index.txt", "size"] {
            fs::set_permissions(database.join(file), fs::Permissions::from_mode(0o666)).unwrap();
        }
        return format!(
            "http_port 127.0.0.1:{port} ssl-bump tls-cert={pair} generate-host-certificates=on \
             dynamic_cert_mem_cache_size=1MB\n\
             sslcrtd_program /usr/lib/squid/security_file_certgen -s {database} -M 4MB\n\
             sslcrtd_children 1\nssl_bump bump all\ntls_outgoing_options cafile={platform}\n",
            pair = pair.display(),
            database = database.display(),
            platform = platform.ca_file().display(),
        );
    }
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    write(
        pair.clone(),
        &format!("{}{}", leaf.pem(), key.serialize_pem()),
    );
    format!("https_port 127.0.0.1:{port} tls-cert={}\n", pair.display())
}

fn sign_in_lines(sign_in: SignIn, dir: &Path) -> String {
    if sign_in == SignIn::Nobody {
        return "http_access allow all\n".to_owned();
    }
    let mut lines = String::new();
    let dir = dir.display();
    // NTLM and Negotiate first: squid offers in the order it was told.
    if matches!(sign_in, SignIn::Ntlm | SignIn::All) {
        lines.push_str("auth_param ntlm program /usr/lib/squid/ntlm_fake_auth\n");
    }
    if matches!(sign_in, SignIn::Digest | SignIn::All) {
        let _ = writeln!(
            lines,
            "auth_param digest program /usr/lib/squid/digest_file_auth {dir}/digests\n\
             auth_param digest realm shop"
        );
    }
    if matches!(sign_in, SignIn::Basic | SignIn::All) {
        let _ = writeln!(
            lines,
            "auth_param basic program /usr/lib/squid/basic_ncsa_auth {dir}/users\n\
             auth_param basic realm shop\nauth_param basic utf8 on"
        );
    }
    lines.push_str("acl authed proxy_auth REQUIRED\nhttp_access allow authed\n");
    lines
}

pub fn write(path: PathBuf, text: &str) {
    fs::write(&path, text).unwrap();
    open_to_all(&path);
}

pub fn open_to_all(path: &Path) {
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

/// `[wan.proxy]` with `USER` and `password`.
pub fn proxy_section(url: &str, password: &str) -> String {
    format!("[wan.proxy]\nurl = \"{url}\"\nuser = '{USER}'\npassword = '{password}'\n")
}

/// The shop with the production's host names, which only the proxy can resolve to this machine.
pub fn shop_behind(platform: &Platform, proxy: &str) -> Shop {
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
    shop.with("[wan.pull]\n", &format!("{proxy}[wan.pull]\n"))
}
