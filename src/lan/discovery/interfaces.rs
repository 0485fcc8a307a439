//! The box's own IPv4 networks, with their real masks: who is a neighbour, and where a broadcast goes.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

/// Addresses looked at; a box has a handful, more are left out.
const INTERFACES_LIMIT: usize = 64;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number of the interface.
    pub index: u32,
    /// The box's address there.
    pub address: Ipv4Addr,
    /// Its real mask.
    pub mask: Ipv4Addr,
}

impl Interface {
    /// Whether this is an address a neighbour can have: inside the subnet, and neither its number nor its broadcast.
    #[must_use]
    pub fn has_neighbour(&self, address: Ipv4Addr) -> bool {
        let inside = (address.to_bits() ^ self.address.to_bits()) & self.mask.to_bits() == 0;
        let host = address.to_bits() & !self.mask.to_bits();
        // A network of one or two addresses has no broadcast to keep out.
        let named = self.prefix_bits() >= 31 || (host != 0 && host != !self.mask.to_bits());
        inside && named && !address.is_multicast() && !address.is_broadcast()
    }

    /// Where a datagram for everybody on this network goes; `None` where the network is only one or two addresses.
    #[must_use]
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        (self.prefix_bits() < 31)
            .then(|| Ipv4Addr::from_bits(self.address.to_bits() | !self.mask.to_bits()))
    }

    fn prefix_bits(&self) -> u32 {
        self.mask.to_bits().leading_ones()
    }
}

/// The interfaces that are up, now.
///
/// # Errors
/// When the kernel does not tell.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    Ok(getifaddrs()?
        .filter(|entry| entry.flags.contains(running))
        .filter_map(|entry| {
            Some(Interface {
                index: if_nametoindex(entry.interface_name.as_str()).ok()?,
                address: ipv4(entry.address)?,
                mask: ipv4(entry.netmask)?,
            })
        })
        .take(INTERFACES_LIMIT)
        .collect())
}

fn ipv4(address: Option<SockaddrStorage>) -> Option<Ipv4Addr> {
    let address = SocketAddrV4::from(*address?.as_sockaddr_in()?);
    Some(*address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(address: [u8; 4], mask: [u8; 4]) -> Interface {
        Interface {
            index: 1,
            address: address.into(),
            mask: mask.into(),
        }
    }

    #[test]
    fn neighbours_are_told_by_the_real_mask() {
        let wide = interface([10, 20, 17, 1], [255, 255, 240, 0]);
        assert!(wide.has_neighbour([10, 20, 31, 9].into()));
        assert!(!wide.has_neighbour([10, 20, 32, 9].into()));
        assert!(!wide.has_neighbour([10, 20, 31, 255].into()), "broadcast");
        assert!(!wide.has_neighbour([10, 20, 16, 0].into()), "network");
        assert_eq!(wide.broadcast(), Some([10, 20, 31, 255].into()));

        let narrow = interface([192, 168, 1, 130], [255, 255, 255, 192]);
        assert!(!narrow.has_neighbour([192, 168, 1, 5].into()));
        assert_eq!(narrow.broadcast(), Some([192, 168, 1, 191].into()));
    }

    #[test]
    fn a_network_of_one_or_two_addresses_has_no_broadcast() {
        let pair = interface([10, 0, 0, 4], [255, 255, 255, 254]);
        assert_eq!(pair.broadcast(), None);
        assert!(pair.has_neighbour([10, 0, 0, 5].into()));
        assert!(!pair.has_neighbour([10, 0, 0, 6].into()));
        assert_eq!(interface([10, 0, 0, 4], [255; 4]).broadcast(), None);
    }

    #[test]
    fn the_loopback_interface_is_seen_with_its_mask() {
        let all = interfaces().unwrap();
        let loopback = all
            .iter()
            .find(|i| i.address == Ipv4Addr::LOCALHOST)
            .unwrap();
        assert_eq!(loopback.mask, Ipv4Addr::new(255, 0, 0, 0));
        assert!(loopback.index > 0);
    }
}
