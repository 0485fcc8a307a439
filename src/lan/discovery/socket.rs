//! The UDP socket, with what ordinary UDP calls leave out: by which interface a datagram came in and is to go out.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tokio::io::Interest;

use super::wire::DATAGRAM_LIMIT;

/// Discovery stays on the link: no router passes it on.
const TTL: u32 = 1;

/// A datagram and its way.
#[derive(Debug)]
pub struct Arrived {
    /// Bytes of it in the buffer; one more than allowed when it was longer.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddrV4,
    /// The kernel's number of the interface it came in by.
    pub interface: u32,
}

/// A buffer that shows when a datagram is too long.
pub type Buffer = [u8; DATAGRAM_LIMIT + 1];

/// The socket of discovery.
#[derive(Debug)]
pub struct DiscoverySocket(tokio::net::UdpSocket);

impl DiscoverySocket {
    /// Takes over a bound socket; to be called inside the runtime.
    ///
    /// # Errors
    /// When the kernel refuses one of the options.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        socket.set_ttl(TTL)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        Ok(Self(tokio::net::UdpSocket::from_std(socket)?))
    }

    /// The port it is bound to: devices listen on the same.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// The next datagram.
    ///
    /// # Errors
    /// What the kernel says; the socket can be used again.
    pub async fn receive(&self, buffer: &mut Buffer) -> io::Result<Arrived> {
        self.0
            .async_io(Interest::READABLE, || {
                let mut space = nix::cmsg_space!(libc::in_pktinfo);
                let mut parts = [IoSliceMut::new(buffer)];
                let message = recvmsg::<SockaddrIn>(
                    self.0.as_raw_fd(),
                    &mut parts,
                    Some(&mut space),
                    MsgFlags::empty(),
                )?;
                let from = message
                    .address
                    .ok_or_else(|| io::Error::other("datagram without a sender"))?;
                let interface = message
                    .cmsgs()?
                    .find_map(|cmsg| match cmsg {
                        ControlMessageOwned::Ipv4PacketInfo(info) => {
                            u32::try_from(info.ipi_ifindex).ok()
                        }
                        _ => None,
                    })
                    .ok_or_else(|| io::Error::other("datagram without its interface"))?;
                Ok(Arrived {
                    length: message.bytes,
                    from: SocketAddrV4::from(from),
                    interface,
                })
            })
            .await
    }

    /// Sends by this interface and from this address of it.
    ///
    /// # Errors
    /// What the kernel says; the socket can be used again.
    pub async fn send(
        &self,
        datagram: &[u8],
        to: SocketAddrV4,
        interface: u32,
        from: Ipv4Addr,
    ) -> io::Result<()> {
        let way = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
            ipi_spec_dst: libc::in_addr {
                s_addr: from.to_bits().to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        self.0
            .async_io(Interest::WRITABLE, || {
                sendmsg(
                    self.0.as_raw_fd(),
                    &[IoSlice::new(datagram)],
                    &[ControlMessage::Ipv4PacketInfo(&way)],
                    MsgFlags::empty(),
                    Some(&SockaddrIn::from(to)),
                )?;
                Ok(())
            })
            .await
    }
}
