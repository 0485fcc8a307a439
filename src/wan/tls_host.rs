//! A TLS host of this process, for tests: it answers what it is told, right or wrong.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use crate::config::HttpsUrl;

/// What the host's certificate is like.
#[derive(Default)]
pub(crate) struct Certificate {
    pub(crate) name: Option<&'static str>,
    pub(crate) expired: bool,
    /// Year, month, day.
    pub(crate) valid_from: Option<(i32, u8, u8)>,
    pub(crate) valid_until: Option<(i32, u8, u8)>,
}

/// An answer with this header is the last of its connection.
const CLOSE: &[u8] = b"\r\nConnection: close\r\n";

/// A host on loopback; its thread ends with the process.
pub(crate) struct TlsHost {
    pub(crate) url: String,
    pub(crate) ca_file: PathBuf,
    /// Head of each request, as it came.
    pub(crate) requests: Receiver<String>,
    _dir: tempfile::TempDir,
}

impl TlsHost {
    /// Answers every request with `answer` and, without closing, no more.
    pub(crate) fn start(certificate: &Certificate, answer: &'static str) -> Self {
        Self::start_with(certificate, move |_| answer.as_bytes().to_vec())
    }

    /// Its address as settings hold it.
    pub(crate) fn https(&self) -> HttpsUrl {
        HttpsUrl::parse(&self.url).unwrap()
    }

    /// Answers a request, known by its head, with the bytes that `answer` gives. Bodies are not read.
    pub(crate) fn start_with(
        certificate: &Certificate,
        answer: impl FnMut(&str) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "Authority of this test");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let ca_file = dir.path().join("ca.pem");
        fs::write(&ca_file, ca.pem()).unwrap();
        let name = certificate.name.unwrap_or("localhost");
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if certificate.expired {
            leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        if let Some((year, month, day)) = certificate.valid_from {
            leaf.not_before = rcgen::date_time_ymd(year, month, day);
        }
        if let Some((year, month, day)) = certificate.valid_until {
            leaf.not_after = rcgen::date_time_ymd(year, month, day);
        }
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let tls = Arc::new(tls);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (tls, seen, answer) = (Arc::clone(&tls), seen.clone(), Arc::clone(&answer));
                thread::spawn(move || {
                    let connection = rustls::ServerConnection::new(tls).unwrap();
                    let stream = rustls::StreamOwned::new(connection, stream.unwrap());
                    let mut stream = BufReader::new(stream);
                    loop {
                        let mut head = String::new();
                        while !head.ends_with("\r\n\r\n") {
                            if !matches!(stream.read_line(&mut head), Ok(1..)) {
                                return;
                            }
                        }
                        let bytes = (answer.lock().unwrap())(&head);
                        let _ = seen.send(head);
                        let _ = stream.get_mut().write_all(&bytes);
                        let _ = stream.get_mut().flush();
                        if bytes.windows(CLOSE.len()).any(|part| part == CLOSE) {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            ca_file,
            requests,
            _dir: dir,
        }
    }
}
