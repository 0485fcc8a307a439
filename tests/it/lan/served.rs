//! A box's LAN side in this process, on ephemeral ports over a store of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use comptoir::clock::{Clock, SystemClock};
use comptoir::config::{Config, LanPort};
use comptoir::digest::Digest;
use comptoir::identity::{BoxIdentity, Secret};
use comptoir::lan::{self, LanDeps, LanHandle};
use comptoir::shutdown::Shutdown;
use comptoir::store::{DocumentChange, NewDevice, Store};
use comptoir::telemetry::Telemetry;
use comptoir::units::ByteSize;
use comptoir::wan::time::PlatformTime;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

use super::client::{Answer, Request};

pub const CLAIM_CODE: &str = "CODE-1234";

/// The running LAN side; ends when dropped.
pub struct Served {
    pub store: Store,
    pub telemetry: Telemetry,
    pub token: String,
    pub device_id: String,
    pub shutdown: Shutdown,
    addrs: BTreeMap<LanPort, SocketAddr>,
    handle: Option<LanHandle>,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Served {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With these lines in the site file.
    pub fn with(site: &str) -> Self {
        Self::reserving(ByteSize::mib(8), site)
    }

    /// The same, with so much of the disk reserved for orders.
    pub fn reserving(reserve: ByteSize, site: &str) -> Self {
        Self::set_up(reserve, site, Arc::new(SystemClock::default()))
    }

    /// With a clock that the test moves.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::set_up(ByteSize::mib(8), "", clock)
    }

    fn set_up(reserve: ByteSize, site: &str, clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = format!(
            "[site]\nsite_id = \"s1\"\nname = \"Chez Léa\"\nsupport_contact = \"Support 01 23 45\"\n\
             [store]\ndata_dir = \"{}\"\n{site}",
            dir.path().display()
        );
        let mut config = Config::from_layers(&[(Path::new("site.toml"), &site)]).unwrap();
        config.store.orders_reserve = reserve;
        let store = Store::open(&config.store, Arc::clone(&clock)).unwrap();
        let telemetry = Telemetry::default();
        let paired = store
            .devices
            .pair(NewDevice {
                name: "Till".into(),
                role: "kitchen".into(),
                address: None,
            })
            .wait()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listeners: Vec<_> = LanPort::ALL
            .into_iter()
            .map(|port| (port, TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let addrs = listeners
            .iter()
            .map(|(port, listener)| (*port, listener.local_addr().unwrap()))
            .collect();
        let shutdown = Shutdown::default();
        let deps = LanDeps {
            lan: config.lan,
            site: config.site,
            devices: config.devices,
            store: store.clone(),
            identity: Arc::new(BoxIdentity::from_seed([7; 32])),
            claim_code: Secret::new(CLAIM_CODE),
            clock,
            time: PlatformTime::of_system(),
            telemetry: telemetry.clone(),
            checks: Arc::new(|| "[{\"name\":\"store.open\",\"verdict\":\"ok\"}]".to_owned()),
        };
        let handle = lan::start(runtime.handle(), listeners, deps, &shutdown).unwrap();
        Self {
            store,
            telemetry,
            token: paired.token.expose().to_owned(),
            device_id: paired.device_id,
            shutdown,
            addrs,
            handle: Some(handle),
            runtime,
            _dir: dir,
        }
    }

    pub fn addr(&self, port: LanPort) -> SocketAddr {
        self.addrs[&port]
    }

    /// A request as the paired device makes it.
    pub fn ask(&self, port: LanPort, method: &str, path: &str) -> Request {
        Request::new(self.addr(port), method, path)
            .header("authorization", &format!("Bearer {}", self.token))
    }

    pub fn get(&self, port: LanPort, path: &str) -> Answer {
        self.ask(port, "GET", path).send()
    }

    /// A request without a token.
    pub fn stranger(&self, port: LanPort, method: &str, path: &str) -> Request {
        Request::new(self.addr(port), method, path)
    }

    /// Puts documents into the catalogue: collection, id, version, and JSON or nothing for a deletion.
    pub fn publish(&self, documents: &[(&str, &str, i64, Option<&str>)]) {
        let changes = documents
            .iter()
            .map(|(collection, id, version, data)| DocumentChange {
                collection: (*collection).to_owned(),
                id: (*id).to_owned(),
                version: *version,
                data: data.map(|data| RawValue::from_string(data.to_owned()).unwrap()),
            })
            .collect();
        self.store
            .catalogue
            .apply_page(changes, "c1")
            .wait()
            .unwrap();
    }

    pub fn store_blob(&self, content: &[u8]) -> String {
        let digest = Digest::of(content);
        let mut writer = self
            .store
            .blobs
            .begin(&digest, content.len() as u64, "")
            .unwrap();
        writer.write(content).unwrap();
        writer.publish().unwrap();
        digest.to_string()
    }

    /// Ends the server and waits for it.
    pub fn end(&mut self) {
        self.shutdown.trigger();
        if let Some(handle) = self.handle.take() {
            self.runtime.block_on(handle.ended());
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}
