//! TLS with a host or a proxy: trust as it was loaded, and *time* as the box knows it best.
//!
//! A box without a clock chip wakes in 1970 or wherever its firmware begins. Certificates are therefore judged by
//! [`PlatformTime`], never by the machine's clock; [`At`] judges them at one chosen time, for the exchange that finds out
//! what time it is. Verification itself is rustls' own and can't be switched off; a [`Witness`] stands beside it and
//! remembers what it saw, so that a refusal can name the certificate's issuer.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{Party, Words};
use super::failure::{ConnectError, Until};
use super::line::Duplex;
use super::roots::Roots;
use super::tls_failure::{self, Refused};
use super::{Cause, Phase};
use crate::wan::time::{PlatformTime, Quality};

/// Bytes of the other side's first words kept, to tell a web server without TLS.
const OPENING_BYTES: usize = 64;

/// A clock that certificates are judged by.
pub(super) trait JudgingClock: TimeProvider {
    /// Whether nobody has confirmed it yet: a certificate out of its time then tells of the clock first.
    fn is_doubted(&self) -> bool;
}

/// How the box does TLS. Clones of it share sessions.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    pub(super) clock: Arc<dyn JudgingClock>,
    /// Organizations of trusted authorities: who belongs to one is no interceptor, even with a piece of its chain missing.
    pub(super) organizations: Arc<BTreeSet<String>>,
}

impl Tls {
    /// TLS 1.2 or later, trusting `roots`, certificates judged by `clock`.
    pub(super) fn new(roots: &Arc<Roots>, clock: Arc<dyn JudgingClock>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let witness = Witness {
            verifier: verifier(Arc::clone(&roots.store), roots),
            roots: Arc::clone(roots),
        };
        let mut config =
            ClientConfig::builder_with_details(provider, Arc::new(Now(Arc::clone(&clock))))
                .with_safe_default_protocol_versions()
                .expect("the provider knows TLS 1.2 and 1.3")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(witness))
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let organizations = roots.store.roots.iter();
        let organizations =
            organizations.filter_map(|root| Party::read(&root.subject).organization);
        Self {
            config: Arc::new(config),
            clock,
            organizations: Arc::new(organizations.collect()),
        }
    }

    /// Secures `stream` with `host`, who must prove to be it.
    pub(super) fn secure(
        &self,
        stream: Box<dyn Duplex>,
        host: &str,
        phase: Phase,
        until: Until,
    ) -> Result<Secured, ConnectError> {
        let unusable = |what: &str| ConnectError::new(Cause::TlsWrongHost, phase, what);
        let name = ServerName::try_from(host)
            .map_err(|_| unusable("this name can't be in a certificate"))?
            .to_owned();
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name.clone())
            .map_err(|error| ConnectError::new(Cause::TlsOther, phase, error.to_string()))?;
        let mut stream = Opening {
            stream,
            first: Vec::new(),
        };
        SEEN.take();
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut stream) {
                return Err(tls_failure::sort(
                    self,
                    &Refused {
                        error,
                        phase,
                        until,
                        name,
                        first: stream.first,
                        seen: SEEN.take(),
                    },
                ));
            }
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

/// Bytes under TLS.
pub(super) type Secured = StreamOwned<ClientConnection, Opening>;

struct Now(Arc<dyn JudgingClock>);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.current_time()
    }
}

impl TimeProvider for PlatformTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.now_s()))
    }
}

impl JudgingClock for PlatformTime {
    fn is_doubted(&self) -> bool {
        self.quality() < Quality::Weak
    }
}

/// One chosen time, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) i64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0))
    }
}

impl JudgingClock for At {
    fn is_doubted(&self) -> bool {
        false
    }
}

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(seconds).unwrap_or(0),
    ))
}

/// What a handshake showed.
pub(super) struct Seen {
    pub(super) leaf: CertificateDer<'static>,
    /// The holder's chain was found good; what failed came after.
    pub(super) is_trusted: bool,
    /// Who signed the last certificate that was shown.
    pub(super) top_issuer: Party,
}

thread_local! {
    /// A handshake runs on one thread, so what it showed is left here for whoever explains its failure.
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// rustls' own verifier. Who is revoked is known from lists of the shop's own authorities; no list is fetched, for that
/// would be one more flow.
fn verifier(store: Arc<RootCertStore>, roots: &Roots) -> Arc<WebPkiServerVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(store, provider)
        .with_crls(roots.revoked.iter().cloned())
        .allow_unknown_revocation_status()
        .build()
        .expect("the built-in roots are there, and every list was parsed when it was loaded")
}

/// rustls' own verifier, a look at the time of the shop's authorities, and a memory of what was shown.
#[derive(Debug)]
struct Witness {
    verifier: Arc<WebPkiServerVerifier>,
    roots: Arc<Roots>,
}

impl Witness {
    fn verdict(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // rustls does not read stapled answers; they would only ever make it stricter.
        let ask = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, &[], now)
        };
        let verdict = ask(&self.verifier)?;
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let holds = |(from_s, to_s): (i64, i64)| (from_s..=to_s).contains(&now_s);
        let out_of_time = self.roots.of_shop.iter().find(|(_, time)| !holds(*time));
        let Some((_, (from_s, to_s))) = out_of_time else {
            return Ok(verdict);
        };
        // One of the shop's authorities does not hold now. Is it the one that matters?
        let without = verifier(Arc::new(self.roots.only(holds)), &self.roots);
        ask(&without).map_err(|_| {
            rustls::Error::InvalidCertificate(if now_s > *to_s {
                CertificateError::ExpiredContext {
                    time: now,
                    not_after: unix_time(*to_s),
                }
            } else {
                CertificateError::NotValidYetContext {
                    time: now,
                    not_before: unix_time(*from_s),
                }
            })
        })
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.verdict(end_entity, intermediates, server_name, now);
        let top = intermediates.last().unwrap_or(end_entity);
        SEEN.replace(Some(Seen {
            leaf: end_entity.clone().into_owned(),
            is_trusted: verdict.is_ok(),
            top_issuer: Words::read(top).issuer,
        }));
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// A connection whose first incoming bytes are remembered.
pub(super) struct Opening {
    stream: Box<dyn Duplex>,
    first: Vec<u8>,
}

impl Read for Opening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.stream.read(buffer)?;
        let room = OPENING_BYTES.saturating_sub(self.first.len());
        self.first.extend_from_slice(&buffer[..amount.min(room)]);
        Ok(amount)
    }
}

impl Write for Opening {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
