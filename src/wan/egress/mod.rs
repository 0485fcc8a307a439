//! The one door out: every outbound connection of the box is opened here, and nowhere else.
//!
//! - The proxy comes from the settings, never from the environment; with a proxy set nothing leaves directly, not even a
//!   DNS question, except for hosts on the bypass list.
//! - HTTPS only, TLS 1.2 or later; trust is the public roots plus the shop's own authorities; verification is never off.
//! - Every wait has a deadline: resolve, connect (TCP, CONNECT, TLS), send, first byte, stall.
//! - Redirects are not followed: no host of the contract sends any, a network's login page does.
//! - A failure is an [`EgressError`] with a stable [`Cause`].
//!
//! A [`Client`] belongs to one flow: its connections are its own, so that a stuck flow is ended without touching another.

mod advice;
mod answer;
mod bootstrap;
mod cause;
mod error;
mod evidence;
mod http_date;
mod phase;
mod probe;
mod proxy;
mod roots;
mod tls;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use ureq::config::Config;
use ureq::http;
use ureq::{Agent, Body};

use crate::config::{Deadlines, WanConfig};
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::time::PlatformTime;

pub use advice::{Advice, proofs};
pub use answer::Answer;
pub use cause::Cause;
pub use error::EgressError;
pub use evidence::{Evidence, Phase};
pub use probe::{ProbeReport, Prober, Step, StepName, StepState, way_of};
pub use proxy::ProxyAddressError;
pub use roots::LoadCaFileError;
pub use ureq::http::Method;

/// Head of an answer at most; a bus message may carry 64 KiB of properties in it.
const MAX_RESPONSE_HEAD: ByteSize = ByteSize::kib(128);
/// Each way, per connection.
const BUFFER: ByteSize = ByteSize::kib(32);
/// Sending one request with its body, at most.
const SEND_DEADLINE: Duration = Duration::from_secs(60);
/// Idle connections are given up before usual proxies do it.
const MAX_IDLE: Duration = Duration::from_secs(14);

/// Builds clients with the shop's proxy, trust and deadlines.
#[derive(Clone)]
pub struct Egress {
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    roots: Arc<RootCertStore>,
    tls: Arc<ClientConfig>,
    direct: Config,
    proxied: Option<Config>,
    bypass: Vec<String>,
    deadlines: Deadlines,
}

impl Egress {
    /// Reads the CA files and checks the proxy's address. CA files that can't be used are left out and returned.
    /// Certificates are judged by `time`, not by the machine's clock.
    ///
    /// # Errors
    /// When a proxy is set whose address can't be used: going on without it would leave directly.
    pub fn new(
        config: &WanConfig,
        time: &PlatformTime,
    ) -> Result<(Self, Vec<LoadCaFileError>), ProxyAddressError> {
        let (roots, problems) = roots::load(&config.ca_files);
        let deadlines = config.deadlines.clone();
        let build = |proxy| {
            Agent::config_builder()
                .proxy(proxy)
                .https_only(true)
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("comptoir/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .max_response_header_size(MAX_RESPONSE_HEAD.as_usize())
                .input_buffer_size(BUFFER.as_usize())
                .output_buffer_size(BUFFER.as_usize())
                .max_idle_connections(2)
                .max_idle_age(MAX_IDLE)
                .timeout_resolve(Some(deadlines.resolve))
                .timeout_connect(Some(deadlines.connect))
                .timeout_send_request(Some(SEND_DEADLINE))
                .timeout_send_body(Some(SEND_DEADLINE))
                .build()
        };
        let proxied = config.proxy.as_ref().map(proxy::build).transpose()?;
        let settings = Settings {
            tls: tls::config(&roots, Arc::new(time.clone())),
            roots,
            direct: build(None),
            proxied: proxied.map(|proxy| build(Some(proxy))),
            bypass: config
                .proxy
                .as_ref()
                .map(|proxy| proxy.bypass.clone())
                .unwrap_or_default(),
            deadlines,
        };
        let egress = Self {
            settings: Arc::new(settings),
        };
        Ok((egress, problems))
    }

    /// A client with connections of its own.
    #[must_use]
    pub fn client(&self, flow: FlowId) -> Client {
        Client {
            flow,
            agents: Arc::new(RwLock::new(Agents::new(&self.settings))),
            settings: Arc::clone(&self.settings),
        }
    }
}

struct Agents {
    direct: Agent,
    proxied: Option<Agent>,
}

impl Agents {
    fn new(settings: &Settings) -> Self {
        let agent = |config: &Config| {
            Agent::with_parts(
                config.clone(),
                phase::connectors(Arc::clone(&settings.tls)),
                phase::SystemResolver::default(),
            )
        };
        Self {
            direct: agent(&settings.direct),
            proxied: settings.proxied.as_ref().map(agent),
        }
    }

    fn shutdown(self) {
        self.direct.shutdown();
        if let Some(proxied) = self.proxied {
            proxied.shutdown();
        }
    }
}

/// Asks one flow's host. Clones share connections.
#[derive(Clone)]
pub struct Client {
    flow: FlowId,
    agents: Arc<RwLock<Agents>>,
    settings: Arc<Settings>,
}

/// One request. Header values may hold secrets, so it has no `Debug`.
pub struct Request<'a> {
    /// Verb.
    pub method: Method,
    /// `https://…`
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

    /// Asks; any HTTP status is an answer.
    ///
    /// # Errors
    /// Everything short of an answer, sorted.
    pub fn send(&self, request: &Request<'_>) -> Result<Answer, EgressError> {
        let uri: http::Uri = request
            .url
            .parse()
            .map_err(|_| EgressError::new(Cause::BadAnswer, "", "the address can't be read"))?;
        let host = uri.host().unwrap_or_default().to_owned();
        let (agent, proxied) = self.agent_for(&host);
        let failed =
            |error: &ureq::Error| EgressError::sort(error, &host, phase::reached(), proxied);
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
        phase::reset(proxied);
        let result = if has_body {
            // A body of zero bytes says `Content-Length: 0`, which the bus insists on.
            let body = request.body.unwrap_or_default();
            builder
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|call| run(&agent, call, &self.settings.deadlines, request.hold))
        } else {
            builder
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|call| run(&agent, call, &self.settings.deadlines, request.hold))
        };
        let response = result.map_err(|error| failed(&error))?;
        Ok(Answer::new(host, response))
    }

    /// Ends this client's requests in flight, wherever they hang; it then works on with new connections.
    pub fn interrupt(&self) {
        let new = Agents::new(&self.settings);
        let old = std::mem::replace(
            &mut *self.agents.write().expect("no holder of this lock panics"),
            new,
        );
        old.shutdown();
    }

    /// Ends this client: its requests in flight and all later ones fail at once.
    pub fn close(&self) {
        let agents = self.agents.read().expect("no holder of this lock panics");
        agents.direct.clone().shutdown();
        if let Some(proxied) = agents.proxied.clone() {
            proxied.shutdown();
        }
    }

    fn agent_for(&self, host: &str) -> (Agent, bool) {
        let agents = self.agents.read().expect("no holder of this lock panics");
        match &agents.proxied {
            Some(proxied) if !proxy::bypasses(&self.settings.bypass, host) => {
                (proxied.clone(), true)
            }
            _ => (agents.direct.clone(), false),
        }
    }
}

fn run(
    agent: &Agent,
    call: http::Request<impl ureq::AsSendBody>,
    deadlines: &Deadlines,
    hold: Duration,
) -> Result<http::Response<Body>, ureq::Error> {
    // While the host holds the request there is no byte to see, so a stall then means longer than the hold.
    let first_byte = deadlines.first_byte + hold;
    let call = agent
        .configure_request(call)
        .timeout_recv_response(Some(first_byte))
        .timeout_per_read(Some(deadlines.stall.max(first_byte)))
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
