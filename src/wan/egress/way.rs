//! Which way a host is reached: directly, or through which proxy.

use crate::config::{FlowProxy, ProxyConfig, ProxySettings};
use crate::wan::contract::FlowId;

/// The proxy for `host` on `flow`; `None`: none. A flow with a way of its own takes it, whatever the bypass list says.
pub(super) fn proxy_for<'a>(
    settings: &'a ProxySettings,
    flow: FlowId,
    host: &str,
) -> Option<&'a ProxyConfig> {
    let name = flow.flow().name;
    let own = settings.flows.iter().find(|(flow, _)| *flow == name);
    match own.map(|(_, way)| way) {
        Some(FlowProxy::Direct) => None,
        Some(FlowProxy::Own(proxy)) => Some(proxy),
        Some(FlowProxy::AsShop) | None => {
            let host = bare(host).to_ascii_lowercase();
            let is_bypassed = settings.bypass.iter().any(|entry| entry.fits(&host));
            settings.shop.as_ref().filter(|_| !is_bypassed)
        }
    }
}

/// A host of an address without brackets and without the dot that ends a whole name.
pub(super) fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']']).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bypass, PROXY_FLOWS, ProxyUrl};
    use crate::identity::Secret;
    use crate::wan::contract::CONTRACT;

    fn proxy(url: &str) -> ProxyConfig {
        ProxyConfig {
            url: ProxyUrl::parse(url).unwrap(),
            user: String::new(),
            password: Secret::default(),
        }
    }

    #[test]
    fn every_flow_of_the_contract_can_have_its_own_way() {
        assert_eq!(CONTRACT.map(|flow| flow.name), PROXY_FLOWS);
    }

    #[test]
    fn a_flows_own_way_goes_first_then_the_bypass_list_then_the_shops_proxy() {
        let settings = ProxySettings {
            shop: Some(proxy("http://shop:1")),
            bypass: vec![
                Bypass::parse(".near.example").unwrap(),
                Bypass::parse("10.0.0.0/8").unwrap(),
            ],
            flows: vec![
                ("media", FlowProxy::Direct),
                ("logs", FlowProxy::Own(proxy("socks5://own:2"))),
            ],
        };
        let way = |flow, host| proxy_for(&settings, flow, host).map(|proxy| proxy.url.host());
        assert_eq!(way(FlowId::Api, "api.example"), Some("shop"));
        assert_eq!(way(FlowId::Api, "A.Near.Example."), None);
        assert_eq!(way(FlowId::Api, "10.1.2.3"), None);
        assert_eq!(way(FlowId::Api, "[fd00::1]"), Some("shop"));
        assert_eq!(way(FlowId::Media, "blob.example"), None);
        assert_eq!(way(FlowId::Logs, "a.near.example"), Some("own"));
    }
}
