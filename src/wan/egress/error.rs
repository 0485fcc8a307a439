//! A failed request: cause, host, and what exactly was seen. Never a path, a query or a header: those hold secrets.

use std::io;
use std::time::Duration;

use rustls::CertificateError;

use super::bootstrap::valid_from_s;
use super::cause::Cause;
use super::evidence::Evidence;
use super::phase::Phase;

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {}{}{detail}", .cause.text(), if .detail.is_empty() { "" } else { ": " })]
pub struct EgressError {
    /// Stable code.
    pub cause: Cause,
    /// The host that was asked.
    pub host: String,
    /// What was seen, for support.
    pub detail: String,
    /// How long the host asked to wait.
    pub retry_after: Option<Duration>,
    evidence: Box<Evidence>,
}

impl EgressError {
    pub(crate) fn new(cause: Cause, host: &str, detail: impl Into<String>) -> Self {
        Self {
            cause,
            host: host.to_owned(),
            detail: detail.into(),
            retry_after: None,
            evidence: Box::default(),
        }
    }

    /// The same with what was seen.
    pub(super) fn with(mut self, evidence: Evidence) -> Self {
        self.evidence = Box::new(evidence);
        self
    }

    /// What was seen beside the cause, for whom has to act.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Whether the same request may succeed later although nobody changes a setting or the request.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.cause.is_retryable()
    }

    /// Sorts what the HTTP client reports. `phase` is how far the connection came, `proxied` whether a proxy is between.
    pub(super) fn sort(error: &ureq::Error, host: &str, phase: Phase, proxied: bool) -> Self {
        let cause = match error {
            ureq::Error::Timeout(timeout) => of_timeout(*timeout, phase, proxied),
            ureq::Error::HostNotFound if proxied => Cause::ProxyUnreachable,
            ureq::Error::HostNotFound => Cause::Dns,
            ureq::Error::ConnectProxyFailed(text) => of_connect_answer(text),
            ureq::Error::Rustls(error) => of_tls(error),
            ureq::Error::Tls(_) => Cause::TlsOther,
            ureq::Error::Io(error) => of_io(error, phase, proxied),
            _ => Cause::BadAnswer,
        };
        let mut evidence = Evidence::at(phase.shown(proxied));
        evidence.valid_from_s = valid_from_s(error);
        Self::new(cause, host, error.to_string()).with(evidence)
    }

    /// Sorts an error met while an answer's body was read.
    pub(super) fn sort_body(error: io::Error, host: &str) -> Self {
        // The client wraps its own errors in io::Error while a body is read; this unwraps them.
        Self::sort(&ureq::Error::from(error), host, Phase::Secured, false)
    }
}

fn of_timeout(timeout: ureq::Timeout, phase: Phase, proxied: bool) -> Cause {
    match (timeout, phase) {
        (ureq::Timeout::Resolve, _) => Cause::ResolveTimeout,
        (ureq::Timeout::SendRequest | ureq::Timeout::SendBody | ureq::Timeout::PerWrite, _) => {
            Cause::SendTimeout
        }
        (_, Phase::Start) if proxied => Cause::ProxyUnreachable,
        (_, Phase::Start) => Cause::TcpTimeout,
        (_, Phase::Connected) if proxied => Cause::ProxyTimeout,
        (_, Phase::Connected | Phase::Tunnelled) => Cause::TlsTimeout,
        (ureq::Timeout::RecvResponse, Phase::Secured) => Cause::FirstByteTimeout,
        (_, Phase::Secured) => Cause::Stalled,
    }
}

/// The client gives the proxy's answer to CONNECT as text only: "proxy server responded 407/407".
fn of_connect_answer(text: &str) -> Cause {
    let status = text
        .rsplit(|c: char| !c.is_ascii_digit())
        .find(|digits| digits.len() == 3);
    match status {
        Some("407") => Cause::ProxyAuth,
        Some(status) if status.starts_with('4') => Cause::ProxyDenied,
        _ => Cause::ProxyFailed,
    }
}

fn of_io(error: &io::Error, phase: Phase, proxied: bool) -> Cause {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return of_tls(tls);
    }
    match (error.kind(), phase) {
        (io::ErrorKind::NotConnected, _) => Cause::Stopped,
        (io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown, _) => Cause::NoLink,
        (_, Phase::Start) if proxied => Cause::ProxyUnreachable,
        (_, Phase::Connected) if proxied => Cause::ProxyFailed,
        (io::ErrorKind::ConnectionRefused, _) => Cause::TcpRefused,
        (io::ErrorKind::TimedOut, Phase::Start) => Cause::TcpTimeout,
        (io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable, _) => Cause::NoLink,
        (_, Phase::Connected | Phase::Tunnelled) => Cause::TlsOther,
        _ => Cause::ConnectionLost,
    }
}

pub(super) fn of_tls(error: &rustls::Error) -> Cause {
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return Cause::TlsOther;
    };
    match certificate {
        // A bad signature is an issuer of a trusted name with another key: as unknown as any.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Cause::TlsUnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Cause::TlsExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Cause::TlsNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Cause::TlsWrongHost
        }
        CertificateError::Revoked => Cause::TlsRevoked,
        _ => Cause::TlsOther,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(error: ureq::Error, phase: Phase, proxied: bool) -> Cause {
        EgressError::sort(&error, "host", phase, proxied).cause
    }

    fn tls(error: CertificateError) -> ureq::Error {
        let error = rustls::Error::InvalidCertificate(error);
        ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn the_phase_says_who_did_not_answer() {
        let timeout = || ureq::Error::Timeout(ureq::Timeout::Connect);
        assert_eq!(cause(timeout(), Phase::Start, false), Cause::TcpTimeout);
        assert_eq!(
            cause(timeout(), Phase::Start, true),
            Cause::ProxyUnreachable
        );
        assert_eq!(
            cause(timeout(), Phase::Connected, true),
            Cause::ProxyTimeout
        );
        assert_eq!(cause(timeout(), Phase::Connected, false), Cause::TlsTimeout);
        assert_eq!(cause(timeout(), Phase::Tunnelled, true), Cause::TlsTimeout);
        let stall = ureq::Error::Timeout(ureq::Timeout::PerRead);
        assert_eq!(cause(stall, Phase::Secured, true), Cause::Stalled);
        let first = ureq::Error::Timeout(ureq::Timeout::RecvResponse);
        assert_eq!(cause(first, Phase::Secured, false), Cause::FirstByteTimeout);
    }

    #[test]
    fn a_certificate_says_what_is_wrong_with_it() {
        for (error, expected) in [
            (CertificateError::UnknownIssuer, Cause::TlsUnknownIssuer),
            (CertificateError::Expired, Cause::TlsExpired),
            (CertificateError::NotValidYet, Cause::TlsNotYetValid),
            (CertificateError::NotValidForName, Cause::TlsWrongHost),
            (CertificateError::Revoked, Cause::TlsRevoked),
            (CertificateError::BadEncoding, Cause::TlsOther),
        ] {
            assert_eq!(cause(tls(error), Phase::Tunnelled, true), expected);
        }
    }

    #[test]
    fn the_proxys_answer_is_read_from_the_clients_text() {
        let answer = |text: &str| ureq::Error::ConnectProxyFailed(text.into());
        let cause = |text| cause(answer(text), Phase::Connected, true);
        assert_eq!(cause("proxy server responded 407/407"), Cause::ProxyAuth);
        assert_eq!(cause("proxy server responded 403/403"), Cause::ProxyDenied);
        assert_eq!(cause("proxy server responded 503/503"), Cause::ProxyFailed);
        assert_eq!(cause("proxy server did not respond"), Cause::ProxyFailed);
    }

    #[test]
    fn the_sentence_names_host_cause_and_evidence() {
        let error = EgressError::new(Cause::Dns, "api.example", "no answer");
        assert_eq!(
            error.to_string(),
            "api.example: the name can't be resolved: no answer"
        );
    }
}
