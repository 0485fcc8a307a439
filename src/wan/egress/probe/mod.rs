//! One flow of the network contract, step by step, each with what it took and what was seen:
//!
//! ```text
//!   name -> TCP -------------------> TLS -> the host's exact answer
//!   name -> TCP (of the proxy) -> CONNECT -> TLS -> the host's exact answer
//! ```
//! A step that fails ends the way; what follows is skipped and said so. It goes by sockets of its own instead of the HTTP
//! client: what a proxy says in refusing, or who signed a certificate, is exactly what a client throws away. The rules are
//! the same as for every request: the same proxy, trust and bypass list, TLS always verified, nothing but TCP 443.

mod expect;
mod line;
mod message;
mod tunnel;

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls_pki_types::ServerName;

use super::error::of_tls;
use super::{Cause, Evidence, LoadCaFileError, Phase};
use super::{roots, tls};
use crate::config::{HttpsUrl, WanConfig};
use crate::identity::Secret;
use crate::language::Said;
use crate::wan::contract::FlowId;
use crate::wan::time::PlatformTime;
use expect::Question;
use line::{Line, Shared, Stream};
use message::Message;
use tunnel::Proxy;
pub use tunnel::way_of;

/// One step at most; a healthy one takes milliseconds, a line by satellite or a sleeping proxy a second or two.
const STEP_WITHIN: Duration = Duration::from_millis(2500);
/// All steps of a flow at most, so that the whole check stays under ten seconds.
const FLOW_WITHIN: Duration = Duration::from_secs(8);
/// Addresses of a name that are tried at most, within one step.
const MAX_ADDRESSES: usize = 4;
/// How it calls itself.
const USER_AGENT: &str = concat!("comptoir/", env!("CARGO_PKG_VERSION"), " check");

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepName {
    /// The name of the next hop becomes an address.
    Lookup,
    /// A TCP connection to the next hop: the host, or its proxy.
    Connect,
    /// The proxy opens the way to the host.
    Tunnel,
    /// TLS with the host.
    Tls,
    /// The host answers as only it can.
    Answer,
}

impl StepName {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Answer => "answer",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// As it should.
    Ok,
    /// Not.
    Failed(Cause),
    /// An earlier one failed.
    Skipped,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which.
    pub name: StepName,
    /// How it ended.
    pub state: StepState,
    /// How long it took.
    pub took: Duration,
    /// What was seen; never a secret.
    pub seen: Said,
}

/// All steps of one flow.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// Which flow.
    pub flow: FlowId,
    /// The host's name.
    pub host: String,
    /// Its port: 443, but for tests.
    pub port: u16,
    /// `SCHEME://HOST:PORT` of the proxy it goes through.
    pub proxy: Option<String>,
    /// The steps, also those that were skipped.
    pub steps: Vec<Step>,
    /// Why it failed, if it did.
    pub cause: Option<Cause>,
    /// What was seen of the failure.
    pub evidence: Evidence,
    /// How far this box's clock is ahead of the host's, in seconds; only from an answer inside verified TLS.
    pub skew_s: Option<i64>,
    /// All steps together.
    pub took: Duration,
}

/// Asks the hosts of the contract.
#[derive(Clone)]
pub struct Prober {
    tls: Arc<rustls::ClientConfig>,
    config: WanConfig,
    site_id: String,
    token: Option<Secret>,
}

impl Prober {
    /// `token` is the site's for the API, if there is one: then it is checked too. CA files that can't be used are left out
    /// and returned, as for every request.
    #[must_use]
    pub fn new(
        config: &WanConfig,
        site_id: &str,
        token: Option<Secret>,
        time: &PlatformTime,
    ) -> (Self, Vec<LoadCaFileError>) {
        let (roots, problems) = roots::load(&config.ca_files);
        let prober = Self {
            tls: tls::config(&roots, Arc::new(time.clone())),
            config: config.clone(),
            site_id: site_id.to_owned(),
            token,
        };
        (prober, problems)
    }

    /// Goes the flow's way once, within [`FLOW_WITHIN`].
    #[must_use]
    pub fn probe(&self, flow: FlowId) -> ProbeReport {
        let url = flow.url(&self.config);
        let proxy = Proxy::of(&self.config, flow, url.host());
        let question = Question::of(flow, &self.site_id, self.token.clone());
        let mut way = Way::new(url, proxy.as_ref());
        let _ = way.go(&self.tls, &question);
        way.report(flow)
    }
}

/// A step's failure: why, what was seen in it, and the rest of the evidence.
struct Failure {
    cause: Cause,
    seen: Said,
    evidence: Box<Evidence>,
}

impl Failure {
    fn new(cause: Cause, seen: impl Into<String>) -> Self {
        Self {
            cause,
            seen: Said::same(seen),
            evidence: Box::default(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Evidence)) -> Self {
        change(&mut self.evidence);
        self
    }
}

type Done<T> = Result<(T, Said), Failure>;

/// The way while it is gone.
struct Way<'p> {
    url: &'p HttpsUrl,
    proxy: Option<&'p Proxy>,
    started: Instant,
    steps: Vec<Step>,
    failure: Option<(Cause, Evidence)>,
    skew_s: Option<i64>,
}

/// A way that ended early; why is in the steps.
struct Ended;

impl<'p> Way<'p> {
    fn new(url: &'p HttpsUrl, proxy: Option<&'p Proxy>) -> Self {
        Self {
            url,
            proxy,
            started: Instant::now(),
            steps: Vec::new(),
            failure: None,
            skew_s: None,
        }
    }

    fn go(&mut self, tls: &Arc<rustls::ClientConfig>, question: &Question) -> Result<(), Ended> {
        let (host, port) = (self.url.host().to_owned(), self.url.port());
        let next_hop = self.proxy.map_or((host.clone(), port), |proxy| {
            (proxy.host.clone(), proxy.port)
        });
        let is_proxy = self.proxy.is_some();
        let shared = Shared::new(self.started);
        let addresses = self.step(StepName::Lookup, |until| {
            lookup(&next_hop.0, next_hop.1, is_proxy, until)
        })?;
        let tcp = self.step(StepName::Connect, |until| {
            connect(&addresses, is_proxy, until)
        })?;
        let mut stream: Box<dyn Stream> = Box::new(Line::new(tcp, shared.clone()));
        if let Some(proxy) = self.proxy {
            stream = self.step(StepName::Tunnel, |until| {
                shared.begin(until);
                proxy.open(stream, tls, (&host, port))
            })?;
        }
        let mut secured = self.step(StepName::Tls, |until| {
            shared.begin(until);
            secure(stream, tls, &host, &shared)
        })?;
        let authority = self.url.authority().to_owned();
        let skew_s = self.step(StepName::Answer, |until| {
            shared.begin(until);
            ask(&mut secured, question, &authority)
        })?;
        self.skew_s = skew_s;
        Ok(())
    }

    fn step<T>(
        &mut self,
        name: StepName,
        run: impl FnOnce(Instant) -> Done<T>,
    ) -> Result<T, Ended> {
        let began = Instant::now();
        let until = (began + STEP_WITHIN).min(self.started + FLOW_WITHIN);
        let result = run(until);
        let took = began.elapsed();
        match result {
            Ok((value, seen)) => {
                let state = StepState::Ok;
                self.steps.push(Step {
                    name,
                    state,
                    took,
                    seen,
                });
                Ok(value)
            }
            Err(Failure {
                cause,
                seen,
                mut evidence,
            }) => {
                evidence.phase = match name {
                    StepName::Lookup => Phase::Resolve,
                    StepName::Connect => Phase::Connect,
                    StepName::Tunnel => Phase::Tunnel,
                    StepName::Tls => Phase::Tls,
                    StepName::Answer => Phase::Exchange,
                };
                let state = StepState::Failed(cause);
                self.steps.push(Step {
                    name,
                    state,
                    took,
                    seen,
                });
                self.failure = Some((cause, *evidence));
                Err(Ended)
            }
        }
    }

    fn report(mut self, flow: FlowId) -> ProbeReport {
        let all = [
            StepName::Lookup,
            StepName::Connect,
            StepName::Tunnel,
            StepName::Tls,
            StepName::Answer,
        ];
        for name in all.into_iter().skip(self.steps.len()) {
            // Without a proxy there is no tunnel to be missed.
            let applies = name != StepName::Tunnel || self.proxy.is_some();
            let done = self.steps.iter().any(|step| step.name == name);
            if applies && !done {
                self.steps.push(Step {
                    name,
                    state: StepState::Skipped,
                    took: Duration::ZERO,
                    seen: Said::same(""),
                });
            }
        }
        let (cause, evidence) = match self.failure {
            Some((cause, evidence)) => (Some(cause), evidence),
            None => (None, Evidence::default()),
        };
        ProbeReport {
            flow,
            host: self.url.host().to_owned(),
            port: self.url.port(),
            proxy: self.proxy.map(Proxy::to_string),
            steps: self.steps,
            cause,
            evidence,
            skew_s: self.skew_s,
            took: self.started.elapsed(),
        }
    }
}

/// The system's resolver has no deadline of its own, so it runs on a thread that is left behind when it is late.
fn lookup(host: &str, port: u16, is_proxy: bool, until: Instant) -> Done<Vec<SocketAddr>> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    if let Ok(ip) = bare.parse() {
        let seen = Said::new("an address, no name", "une adresse, pas un nom");
        return Ok((vec![SocketAddr::new(ip, port)], seen));
    }
    let (told, answer) = channel();
    thread::spawn({
        let name = bare.clone();
        move || {
            let found = (name.as_str(), port).to_socket_addrs();
            let _ = told.send(found.map(|found| found.take(MAX_ADDRESSES).collect::<Vec<_>>()));
        }
    });
    let left = until.saturating_duration_since(Instant::now());
    let (failed, late) = if is_proxy {
        (Cause::ProxyUnreachable, Cause::ProxyUnreachable)
    } else {
        (Cause::Dns, Cause::ResolveTimeout)
    };
    match answer.recv_timeout(left) {
        Ok(Ok(found)) if !found.is_empty() => {
            let list: Vec<_> = found.iter().map(|addr| addr.ip().to_string()).collect();
            Ok((found, Said::same(list.join(", "))))
        }
        Ok(Ok(_)) => Err(Failure::new(failed, bare)),
        Ok(Err(error)) => Err(Failure::new(failed, format!("{bare}: {error}"))),
        Err(_) => Err(Failure {
            cause: late,
            seen: Said::new(
                format!("{bare}: no answer from the name servers"),
                format!("{bare} : pas de réponse des serveurs DNS"),
            ),
            evidence: Box::default(),
        }),
    }
}

fn connect(addresses: &[SocketAddr], is_proxy: bool, until: Instant) -> Done<TcpStream> {
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        // What is left is shared among the addresses that are left, so that a dead one does not starve the others.
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        if share.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => {
                // A probe is a few small messages; waiting to fill a packet only blurs what it measures.
                let _ = tcp.set_nodelay(true);
                return Ok((tcp, Said::same(address.to_string())));
            }
            Err(error) => last = Some((*address, error)),
        }
    }
    let Some((address, error)) = last else {
        return Err(Failure::new(Cause::TcpTimeout, ""));
    };
    let cause = match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Cause::NoLink,
        _ if is_proxy => Cause::ProxyUnreachable,
        io::ErrorKind::ConnectionRefused => Cause::TcpRefused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => Cause::NoLink,
        _ => Cause::TcpTimeout,
    };
    let seen = if error.kind() == io::ErrorKind::TimedOut {
        Said::new(
            format!("{address}: no answer"),
            format!("{address} : pas de réponse"),
        )
    } else {
        Said::same(format!("{address}: {error}"))
    };
    Err(Failure {
        cause,
        seen,
        evidence: Box::default(),
    })
}

type Secured = rustls::StreamOwned<rustls::ClientConnection, Box<dyn Stream>>;

fn secure(
    mut stream: Box<dyn Stream>,
    tls: &Arc<rustls::ClientConfig>,
    host: &str,
    shared: &Shared,
) -> Done<Secured> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(bare)
        .map_err(|_| Failure::new(Cause::TlsOther, "the host's name can't be verified"))?;
    let mut connection = rustls::ClientConnection::new(Arc::clone(tls), name)
        .map_err(|error| Failure::new(Cause::TlsOther, error.to_string()))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            return Err(not_secured(&error, shared));
        }
    }
    let version = connection
        .protocol_version()
        .and_then(|version| version.as_str());
    let seen = Said::same(version.unwrap_or_default().replace("v1_", " 1."));
    Ok((rustls::StreamOwned::new(connection, stream), seen))
}

fn not_secured(error: &io::Error, shared: &Shared) -> Failure {
    if shared.speaks_plainly() {
        return Failure {
            cause: Cause::CaptivePortal,
            seen: Said::new(
                "a web page in plain text instead of TLS",
                "une page web en clair au lieu de TLS",
            ),
            evidence: Box::default(),
        };
    }
    let refused = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let cause = match (refused, error.kind()) {
        (Some(refused), _) => of_tls(refused),
        (None, io::ErrorKind::TimedOut) => Cause::TlsTimeout,
        (None, io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => Cause::TlsCut,
        (None, _) => Cause::TlsOther,
    };
    Failure::new(cause, error.to_string())
}

fn ask(stream: &mut Secured, question: &Question, authority: &str) -> Done<Option<i64>> {
    let request = question.request(authority);
    let before = Timestamp::now();
    let answer = Message::exchange(stream, &request, false).map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::TimedOut => Cause::FirstByteTimeout,
            io::ErrorKind::InvalidData => Cause::BadAnswer,
            _ => Cause::ConnectionLost,
        };
        Failure::new(cause, error.to_string())
    })?;
    let skew_s = answer
        .date()
        .map(|date| before.as_second() - date.as_second());
    match question.judge(&answer) {
        Ok(seen) => Ok((skew_s, seen)),
        Err((cause, seen)) => Err(Failure {
            cause,
            seen,
            evidence: Box::default(),
        }
        .with(|evidence| {
            evidence.status = Some(answer.status);
            evidence.led_to = answer.leads_to();
        })),
    }
}
