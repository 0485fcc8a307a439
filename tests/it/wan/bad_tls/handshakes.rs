//! Handshakes: old TLS, weak cryptography, peers that break off, and peers that speak something else.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustls::version::{TLS12, TLS13};

use super::super::tls_peer::{
    Authority, HOST, Identity, OpensslServer, accept, leaf, reset, root, serve, speak,
};
use super::{Table, door};

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {said}");
}

/// A leaf for `HOST` as OpenSSL makes it.
struct Made {
    bits: u32,
    digest: &'static str,
    /// Without extensions it is of version 1.
    extensions: bool,
}

const STRONG: Made = Made {
    bits: 2048,
    digest: "-sha256",
    extensions: true,
};

impl Made {
    /// Writes `leaf.pem` and `leaf.key` into `dir`.
    fn write(&self, dir: &Path, root: &Authority) {
        fs::write(dir.join("ca.pem"), root.pem()).unwrap();
        fs::write(dir.join("ca.key"), root.key().serialize_pem()).unwrap();
        let extensions = format!("subjectAltName=DNS:{HOST}\nbasicConstraints=CA:FALSE\n");
        fs::write(dir.join("ext"), extensions).unwrap();
        let bits = format!("rsa_keygen_bits:{}", self.bits);
        let subject = format!("/CN={HOST}");
        let key = ["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits];
        openssl(dir, &[&key[..], &["-out", "leaf.key"]].concat());
        let request = ["req", "-new", "-key", "leaf.key", "-subj", &subject];
        openssl(dir, &[&request[..], &["-out", "leaf.csr"]].concat());
        let mut sign = vec!["x509", "-req", "-in", "leaf.csr", "-out", "leaf.pem"];
        sign.extend(["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]);
        sign.extend(["-days", "30", self.digest]);
        if self.extensions {
            sign.extend(["-extfile", "ext"]);
        }
        openssl(dir, &sign);
    }
}

#[test]
fn old_tls_and_weak_cryptography_are_refused() {
    const ANY: &str = "ALL:@SECLEVEL=0";
    let dir = tempfile::tempdir().unwrap();
    let root = root(|_| {});
    let mut table = Table::trusting(root.pem());
    let bad = "tls_bad_certificate";
    for (expected, what, made, arguments) in [
        ("200", "as it should be", STRONG, &["-cipher", ANY][..]),
        ("tls_too_old", "TLS 1.0", STRONG, &["-tls1", "-cipher", ANY]),
        (
            "tls_too_old",
            "TLS 1.1",
            STRONG,
            &["-tls1_1", "-cipher", ANY],
        ),
        (
            "tls_too_old",
            "a key exchange without secrecy",
            STRONG,
            &["-tls1_2", "-cipher", "AES128-SHA"],
        ),
        (
            "tls_too_old",
            "Diffie-Hellman over plain numbers",
            STRONG,
            &["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
        ),
        (
            "tls_too_old",
            "no encryption",
            STRONG,
            &["-tls1_2", "-cipher", "NULL-SHA256:@SECLEVEL=0"],
        ),
        (
            "tls_other",
            "a certificate of this box is demanded",
            STRONG,
            &["-tls1_3", "-Verify", "1"],
        ),
        (
            bad,
            "a key of 1024 bits",
            Made {
                bits: 1024,
                ..STRONG
            },
            &["-cipher", ANY],
        ),
        (
            bad,
            "a signature with SHA-1",
            Made {
                digest: "-sha1",
                ..STRONG
            },
            &["-cipher", ANY],
        ),
        (
            bad,
            "a certificate of version 1",
            Made {
                extensions: false,
                ..STRONG
            },
            &["-cipher", ANY],
        ),
    ] {
        made.write(dir.path(), &root);
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (certificate, key) = (file("leaf.pem"), file("leaf.key"));
        let shown = ["-cert", &certificate, "-key", &key];
        let server = OpensslServer::start(&[&shown[..], arguments].concat());
        let seen = door(&root.pem(), HOST, server.address).outcome();
        table.compare(expected, what, &seen);
    }
    table.end();
}

/// Answers the client's first word with `bytes`.
fn say(bytes: &'static [u8]) -> SocketAddr {
    speak(move |stream| stream.write_all(bytes))
}

#[test]
fn a_handshake_that_does_not_come_about_is_told_by_what_was_seen() {
    let root = root(|_| {});
    let mut table = Table::trusting(root.pem());
    let mut row = |expected: &str, what: &str, address| {
        let seen = door(&root.pem(), HOST, address).outcome();
        table.compare(expected, what, &seen);
    };
    row("tls_cut", "reset at once", accept(|stream| reset(&stream)));
    row("tls_cut", "end at once", accept(|_| Ok(())));
    row("tls_cut", "end after the first word", speak(|_| Ok(())));
    row("tls_cut", "reset after it", speak(|stream| reset(stream)));
    // A record that says 80 bytes of handshake follow, and the first of a ServerHello.
    let cut = speak(|stream| {
        stream.write_all(b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c\x03\x03half")?;
        reset(stream)
    });
    row("tls_cut", "reset within the answer", cut);
    let failure = say(b"\x15\x03\x01\x00\x02\x02\x28");
    row("tls_too_old", "an alert: handshake failure", failure);
    let unrecognized = say(b"\x15\x03\x03\x00\x02\x02\x70");
    row("tls_other", "an alert: unrecognized name", unrecognized);
    row("tls_other", "noise", say(&[0xff; 512]));
    row(
        "tls_other",
        "another protocol",
        say(b"SSH-2.0-OpenSSH_9.2\r\n"),
    );
    let login = say(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n");
    row("captive_portal", "a login page", login);
    let plain = say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    row("tls_other", "a web server without TLS", plain);
    let good = || leaf(&root, &[], |_| {});
    let only_h2 = serve(good(), &[&TLS12, &TLS13], &["h2"]);
    row("tls_other", "HTTP/2 only", only_h2);
    let nothing = Identity {
        chain: Vec::new(),
        ..good()
    };
    let nothing = serve(nothing, &[&TLS13], &[]);
    row("tls_other", "no certificate", nothing);
    table.end();
}
