//! Azurite over TLS, started once for all tests of this process; blobs and signatures come from Microsoft's own client
//! (`tests/peers/azurite.js`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

/// The running Azurite.
pub struct Azurite {
    scratch: PathBuf,
    talk: Mutex<Talk>,
    url: String,
    _client: Child,
}

struct Talk {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A container of one test.
pub struct Container {
    azurite: &'static Azurite,
    pub name: String,
}

impl Azurite {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let peers_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let installed = Command::new(peers_dir.join("install-azurite"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(installed.status.success(), "Azurite can't be installed");
        let modules = String::from_utf8(installed.stdout).unwrap();
        let scratch =
            Path::new(modules.trim()).with_file_name(format!("run-{}", std::process::id()));
        remove_old(scratch.parent().unwrap());
        fs::create_dir_all(&scratch).unwrap();
        make_certificates(&scratch);
        // It ends with its stdin, so with this process; the scratch folder goes with the next start.
        let mut client = Command::new("node")
            .arg(peers_dir.join("azurite.js"))
            .args([scratch.join("leaf.pem"), scratch.join("leaf.key")])
            .env("NODE_PATH", modules.trim())
            .env("NODE_EXTRA_CA_CERTS", scratch.join("ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed (scripts/setup peers)");
        let commands = client.stdin.take().unwrap();
        let mut answers = BufReader::new(client.stdout.take().unwrap());
        let ready = read(&mut answers);
        Self {
            url: ready["url"].as_str().unwrap().to_owned(),
            talk: Mutex::new(Talk { commands, answers }),
            scratch,
            _client: client,
        }
    }

    fn call(&self, command: &Value) -> Value {
        let mut talk = self.talk.lock().unwrap();
        writeln!(talk.commands, "{command}").unwrap();
        let answer = read(&mut talk.answers);
        assert_eq!(answer.get("error"), None, "{command}");
        answer
    }
}

fn read(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    serde_json::from_str(&line).expect("Azurite's client answers")
}

/// The scratch folders of processes that have ended.
fn remove_old(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map_while(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        let ended = name
            .strip_prefix("run-")
            .is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if ended {
            // Another process may be at it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn make_certificates(dir: &Path) {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    let name = &mut authority.distinguished_name;
    name.push(DnType::CommonName, "Azurite's authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
    fs::write(dir.join("leaf.pem"), leaf.pem()).unwrap();
    fs::write(dir.join("leaf.key"), key.serialize_pem()).unwrap();
}

impl Container {
    /// One that everybody may read.
    pub fn public() -> Self {
        Self::create(json!("blob"))
    }

    /// One that needs a signature.
    pub fn private() -> Self {
        Self::create(Value::Null)
    }

    fn create(access: Value) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let this = Self {
            azurite: Azurite::shared(),
            name: format!("media-{number}"),
        };
        this.call(json!({"op": "container", "access": access}));
        this
    }

    fn call(&self, mut command: Value) -> Value {
        command["container"] = json!(self.name);
        self.azurite.call(&command)
    }

    /// Where Azurite listens.
    pub fn addr(&self) -> SocketAddr {
        let authority = self.azurite.url.split('/').nth(2).unwrap();
        authority.parse().unwrap()
    }

    /// The authority that vouches for it.
    pub fn ca_file(&self) -> PathBuf {
        self.azurite.scratch.join("ca.pem")
    }

    /// Path of a blob below the host.
    pub fn path(&self, name: &str) -> String {
        let account = self.azurite.url.rsplit('/').next().unwrap();
        format!("/{account}/{}/{name}", self.name)
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.azurite.scratch.join(&self.name);
        fs::write(&file, bytes).unwrap();
        self.call(json!({"op": "put", "name": name, "file": file, "content_type": "video/mp4"}));
        fs::remove_file(file).unwrap();
    }

    /// A signature that is good for so many seconds, as a query string.
    pub fn sign(&self, for_s: i64) -> String {
        let answer = self.call(json!({"op": "sign", "for_s": for_s}));
        answer["sas"].as_str().unwrap().to_owned()
    }
}
