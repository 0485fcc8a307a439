//! The way through the shop's proxy.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::ServerName;

use super::super::evidence::one_line;
use super::super::proxy;
use super::line::Stream;
use super::message::Message;
use super::{Done, Failure};
use crate::config::WanConfig;
use crate::identity::Secret;
use crate::language::Said;
use crate::wan::contract::FlowId;
use crate::wan::egress::Cause;

/// The next hop of `flow` when it is a proxy: its host and port.
#[must_use]
pub fn way_of(config: &WanConfig, flow: FlowId) -> Option<(String, u16)> {
    let proxy = Proxy::of(config, flow, flow.url(config).host())?;
    Some((proxy.host, proxy.port))
}

/// The proxy of one flow.
pub(super) struct Proxy {
    is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    user: String,
    password: Secret,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// The proxy `flow` takes to `host`, if any.
    pub(super) fn of(config: &WanConfig, _flow: FlowId, host: &str) -> Option<Self> {
        let settings = config.proxy.as_ref()?;
        if proxy::bypasses(&settings.bypass, host) {
            return None;
        }
        let built = proxy::build(settings).ok()?;
        Some(Self {
            is_tls: settings.url.starts_with("https://"),
            host: built.host().to_owned(),
            port: built.port(),
            user: settings.user.clone(),
            password: settings.password.clone(),
        })
    }

    /// Asks for the way to `target`.
    pub(super) fn open(
        &self,
        stream: Box<dyn Stream>,
        tls: &Arc<rustls::ClientConfig>,
        target: (&str, u16),
    ) -> Done<Box<dyn Stream>> {
        let mut stream = if self.is_tls {
            self.secured(stream, tls)?
        } else {
            stream
        };
        let (host, port) = target;
        let mut request = format!(
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {}\r\n",
            super::USER_AGENT
        );
        if !self.user.is_empty() {
            let pair = format!("{}:{}", self.user, self.password.expose());
            request += &format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair));
        }
        request += "\r\n";
        let answer = Message::exchange(&mut *stream, request.as_bytes(), true).map_err(
            |error| match error.kind() {
                io::ErrorKind::TimedOut => Failure {
                    cause: Cause::ProxyTimeout,
                    seen: Said::new(
                        "the proxy does not answer CONNECT",
                        "le proxy ne répond pas à CONNECT",
                    ),
                    evidence: Box::default(),
                },
                _ => Failure::new(Cause::ProxyFailed, error.to_string()),
            },
        )?;
        if (200..300).contains(&answer.status) {
            return Ok((stream, Said::same(answer.own_words())));
        }
        Err(refused(&answer))
    }

    fn secured(
        &self,
        mut stream: Box<dyn Stream>,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Box<dyn Stream>, Failure> {
        let failed = |error: String| Failure::new(Cause::ProxyFailed, error);
        let name = ServerName::try_from(self.host.clone()).map_err(|e| failed(e.to_string()))?;
        let mut connection = rustls::ClientConnection::new(Arc::clone(tls), name)
            .map_err(|error| failed(error.to_string()))?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(|error| failed(error.to_string()))?;
        }
        Ok(Box::new(rustls::StreamOwned::new(connection, stream)))
    }
}

fn refused(answer: &Message) -> Failure {
    let schemes: Vec<String> = answer
        .headers("proxy-authenticate")
        .filter_map(|value| value.split([' ', ',']).next())
        .map(str::to_owned)
        .collect();
    let offers = |name: &str| {
        schemes
            .iter()
            .any(|scheme| scheme.eq_ignore_ascii_case(name))
    };
    let cause = match answer.status {
        407 if schemes.is_empty() || offers("basic") => Cause::ProxyAuth,
        407 if offers("digest") => Cause::ProxyDigestOnly,
        407 if offers("ntlm") || offers("negotiate") => Cause::ProxyNtlmOnly,
        407 => Cause::ProxyScheme,
        300..=399 | 511 => Cause::CaptivePortal,
        400..=499 => Cause::ProxyDenied,
        _ => Cause::ProxyFailed,
    };
    let words = answer.own_words();
    Failure::new(cause, words.clone()).with(|evidence| {
        evidence.status = Some(answer.status);
        evidence.proxy_said = one_line(&words);
        evidence.proxy_schemes = schemes;
        evidence.led_to = answer.leads_to();
    })
}
