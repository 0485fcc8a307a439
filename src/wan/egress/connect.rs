//! A new connection, from name to TLS:
//!
//! ```text
//!   direct:   name -> TCP ------------------------------------> TLS with the host
//!   http:     proxy's name -> TCP -----------------> CONNECT -> TLS with the host
//!   https:    proxy's name -> TCP -> TLS with it --> CONNECT -> TLS with the host
//!   socks5:   proxy's name -> TCP -----------------> SOCKS ---> TLS with the host
//! ```
//! Through a proxy the host's name is never looked up here. Every arrow has a deadline and ends on a stop; what goes wrong is
//! sorted where it happens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle,
};

use super::dial::{DialError, dial};
use super::failure::{ConnectError, Until};
use super::line::{Duplex, Line};
use super::names::Names;
use super::socket::Socket;
use super::stop::Stop;
use super::tls::Tls;
use super::way::{bare, proxy_for};
use super::{BUFFER, Cause, Phase, link, socks, tunnel};
use crate::config::{Deadlines, ProxyScheme, ProxySettings};
use crate::wan::contract::{FlowId, HTTPS_PORT};

/// Makes one flow's connections, in the HTTP client's terms.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) flow: FlowId,
    pub(super) proxies: Arc<ProxySettings>,
    pub(super) tls: Tls,
    pub(super) names: Names,
    pub(super) deadlines: Deadlines,
    pub(super) stop: Stop,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way")
            .field("flow", &self.flow)
            .finish_non_exhaustive()
    }
}

impl Connector for Way {
    type Out = Line;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Line>, ureq::Error> {
        let host = bare(details.uri.host().unwrap_or_default());
        let port = details.uri.port_u16().unwrap_or(HTTPS_PORT);
        let register = |socket: &Socket| {
            let handle: Weak<dyn ShutdownHandle> =
                Arc::<std::net::TcpStream>::downgrade(socket.stream());
            (details.register_shutdown)(handle).is_ok()
        };
        let line = self.open(host, port, &register).map_err(|error| {
            // A socket that was shut down from this side looks like one that was cut.
            if self.stop.is_given() {
                ConnectError::stopped(error.evidence.phase)
            } else {
                error
            }
        })?;
        Ok(Some(line))
    }
}

impl Way {
    fn open(
        &self,
        host: &str,
        port: u16,
        register: &dyn Fn(&Socket) -> bool,
    ) -> Result<Line, ConnectError> {
        let proxy = proxy_for(&self.proxies, self.flow, host);
        let socket = match proxy {
            None => self.reach(host, port, false)?,
            Some(proxy) => self.reach(proxy.url.host(), proxy.url.port(), true)?,
        };
        if !register(&socket) {
            return Err(ConnectError::stopped(Phase::Connect));
        }
        let (tcp, patience) = (Arc::clone(socket.stream()), socket.patience().clone());
        let mut stream: Box<dyn Duplex> = Box::new(socket);
        if let Some(proxy) = proxy {
            if proxy.url.scheme() == ProxyScheme::Https {
                let until = Until::within(self.deadlines.tls, Cause::ProxyTimeout);
                patience.until(until.at);
                let secured = self
                    .tls
                    .secure(stream, proxy.url.host(), Phase::ProxyTls, until)?;
                stream = Box::new(secured);
            }
            let until = Until::within(self.deadlines.connect, Cause::ProxyTimeout);
            patience.until(until.at);
            if proxy.url.scheme() == ProxyScheme::Socks5 {
                socks::open(&mut stream, proxy, host, port, until)?;
            } else {
                tunnel::open(&mut stream, &patience, proxy, host, port, until)?;
            }
        }
        let until = Until::within(self.deadlines.tls, Cause::TlsTimeout);
        patience.until(until.at);
        let secured = self.tls.secure(stream, host, Phase::Tls, until)?;
        let buffers = LazyBuffers::new(BUFFER.as_usize(), BUFFER.as_usize());
        Ok(Line::new(Box::new(secured), tcp, patience, buffers))
    }

    /// TCP to the next hop: the host, or the proxy.
    fn reach(&self, name: &str, port: u16, is_proxy: bool) -> Result<Socket, ConnectError> {
        let until = Until::within(self.deadlines.resolve, Cause::ResolveTimeout);
        let addresses = self.names.resolve(name, until, &self.stop);
        let addresses: Vec<SocketAddr> = addresses
            .map_err(|error| of_hop(error, is_proxy))?
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
        let until = Until::within(self.deadlines.connect, Cause::TcpTimeout);
        dial(&addresses, until, &self.stop)
            .map(Socket::new)
            .map_err(|error| {
                // The host may have moved.
                self.names.doubt(name);
                of_hop(of_dial(error), is_proxy)
            })
    }
}

pub(super) fn of_dial(error: DialError) -> ConnectError {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        TimedOut,
    };
    match error {
        DialError::Stopped => ConnectError::stopped(Phase::Connect),
        DialError::Passed(until) => until.passed(Phase::Connect, "no answer"),
        DialError::Io(error) => {
            let cause = match error.kind() {
                ConnectionRefused => Cause::TcpRefused,
                TimedOut => Cause::TcpTimeout,
                // With a link it is a firewall that says so.
                HostUnreachable if link::is_up() => Cause::TcpRefused,
                HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
                    Cause::NoLink
                }
                _ => Cause::ConnectionLost,
            };
            ConnectError::new(cause, Phase::Connect, error.to_string())
        }
    }
}

/// A trouble on the way to the proxy is the proxy's, unless it is this box's own.
pub(super) fn of_hop(mut error: ConnectError, is_proxy: bool) -> ConnectError {
    let is_own = matches!(
        error.cause,
        Cause::NoLink | Cause::Stopped | Cause::TotalTimeout
    );
    if is_proxy && !is_own {
        error.cause = Cause::ProxyUnreachable;
    }
    error
}

/// The HTTP client asks for addresses before every request, also when a connection waits for it, and before anybody knows
/// whether a proxy stands between: it is told none, and [`Way`] looks up what it needs when it connects.
#[derive(Debug)]
pub(super) struct Unasked;

impl Resolver for Unasked {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
