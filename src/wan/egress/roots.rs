//! Whom TLS trusts: the public roots compiled in, plus the shop's own certificate authorities. Nothing switches verification off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::certificate::Words;

/// A CA file is written by people and holds a few certificates; larger is a mistake.
const MAX_CA_FILE_BYTES: u64 = 1024 * 1024;

/// A CA file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadCaFileError {
    /// It can't be read.
    #[error("cannot read the certificate file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is far larger than certificates are.
    #[error("the certificate file {path} has {size} bytes, more than {MAX_CA_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// It holds no certificate, or something between its PEM lines that is none.
    #[error("the certificate file {path} holds no usable certificate: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
}

/// Whom TLS trusts: authorities, and what they have taken back.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
    /// The shop's own, which are also in the store, and from when to when each holds (seconds since 1970): path
    /// validation does not look at that (RFC 5280 section 6.1), whoever runs an authority expects it.
    pub(super) of_shop: Vec<(CertificateDer<'static>, (i64, i64))>,
}

impl Roots {
    /// The store without those that `holds` refuses.
    pub(super) fn only(&self, holds: impl Fn((i64, i64)) -> bool) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(built_in());
        for (certificate, validity_s) in &self.of_shop {
            if holds(*validity_s) {
                // Each was taken once already.
                let _ = store.add(certificate.clone());
            }
        }
        store
    }
}

fn built_in() -> impl Iterator<Item = CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned()
}

/// Built-in roots plus those of `ca_files`. A file that can't be used is left out and named in the second part: the
/// public hosts must stay reachable when a shop's file is broken.
pub(super) fn load(ca_files: &[PathBuf]) -> (Roots, Vec<LoadCaFileError>) {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(built_in());
    let (mut revoked, mut of_shop, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for path in ca_files {
        match read_ca_file(path) {
            Ok(file) => {
                store.add_parsable_certificates(file.certificates.iter().cloned());
                of_shop.extend(file.certificates.into_iter().filter_map(|certificate| {
                    let validity_s = Words::read(&certificate).validity_s?;
                    Some((certificate, validity_s))
                }));
                revoked.extend(file.revoked);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let store = Arc::new(store);
    let roots = Roots {
        store,
        revoked,
        of_shop,
    };
    (roots, problems)
}

struct CaFile {
    certificates: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

fn read_ca_file(path: &Path) -> Result<CaFile, LoadCaFileError> {
    let unreadable = |source| LoadCaFileError::Read {
        path: path.into(),
        source,
    };
    let unusable = |why: String| LoadCaFileError::Content {
        path: path.into(),
        why,
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_CA_FILE_BYTES {
        return Err(LoadCaFileError::TooLarge {
            path: path.into(),
            size,
        });
    }
    let pem = fs::read(path).map_err(unreadable)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("no CERTIFICATE block".into()));
    }
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        store
            .add(certificate.clone())
            .map_err(|error| unusable(format!("certificate {}: {error}", index + 1)))?;
    }
    let revoked = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    // Lists are parsed by whoever uses them; one that can't be is this file's mistake and nobody else's.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
        .with_crls(revoked.iter().cloned())
        .build()
        .map_err(|error| unusable(format!("revocation list: {error}")))?;
    Ok(CaFile {
        certificates,
        revoked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_named_and_costs_the_public_roots_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        let garbage = dir.path().join("garbage.pem");
        fs::write(&empty, "no certificate here\n").unwrap();
        fs::write(
            &garbage,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let missing = dir.path().join("missing.pem");
        let (roots, problems) = load(&[empty, garbage, missing]);
        assert_eq!(
            roots.store.len(),
            webpki_root_certs::TLS_SERVER_ROOT_CERTS.len()
        );
        let text: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 3, "{text:?}");
        assert!(text[0].contains("no CERTIFICATE block"), "{text:?}");
        assert!(text[1].contains("certificate 1"), "{text:?}");
        assert!(text[2].contains("missing.pem"), "{text:?}");
    }

    #[test]
    fn a_shops_own_authority_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let (roots, problems) = load(&[path]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(
            roots.store.len(),
            webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1
        );
    }
}
