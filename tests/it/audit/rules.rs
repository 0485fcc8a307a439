//! The network contract as rules for packets on the box's wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::capture::{Load, Packet};
use super::town::{BOX, DEVICE, PLATFORM, PROXY_PORT, ROUTER};

/// The box's own ports.
const LAN_PORTS: [u16; 7] = [80, 8000, 8001, 8002, 8003, 8004, 8005];
const DISCOVERY: u16 = 57854;
const COMMANDS: u16 = 8081;
/// Who else is there, and who listens to which group: the kernel's own (RFC 4861, RFC 3810).
const NEIGHBOURS: [u8; 5] = [133, 134, 135, 136, 143];

/// Which way out there is.
pub struct Rules {
    proxied: bool,
}

/// What was on the wire.
#[derive(Debug, Default)]
pub struct Seen {
    /// Packets by rule.
    pub by_rule: BTreeMap<&'static str, u64>,
    /// Packets outside the contract, each in words.
    pub strays: Vec<String>,
    /// Names that were asked for.
    pub names: BTreeSet<String>,
}

impl Seen {
    /// For whoever reads the test's output.
    pub fn report(&self) {
        let all: u64 = self.by_rule.values().sum();
        eprintln!(
            "egress audit: {all} packets within the contract {:?}, {} outside",
            self.by_rule,
            self.strays.len()
        );
    }

    /// Every rule was used: a box that does nothing leaves nothing either.
    pub fn must_have(&self, rules: &[&str]) {
        for rule in rules {
            assert!(
                self.by_rule.contains_key(rule),
                "no packet of {rule}: {:?}",
                self.by_rule
            );
        }
    }
}

impl Rules {
    /// All leaves by the proxy.
    pub const fn with_proxy() -> Self {
        Self { proxied: true }
    }

    /// The box resolves names and goes to the hosts itself.
    pub const fn without_proxy() -> Self {
        Self { proxied: false }
    }

    /// Judges every packet.
    pub fn judge(&self, packets: &[Packet]) -> Seen {
        let mut seen = Seen::default();
        for packet in packets {
            if let Load::Udp {
                to: 53, content, ..
            } = &packet.load
            {
                seen.names.extend(question(content));
            }
            match self.rule(packet) {
                Some(rule) => *seen.by_rule.entry(rule).or_default() += 1,
                None => seen.strays.push(in_words(packet)),
            }
        }
        seen
    }

    /// The rule that allows it.
    fn rule(&self, packet: &Packet) -> Option<&'static str> {
        let own: IpAddr = BOX.parse().unwrap();
        let ours = packet.from == Some(own);
        let there = if ours { packet.to } else { packet.from };
        let is = |address: &str| there == Some(address.parse().unwrap());
        match &packet.load {
            Load::Arp => Some("neighbours"),
            Load::Icmp6(kind) => NEIGHBOURS.contains(kind).then_some("neighbours"),
            Load::Udp { from, to, .. } => {
                let (here, beyond) = if ours { (*from, *to) } else { (*to, *from) };
                if here == DISCOVERY || beyond == DISCOVERY {
                    return there.is_some_and(in_shop).then_some("discovery");
                }
                (!self.proxied && beyond == 53 && is(ROUTER)).then_some("dns")
            }
            Load::Tcp { from, to, opens } => {
                let (here, beyond) = if ours { (*from, *to) } else { (*to, *from) };
                if LAN_PORTS.contains(&here) {
                    // Devices come to the box, never the box from there.
                    let is_lan = there.is_some_and(in_shop) && !(ours && *opens);
                    return is_lan.then_some("lan");
                }
                if !ours && *opens {
                    return None;
                }
                match beyond {
                    COMMANDS if is(DEVICE) => Some("commands"),
                    PROXY_PORT if self.proxied && is(ROUTER) => Some("proxy"),
                    443 if !self.proxied && is(PLATFORM) => Some("https"),
                    _ => None,
                }
            }
            Load::Other(_) => None,
        }
    }
}

/// An address of the shop's own network, or the broadcast in it.
fn in_shop(address: IpAddr) -> bool {
    let network = |text: &str| text.rsplit_once('.').unwrap().0.to_owned();
    let everybody = IpAddr::from([255, 255, 255, 255]);
    address == everybody || network(&address.to_string()) == network(BOX)
}

fn in_words(packet: &Packet) -> String {
    let address = |address: Option<IpAddr>| address.map_or("?".to_owned(), |a| a.to_string());
    let (from, to) = (address(packet.from), address(packet.to));
    match &packet.load {
        Load::Tcp { from: a, to: b, .. } => format!("TCP {from}:{a} > {to}:{b}"),
        Load::Udp { from: a, to: b, .. } => format!("UDP {from}:{a} > {to}:{b}"),
        load => format!("{load:?} {from} > {to}"),
    }
}

/// The name of a DNS question (RFC 1035 section 4.1.2).
fn question(content: &[u8]) -> Option<String> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*content.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(content.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    Some(labels.join("."))
}
