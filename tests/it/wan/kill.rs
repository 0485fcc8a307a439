//! The real binary, killed again and again while the platform sends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comptoir::clock::SystemClock;
use comptoir::config::Config;
use comptoir::store::Store;

use super::platform::{KEY, KEY_NAME, Platform, SITE, TOKEN, eventually};
use crate::kitchen::show_tail;
use crate::loopback::own_address;

const ROUNDS: usize = 5;
const ORDERS_A_ROUND: usize = 12;
const PRODUCTS: u32 = 20_000;
const LOCKS_END: Duration = Duration::from_secs(2);

pub struct Server {
    child: Child,
    log_path: PathBuf,
}

impl Drop for Server {
    /// SIGKILL: nothing is flushed, closed or said.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log_path).unwrap_or_default();
            show_tail("the server", &log);
        }
    }
}

impl Server {
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// The server, with its log beside its settings.
pub fn serve(site_file: &Path) -> Server {
    let log_path = site_file.with_extension("log");
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_comptoir"))
        .arg("--site-file")
        .arg(site_file)
        .arg("serve")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Server { child, log_path }
}

#[test]
fn a_box_killed_at_any_time_has_every_order_once_and_the_whole_catalogue() {
    let platform = Platform::start();
    platform.load_products(PRODUCTS);
    let dir = tempfile::tempdir().unwrap();
    let site_file = dir.path().join("site.toml");
    let text = format!(
        "[site]\nsite_id = \"{SITE}\"\nclaim_code = \"12345678\"\n\
         [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\ntoken = \"{TOKEN}\"\n\
         retry_first_ms = 100\nretry_max_s = 1\n\
         [wan.pull]\nwait_s = 1\n[wan.trust]\nca_files = [\"{}\"]\n\
         [wan.bus]\nkey_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\n\
         [lan]\nbind = \"{}\"\nport_offset = 3000\n\
         [discovery]\nenabled = false\n\
         [store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n",
        platform.text("api_url"),
        platform.text("bus_url"),
        platform.text("blob_url"),
        platform.ca_file().display(),
        own_address(),
        dir.path().join("data").display(),
    );
    fs::write(&site_file, &text).unwrap();
    // The first rounds die within the snapshot.
    platform.arm("slow:400000", "api", 3, None, "/descriptions");
    let mut sent = BTreeSet::new();
    for round in 0..ROUNDS {
        for n in 0..ORDERS_A_ROUND {
            let order_id = format!("order-{round}-{n:02}");
            platform.order(&order_id);
            sent.insert(order_id);
        }
        let waiting = platform.queued();
        let server = serve(&site_file);
        // Each round dies at another point of the work.
        let taken = 1 + round * 2;
        eventually("orders are taken", || {
            (platform.queued() + taken <= waiting).then_some(())
        });
        drop(server);
        platform.drop_locks();
    }
    let server = serve(&site_file);
    // A message may have been given to a poll of a dead box: its lock is ended here rather than waited for.
    let mut locks_end_at = Instant::now() + LOCKS_END;
    eventually("all orders are taken", || {
        if Instant::now() > locks_end_at {
            platform.drop_locks();
            locks_end_at += LOCKS_END;
        }
        (platform.queued() == 0).then_some(())
    });
    eventually("the catalogue follows the feed", || {
        (platform.asked(&["/checksums\""]) > 0).then_some(())
    });
    eventually("the platform is told how the box is", || {
        let told = platform.events_of("box.state").pop()?;
        let body = &told["event"]["body"];
        let is_told = body["version"] == comptoir::version::running() && body["devices"] == 0;
        (is_told && body["conditions"].is_array()).then_some(())
    });
    drop(server);

    let config = Config::from_layers(&[(&site_file, &text)]).unwrap();
    let store = Store::open(&config.store, Arc::new(SystemClock::default())).unwrap();
    let orders = store.orders.list(0, None, 1000).unwrap();
    let ids: Vec<_> = orders.iter().map(|order| order.order_id.clone()).collect();
    assert_eq!(ids.len(), sent.len(), "{ids:?}");
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), sent);
    assert!(store.orders.inbox_parked(10).unwrap().is_empty());
    let products = &store.catalogue.collections().unwrap()[0];
    assert_eq!(products.documents, i64::from(PRODUCTS));
}
