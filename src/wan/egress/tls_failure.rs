//! A handshake that failed: which cause it is, and what it showed.

use std::io;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::{ServerName, UnixTime};

use super::certificate::Words;
use super::evidence::one_line;
use super::failure::{ConnectError, Until};
use super::tls::{Seen, Tls};
use super::{Cause, Evidence, Phase};

/// A certificate that ended longer ago than this, by a clock that nobody has confirmed, tells of the clock: public
/// certificates live 398 days at most, and a platform whose certificate ended a year ago is no more.
const IMPLAUSIBLE_AGE_S: i64 = 400 * 24 * 3600;

/// Everything known about the failed handshake.
pub(super) struct Refused {
    pub(super) error: io::Error,
    pub(super) phase: Phase,
    /// The end it had.
    pub(super) until: Until,
    pub(super) name: ServerName<'static>,
    /// The other side's first bytes.
    pub(super) first: Vec<u8>,
    pub(super) seen: Option<Seen>,
}

pub(super) fn sort(tls: &Tls, refused: &Refused) -> ConnectError {
    let phase = refused.phase;
    let rustls = refused
        .error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(error)) => of_certificate(tls, refused, error),
        Some(error) => of_protocol(refused, error),
        None => {
            if refused.error.kind() == io::ErrorKind::TimedOut {
                return refused.until.passed(phase, "no answer to the handshake");
            }
            ConnectError::new(Cause::TlsCut, phase, refused.error.to_string())
        }
    }
}

fn of_protocol(refused: &Refused, error: &rustls::Error) -> ConnectError {
    use AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    let phase = refused.phase;
    if let Some(status_line) = plain_http(&refused.first) {
        let cause = match (phase, status_line.split(' ').nth(1)) {
            (Phase::ProxyTls, _) => Cause::ProxyScheme,
            (_, Some(status)) if status.starts_with(['2', '3']) || status == "511" => {
                Cause::CaptivePortal
            }
            _ => Cause::TlsOther,
        };
        let detail = format!("plain HTTP instead of TLS: {status_line}");
        let status = status_line.split(' ').nth(1);
        let mut failure = ConnectError::new(cause, phase, detail);
        failure.evidence.status = status.and_then(|status| status.parse().ok());
        return failure;
    }
    let cause = match error {
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(HandshakeFailure | InsufficientSecurity | ProtocolVersion) => {
            Cause::TlsTooOld
        }
        _ => Cause::TlsOther,
    };
    ConnectError::new(cause, phase, error.to_string())
}

/// The first line, if a web server without TLS is at the other end.
fn plain_http(first: &[u8]) -> Option<String> {
    if !first.starts_with(b"HTTP/") {
        return None;
    }
    one_line(String::from_utf8_lossy(first).lines().next()?)
}

fn of_certificate(tls: &Tls, refused: &Refused, error: &CertificateError) -> ConnectError {
    let mut evidence = Evidence::at(refused.phase);
    let words = refused.seen.as_ref().map(|seen| Words::read(&seen.leaf));
    let words = words.unwrap_or_default();
    evidence.issuer = words.issuer.shown();
    evidence.subject = words.subject.shown();
    evidence.names.clone_from(&words.names);
    let is_trusted = refused.seen.as_ref().is_some_and(|seen| seen.is_trusted);
    let doubted = tls.clock.is_doubted();
    let cause = match error {
        // Who shows a certificate without having its key, or with one too weak to prove anything.
        _ if is_trusted => Cause::TlsBadCertificate,
        // A bad signature is an issuer of a trusted name with another key: as unknown as any.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            issuer_cause(tls, refused, &words)
        }
        CertificateError::Expired => Cause::TlsExpired,
        CertificateError::ExpiredContext { time, not_after } => {
            let ahead = seconds_between(*time, *not_after);
            evidence.skew_s = Some(ahead);
            if doubted && ahead > IMPLAUSIBLE_AGE_S {
                Cause::ClockSkew
            } else {
                Cause::TlsExpired
            }
        }
        CertificateError::NotValidYet => Cause::TlsNotYetValid,
        CertificateError::NotValidYetContext { time, not_before } => {
            evidence.skew_s = Some(seconds_between(*time, *not_before));
            evidence.valid_from_s = i64::try_from(not_before.as_secs()).ok();
            if doubted {
                Cause::ClockSkew
            } else {
                Cause::TlsNotYetValid
            }
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Cause::TlsWrongHost
        }
        CertificateError::Revoked => Cause::TlsRevoked,
        _ => Cause::TlsBadCertificate,
    };
    let mut detail = error.to_string();
    if let Some(issuer) = &evidence.issuer {
        detail = format!("{detail} (signed by {issuer})");
    }
    let mut failure = ConnectError::new(cause, refused.phase, detail);
    *failure.evidence = evidence;
    failure
}

/// An interceptor makes a certificate for exactly the host that was asked for, signed by an authority of its own. A foreign
/// name, a certificate that signs itself, a public authority whose chain has a hole: those are other troubles.
fn issuer_cause(tls: &Tls, refused: &Refused, words: &Words) -> Cause {
    let Some(seen) = &refused.seen else {
        return Cause::TlsUnknownIssuer;
    };
    let is_for_host = ParsedCertificate::try_from(&seen.leaf)
        .and_then(|leaf| verify_server_name(&leaf, &refused.name))
        .is_ok();
    let belongs_to_trusted = [&words.issuer, &seen.top_issuer]
        .into_iter()
        .filter_map(|party| party.organization.as_ref())
        .any(|organization| tls.organizations.contains(organization));
    if refused.phase == Phase::Tls
        && is_for_host
        && !words.is_self_signed()
        && !words.is_of_public_authority
        && !belongs_to_trusted
    {
        Cause::TlsIntercepted
    } else {
        Cause::TlsUnknownIssuer
    }
}

/// How far `one` is after `other`.
fn seconds_between(one: UnixTime, other: UnixTime) -> i64 {
    let seconds = |time: UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    seconds(one).saturating_sub(seconds(other))
}
