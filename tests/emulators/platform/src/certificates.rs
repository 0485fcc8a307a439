//! The emulator's certificate authority: made at the first start, kept for all later ones, so that a box
//! that trusts `ca.pem` goes on trusting it. The leaf is made again when other names are asked for.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The files of one CA directory.
pub struct CertificateDir {
    dir: PathBuf,
}

impl CertificateDir {
    /// Opens `dir` and makes in it what is missing for `names`.
    pub fn open(dir: &Path, names: &[String]) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let this = Self {
            dir: dir.to_owned(),
        };
        let issuer = this.authority()?;
        let wanted = names.join("\n");
        let names_path = this.dir.join("leaf.names");
        if fs::read_to_string(&names_path).ok().as_deref() != Some(wanted.as_str()) {
            this.make_leaf(&issuer, names)?;
            write(&names_path, &wanted)?;
        }
        Ok(this)
    }

    /// The certificate clients must trust.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The TLS settings of every listener: TLS 1.2 and 1.3, HTTP/1.1 only.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_file_iter(self.dir.join("leaf.pem"))
            .context("read leaf.pem")?
            .collect::<Result<Vec<_>, _>>()
            .context("parse leaf.pem")?;
        let key =
            PrivateKeyDer::from_pem_file(self.dir.join("leaf.key")).context("read leaf.key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn authority(&self) -> Result<Issuer<'static, KeyPair>> {
        let key_path = self.dir.join("ca.key");
        let params = authority_params()?;
        if key_path.exists() && self.ca_path().exists() {
            let pem = fs::read_to_string(&key_path).context("read ca.key")?;
            return Ok(Issuer::new(
                params,
                KeyPair::from_pem(&pem).context("parse ca.key")?,
            ));
        }
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write(&key_path, &key.serialize_pem())?;
        write(&self.ca_path(), &certificate.pem())?;
        // A leaf of an earlier CA would not chain to this one.
        let _ = fs::remove_file(self.dir.join("leaf.names"));
        Ok(Issuer::new(params, key))
    }

    fn make_leaf(&self, issuer: &Issuer<'static, KeyPair>, names: &[String]) -> Result<()> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "platform emulator");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        write(&self.dir.join("leaf.key"), &key.serialize_pem())?;
        write(&self.dir.join("leaf.pem"), &certificate.pem())
    }
}

/// Always the same but for the key, so that a restart signs under the name that `ca.pem` shows.
fn authority_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Comptoir test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params);
    Ok(params)
}

/// Wide, because a box under test may start with a clock that is years behind.
fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
}

/// Writes a file only its owner may read; keys are among them.
fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(if path.extension().is_some_and(|end| end == "key") {
            0o600
        } else {
            0o644
        })
        .open(path)
        .with_context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn authority_survives_a_restart_and_new_names() {
        let dir = tempfile::tempdir().unwrap();
        CertificateDir::open(dir.path(), &["localhost".into()])
            .unwrap()
            .server_config()
            .unwrap();
        let (ca, leaf) = (read(dir.path(), "ca.pem"), read(dir.path(), "leaf.pem"));
        CertificateDir::open(dir.path(), &["localhost".into()]).unwrap();
        assert_eq!(read(dir.path(), "leaf.pem"), leaf);
        CertificateDir::open(dir.path(), &["other.test".into()])
            .unwrap()
            .server_config()
            .unwrap();
        assert_eq!(read(dir.path(), "ca.pem"), ca);
        assert_ne!(read(dir.path(), "leaf.pem"), leaf);
    }
}
