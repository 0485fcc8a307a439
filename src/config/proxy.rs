//! `[wan.proxy]`: the shop's proxy, who reaches what without it, and what differs for single flows.

use std::fmt;
use std::net::IpAddr;

use super::reader::Reader;
use super::wan::{check_authority, split_port};
use crate::identity::Secret;

/// The flows that may go their own way: the keys below `wan.proxy.flows`, named as in the network contract.
pub const PROXY_FLOWS: [&str; 5] = ["api", "bus", "media", "logs", "support"];

/// RFC 1929: user and password have a length of one byte each.
const MAX_SOCKS_CREDENTIAL: usize = 255;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyScheme {
    /// `http://`: CONNECT in plain text.
    Http,
    /// `https://`: CONNECT inside TLS with the proxy.
    Https,
    /// `socks5://` and `socks5h://`, which mean the same here: the proxy resolves the names.
    Socks5,
}

impl ProxyScheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => 1080,
        }
    }
}

/// The address of a proxy, without credentials: `SCHEME://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl {
    scheme: ProxyScheme,
    host: String,
    port: u16,
}

impl ProxyUrl {
    /// Checks `text`.
    ///
    /// # Errors
    /// A sentence for the administrator. It never repeats the text, which could hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("pac+") || lower.contains(".pac") || lower.contains("wpad") {
            return Err(
                "this is the address of a configuration script (PAC, WPAD), which the box does not run: give the proxy \
                 itself, as http://HOST:PORT; it stands in the script behind the word PROXY",
            );
        }
        let (scheme, rest) = match lower.split_once("://") {
            Some(("http", rest)) => (ProxyScheme::Http, rest),
            Some(("https", rest)) => (ProxyScheme::Https, rest),
            Some(("socks5" | "socks5h", rest)) => (ProxyScheme::Socks5, rest),
            Some(("socks" | "socks4" | "socks4a", _)) => {
                return Err(
                    "of SOCKS the box speaks version 5 only (socks5://HOST:PORT): older ones know neither names nor passwords",
                );
            }
            _ => {
                return Err(
                    "an address that begins with http://, https:// or socks5:// is expected",
                );
            }
        };
        if rest.contains('@') {
            return Err(
                "user and password belong in keys of their own, as wan.proxy.user and wan.proxy.password",
            );
        }
        let authority = rest.trim_end_matches('/');
        check_authority(authority)?;
        let (host, port) = split_port(authority);
        Ok(Self {
            scheme,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port
                .and_then(|port| port.parse().ok())
                .unwrap_or(scheme.default_port()),
        })
    }

    /// How it is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    /// Name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.scheme.as_str(), &self.host, self.port);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// A proxy and whom the box is to it.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Where it is.
    pub url: ProxyUrl,
    /// Verbatim, any characters; empty: no sign-in.
    pub user: String,
    /// Verbatim, any characters.
    pub password: Secret,
}

/// The way of one flow.
#[derive(Debug, Clone, Default)]
pub enum FlowProxy {
    /// As the shop's proxy and bypass list say.
    #[default]
    AsShop,
    /// Never through a proxy.
    Direct,
    /// Always through this one.
    Own(ProxyConfig),
}

/// Everything about proxies.
#[derive(Debug, Clone, Default)]
pub struct ProxySettings {
    /// The shop's, if it has one.
    pub shop: Option<ProxyConfig>,
    /// Reached without the shop's proxy.
    pub bypass: Vec<Bypass>,
    /// What differs, by the flow's name in the contract; absent: nothing.
    pub flows: Vec<(&'static str, FlowProxy)>,
}

/// Hosts reached without the proxy. A network fits hosts that are written as addresses only: to look a name up first would
/// be a DNS question that may not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bypass {
    /// This very name.
    Name(String),
    /// All names that end so, with the leading dot.
    Suffix(String),
    /// All addresses of this network; a single address is one with all its bits.
    Network(IpAddr, u8),
}

impl Bypass {
    /// Reads `NAME`, `.SUFFIX` (or `*.SUFFIX`), `ADDRESS` or `ADDRESS/BITS`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim().trim_end_matches('.').to_ascii_lowercase();
        let bare = text.trim_matches(['[', ']']);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(address, bits_of(address)));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let network = address.parse::<IpAddr>().ok().zip(bits.parse().ok());
            return match network {
                Some((address, bits)) if bits <= bits_of(address) => {
                    Ok(Self::Network(address, bits))
                }
                _ => Err("is no network: ADDRESS/BITS is expected, as 10.0.0.0/8"),
            };
        }
        let name = text.strip_prefix('*').unwrap_or(&text);
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.trim_start_matches('.').is_empty() || !name.chars().all(fits) {
            return Err("is not a NAME, .SUFFIX, ADDRESS or ADDRESS/BITS");
        }
        Ok(if name.starts_with('.') {
            Self::Suffix(name.to_owned())
        } else if name.len() < text.len() {
            return Err("has a * that is not followed by a dot");
        } else {
            Self::Name(name.to_owned())
        })
    }

    /// Whether `host`, a name in lower case or an address, is meant.
    #[must_use]
    pub fn fits(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => host == name,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Network(network, bits) => host
                .parse()
                .is_ok_and(|address| begins_alike(address, *network, *bits)),
        }
    }
}

const fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn begins_alike(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let differing = match (one.to_canonical(), other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(bits)
}

pub(super) fn check(reader: &mut Reader) -> ProxySettings {
    let shop = match proxy(reader, "wan.proxy") {
        FlowProxy::Own(proxy) => Some(proxy),
        FlowProxy::AsShop => None,
        FlowProxy::Direct => {
            reader.refuse(
                "wan.proxy.url",
                "\"direct\" is for single flows; empty means no proxy",
            );
            None
        }
    };
    let mut bypass = Vec::new();
    for entry in reader.texts("wan.proxy.bypass") {
        match Bypass::parse(&entry) {
            Ok(entry) => bypass.push(entry),
            Err(what) => reader.refuse("wan.proxy.bypass", format!("\"{entry}\" {what}")),
        }
    }
    let flows = PROXY_FLOWS.map(|flow| (flow, proxy(reader, &format!("wan.proxy.flows.{flow}"))));
    ProxySettings {
        shop,
        bypass,
        flows: flows.into(),
    }
}

fn proxy(reader: &mut Reader, section: &str) -> FlowProxy {
    let key = |name: &str| format!("{section}.{name}");
    let url = reader.text(&key("url"));
    let (user, password) = (reader.text(&key("user")), reader.secret(&key("password")));
    let has_credentials = !user.is_empty() || !password.is_empty();
    if url.is_empty() || url == "direct" {
        if has_credentials {
            reader.refuse(&key("url"), "a proxy user is set, but no proxy");
        }
        return if url.is_empty() {
            FlowProxy::AsShop
        } else {
            FlowProxy::Direct
        };
    }
    let url = match ProxyUrl::parse(&url) {
        Ok(url) => url,
        Err(what) => {
            reader.refuse(&key("url"), what);
            return FlowProxy::AsShop;
        }
    };
    if user.is_empty() && has_credentials {
        reader.refuse(&key("user"), "a proxy password is set, but no user");
    }
    let is_basic = url.scheme() != ProxyScheme::Socks5;
    if is_basic && user.contains(':') {
        reader.refuse(
            &key("user"),
            "Basic sign-in can't carry a user name with a colon (RFC 7617): ask for another one",
        );
    }
    let longest = user.len().max(password.expose().len());
    if !is_basic && longest > MAX_SOCKS_CREDENTIAL {
        reader.refuse(
            &key("user"),
            "user and password have 255 bytes at most with SOCKS (RFC 1929)",
        );
    }
    if user
        .chars()
        .chain(password.expose().chars())
        .any(char::is_control)
    {
        reader.refuse(
            &key("user"),
            "user and password can't hold control characters",
        );
    }
    FlowProxy::Own(ProxyConfig {
        url,
        user,
        password,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn check(text: &str) -> Result<ProxySettings, String> {
        Config::from_layers(&[(Path::new("site.toml"), text)])
            .map(|config| config.wan.proxy)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_is_read_with_its_scheme_and_port() {
        for (text, expected) in [
            ("http://Proxy.Shop:3128/", "http://proxy.shop:3128"),
            ("https://proxy.shop", "https://proxy.shop:443"),
            ("socks5h://10.0.0.1", "socks5://10.0.0.1:1080"),
            ("http://[fd00::1]:8080", "http://[fd00::1]:8080"),
        ] {
            assert_eq!(ProxyUrl::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_the_box_does_not_speak_is_refused_with_the_sentence_an_administrator_needs() {
        for (url, says) in [
            (
                "http://wpad.shop.example/wpad.dat",
                "stands in the script behind the word PROXY",
            ),
            ("http://intranet/proxy.pac", "PAC"),
            ("pac+https://intranet/proxy", "PAC"),
            ("socks4://proxy:1080", "version 5 only"),
            ("ftp://proxy", "begins with http://, https:// or socks5://"),
            ("proxy:3128", "begins with http://"),
            ("http://proxy:0", "port"),
            ("http://pro xy", "host name"),
        ] {
            let text = check(&format!("[wan.proxy]\nurl = \"{url}\"\n")).unwrap_err();
            assert!(text.contains(says), "{url}: {text}");
            assert!(text.contains("site.toml:2: wan.proxy.url: "), "{text}");
        }
        let text = check("[wan.proxy]\nurl = \"http://proxy:1\"\nuser = \"a:b\"\n").unwrap_err();
        assert!(text.contains("colon"), "{text}");
        let text = check("[wan.proxy]\nurl = \"http://proxy:1\"\npassword = \"b\"\n").unwrap_err();
        assert!(text.contains("no user"), "{text}");
        let text = check("[wan.proxy]\nuser = \"a\"\n").unwrap_err();
        assert!(text.contains("no proxy"), "{text}");
        let text = check("[wan.proxy]\nurl = \"direct\"\n").unwrap_err();
        assert!(text.contains("single flows"), "{text}");
    }

    #[test]
    fn credentials_of_any_characters_stay_as_they_are() {
        let text = "[wan.proxy]\nurl = \"socks5://p:1\"\nuser = 'shop\\till %41@1:é\"'\npassword = 'p%40:ss/w\"rd @é#'\n";
        let proxy = check(text).unwrap().shop.unwrap();
        assert_eq!(proxy.user, "shop\\till %41@1:é\"");
        assert_eq!(proxy.password.expose(), "p%40:ss/w\"rd @é#");
        assert!(!format!("{proxy:?}").contains("ss/w"));
    }

    #[test]
    fn a_flow_may_have_its_own_proxy_or_none() {
        let text = "[wan.proxy]\nurl = \"http://p:1\"\nuser = \"u\"\n\
                    [wan.proxy.flows.media]\nurl = \"direct\"\n\
                    [wan.proxy.flows.logs]\nurl = \"socks5://q:2\"\nuser = \"v\"\npassword = \"w\"\n";
        let settings = check(text).unwrap();
        for (flow, way) in settings.flows {
            match (flow, way) {
                ("media", FlowProxy::Direct) | ("api" | "bus" | "support", FlowProxy::AsShop) => {}
                ("logs", FlowProxy::Own(own)) => {
                    assert_eq!((own.url.host(), own.user.as_str()), ("q", "v"));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn bypass_takes_names_suffixes_addresses_and_networks() {
        let fits = |entry: &str, host: &str| Bypass::parse(entry).unwrap().fits(host);
        assert!(fits("NAS.shop.local", "nas.shop.local"));
        assert!(!fits("nas.shop.local", "evilnas.shop.local"));
        assert!(fits(" .Intra.example ", "a.b.intra.example"));
        assert!(fits("*.intra.example", "a.intra.example"));
        assert!(!fits(".intra.example", "intra.example"));
        assert!(!fits(".intra.example", "xintra.example"));
        assert!(fits("10.1.0.0/16", "10.1.255.3"));
        assert!(!fits("10.1.0.0/16", "10.2.0.1"));
        assert!(fits("192.168.1.7", "192.168.1.7"));
        assert!(fits("0.0.0.0/0", "8.8.8.8"));
        assert!(
            !fits("0.0.0.0/0", "a.name.example"),
            "no DNS question for a name"
        );
        assert!(fits("fd00::/8", "fd12::1"));
        assert!(!fits("fd00::/8", "fe80::1"));
        assert!(fits("10.0.0.0/8", "::ffff:10.0.0.1"));
        for wrong in [
            "",
            ".",
            "*",
            "a*",
            "10.0.0.0/33",
            "10.0.0.0/",
            "a/8",
            "http://nas",
            "nas:80",
        ] {
            assert!(Bypass::parse(wrong).is_err(), "{wrong}");
        }
    }
}
