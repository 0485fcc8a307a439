//! Peers that do TLS right or wrong, and a proxy that leads every name to one of them. Keys and certificates are made when
//! a test runs.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::platform::eventually;
use crate::loopback::free_port;

/// The host that tests ask for.
pub const HOST: &str = "api.shop.example";

pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// A chain, leaf first, and the leaf's key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Shop AG");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

pub fn root(change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = authority_params("Shop Root");
    change(&mut params);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub fn intermediate(
    issuer: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Authority {
    let mut params = authority_params(name);
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

/// A leaf for [`HOST`] unless changed; `between` follows it in the chain.
pub fn leaf(
    issuer: &Authority,
    between: &[&Authority],
    change: impl FnOnce(&mut CertificateParams),
) -> Identity {
    let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, HOST);
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let mut chain = vec![certificate.der().clone()];
    chain.extend(between.iter().map(|authority| authority.der().clone()));
    Identity {
        chain,
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

/// Shows its certificates to everybody, whatever they are.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// What a TLS server that shows `identity` is set up with.
pub fn config(
    identity: Identity,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider
        .key_provider
        .load_private_key(identity.key)
        .unwrap();
    let shown = Arc::new(CertifiedKey::new(identity.chain, key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(shown)));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A TLS server that shows `identity` and answers every request with 204. Its thread ends with the process.
pub fn serve(
    identity: Identity,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> SocketAddr {
    let config = config(identity, versions, alpn);
    accept(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        stream.flush()
    })
}

/// Closes with a reset instead of a farewell.
pub fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Reads the client's first bytes and does with the connection as told.
pub fn speak(
    answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    accept(move |mut stream| {
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello)?;
        answer(&mut stream)
    })
}

/// Each connection to a thread of its own.
pub fn accept(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
            // What a client does to its end is the client's matter.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    address
}

/// Reads a request's or an answer's head to its end.
pub fn read_head(stream: &mut impl Read) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}

/// A proxy that leads every CONNECT to `target`, under whatever name; its URL.
pub fn proxy_to(target: SocketAddr) -> String {
    let address = accept(move |mut client| {
        read_head(&mut client)?;
        let mut server = TcpStream::connect(target)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut up_from, mut up_to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut up_from, &mut up_to);
            let _ = up_to.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut server, &mut client);
        client.shutdown(Shutdown::Both)
    });
    format!("http://{address}")
}

/// `openssl s_server`, for what no Rust server does any more.
pub struct OpensslServer {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OpensslServer {
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-accept",
                &format!("127.0.0.1:{port}"),
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { child, address };
        eventually("openssl listens", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "openssl s_server {arguments:?} ended");
            TcpStream::connect(address).ok()
        });
        server
    }
}
