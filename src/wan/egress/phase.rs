//! How far a connection came, so that a failure names who did not answer: network, proxy or host.
//!
//! A request runs on the thread that asked for it, from name to body, so the phase is kept per thread. The two links
//! below sit in the HTTP client's chain of connectors: behind TCP (and CONNECT), and behind TLS.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;

use rustls::ClientConfig;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};

use super::tls::TlsConnector;

/// How far the current thread's connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No TCP connection yet.
    Start,
    /// TCP stands: to the host, or to the proxy.
    Connected,
    /// The proxy opened the way to the host.
    Tunnelled,
    /// TLS with the host stands.
    Secured,
}

impl Phase {
    /// Where it ended, in the terms of the evidence.
    pub(super) const fn shown(self, proxied: bool) -> super::Phase {
        match self {
            Self::Start => super::Phase::Connect,
            Self::Connected if proxied => super::Phase::Tunnel,
            Self::Connected | Self::Tunnelled => super::Phase::Tls,
            Self::Secured => super::Phase::Exchange,
        }
    }
}

thread_local! {
    static PHASE: Cell<Phase> = const { Cell::new(Phase::Start) };
    static PROXIED: Cell<bool> = const { Cell::new(false) };
}

/// Before a request. A pooled connection skips all links, so the phase of a request that needs no connection is the last.
pub(super) fn reset(proxied: bool) {
    PHASE.set(Phase::Secured);
    PROXIED.set(proxied);
}

/// How far it came.
pub(super) fn reached() -> Phase {
    PHASE.get()
}

/// TCP or CONNECT, then TLS, with a mark behind each.
pub(super) fn connectors(tls: Arc<ClientConfig>) -> impl Connector<Out: Transport> {
    ().chain(Begin)
        .chain(ConnectProxyConnector::default())
        .chain(TcpConnector::default())
        .chain(Opened)
        .chain(TlsConnector(tls))
        .chain(Closed)
}

/// Marks the start of a new connection. The way to a proxy runs through the chain too, inside the outer run.
#[derive(Debug)]
struct Begin;

impl<In: Transport> Connector<In> for Begin {
    type Out = In;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        PHASE.set(Phase::Start);
        Ok(chained)
    }
}

/// Marks TCP to the next hop, or the tunnel through it.
#[derive(Debug)]
struct Opened;

impl<In: Transport> Connector<In> for Opened {
    type Out = In;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        PHASE.set(match PHASE.get() {
            Phase::Start => Phase::Connected,
            _ => Phase::Tunnelled,
        });
        Ok(chained)
    }
}

/// Marks TLS with the host. The inner run, which leads to a proxy, ends here too, at "connected": the outer goes on from there.
#[derive(Debug)]
struct Closed;

impl<In: Transport> Connector<In> for Closed {
    type Out = In;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        let leads_to_proxy = PROXIED.get() && PHASE.get() == Phase::Connected;
        if !leads_to_proxy {
            PHASE.set(Phase::Secured);
        }
        Ok(chained)
    }
}

/// The system's resolver, whose failures are told apart from those of a connection.
#[derive(Debug, Default)]
pub(super) struct SystemResolver(DefaultResolver);

impl Resolver for SystemResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        PHASE.set(Phase::Start);
        self.0
            .resolve(uri, config, timeout)
            .map_err(|error| match error {
                ureq::Error::Io(_) => ureq::Error::HostNotFound,
                other => other,
            })
    }
}
