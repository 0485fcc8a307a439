//! Every way TLS can be wrong, refused by the door itself and each under its own code; and the same set-up done right passes.
//!
//! Every certificate is shown by TLS 1.2 and by TLS 1.3. What no Rust server does any more (old TLS, weak keys, SHA-1) is
//! made and served by OpenSSL.

mod broken_lines;
mod certificates;
mod handshakes;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use comptoir::config::Config;
use comptoir::wan::contract::FlowId;
use comptoir::wan::egress::{Answer, Client, Egress, EgressError, Method, Request};
use comptoir::wan::time::PlatformTime;
use rcgen::{CertificateParams, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};

use super::tls_peer::{HOST, Identity, proxy_to, serve};

/// The door to `host`.
struct Door {
    client: Client,
    url: String,
}

/// The door, trusting what `ca` holds, led to `target` by a proxy under whatever name, with a clock nobody has confirmed.
fn door_with_a_doubted_clock(ca: &str, host: &str, target: SocketAddr) -> Door {
    door_by(ca, host, &proxy_to(target))
}

/// The same by the proxy `proxy`; without a name, directly.
fn door_by(ca: &str, host: &str, proxy: &str) -> Door {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, ca).unwrap();
    let url = format!("https://{host}");
    let text = format!(
        "[wan]\napi_url = \"{url}\"\n[wan.proxy]\nurl = \"{proxy}\"\n[wan.trust]\nca_files = [\"{}\"]\n",
        file.display()
    );
    let config = Config::from_layers(&[(Path::new("site.toml"), &text)]).unwrap();
    let (egress, problems) = Egress::new(&config.wan, &PlatformTime::of_system());
    assert!(problems.is_empty(), "{problems:?}");
    let client = egress.client(FlowId::Api);
    Door { client, url }
}

/// The same by a time that nobody doubts, so that a certificate out of its time is the certificate's fault.
fn door(ca: &str, host: &str, target: SocketAddr) -> Door {
    let Door { client, url } = door_with_a_doubted_clock(ca, host, target);
    let client = client.judging_at(PlatformTime::of_system().now_s());
    Door { client, url }
}

impl Door {
    fn ask(&self) -> Result<Answer, EgressError> {
        self.client.send(&Request {
            method: Method::GET,
            url: &self.url,
            headers: &[],
            body: None,
            hold: Duration::ZERO,
        })
    }

    /// A status, or the code of what went wrong.
    fn outcome(&self) -> String {
        match self.ask() {
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.cause.as_str().to_owned(),
        }
    }
}

/// Rows of "what is shown" and "what must become of it"; the wrong ones are told together at the end.
struct Table {
    ca: String,
    host: &'static str,
    wrong: Vec<String>,
}

impl Table {
    /// Trusts `ca` and asks for [`HOST`].
    fn trusting(ca: impl Into<String>) -> Self {
        Self {
            ca: ca.into(),
            host: HOST,
            wrong: Vec::new(),
        }
    }

    fn ask_for(&mut self, host: &'static str) {
        self.host = host;
    }

    /// The certificate that `make` gives must end so, shown by both versions of TLS.
    fn row(&mut self, expected: &str, what: &str, make: impl Fn() -> Identity) {
        for version in [&TLS12, &TLS13] {
            let address = serve(make(), &[version], &[]);
            let seen = door(&self.ca, self.host, address).outcome();
            self.compare(expected, &format!("{what} ({:?})", version.version), &seen);
        }
    }

    fn compare(&mut self, expected: &str, what: &str, seen: &str) {
        if seen != expected {
            self.wrong.push(format!("{what}: {seen}, not {expected}"));
        }
    }

    fn end(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn of_the_future(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2200, 1, 1);
}

fn named(names: &[&str]) -> impl Fn(&mut CertificateParams) {
    let names: Vec<SanType> = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    move |params| params.subject_alt_names.clone_from(&names)
}
