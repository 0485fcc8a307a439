//! A failed request: cause, host, and what exactly was seen. Never a path, a query or a header: those hold secrets.

use std::io;
use std::time::Duration;

use super::cause::Cause;
use super::evidence::{Evidence, Phase};
use super::failure::ConnectError;

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
    /// No answer came: how often the way to a host had come back before the request (see [`super::Heard::returns`]).
    pub(in crate::wan) way_lost_at: Option<u64>,
    evidence: Box<Evidence>,
}

impl EgressError {
    pub(crate) fn new(cause: Cause, host: &str, detail: impl Into<String>) -> Self {
        Self {
            cause,
            host: host.to_owned(),
            detail: detail.into(),
            retry_after: None,
            way_lost_at: None,
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

    /// Sorts what the HTTP client reports; `phase` is how far a request with a connection had come.
    pub(super) fn sort(error: ureq::Error, host: &str, phase: Phase) -> Self {
        let error = match error {
            ureq::Error::Other(other) => match other.downcast::<ConnectError>() {
                Ok(error) => {
                    return Self::new(error.cause, host, error.detail).with(*error.evidence);
                }
                Err(other) => ureq::Error::Other(other),
            },
            error => error,
        };
        let cause = match &error {
            ureq::Error::Timeout(timeout) => of_timeout(*timeout),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Cause::TlsOther,
            ureq::Error::Io(error) => of_io(error),
            _ => Cause::BadAnswer,
        };
        Self::new(cause, host, error.to_string()).with(Evidence::at(phase))
    }

    /// Sorts an error met while an answer's body was read.
    pub(super) fn sort_body(error: io::Error, host: &str) -> Self {
        // The client wraps its own errors in io::Error while a body is read; this unwraps them.
        Self::sort(ureq::Error::from(error), host, Phase::Body)
    }
}

fn of_timeout(timeout: ureq::Timeout) -> Cause {
    match timeout {
        ureq::Timeout::SendRequest | ureq::Timeout::SendBody | ureq::Timeout::PerWrite => {
            Cause::SendTimeout
        }
        ureq::Timeout::RecvResponse => Cause::FirstByteTimeout,
        ureq::Timeout::Global => Cause::TotalTimeout,
        _ => Cause::Stalled,
    }
}

fn of_io(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::NotConnected => Cause::Stopped,
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::HostUnreachable => Cause::NoLink,
        _ if error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>()) =>
        {
            Cause::TlsOther
        }
        _ => Cause::ConnectionLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deadline_of_an_exchange_has_its_own_cause() {
        for (timeout, expected) in [
            (ureq::Timeout::SendBody, Cause::SendTimeout),
            (ureq::Timeout::RecvResponse, Cause::FirstByteTimeout),
            (ureq::Timeout::PerRead, Cause::Stalled),
            (ureq::Timeout::Global, Cause::TotalTimeout),
        ] {
            let error = EgressError::sort(ureq::Error::Timeout(timeout), "host", Phase::Exchange);
            assert_eq!(error.cause, expected);
            assert_eq!(error.evidence().phase, Phase::Exchange);
        }
    }

    #[test]
    fn a_failed_connection_comes_through_as_it_was_sorted() {
        let failure = ConnectError::new(Cause::ProxyDenied, Phase::Tunnel, "HTTP 403");
        let error = EgressError::sort(failure.into(), "host", Phase::Exchange);
        assert_eq!(
            (error.cause, error.evidence().phase),
            (Cause::ProxyDenied, Phase::Tunnel)
        );
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
