//! What a large catalogue may cost: memory that does not grow with it, a disk that fills up and heals.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use comptoir::clock::SystemClock;
use comptoir::config::Config;
use comptoir::store::Store;
use comptoir::telemetry::Code;

use super::kill::{Server, serve};
use super::platform::{Platform, SITE, TOKEN, eventually};
use super::pull::holds_what_the_platform_holds;
use super::shop::Shop;
use crate::full_disk::on_a_small_disk;
use crate::loopback::own_address;

/// Of the kernel's account of a process, kilobytes.
fn kib(server: &Server, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let size = line.unwrap().split_whitespace().next();
    size.unwrap().parse().unwrap()
}

/// A site file for the real binary.
fn write_site_file(platform: &Platform, dir: &Path) -> PathBuf {
    let site_file = dir.join("site.toml");
    let text = format!(
        "[site]\nsite_id = \"{SITE}\"\n\
         [wan]\napi_url = \"{}\"\ntoken = \"{TOKEN}\"\nretry_first_ms = 100\n\
         [wan.trust]\nca_files = [\"{}\"]\n[wan.bus]\nenabled = false\n\
         [lan]\nbind = \"{}\"\nport_offset = 3000\n[discovery]\nenabled = false\n\
         [store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n",
        platform.text("api_url"),
        platform.ca_file().display(),
        own_address(),
        dir.join("data").display(),
    );
    fs::write(&site_file, text).unwrap();
    site_file
}

/// Where the load of a box stands, read beside it.
fn offset(data_dir: &Path) -> Option<u64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = rusqlite::Connection::open_with_flags(data_dir.join("catalogue.db"), flags).ok()?;
    let place: String = conn
        .query_row(
            "SELECT value FROM facts WHERE name = 'snapshot_place'",
            [],
            |row| row.get(0),
        )
        .ok()?;
    let place: serde_json::Value = serde_json::from_str(&place).ok()?;
    (place["part"] == 1).then(|| place["offset"].as_u64())?
}

#[test]
fn a_box_killed_again_and_again_in_its_first_load_goes_on_at_the_byte() {
    let platform = Platform::start();
    platform.generate("products", 8000, 600);
    let dir = tempfile::tempdir().unwrap();
    let site_file = write_site_file(&platform, dir.path());
    let mut reached = 0;
    for _ in 0..3 {
        platform.arm("slow:200000", "api", 1, None, "/descriptions");
        let server = serve(&site_file);
        reached = eventually("the load goes on", || {
            offset(&dir.path().join("data")).filter(|offset| *offset > reached)
        });
        drop(server);
    }
    let server = serve(&site_file);
    eventually("all is pulled", || {
        (platform.asked(&["/checksums\""]) > 0).then_some(())
    });
    drop(server);
    assert_eq!(platform.asked(&["/snapshot\""]), 1, "one snapshot");
    assert_eq!(
        platform.asked(&["/descriptions", ":206"]),
        3,
        "taken up each time"
    );
    let text = fs::read_to_string(&site_file).unwrap();
    let config = Config::from_layers(&[(&site_file, &text)]).unwrap();
    let store = Store::open(&config.store, Arc::new(SystemClock::default())).unwrap();
    holds_what_the_platform_holds(&store.catalogue, &platform, &["products"]);
}

/// Far below what is pulled, far above what batches, caches and buffers may take.
const MAX_GROWTH_KIB: u64 = 40 * 1024;

#[test]
fn the_memory_of_the_server_does_not_grow_with_the_catalogue() {
    let platform = Platform::start();
    let (documents, bytes) = (1200, 64 * 1024);
    platform.generate("products", documents, bytes);
    let dir = tempfile::tempdir().unwrap();
    let site_file = write_site_file(&platform, dir.path());
    platform.arm("status:503", "api", 1, None, "/snapshot");
    let server = serve(&site_file);
    eventually("the server asks for the first time", || {
        platform.faults_are_spent().then_some(())
    });
    let before = kib(&server, "VmHWM:");
    eventually("all is pulled", || {
        (platform.asked(&["/checksums\""]) > 0).then_some(())
    });
    let growth = kib(&server, "VmHWM:").saturating_sub(before);
    let pulled = u64::from(documents) * u64::from(bytes) / 1024;
    assert!(
        growth < MAX_GROWTH_KIB && growth * 3 / 2 < pulled,
        "{growth} KiB more for {pulled} KiB pulled"
    );
}

#[test]
fn a_full_disk_stops_the_pull_and_room_lets_it_go_on() {
    on_a_small_disk(
        "wan::bulk::a_full_disk_stops_the_pull_and_room_lets_it_go_on",
        "60m",
        pull_onto,
    );
}

fn pull_onto(dir: &Path) {
    let platform = Platform::start();
    platform.generate("products", 4000, 2000);
    let filler_path = dir.join("filler");
    // Some batches fit, not all: what is left to orders is never touched.
    fs::write(&filler_path, vec![1; 36 << 20]).unwrap();
    let shop = Shop::of(&platform).in_dir(&dir.join("data")).start();
    eventually("the pull stands still", || {
        // Asked again and again, and nothing more is kept.
        let tries = platform.asked(&["/descriptions"]);
        (tries >= 4 && shop.documents("products") > 0).then_some(())
    });
    assert!(shop.documents("products") < 4000);
    assert_eq!(shop.store().catalogue.cursor().unwrap(), None);
    assert!(shop.store().damaged().is_empty());
    fs::remove_file(filler_path).unwrap();
    shop.filled();
    assert!(shop.metric("comptoir_pull_resumed_total") > 0);
    assert_eq!(shop.condition(Code::FeedItemRefused), None);
    holds_what_the_platform_holds(&shop.store().catalogue, &platform, &["products"]);
}
