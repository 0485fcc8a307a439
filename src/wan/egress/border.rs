//! Where a flow may go: to the host that the settings give it, by HTTPS, on that host's port. Nowhere else, ever.
//!
//! Addresses also come from outside: a claim check, a media document, a link or a redirect of a roll-out. Each is judged
//! by what it says alone, before anything leaves: no name is looked up, no proxy is asked, no connection is opened. It is
//! read by the parser that the connection is made from, so that both see the same host in it.

use ureq::http::Uri;

use super::evidence::one_line;
use super::{Cause, EgressError, Evidence, Phase};
use crate::config::HttpsUrl;
use crate::wan::contract::{FlowId, HTTPS_PORT};

/// An address that a flow does not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked} is no host this shop was opened for")]
pub struct OutsideContract {
    /// `HOST:PORT` as the address names it: never its path or query, which may hold a signature.
    pub asked: String,
}

impl OutsideContract {
    /// The request that was not made.
    pub(super) fn into_error(self, flow: FlowId, host: &HttpsUrl) -> EgressError {
        let mut evidence = Evidence::at(Phase::Address);
        evidence.led_to = Some(self.asked.clone());
        let (name, host, port) = (flow.flow().name, host.host(), host.port());
        let allowed = format!("{name} goes to {host}:{port} only");
        EgressError::new(Cause::OutsideContract, &self.asked, allowed).with(evidence)
    }
}

/// `url` when it is on `host`.
///
/// # Errors
/// Any other address, and what is none.
pub fn within(url: &str, host: &HttpsUrl) -> Result<Uri, OutsideContract> {
    let is_there = |uri: &Uri| {
        uri.scheme_str() == Some("https")
            && uri.authority().is_some_and(|authority| {
                !authority.as_str().contains('@')
                    && authority.host().eq_ignore_ascii_case(host.host())
                    && authority.port_u16().unwrap_or(HTTPS_PORT) == host.port()
            })
    };
    let uri = url.parse().ok().filter(is_there);
    uri.ok_or_else(|| OutsideContract { asked: asked(url) })
}

/// The host and port that an address names, whatever else is wrong with it.
fn asked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let named = authority.rsplit('@').next().unwrap_or_default();
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-._[]:".contains(*c);
    let host: String = named.chars().take_while(fits).collect();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    match one_line(&host) {
        None => "an address without a host".to_owned(),
        Some(host) if has_port => host,
        Some(host) if scheme == "http" => format!("{host}:80"),
        Some(host) => format!("{host}:{HTTPS_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::super::names::Names;
    use super::super::{Client, Egress, Method, Request, Settings};
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::{Config, ProxyConfig, ProxyUrl, WanConfig};
    use crate::identity::Secret;
    use crate::wan::contract::CONTRACT;
    use crate::wan::time::PlatformTime;
    use crate::wan::tls_host::{Certificate, TlsHost};

    fn judged(url: &str, host: &str) -> Result<(), String> {
        let host = HttpsUrl::parse(host).unwrap();
        within(url, &host)
            .map(drop)
            .map_err(|outside| outside.asked)
    }

    #[test]
    fn the_flows_own_host_is_within_however_it_is_written() {
        for (url, host) in [
            ("https://a.example", "https://a.example"),
            ("https://A.Example:443/b?c=https://d", "https://a.example"),
            ("https://a.example/b@c", "https://a.example:443"),
            ("https://a.example:8443/b", "https://A.example:8443"),
            ("https://[fd00::1]:8443/", "https://[fd00::1]:8443"),
        ] {
            assert_eq!(judged(url, host), Ok(()), "{url}");
        }
    }

    #[test]
    fn everything_else_is_outside_and_told_by_host_and_port_alone() {
        let nameless = "an address without a host";
        for (url, asked) in [
            ("https://evil.example/x?sig=secret", "evil.example:443"),
            ("https://evil.example?sig=secret", "evil.example:443"),
            ("https://a.example:8443/x", "a.example:8443"),
            (
                "https://a.example.evil.example/",
                "a.example.evil.example:443",
            ),
            ("https://evil.example/a.example", "evil.example:443"),
            ("https://a.example@evil.example/", "evil.example:443"),
            ("https://secret@a.example/", "a.example:443"),
            ("https://evil.example\\@a.example/", "evil.example:443"),
            ("https://evil.example%2f@a.example", "a.example:443"),
            ("https://evil.example%3Fsig=secret", "evil.example:443"),
            ("https://a.example./", "a.example.:443"),
            ("http://a.example/x", "a.example:80"),
            ("http://a.example:443/x", "a.example:443"),
            ("HTTP://[fd00::1]/", "[fd00::1]:443"),
            ("ftp://a.example", "a.example:443"),
            ("//evil.example/x", nameless),
            ("/x?sig=secret", nameless),
            ("file:///etc/passwd", nameless),
            ("https://\u{e9}vil.example/", nameless),
            ("", nameless),
        ] {
            assert_eq!(judged(url, "https://a.example"), Err(asked.into()), "{url}");
        }
        let long = format!("https://{}.example/", "a".repeat(1000));
        assert!(judged(&long, "https://a.example").unwrap_err().len() < 200);
    }

    /// Sees who looks a name up (and finds none), and who connects to `at`.
    struct Watch {
        names: Arc<AtomicU32>,
        listener: TcpListener,
        at: SocketAddr,
    }

    impl Watch {
        fn start() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            Self {
                names: Arc::default(),
                at: listener.local_addr().unwrap(),
                listener,
            }
        }

        fn egress(&self, config: &WanConfig) -> Egress {
            let (egress, _) = Egress::new(config, &PlatformTime::of_system());
            let names = Arc::clone(&self.names);
            let mut settings = Settings::clone(&egress.settings);
            settings.names = Names::new(Arc::new(SystemClock::default()), move |_| {
                names.fetch_add(1, Ordering::SeqCst);
                Err(io::Error::other("there are no names here"))
            });
            let settings = Arc::new(settings);
            Egress { settings }
        }

        /// Names looked up, and whether somebody connected.
        fn seen(&self) -> (u32, bool) {
            let names = self.names.load(Ordering::SeqCst);
            (names, self.listener.accept().is_ok())
        }
    }

    fn settings() -> WanConfig {
        Config::from_layers(&[]).unwrap().wan
    }

    fn ask(client: &Client, url: &str) -> Result<u16, EgressError> {
        let request = Request {
            method: Method::GET,
            url,
            headers: &[("authorization", "secret")],
            body: None,
            hold: Duration::ZERO,
        };
        client.send(&request).map(|answer| answer.status())
    }

    #[test]
    fn for_an_address_outside_no_name_is_looked_up_no_proxy_asked_and_no_connection_opened() {
        let watch = Watch::start();
        for scheme in [None, Some("http"), Some("https"), Some("socks5")] {
            let mut config = settings();
            config.proxy.shop = scheme.map(|scheme| ProxyConfig {
                url: ProxyUrl::parse(&format!("{scheme}://{}", watch.at)).unwrap(),
                user: String::new(),
                password: Secret::default(),
            });
            let egress = watch.egress(&config);
            for flow in CONTRACT {
                let own = flow.default_host;
                let mut urls = vec![
                    format!("https://{}/x?sig=secret", watch.at),
                    "https://evil.example/x?sig=secret".to_owned(),
                    format!("https://{own}:8443/x?sig=secret"),
                    format!("http://{own}/x?sig=secret"),
                    "no address".to_owned(),
                ];
                let others = CONTRACT.iter().filter(|other| other.id != flow.id);
                urls.extend(others.map(|other| format!("https://{}/x", other.default_host)));
                let client = egress.client(flow.id);
                for client in [client.clone(), client.judging_at(0)] {
                    for url in &urls {
                        let error = ask(&client, url).unwrap_err();
                        assert_eq!(error.cause, Cause::OutsideContract, "{error}");
                        assert_eq!(error.evidence().phase, Phase::Address);
                        assert_eq!(error.evidence().led_to.as_ref(), Some(&error.host));
                        let said = format!("{error} {:?}", error.evidence());
                        assert!(!said.contains("secret"), "{said}");
                    }
                }
            }
        }
        assert_eq!(watch.seen(), (0, false));
        // The flow's own host is looked up and connected to: the watch does see.
        let mut config = settings();
        let client = watch.egress(&config).client(FlowId::Api);
        let error = ask(&client, config.api_url.as_str()).unwrap_err();
        assert_eq!(error.cause, Cause::Dns, "{error}");
        assert_eq!(watch.seen(), (1, false));
        config.api_url = HttpsUrl::parse(&format!("https://{}", watch.at)).unwrap();
        config.deadlines.tls = Duration::from_millis(100);
        let client = watch.egress(&config).client(FlowId::Api);
        ask(&client, config.api_url.as_str()).unwrap_err();
        assert_eq!(watch.seen(), (1, true));
    }

    #[test]
    fn a_redirect_leads_nowhere() {
        let watch = Watch::start();
        let elsewhere = format!("https://{}/x", watch.at);
        let host = TlsHost::start_with(&Certificate::default(), move |_| {
            let head = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0";
            format!("{head}\r\nLocation: {elsewhere}\r\n\r\n").into_bytes()
        });
        let mut config = settings();
        config.api_url = host.https();
        config.ca_files = vec![host.ca_file.clone()];
        let (egress, _) = Egress::new(&config, &PlatformTime::of_system());
        assert_eq!(ask(&egress.client(FlowId::Api), &host.url).unwrap(), 307);
        assert_eq!(watch.seen(), (0, false));
    }
}
