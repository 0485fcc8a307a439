//! The one door out: every outbound connection of the box is opened here, and nowhere else.
//!
//! - A flow goes to the host that the settings give it and nowhere else: any other address is refused before anything leaves.
//! - The proxy comes from the settings, never from the environment; with a proxy set nothing leaves directly, not even a
//!   DNS question, except for flows and hosts that the settings name.
//! - HTTPS only, TLS 1.2 or later; trust is the public roots plus the shop's own authorities; verification is never off.
//! - Every wait has a deadline and a cause of its own: resolve, connect, TLS, send, first byte, stall, and the whole request.
//! - Redirects are not followed: no host of the contract sends any, a network's login page does.
//! - A failure is an [`EgressError`] with a stable [`Cause`], its [`Advice`] for people, and [`Evidence`] for support.
//!
//! ```text
//!   Client::send -> HTTP client (ureq) -> connect (a new connection only): names -> dial -> tunnel | socks -> tls -> line
//! ```
//!
//! A [`Client`] belongs to one flow: its connections are its own, so that a stuck flow is ended without touching another.

mod advice;
mod answer;
mod bootstrap;
mod border;
mod cause;
mod certificate;
mod connect;
mod dial;
mod error;
mod evidence;
mod failure;
mod heard;
mod http_date;
mod line;
mod link;
mod names;
mod pace;
mod probe;
mod roots;
mod socket;
mod socks;
mod stop;
mod tls;
mod tls_failure;
mod total;
mod tunnel;
mod way;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use ureq::http;
use ureq::{Agent, Body};

use crate::clock::SystemClock;
use crate::config::{Deadlines, HttpsUrl, ProxySettings, WanConfig};
use crate::units::ByteSize;
use crate::wan::contract::{CONTRACT, FlowId};
use crate::wan::time::PlatformTime;

pub use advice::{Advice, proofs};
pub use answer::Answer;
pub use border::{OutsideContract, within};
pub use cause::Cause;
pub use error::EgressError;
pub use evidence::{Evidence, Phase};
pub use heard::Heard;
pub(super) use link::is_up as has_link;
pub use probe::{ProbeReport, Prober, Step, StepName, StepState, way_of};
pub use roots::LoadCaFileError;
pub use ureq::http::Method;

use connect::{Unasked, Way};
use names::Names;
use pace::Pace;
use roots::Roots;
use stop::Stop;
use tls::Tls;

/// Head of an answer at most; a bus message may carry 64 KiB of properties in it.
const MAX_RESPONSE_HEAD: ByteSize = ByteSize::kib(128);
/// Each way, per connection.
const BUFFER: ByteSize = ByteSize::kib(32);
/// Idle connections are given up before usual proxies do it.
const MAX_IDLE: Duration = Duration::from_secs(14);

/// Builds clients with the shop's proxy, trust and deadlines.
#[derive(Clone)]
pub struct Egress {
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    hosts: BTreeMap<FlowId, HttpsUrl>,
    roots: Arc<Roots>,
    tls: Tls,
    proxies: Arc<ProxySettings>,
    names: Names,
    deadlines: Deadlines,
    heard: Heard,
}

impl Egress {
    /// Reads the CA files. Those that can't be used are left out and returned.
    /// Certificates are judged by `time`, not by the machine's clock.
    #[must_use]
    pub fn new(config: &WanConfig, time: &PlatformTime) -> (Self, Vec<LoadCaFileError>) {
        let (roots, problems) = roots::load(&config.ca_files);
        let roots = Arc::new(roots);
        let hosts = CONTRACT.map(|flow| (flow.id, flow.id.url(config).clone()));
        let settings = Settings {
            hosts: hosts.into(),
            tls: Tls::new(&roots, Arc::new(time.clone())),
            roots,
            proxies: Arc::new(config.proxy.clone()),
            names: Names::of_system(Arc::new(SystemClock::default())),
            deadlines: config.deadlines.clone(),
            heard: Heard::default(),
        };
        let egress = Self {
            settings: Arc::new(settings),
        };
        (egress, problems)
    }

    /// How often the hosts have answered.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.settings.heard.clone()
    }

    /// A client with connections of its own.
    #[must_use]
    pub fn client(&self, flow: FlowId) -> Client {
        Client {
            flow,
            connections: Arc::new(RwLock::new(Connections::new(
                flow,
                &self.settings,
                Stop::default(),
            ))),
            settings: Arc::clone(&self.settings),
        }
    }
}

/// A client's connections, and what ends them.
#[derive(Clone)]
struct Connections {
    agent: Agent,
    stop: Stop,
}

impl Connections {
    fn new(flow: FlowId, settings: &Settings, stop: Stop) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("comptoir/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_response_header_size(MAX_RESPONSE_HEAD.as_usize())
            .max_idle_connections(2)
            .max_idle_age(MAX_IDLE)
            .timeout_send_request(Some(settings.deadlines.send))
            .timeout_send_body(Some(settings.deadlines.send))
            .timeout_per_read(Some(settings.deadlines.stall))
            .build();
        let way = Way {
            flow,
            proxies: Arc::clone(&settings.proxies),
            tls: settings.tls.clone(),
            names: settings.names.clone(),
            deadlines: settings.deadlines.clone(),
            stop: stop.clone(),
        };
        Self {
            agent: Agent::with_parts(config, way, Unasked),
            stop,
        }
    }

    fn end(self) {
        self.stop.give();
        self.agent.shutdown();
    }
}

/// Asks one flow's host. Clones share connections.
#[derive(Clone)]
pub struct Client {
    flow: FlowId,
    connections: Arc<RwLock<Connections>>,
    settings: Arc<Settings>,
}

/// One request. Header values may hold secrets, so it has no `Debug`.
pub struct Request<'a> {
    /// Verb.
    pub method: Method,
    /// `https://…`, on the flow's host.
    pub url: &'a str,
    /// Name and value.
    pub headers: &'a [(&'static str, &'a str)],
    /// `None` with POST, PUT, DELETE is sent as `Content-Length: 0`.
    pub body: Option<&'a [u8]>,
    /// How long the host may hold the request (long poll), on top of the first-byte deadline.
    pub hold: Duration,
}

impl Client {
    /// The flow it works for.
    #[must_use]
    pub const fn flow(&self) -> FlowId {
        self.flow
    }

    /// Asks; any HTTP status is an answer. An address away from the flow's host is refused before anything leaves.
    ///
    /// # Errors
    /// Everything short of an answer, sorted.
    pub fn send(&self, request: &Request<'_>) -> Result<Answer, EgressError> {
        let allowed = &self.settings.hosts[&self.flow];
        let uri = within(request.url, allowed)
            .map_err(|outside| outside.into_error(self.flow, allowed))?;
        let host = uri.host().unwrap_or_default().to_owned();
        let connections = self.connections();
        let deadlines = &self.settings.deadlines;
        let end = Instant::now() + deadlines.total + request.hold;
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(uri);
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        let has_body = matches!(
            request.method,
            Method::POST | Method::PUT | Method::DELETE | Method::PATCH
        );
        let first_byte = deadlines.first_byte + request.hold;
        let returns = self.settings.heard.returns();
        let result = total::ending(Some(end), || {
            if has_body {
                // A body of zero bytes says `Content-Length: 0`, which the bus insists on.
                let body = request.body.unwrap_or_default();
                run(&connections.agent, builder.body(body), first_byte)
            } else {
                run(&connections.agent, builder.body(()), first_byte)
            }
        });
        let response = result.map_err(|error| {
            let mut error = EgressError::sort(error, &host, Phase::Exchange);
            if connections.stop.is_given() {
                // A connection that was ended from this side looks like one that broke.
                return EgressError::new(Cause::Stopped, &host, error.detail);
            }
            self.settings.heard.nothing(self.flow);
            error.way_lost_at = Some(returns);
            error
        })?;
        self.settings.heard.add_one(self.flow);
        let pace = Pace::new(deadlines.pace_stretch, deadlines.pace_least.as_u64());
        Ok(Answer::new(host, response, end, pace))
    }

    /// Ends this client's requests in flight, wherever they hang; it then works on with new connections.
    pub fn interrupt(&self) {
        let new = Connections::new(self.flow, &self.settings, Stop::default());
        let old = std::mem::replace(
            &mut *self
                .connections
                .write()
                .expect("no holder of this lock panics"),
            new,
        );
        old.end();
    }

    /// Ends this client: its requests in flight and all later ones fail at once.
    pub fn close(&self) {
        self.connections().end();
    }

    fn connections(&self) -> Connections {
        self.connections
            .read()
            .expect("no holder of this lock panics")
            .clone()
    }
}

fn run<B: ureq::AsSendBody>(
    agent: &Agent,
    call: Result<http::Request<B>, http::Error>,
    first_byte: Duration,
) -> Result<http::Response<Body>, ureq::Error> {
    let call = agent
        .configure_request(call?)
        .timeout_recv_response(Some(first_byte))
        .build();
    agent.run(call)
}

/// An error about an answer that arrived but is not what was agreed.
#[must_use]
pub fn bad_answer(flow: FlowId, detail: impl Into<String>) -> EgressError {
    EgressError::new(Cause::BadAnswer, flow.flow().name, detail)
}

/// The error of a flow whose credentials were taken away while it worked: the host was not asked.
#[must_use]
pub fn no_credentials(flow: FlowId) -> EgressError {
    let detail = "this box has no credentials for it any more";
    EgressError::new(Cause::Unauthorized, flow.flow().name, detail)
}

#[cfg(test)]
mod tests;
