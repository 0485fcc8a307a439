//! The firewall sheet of this very shop: what its network's administrator opens, and what happens when he does not.
//!
//! Everything comes from the settings, from what the box was handed at enrolment and from its own interfaces, nothing from a
//! manual: with a proxy the proxy is the only destination, and a port that is switched off is not on the sheet.

mod text;
mod words;

use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::Serialize;

use super::flows::{credentials, name_servers};
use crate::config::{Config, WanConfig};
use crate::language::Sentence;
use crate::wan::contract::{CONTRACT, Need};
use crate::wan::egress::way_of;

pub use text::write;
use words::{of_port, without};

/// Addresses shown; a box has one or two, a developer's machine many.
const MAX_ADDRESSES: usize = 8;

/// Everything on the sheet.
#[derive(Debug, Clone, Serialize)]
pub struct Sheet {
    /// Which shop; empty before enrolment.
    pub site_id: String,
    /// What people call it.
    pub site_name: String,
    /// Where the box's connections come from.
    pub source: Vec<Interface>,
    /// The flows this shop uses.
    pub flows: Vec<Row>,
    /// Flows that its settings switch off.
    pub unused: Vec<&'static str>,
    /// The longest that a connection is silent on purpose, seconds.
    pub longest_silence_s: u64,
    /// Name servers the box asks; empty when it asks none.
    pub name_servers: String,
    /// Ports of the box that devices of the shop connect to.
    pub lan_in: Vec<Port>,
    /// Where the box connects to in the shop.
    pub lan_out: Vec<Port>,
}

/// One address of the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// The address with its network's size, `10.0.0.2/24`.
    pub address: String,
}

/// One flow.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name in the contract.
    pub name: &'static str,
    /// What it is for.
    pub purpose: Sentence,
    /// Whether it is needed.
    pub need: Sentence,
    /// Destination host.
    pub host: String,
    /// Destination port, TCP.
    pub port: u16,
    /// `HOST:PORT` of the proxy that is the real destination; `null`: directly.
    pub proxy: Option<String>,
    /// What happens while it is closed.
    pub without: Sentence,
}

/// One port in the shop.
#[derive(Debug, Clone, Serialize)]
pub struct Port {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Its number.
    pub port: u16,
    /// What it is for.
    pub purpose: Sentence,
    /// Whether it is needed.
    pub need: Sentence,
    /// What happens while it is closed.
    pub without: Sentence,
}

impl Sheet {
    /// Of these settings, on this machine.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let used: Vec<_> = CONTRACT
            .iter()
            .filter(|flow| flow.id.is_used(&config.wan))
            .collect();
        let flows: Vec<Row> = used
            .iter()
            .map(|flow| {
                let url = flow.id.url(&config.wan);
                Row {
                    name: flow.name,
                    purpose: flow.purpose(),
                    need: flow.need.sentence(),
                    host: url.host().to_owned(),
                    port: url.port(),
                    proxy: way_of(&config.wan, flow.id)
                        .map(|(host, port)| format!("{host}:{port}")),
                    without: without(flow.id),
                }
            })
            .collect();
        let asks_names = flows.iter().any(|row| {
            let next_hop = row.proxy.as_deref().unwrap_or(&row.host);
            !is_address(next_hop)
        });
        Self {
            site_id: credentials(config).site_id().unwrap_or_default(),
            site_name: config.site.name.clone(),
            source: interfaces(),
            unused: CONTRACT
                .iter()
                .filter(|flow| !used.contains(flow))
                .map(|flow| flow.name)
                .collect(),
            flows,
            longest_silence_s: longest_silence(&config.wan).as_secs(),
            name_servers: if asks_names {
                name_servers()
            } else {
                String::new()
            },
            lan_in: lan_in(config),
            lan_out: lan_out(config),
        }
    }
}

/// The longest of the waits in which the platform may hold a question.
fn longest_silence(config: &WanConfig) -> Duration {
    [
        (config.pull.enabled, config.pull.wait),
        (config.bus.enabled, config.bus.wait),
        (config.orders_feed.enabled, config.orders_feed.wait),
    ]
    .into_iter()
    .filter(|(is_used, _)| *is_used)
    .map(|(_, wait)| wait)
    .max()
    .unwrap_or_default()
}

fn is_address(host_and_port: &str) -> bool {
    let host = host_and_port
        .rsplit_once(':')
        .map_or(host_and_port, |(host, _)| host);
    host.trim_matches(['[', ']'])
        .parse::<std::net::IpAddr>()
        .is_ok()
}

const REQUIRED: Sentence = Need::Required.sentence();
const OPTIONAL: Sentence = Need::Optional.sentence();

fn lan_in(config: &Config) -> Vec<Port> {
    let mut ports: Vec<Port> = config
        .lan
        .ports_on()
        .map(|port| {
            let (purpose, without) = of_port(port);
            Port {
                protocol: "TCP",
                port: config.lan.addr(port).port(),
                purpose,
                need: REQUIRED,
                without,
            }
        })
        .collect();
    if config.discovery.enabled {
        ports.push(discovery(config));
    }
    ports
}

fn lan_out(config: &Config) -> Vec<Port> {
    let mut ports = vec![Port {
        protocol: "TCP",
        port: config.devices.command_port,
        purpose: Sentence {
            en: "commands to devices (orders to the kitchen)",
            fr: "ordres aux appareils (commandes vers la cuisine)",
        },
        need: REQUIRED,
        without: Sentence {
            en: "orders do not reach the screens and printers that wait for them",
            fr: "les commandes n'arrivent pas aux écrans et imprimantes qui les attendent",
        },
    }];
    if config.discovery.enabled {
        ports.push(discovery(config));
    }
    ports
}

fn discovery(config: &Config) -> Port {
    Port {
        protocol: "UDP",
        port: config.discovery.addr(&config.lan).port(),
        purpose: Sentence {
            en: "devices and box find each other (broadcast in the same network)",
            fr: "appareils et box se trouvent (diffusion dans le même réseau)",
        },
        need: OPTIONAL,
        without: Sentence {
            en: "the box's address has to be typed into each device",
            fr: "il faut saisir l'adresse de la box dans chaque appareil",
        },
    }
}

/// The box's own addresses, but for loopback and those that only the box's own link knows.
fn interfaces() -> Vec<Interface> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    let all: Vec<_> = all
        .filter(|entry| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .collect();
    let mac_of = |name: &str| {
        all.iter()
            .filter(|entry| entry.interface_name == name)
            .find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr())
            .map(|bytes| bytes.map(|byte| format!("{byte:02x}")).join(":"))
    };
    all.iter()
        .filter_map(|entry| {
            let (address, mask) = (entry.address.as_ref()?, entry.netmask.as_ref()?);
            let shown = if let (Some(address), Some(mask)) =
                (address.as_sockaddr_in(), mask.as_sockaddr_in())
            {
                format!("{}/{}", address.ip(), mask.ip().to_bits().count_ones())
            } else {
                let (address, mask) = (address.as_sockaddr_in6()?, mask.as_sockaddr_in6()?);
                if address.ip().is_unicast_link_local() {
                    return None;
                }
                format!("{}/{}", address.ip(), mask.ip().to_bits().count_ones())
            };
            Some(Interface {
                mac: mac_of(&entry.interface_name).unwrap_or_default(),
                name: entry.interface_name.clone(),
                address: shown,
            })
        })
        .take(MAX_ADDRESSES)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::digest::Digest;
    use crate::language::Language;

    fn sheet(site: &str) -> Sheet {
        Sheet::of(&Config::from_layers(&[(Path::new("site.toml"), site)]).unwrap())
    }

    #[test]
    fn without_a_proxy_the_hosts_are_the_destinations() {
        let sheet = sheet("[site]\nsite_id = 'shop-17'\n[wan.media]\nenabled = false\n");
        let names: Vec<_> = sheet.flows.iter().map(|row| row.name).collect();
        assert!(names.starts_with(&["api", "bus"]), "{names:?}");
        assert!(sheet.unused.contains(&"media"));
        for language in Language::ALL {
            let text = write(&sheet, language);
            assert!(text.contains("api.server.commerce-hub.io"), "{text}");
            assert!(!text.contains("simplementedata"), "{text}");
            assert!(
                text.contains("TCP 8081") && text.contains("UDP 57854"),
                "{text}"
            );
            // It is printed on A4 and pasted into tickets.
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
            assert!(text.lines().count() < 70, "{text}");
        }
    }

    #[test]
    fn with_a_proxy_it_alone_is_the_destination_and_no_name_is_asked() {
        let sheet = sheet(
            "[wan.proxy]\nurl = 'http://10.1.2.3:3128'\n[discovery]\nenabled = false\n[lan.media]\nenabled = false\n",
        );
        assert!(sheet.name_servers.is_empty());
        let english = write(&sheet, Language::English);
        assert!(english.contains("10.1.2.3:3128"), "{english}");
        assert!(!english.contains("57854"), "{english}");
        assert!(
            !english.contains("TCP 8003"),
            "a closed port is not listed: {english}"
        );
        let french = write(&sheet, Language::French);
        assert!(french.contains("CONNECT"), "{french}");
    }

    /// Claimed by its code, two proxies taking turns, the orders feed the most patient.
    #[test]
    fn the_sheet_of_a_claimed_box_behind_two_proxies_is_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        std::fs::create_dir_all(&state_dir).unwrap();
        let line = r#"{"site_id":"shop-17","issued_at_s":1,"claimed_at_s":1,"api":{"token":"t","expires_at_s":9}}"#;
        let kept = format!("{}\n{line}", Digest::of(line.as_bytes()));
        std::fs::write(state_dir.join("enrolment.json"), kept).unwrap();
        let site = include_str!("../../../tests/golden/sheet/two-proxies/site.toml");
        let mut config = Config::from_layers(&[(Path::new("site.toml"), site)]).unwrap();
        config.store.data_dir = dir.path().to_owned();
        let mut sheet = Sheet::of(&config);
        sheet.source = vec![Interface {
            name: "eth0".to_owned(),
            mac: "52:54:00:12:34:56".to_owned(),
            address: "192.168.7.20/24".to_owned(),
        }];
        for (language, golden) in [
            (
                Language::English,
                include_str!("../../../tests/golden/sheet/two-proxies/en.txt"),
            ),
            (
                Language::French,
                include_str!("../../../tests/golden/sheet/two-proxies/fr.txt"),
            ),
        ] {
            let text = write(&sheet, language);
            // The second line ends in the day.
            let mut lines: Vec<&str> = text.lines().collect();
            lines[1] = lines[1].rsplit_once(" · ").unwrap().0;
            assert_eq!(lines.join("\n"), golden.trim_end(), "{text}");
        }
    }

    #[test]
    fn the_support_port_is_on_it_only_while_it_is_open() {
        assert!(!write(&sheet(""), Language::French).contains("TCP 8005"));
        let open = sheet("[lan.support]\nenabled = true\n");
        assert!(write(&open, Language::French).contains("TCP 8005"));
    }
}
