//! What was on the box's wire: tcpdump's file, read packet by packet.
//!
//! File format: wiki.wireshark.org/Development/LibpcapFileFormat. Headers: RFC 826, 791, 8200, 9293, 768, 4443.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::town::{Town, WIRE};
use crate::kitchen::wait_for;

/// Sent on the wire when all is done: what comes before it in the file is all there was.
const END: &[u8] = b"the audit ends here";

/// A running tcpdump.
pub struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Begins; returns once the first packet would be seen.
    pub fn start(town: &Town) -> Self {
        let file = town.path("wire.pcap");
        let errors = town.path("tcpdump.err");
        let _ = fs::remove_file(&file);
        let child = Command::new("ip")
            .args(["netns", "exec", town.box_host(), "tcpdump", "-i", WIRE])
            // As root and unbuffered: every packet is in the file as soon as it was on the wire.
            .args([
                "--immediate-mode",
                "-Z",
                "root",
                "-U",
                "-s",
                "262144",
                "-B",
                "16384",
                "-n",
                "-w",
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        wait_for("tcpdump listens", || {
            fs::read_to_string(&errors)
                .ok()
                .filter(|text| text.contains("listening on"))
        });
        Self { child, file }
    }

    /// Ends, and gives what was seen: all of it, none was dropped by the kernel or is still on its way to the file.
    pub fn stop(mut self, town: &Town) -> Vec<Packet> {
        town.mark_the_end(END);
        wait_for("the mark is in the file", || {
            let bytes = fs::read(&self.file).ok()?;
            bytes
                .windows(END.len())
                .any(|part| part == END)
                .then_some(())
        });
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        let errors = fs::read_to_string(self.file.with_file_name("tcpdump.err")).unwrap();
        assert!(errors.contains("0 packets dropped by kernel"), "{errors}");
        read(&fs::read(&self.file).unwrap())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// Who has an address.
    Arp,
    /// TCP.
    Tcp {
        from: u16,
        to: u16,
        /// The first packet of a connection.
        opens: bool,
    },
    /// UDP, with its content.
    Udp {
        from: u16,
        to: u16,
        content: Vec<u8>,
    },
    /// ICMPv6 of that type.
    Icmp6(u8),
    /// Anything else, by name.
    Other(String),
}

/// One packet; addresses are absent where the protocol has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub from: Option<IpAddr>,
    pub to: Option<IpAddr>,
    pub load: Load,
}

fn read(file: &[u8]) -> Vec<Packet> {
    assert_eq!(
        le32(file, 0),
        0xa1b2_c3d4,
        "microseconds, this machine's byte order"
    );
    assert_eq!(le32(file, 20), 1, "Ethernet");
    let (mut at, mut packets) = (24, Vec::new());
    while at + 16 <= file.len() {
        let length = le32(file, at + 8) as usize;
        assert_eq!(length, le32(file, at + 12) as usize, "packets are whole");
        packets.push(frame(&file[at + 16..at + 16 + length]));
        at += 16 + length;
    }
    assert_eq!(at, file.len(), "the file ends with a packet");
    packets
}

fn frame(bytes: &[u8]) -> Packet {
    let other = |what: String| Packet {
        from: None,
        to: None,
        load: Load::Other(what),
    };
    match be16(bytes, 12) {
        0x0806 => Packet {
            from: None,
            to: None,
            load: Load::Arp,
        },
        0x0800 => ipv4(&bytes[14..]),
        0x86dd => ipv6(&bytes[14..]),
        kind => other(format!("Ethernet type {kind:#06x}")),
    }
}

fn ipv4(bytes: &[u8]) -> Packet {
    let head = usize::from(bytes[0] & 15) * 4;
    let total = usize::from(be16(bytes, 2));
    let address = |at: usize| {
        let octets: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    let is_later_fragment = be16(bytes, 6) & 0x1fff != 0;
    let load = if is_later_fragment {
        Load::Other("a fragment".into())
    } else {
        transport(bytes[9], &bytes[head..total])
    };
    Packet {
        from: address(12),
        to: address(16),
        load,
    }
}

fn ipv6(bytes: &[u8]) -> Packet {
    let address = |at: usize| {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().unwrap();
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    let (mut next, mut at) = (bytes[6], 40);
    // Hop-by-hop options stand before a multicast listener's report.
    if next == 0 {
        next = bytes[at];
        at += (usize::from(bytes[at + 1]) + 1) * 8;
    }
    Packet {
        from: address(8),
        to: address(24),
        load: transport(next, &bytes[at..]),
    }
}

fn transport(protocol: u8, bytes: &[u8]) -> Load {
    match protocol {
        6 => Load::Tcp {
            from: be16(bytes, 0),
            to: be16(bytes, 2),
            opens: bytes[13] & 0b1_0010 == 0b10,
        },
        17 => Load::Udp {
            from: be16(bytes, 0),
            to: be16(bytes, 2),
            content: bytes[8..].to_vec(),
        },
        58 => Load::Icmp6(bytes[0]),
        protocol => Load::Other(format!("IP protocol {protocol}")),
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}
