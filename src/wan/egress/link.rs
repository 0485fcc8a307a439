//! Is there a network at all? Asked only to explain a failure: no cable is another matter than a dead name server.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockaddrLike};

/// Whether an interface other than loopback has a link and an address. When the system does not say: yes.
pub(in crate::wan) fn is_up() -> bool {
    let Ok(interfaces) = getifaddrs() else {
        return true;
    };
    interfaces.into_iter().any(|interface| {
        let family = interface.address.and_then(|address| address.family());
        let has_address = matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6));
        carries(interface.flags) && has_address
    })
}

fn carries(flags: InterfaceFlags) -> bool {
    flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING)
        && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_cable_or_loopback_carries_nothing() {
        let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        assert!(carries(up));
        assert!(!carries(InterfaceFlags::IFF_UP));
        assert!(!carries(up | InterfaceFlags::IFF_LOOPBACK));
    }
}
