//! One flow of the network contract, step by step, each with what it took and what was seen:
//!
//! ```text
//!   name -> TCP -------------------> TLS -> the host's exact answer
//!   name -> TCP (of the proxy) -> CONNECT -> TLS -> the host's exact answer
//! ```
//! A step that fails ends the way; what follows is skipped and said so. It goes by sockets of its own instead of the HTTP
//! client: what a proxy says in refusing, or who signed a certificate, is exactly what a client throws away. The rules are
//! the same as for every request: the same proxy, trust and bypass list, TLS always verified. The address is none that
//! anybody hands in: it is the flow's own, of the settings.

mod expect;
mod message;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::connect::{of_dial, of_hop};
use super::dial::dial;
use super::failure::{ConnectError, Until};
use super::line::Duplex;
use super::names::Names;
use super::socket::{Patience, Socket};
use super::stop::Stop;
use super::tls::{Secured, Tls};
use super::way::{bare, proxy_for};
use super::{Cause, Evidence, LoadCaFileError, Phase};
use super::{roots, socks, tunnel};
use crate::clock::SystemClock;
use crate::config::{HttpsUrl, ProxyConfig, ProxyScheme, WanConfig};
use crate::identity::Secret;
use crate::language::Said;
use crate::wan::contract::FlowId;
use crate::wan::time::PlatformTime;
use expect::Question;
use message::Message;

/// One step at most; a healthy one takes milliseconds, a line by satellite or a sleeping proxy a second or two.
const STEP_WITHIN: Duration = Duration::from_millis(2500);
/// All steps of a flow at most, so that the whole check stays under ten seconds.
const FLOW_WITHIN: Duration = Duration::from_secs(8);
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
    tls: Tls,
    names: Names,
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
        let roots = Arc::new(roots);
        let prober = Self {
            tls: Tls::new(&roots, Arc::new(time.clone())),
            names: Names::of_system(Arc::new(SystemClock::default())),
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
        let proxy = proxy_for(&self.config.proxy, flow, url.host());
        let question = Question::of(flow, &self.site_id, self.token.clone());
        let mut way = Way::new(url, proxy);
        let _ = way.go(self, &question);
        way.report(flow)
    }
}

/// A step's failure: why, what was seen in it, and the rest of the evidence.
struct Failure {
    cause: Cause,
    seen: Said,
    evidence: Box<Evidence>,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let mut words = vec![error.detail];
        words.extend(error.evidence.proxy_said.clone());
        let words = words.join(" · ");
        let seen = match error.cause {
            Cause::ResolveTimeout | Cause::TcpTimeout | Cause::TlsTimeout | Cause::ProxyTimeout => {
                Said::new(words, "pas de réponse")
            }
            _ => Said::same(words),
        };
        Self {
            cause: error.cause,
            seen,
            evidence: error.evidence,
        }
    }
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

/// The next hop of `flow` when it is a proxy: its host and port.
#[must_use]
pub fn way_of(config: &WanConfig, flow: FlowId) -> Option<(String, u16)> {
    let proxy = proxy_for(&config.proxy, flow, flow.url(config).host())?;
    Some((proxy.url.host().to_owned(), proxy.url.port()))
}

type Done<T> = Result<(T, Said), Failure>;

/// The way while it is gone.
struct Way<'p> {
    url: &'p HttpsUrl,
    proxy: Option<&'p ProxyConfig>,
    started: Instant,
    steps: Vec<Step>,
    failure: Option<(Cause, Evidence)>,
    skew_s: Option<i64>,
}

/// A way that ended early; why is in the steps.
struct Ended;

impl<'p> Way<'p> {
    fn new(url: &'p HttpsUrl, proxy: Option<&'p ProxyConfig>) -> Self {
        Self {
            url,
            proxy,
            started: Instant::now(),
            steps: Vec::new(),
            failure: None,
            skew_s: None,
        }
    }

    fn go(&mut self, prober: &Prober, question: &Question) -> Result<(), Ended> {
        let (host, port) = (bare(self.url.host()), self.url.port());
        let (hop, hop_port) = self
            .proxy
            .map_or((host, port), |proxy| (proxy.url.host(), proxy.url.port()));
        let is_proxy = self.proxy.is_some();
        let stop = Stop::default();
        let addresses = self.step(StepName::Lookup, |until| {
            lookup(&prober.names, hop, is_proxy, until)
        })?;
        let addresses: Vec<_> = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, hop_port))
            .collect();
        let socket = self.step(StepName::Connect, |until| {
            let until = Until::at(until, Cause::TcpTimeout);
            let stream =
                dial(&addresses, until, &stop).map_err(|error| of_hop(of_dial(error), is_proxy))?;
            let seen = stream.peer_addr().map(|address| address.to_string());
            Ok((Socket::new(stream), Said::same(seen.unwrap_or_default())))
        })?;
        let patience = socket.patience().clone();
        let mut stream: Box<dyn Duplex> = Box::new(socket);
        if let Some(proxy) = self.proxy {
            stream = self.step(StepName::Tunnel, |until| {
                patience.until(until);
                let until = Until::at(until, Cause::ProxyTimeout);
                open(&prober.tls, stream, &patience, proxy, (host, port), until)
            })?;
        }
        let is_direct = self.proxy.is_none();
        let mut secured = self.step(StepName::Tls, |until| {
            patience.until(until);
            let deadline = Until::at(until, Cause::TlsTimeout);
            let secured = prober.tls.secure(stream, host, Phase::Tls, deadline);
            let secured = secured.map_err(|error| match error.evidence.status {
                Some(_) if is_direct => who_speaks_plainly(error, &addresses, host, until),
                _ => Failure::from(error),
            })?;
            let version = secured.conn.protocol_version();
            let version = version.and_then(|version| version.as_str());
            let seen = Said::same(version.unwrap_or_default().replace("v1_", " 1."));
            Ok((secured, seen))
        })?;
        let authority = self.url.authority().to_owned();
        let skew_s = self.step(StepName::Answer, |until| {
            patience.until(until);
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
                // With TLS to the proxy itself, the tunnel's failure has a place of its own.
                evidence.phase = match name {
                    StepName::Tunnel if evidence.phase == Phase::ProxyTls => Phase::ProxyTls,
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
            proxy: self.proxy.map(|proxy| proxy.url.to_string()),
            steps: self.steps,
            cause,
            evidence,
            skew_s: self.skew_s,
            took: self.started.elapsed(),
        }
    }
}

fn lookup(names: &Names, hop: &str, is_proxy: bool, until: Instant) -> Done<Vec<IpAddr>> {
    if let Ok(address) = hop.parse() {
        let seen = Said::new("an address, no name", "une adresse, pas un nom");
        return Ok((vec![address], seen));
    }
    let until = Until::at(until, Cause::ResolveTimeout);
    let found = names
        .resolve(hop, until, &Stop::default())
        .map_err(|error| of_hop(error, is_proxy))?;
    let list: Vec<_> = found.iter().map(ToString::to_string).collect();
    Ok((found, Said::same(list.join(", "))))
}

/// The way through the proxy.
fn open(
    tls: &Tls,
    mut stream: Box<dyn Duplex>,
    patience: &Patience,
    proxy: &ProxyConfig,
    (host, port): (&str, u16),
    until: Until,
) -> Done<Box<dyn Duplex>> {
    match proxy.url.scheme() {
        ProxyScheme::Socks5 => socks::open(&mut stream, proxy, host, port, until)?,
        ProxyScheme::Http => tunnel::open(&mut stream, patience, proxy, host, port, until)?,
        ProxyScheme::Https => {
            let mut secured = tls.secure(stream, proxy.url.host(), Phase::ProxyTls, until)?;
            tunnel::open(&mut secured, patience, proxy, host, port, until)?;
            stream = Box::new(secured);
        }
    }
    let seen = Said::new("the proxy opens the way", "le proxy ouvre le passage");
    Ok((stream, seen))
}

/// A web server without TLS stands where the host should be. To TLS it answers with whatever its program makes of it; asked
/// as a browser would, a network's login page shows itself by where it leads.
fn who_speaks_plainly(
    error: ConnectError,
    addresses: &[SocketAddr],
    host: &str,
    until: Instant,
) -> Failure {
    let failure = Failure::from(error);
    let deadline = Until::at(until, Cause::TcpTimeout);
    let Ok(stream) = dial(addresses, deadline, &Stop::default()) else {
        return failure;
    };
    let mut socket = Socket::new(stream);
    socket.patience().until(until);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let Ok(answer) = Message::exchange(&mut socket, request.as_bytes()) else {
        return failure;
    };
    let cause = match answer.status {
        200 | 300..=399 | 511 => Cause::CaptivePortal,
        _ => failure.cause,
    };
    let words = answer.own_words();
    Failure {
        cause,
        seen: Said::new(
            format!("a web page in plain text instead of TLS: {words}"),
            format!("une page web en clair au lieu de TLS : {words}"),
        ),
        ..failure
    }
    .with(|evidence| {
        evidence.status = Some(answer.status);
        evidence.led_to = answer.leads_to();
    })
}

fn ask(stream: &mut Secured, question: &Question, authority: &str) -> Done<Option<i64>> {
    let request = question.request(authority);
    let before = Timestamp::now();
    let answer = Message::exchange(stream, &request).map_err(|error| {
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
