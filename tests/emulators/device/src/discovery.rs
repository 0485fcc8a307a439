//! Finding the box, and being found by it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Socket, Type};

use crate::args::Args;
use crate::datagram::{self, BoxHere, LIMIT};
use crate::device::{Device, random};
use crate::pairing::Pairing;

/// Gaps after the three questions of one search.
const GAPS: [Duration; 3] = [
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// Answers to one source in a second, and sources remembered for it.
const ANSWERS_PER_SECOND: u32 = 2;
const SOURCES_LIMIT: usize = 64;

/// Where a box is.
#[derive(Debug)]
pub struct Found {
    /// Its address.
    pub address: IpAddr,
}

/// Asks for the box. A paired device takes no other than its own; one that is not takes the first.
pub fn find_box(args: &Args, pairing: Option<&Pairing>) -> anyhow::Result<Found> {
    let interface = args
        .discover
        .context("where is the box? Give --box, --care-url or --discover")?;
    let target = match args.discover_target {
        Some(target) => target,
        None => SocketAddr::from((broadcast_of(interface)?, args.discovery_port)),
    };
    let socket =
        UdpSocket::bind((interface, 0)).with_context(|| format!("cannot ask from {interface}"))?;
    socket.set_broadcast(true)?;
    socket.set_ttl(1)?;
    for gap in GAPS {
        let nonce = random()?;
        socket
            .send_to(&datagram::who_is_box(&nonce), target)
            .with_context(|| format!("cannot ask {target}"))?;
        let until = Instant::now() + gap;
        while let Some((here, from)) = hear(&socket, until)? {
            let ours = pairing.is_none_or(|pairing| pairing.box_key == here.box_key);
            if here.nonce == nonce && ours {
                eprintln!(
                    "device-emulator: {} is at {}, front port {}, ports {:?}",
                    here.box_id,
                    from.ip(),
                    here.front_port,
                    here.ports
                );
                return Ok(Found { address: from.ip() });
            }
        }
    }
    bail!("no box answered on {target}")
}

/// Starts the thread that answers the box's `WHO_ARE_DEVICES`, for a device that listens on `port`.
pub fn start_answering(device: &Arc<Device>, args: &Args, port: u16) -> anyhow::Result<()> {
    let interface = args.discover.context("called with --discover")?;
    let mask = mask_of(interface)?;
    // The box asks by directed broadcast: this hears that and nothing else, and leaves the port's other addresses to a box
    // on the same machine.
    let address = SocketAddr::from((broadcast_of(interface)?, args.discovery_port));
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        // Box and devices of a rehearsal share one machine.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        Ok::<_, std::io::Error>(UdpSocket::from(socket))
    };
    let socket = open().with_context(|| format!("cannot listen on UDP {address}"))?;
    // The answer leaves from the address the box is to connect to.
    let answers = UdpSocket::bind((interface, 0))?;
    answers.set_ttl(1)?;
    let device = Arc::clone(device);
    thread::spawn(move || {
        let mut bucket = Bucket::default();
        let mut buffer = [0; LIMIT + 1];
        loop {
            let Ok((length, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let Ok(question) = datagram::read_who_are_devices(&buffer[..length]) else {
                continue;
            };
            let neighbour = same_subnet(*from.ip(), interface, mask) && from.port() >= 1024;
            let ours = question.box_key == device.pairing().box_key;
            if !neighbour || !ours || device.faults().mute || !bucket.allows(*from.ip()) {
                continue;
            }
            let pairing = device.pairing();
            let answer = datagram::device_here(
                &question.nonce,
                &pairing.device_id,
                port,
                &pairing.command_key,
            );
            let wait = random::<1>().map_or(0, |[byte]| u64::from(byte));
            thread::sleep(Duration::from_millis(wait.min(250)));
            if let Err(error) = answer.and_then(|a| Ok(answers.send_to(&a, from)?)) {
                eprintln!("device-emulator: discovery: {error:#}");
            }
        }
    });
    Ok(())
}

fn hear(socket: &UdpSocket, until: Instant) -> anyhow::Result<Option<(BoxHere, SocketAddr)>> {
    let mut buffer = [0; LIMIT + 1];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => match datagram::read_box_here(&buffer[..length]) {
                Ok(here) => return Ok(Some((here, from))),
                Err(error) => eprintln!("device-emulator: dropped an answer of {from}: {error:#}"),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // An earlier question met a closed port.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).context("cannot hear answers"),
        }
    }
}

/// The real mask of the interface with this address.
fn mask_of(interface: Ipv4Addr) -> anyhow::Result<Ipv4Addr> {
    for entry in getifaddrs()? {
        let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
            address.and_then(|a| a.as_sockaddr_in().map(|a| SocketAddrV4::from(*a)))
        };
        // On the loopback interface every address of 127.0.0.0/8 is one's own.
        let Some(address) = ip(entry.address) else {
            continue;
        };
        let Some(mask) = ip(entry.netmask) else {
            continue;
        };
        let own = *address.ip() == interface;
        if own || address.ip().is_loopback() && same_subnet(interface, *address.ip(), *mask.ip()) {
            return Ok(*mask.ip());
        }
    }
    bail!("no interface has the address {interface}")
}

fn broadcast_of(interface: Ipv4Addr) -> anyhow::Result<Ipv4Addr> {
    Ok(Ipv4Addr::from_bits(
        interface.to_bits() | !mask_of(interface)?.to_bits(),
    ))
}

fn same_subnet(a: Ipv4Addr, b: Ipv4Addr, mask: Ipv4Addr) -> bool {
    (a.to_bits() ^ b.to_bits()) & mask.to_bits() == 0
}

/// How often who was answered in the current second.
#[derive(Default)]
struct Bucket {
    second: Option<Instant>,
    answers: HashMap<Ipv4Addr, u32>,
}

impl Bucket {
    fn allows(&mut self, source: Ipv4Addr) -> bool {
        let now = Instant::now();
        if self
            .second
            .is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1))
        {
            self.second = Some(now);
            self.answers.clear();
        }
        if self.answers.len() >= SOURCES_LIMIT && !self.answers.contains_key(&source) {
            return false;
        }
        let count = self.answers.entry(source).or_default();
        *count += 1;
        *count <= ANSWERS_PER_SECOND
    }
}
