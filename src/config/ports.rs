//! The LAN side of the network contract as a table: which port has which role.
//!
//! One port = one audience, one kind of traffic. The numbers are what shops' firewalls were opened for.

use std::net::SocketAddr;

use super::{DiscoveryConfig, LanConfig};

/// An HTTP port of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LanPort {
    /// 80: the portal, health, what the box is.
    Front,
    /// 8000: documents, prices, search.
    Catalogue,
    /// 8001: orders; the only port with customer data.
    Orders,
    /// 8002: live events and commands that are pulled.
    Events,
    /// 8003: images, videos.
    Media,
    /// 8004: pairing, heartbeat, receipts.
    Care,
    /// 8005: metrics and checks, for support.
    Support,
}

impl LanPort {
    /// Every port, in the contract's order.
    pub const ALL: [Self; 7] = [
        Self::Front,
        Self::Catalogue,
        Self::Orders,
        Self::Events,
        Self::Media,
        Self::Care,
        Self::Support,
    ];

    /// Its name, in settings, logs and socket activation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Catalogue => "catalogue",
            Self::Orders => "orders",
            Self::Events => "events",
            Self::Media => "media",
            Self::Care => "care",
            Self::Support => "support",
        }
    }

    /// Its number in the contract.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Front => 80,
            Self::Catalogue => 8000,
            Self::Orders => 8001,
            Self::Events => 8002,
            Self::Media => 8003,
            Self::Care => 8004,
            Self::Support => 8005,
        }
    }
}

impl LanConfig {
    /// Whether the port is switched on.
    #[must_use]
    pub const fn is_on(&self, port: LanPort) -> bool {
        match port {
            LanPort::Front => self.front,
            LanPort::Catalogue => self.catalogue,
            LanPort::Orders => self.orders,
            LanPort::Events => self.events,
            LanPort::Media => self.media,
            LanPort::Care => self.care,
            LanPort::Support => self.support,
        }
    }

    /// Where the port is bound, the offset included.
    #[must_use]
    pub fn addr(&self, port: LanPort) -> SocketAddr {
        SocketAddr::new(self.bind, port.number().saturating_add(self.port_offset))
    }

    /// The ports that are switched on, in the contract's order.
    pub fn ports_on(&self) -> impl Iterator<Item = LanPort> {
        LanPort::ALL.into_iter().filter(|port| self.is_on(*port))
    }
}

impl DiscoveryConfig {
    /// Where discovery is bound, the offset of the LAN side included.
    #[must_use]
    pub fn addr(&self, lan: &LanConfig) -> SocketAddr {
        SocketAddr::new(lan.bind, self.port.saturating_add(lan.port_offset))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn the_contract_holds_by_default_and_support_is_closed() {
        let config = Config::from_layers(&[]).unwrap();
        let open: Vec<_> = config
            .lan
            .ports_on()
            .map(|port| config.lan.addr(port).port())
            .collect();
        assert_eq!(open, [80, 8000, 8001, 8002, 8003, 8004]);
        assert_eq!(config.discovery.addr(&config.lan).port(), 57854);
    }

    #[test]
    fn an_offset_moves_every_port() {
        let site = "[lan]\nport_offset = 1000\n[lan.support]\nenabled = true\n[lan.media]\nenabled = false\n";
        let config = Config::from_layers(&[(std::path::Path::new("site.toml"), site)]).unwrap();
        let open: Vec<_> = config
            .lan
            .ports_on()
            .map(|port| config.lan.addr(port).port())
            .collect();
        assert_eq!(open, [1080, 9000, 9001, 9002, 9004, 9005]);
    }
}
