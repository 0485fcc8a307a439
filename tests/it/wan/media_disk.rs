//! A disk that is too small for what is planned, and one that fills up in mid-file: a small file system in memory, in a
//! mount namespace of the child's own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use comptoir::digest::Digest;
use comptoir::store::{InboxMessage, Source};
use comptoir::telemetry::Code;
use serde_json::json;

use super::media_line::{StepClock, comes, is_here, media_bytes, report};
use super::platform::{Platform, eventually};
use super::shop::Shop;
use crate::full_disk::on_a_small_disk;

const MIB: u64 = 1 << 20;

#[test]
fn media_leave_room_for_orders_and_go_on_when_there_is_room_again() {
    on_a_small_disk(
        "wan::media_disk::media_leave_room_for_orders_and_go_on_when_there_is_room_again",
        "24m",
        child,
    );
}

/// 24 MiB in all, 8 of them for orders.
fn child(dir: &Path) {
    let platform = Platform::start();
    let (too_large, fits) = (media_bytes(1, 30 * MIB), media_bytes(2, 4 * MIB));
    let announce = |name: &str, bytes: &[u8], priority: u8| {
        let mut entry = platform.put_blob(name, bytes, false);
        entry["priority"] = json!(priority);
        platform.put_document("media", name, &entry);
    };
    announce("too-large.mp4", &too_large, 9);
    announce("fits.mp4", &fits, 1);
    let clock = Arc::new(StepClock::default());
    let shop = Shop::of(&platform)
        .in_dir(dir)
        .with_clock(clock.clone())
        .start();
    comes(&shop, "the one that fits", &fits);
    report(&shop, "the other has no place", |report| {
        report.without_place == 1
    });
    assert!(shop.condition(Code::MediaWithoutPlace).is_some());
    assert_eq!(platform.asked(&["too-large"]), 0, "it was not even begun");
    platform.delete_document("media", "too-large.mp4");
    eventually("it is no worry any more", || {
        shop.condition(Code::MediaWithoutPlace)
            .is_none()
            .then_some(())
    });

    // The disk fills up in mid-file, by what is not ours.
    let film = media_bytes(3, 6 * MIB);
    platform.arm("slow:1500000", "blob", 1, None, "film.mp4");
    announce("film.mp4", &film, 5);
    report(&shop, "it comes", |report| {
        report.downloads.iter().any(|download| download.bytes > MIB)
    });
    let filler = dir.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 64 << 10]).is_ok() {}
    drop(file);
    eventually("the transfer ends", || {
        shop.store()
            .blobs
            .report()
            .downloads
            .is_empty()
            .then_some(())
    });
    assert!(!is_here(&shop, &film));
    fs::remove_file(&filler).unwrap();
    // Orders go on.
    let message = InboxMessage {
        message_id: "m1".into(),
        source: Source::Bus,
        body: br#"{"order_id":"o1","placed_at":"2026-05-01T10:00:00Z","lines":[]}"#.to_vec(),
    };
    shop.store().orders.receive(message).wait().unwrap();
    clock.advance(600);
    comes(&shop, "the film", &film);
    assert_eq!(
        shop.store().blobs.verify(&Digest::of(&fits)).unwrap(),
        Some(true)
    );
}
