//! A real tinyproxy in front of the platform, the shop's only way out when it is used.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::kitchen::wait_for;
use crate::loopback::free_port;
use crate::platform::Platform;

pub const USER: &str = "till";
pub const PASSWORD: &str = "of-the-shop";

pub struct Proxy {
    dir: PathBuf,
    pub port: u16,
    allowed: Vec<u16>,
    running: Option<Child>,
}

impl Proxy {
    pub fn start(dir: PathBuf, platform: &Platform) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let port = free_port();
        let mut proxy = Self {
            dir,
            port,
            allowed: ports_of(platform),
            running: None,
        };
        proxy.start_again(PASSWORD);
        proxy
    }

    /// Lets in who knows `password`.
    pub fn start_again(&mut self, password: &str) {
        self.stop();
        let config = self.dir.join("tinyproxy.conf");
        let allowed: String = self
            .allowed
            .iter()
            .map(|port| format!("ConnectPort {port}\n"))
            .collect();
        let text = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nLogFile \"{}\"\nLogLevel Info\n\
             BasicAuth {USER} {password}\n{allowed}",
            self.port,
            self.dir.join("tinyproxy.log").display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy is installed: apt-get install tinyproxy");
        self.running = Some(child);
        wait_for("the proxy to listen", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()
        });
    }

    /// Ends it, and every connection through it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where the platform listens.
pub fn ports_of(platform: &Platform) -> Vec<u16> {
    ["api", "bus", "blob"]
        .map(|flow| {
            let (_, port) = platform.text(flow).rsplit_once(':').unwrap();
            port.parse().unwrap()
        })
        .to_vec()
}
