//! Who listens, from `/proc/net/{tcp,tcp6,udp,udp6}` (proc_net(5)): every socket of the network namespace, whoever owns it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP_LISTEN of the kernel's `tcp_states.h`.
const LISTENING: &str = "0A";

/// Every listening TCP socket and every bound UDP socket, as `tcp 0.0.0.0:80`, sorted.
#[must_use]
pub fn listeners() -> Vec<String> {
    let mut found = Vec::new();
    for (file, protocol) in [
        ("tcp", "tcp"),
        ("tcp6", "tcp"),
        ("udp", "udp"),
        ("udp6", "udp"),
    ] {
        let table = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        found.extend(
            read(&table, protocol == "tcp")
                .into_iter()
                .map(|addr| format!("{protocol} {addr}")),
        );
    }
    found.sort();
    found.dedup();
    found
}

/// Local addresses in one table; of TCP only those that listen.
fn read(table: &str, only_listening: bool) -> Vec<SocketAddr> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?;
            let state = fields.nth(1)?;
            (!only_listening || state == LISTENING)
                .then(|| address(local))
                .flatten()
        })
        .collect()
}

/// `0100007F:1F90`: the address in words of the machine's own byte order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn our_own_sockets_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = listeners();
        for wanted in [
            format!("tcp {}", tcp.local_addr().unwrap()),
            format!("udp {}", udp.local_addr().unwrap()),
        ] {
            assert!(found.contains(&wanted), "{wanted} is not in {found:?}");
        }
    }

    #[test]
    fn connections_are_not_listeners_and_nonsense_is_passed_over() {
        let table = "  sl  local_address rem_address   st\n\
             0: 00000000:0050 00000000:0000 0A 00000000\n\
             1: 0100007F:0050 0100007F:9C40 01 00000000\n\
             2: nonsense\n";
        assert_eq!(read(table, true), ["0.0.0.0:80".parse().unwrap()]);
        assert_eq!(read(table, false).len(), 2);
        let six = "00000000000000000000000000000000:1F40";
        assert_eq!(address(six), Some("[::]:8000".parse().unwrap()));
        assert_eq!(address("0A:1F40"), None);
    }
}
