//! The shop's proxy: which hosts go through it, and its credentials verbatim.

use ureq::{Proxy, ProxyProtocol};

use crate::config::ProxyConfig;

/// A proxy setting that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the proxy address {url} can't be used")]
pub struct ProxyAddressError {
    url: String,
}

/// The proxy in the HTTP client's terms.
///
/// # Errors
/// When the address is not `http(s)://HOST[:PORT]`.
pub(super) fn build(config: &ProxyConfig) -> Result<Proxy, ProxyAddressError> {
    let refused = || ProxyAddressError {
        url: config.url.clone(),
    };
    let (protocol, authority) = if let Some(rest) = config.url.strip_prefix("http://") {
        (ProxyProtocol::Http, rest)
    } else if let Some(rest) = config.url.strip_prefix("https://") {
        (ProxyProtocol::Https, rest)
    } else {
        return Err(refused());
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, Some(port.parse().map_err(|_| refused())?))
        }
        _ => (authority, None),
    };
    // The builder takes user and password as they are; the URL form would decode a `%` in them.
    let mut builder = Proxy::builder(protocol).host(host);
    if let Some(port) = port {
        builder = builder.port(port);
    }
    if !config.user.is_empty() {
        builder = builder
            .username(&config.user)
            .password(config.password.expose());
    }
    builder.build().map_err(|_| refused())
}

/// Whether `host` is reached without the proxy: an entry is the name itself, or `.SUFFIX` for all names below it.
pub(super) fn bypasses(entries: &[String], host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    entries
        .iter()
        .map(|entry| entry.trim().to_ascii_lowercase())
        .any(|entry| {
            if entry.starts_with('.') {
                host.ends_with(&entry)
            } else {
                host == entry
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Secret;

    fn config(url: &str) -> ProxyConfig {
        ProxyConfig {
            url: url.into(),
            user: "shop\\till %41@1".into(),
            password: Secret::new("p%40:ss/w\"rd é"),
            bypass: Vec::new(),
        }
    }

    #[test]
    fn credentials_of_any_characters_stay_as_they_are() {
        let proxy = build(&config("http://proxy.shop:3128")).unwrap();
        assert_eq!(proxy.username(), Some("shop\\till %41@1"));
        assert_eq!(proxy.password(), Some("p%40:ss/w\"rd é"));
        assert_eq!((proxy.host(), proxy.port()), ("proxy.shop", 3128));
        assert!(!proxy.resolve_target(), "names are the proxy's to resolve");
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        assert!(build(&config("socks5://proxy.shop:1080")).is_err());
        assert!(build(&config("http://proxy.shop:port")).is_err());
    }

    #[test]
    fn bypass_takes_a_name_or_all_names_below_a_suffix() {
        let entries = ["nas.shop.local".to_owned(), " .Intra.example ".to_owned()];
        assert!(bypasses(&entries, "NAS.shop.local"));
        assert!(bypasses(&entries, "a.b.intra.example"));
        assert!(!bypasses(&entries, "intra.example"));
        assert!(!bypasses(&entries, "evilnas.shop.local"));
        assert!(!bypasses(&entries, "xintra.example"));
    }
}
