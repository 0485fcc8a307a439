//! Whatever has a blob's name has its bytes.

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::digest::Digest;
use crate::store::blobs::{BlobWriter, Listed, MAX_PARTIALS, SOON_MS, SYNC_EVERY, Shelf};
use crate::store::testing::Bench;
use crate::store::{Store, WriteBlobError};
use crate::units::ByteSize;

const FROM: &str = "https://media.example/a";

fn put(store: &Store, bytes: &[u8]) -> Result<Digest, WriteBlobError> {
    let digest = Digest::of(bytes);
    let mut writer = store.blobs.begin(&digest, bytes.len() as u64, FROM)?;
    for piece in bytes.chunks(1000) {
        writer.write(piece)?;
    }
    writer.publish()?;
    Ok(digest)
}

#[test]
fn a_blob_is_there_when_it_is_whole_and_not_before() {
    let bench = Bench::new();
    let store = bench.open();
    let bytes = vec![7; 5000];
    let digest = Digest::of(&bytes);
    let mut writer = store.blobs.begin(&digest, 5000, FROM).unwrap();
    writer.write(&bytes[..4000]).unwrap();
    assert!(!store.blobs.contains(&digest));
    assert!(store.blobs.open(&digest).unwrap().is_none());
    writer.write(&bytes[4000..]).unwrap();
    writer.publish().unwrap();
    let mut blob = store.blobs.open(&digest).unwrap().unwrap();
    let mut read = Vec::new();
    blob.file.read_to_end(&mut read).unwrap();
    assert_eq!((blob.len, read), (5000, bytes));
    assert_eq!(store.blobs.total_bytes(), 5000);
    let name = digest.to_string();
    assert!(
        bench
            .dir
            .path()
            .join("blobs")
            .join(&name[..2])
            .join(&name)
            .is_file()
    );
}

#[test]
fn bytes_that_are_not_what_was_announced_leave_nothing_behind() {
    let bench = Bench::new();
    let store = bench.open();
    let digest = Digest::of(b"announced");
    let mut short = store.blobs.begin(&digest, 9, FROM).unwrap();
    short.write(b"annou").unwrap();
    assert!(matches!(
        short.publish(),
        Err(WriteBlobError::Size {
            expected: 9,
            found: 5
        })
    ));
    let mut other = store.blobs.begin(&digest, 9, FROM).unwrap();
    other.write(b"Announced").unwrap();
    assert!(matches!(
        other.publish(),
        Err(WriteBlobError::Digest { .. })
    ));
    let mut long = store.blobs.begin(&digest, 9, FROM).unwrap();
    assert!(matches!(
        long.write(b"announced and more"),
        Err(WriteBlobError::Size { .. })
    ));
    drop(long);
    assert!(!store.blobs.contains(&digest));
    assert_eq!(store.blobs.total_bytes(), 0);
    assert_eq!(
        fs::read_dir(bench.dir.path().join("blobs/partial"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn the_quota_counts_what_is_announced_and_a_removal_gives_it_back() {
    let bench = Bench::new();
    let store = bench.open();
    let announced = store
        .blobs
        .begin(&Digest::of(b"big"), 1 << 20, FROM)
        .unwrap();
    assert!(matches!(
        put(&store, b"small"),
        Err(WriteBlobError::Quota { .. })
    ));
    drop(announced);
    let digest = put(&store, &vec![1; 1 << 20]).unwrap();
    assert!(matches!(
        put(&store, b"small"),
        Err(WriteBlobError::Quota { .. })
    ));
    assert!(store.blobs.remove(&digest).unwrap());
    assert!(!store.blobs.remove(&digest).unwrap());
    put(&store, b"small").unwrap();
    // A blob that comes again is counted once.
    put(&store, b"small").unwrap();
    assert_eq!(store.blobs.total_bytes(), 5);
}

#[test]
fn the_reserve_for_orders_is_not_for_media_or_catalogue() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.orders_reserve = ByteSize::bytes(u64::MAX / 2);
    let store = Store::open(&config, bench.clock.clone()).unwrap();
    assert!(matches!(
        put(&store, b"media"),
        Err(WriteBlobError::Room(_))
    ));
    let change = crate::store::testing::product("p1", 1, "{}");
    let refused = store.catalogue.apply_page(vec![change], "c1").wait();
    assert!(matches!(refused, Err(crate::store::WriteError::Disk(_))));
    store
        .orders
        .outbox_push(
            crate::store::Lane::Orders,
            "e",
            crate::store::testing::json("1"),
        )
        .wait()
        .unwrap();
}

#[test]
fn what_a_crash_left_is_cleaned_and_what_rotted_is_found() {
    let bench = Bench::new();
    let store = bench.open();
    let digest = put(&store, b"hello").unwrap();
    let writer = store.blobs.begin(&Digest::of(b"x"), 1, FROM).unwrap();
    std::mem::forget(writer);
    for litter in ["litter", "abcd.json", "abcd.json.new"] {
        fs::write(bench.dir.path().join("blobs/partial").join(litter), "x").unwrap();
    }
    drop(store);
    let store = bench.open();
    assert_eq!(
        fs::read_dir(bench.dir.path().join("blobs/partial"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(store.blobs.total_bytes(), 5);
    assert_eq!(store.blobs.verify(&digest).unwrap(), Some(true));
    let name = digest.to_string();
    fs::write(
        bench.dir.path().join("blobs").join(&name[..2]).join(&name),
        b"hullo",
    )
    .unwrap();
    assert_eq!(store.blobs.verify(&digest).unwrap(), Some(false));
    assert!(!store.blobs.contains(&digest));
    assert_eq!(store.blobs.verify(&digest).unwrap(), None);
}

/// A blob that has begun to come, in the state "e1" of its address.
fn begun(store: &Store, whole: &[u8], came: usize) -> BlobWriter {
    let digest = Digest::of(whole);
    let mut writer = store
        .blobs
        .begin(&digest, whole.len() as u64, FROM)
        .unwrap();
    writer.restart(Some("\"e1\"".into())).unwrap();
    writer.write(&whole[..came]).unwrap();
    writer
}

#[test]
fn what_came_is_gone_on_with_after_a_break_and_after_a_restart() {
    let bench = Bench::new();
    let store = bench.open();
    let whole: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let digest = Digest::of(&whole);
    drop(begun(&store, &whole, 1234));
    assert_eq!(store.blobs.total_bytes(), 5000, "its place is kept");
    drop(store);
    let store = bench.open();
    assert_eq!(store.blobs.total_bytes(), 5000);
    let mut writer = store.blobs.begin(&digest, 5000, FROM).unwrap();
    assert_eq!((writer.written(), writer.etag()), (1234, Some("\"e1\"")));
    assert!(matches!(
        store.blobs.begin(&digest, 5000, FROM),
        Err(WriteBlobError::Busy)
    ));
    writer.write(&whole[1234..]).unwrap();
    writer.publish().unwrap();
    assert_eq!(store.blobs.verify(&digest).unwrap(), Some(true));
    assert_eq!(store.blobs.total_bytes(), 5000);
    let left = fs::read_dir(bench.dir.path().join("blobs/partial")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_cut_takes_what_was_not_yet_on_the_disk_and_no_more() {
    let bench = Bench::new();
    let store = bench.open();
    let whole = vec![3; 9000];
    let digest = Digest::of(&whole);
    let mut writer = begun(&store, &whole, 2000);
    bench.clock.advance(SYNC_EVERY);
    writer.write(&whole[2000..3000]).unwrap();
    writer.write(&whole[3000..4000]).unwrap();
    // The process ends here; the disk may have got other bytes than were written.
    std::mem::forget(writer);
    drop(store);
    let path = bench
        .dir
        .path()
        .join("blobs/partial")
        .join(digest.to_string());
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 4000);
    bytes[3500] = 0;
    fs::write(&path, bytes).unwrap();
    let store = bench.open();
    let mut writer = store.blobs.begin(&digest, 9000, FROM).unwrap();
    assert_eq!(writer.written(), 3000, "as far as the record vouches");
    writer.write(&whole[3000..]).unwrap();
    writer.publish().unwrap();
}

#[test]
fn a_partial_file_of_another_size_or_address_or_without_a_record_is_begun_anew() {
    let bench = Bench::new();
    let store = bench.open();
    let whole = vec![3; 5000];
    let digest = Digest::of(&whole);
    drop(begun(&store, &whole, 1000));
    let other = store.blobs.begin(&digest, 5000, "https://media.example/b");
    assert_eq!(other.unwrap().written(), 0);
    assert_eq!(
        store.blobs.total_bytes(),
        0,
        "without a state it leaves nothing"
    );
    drop(begun(&store, &whole, 1000));
    assert_eq!(store.blobs.begin(&digest, 5001, FROM).unwrap().written(), 0);
    drop(begun(&store, &whole, 1000));
    drop(store);
    let record = bench
        .dir
        .path()
        .join(format!("blobs/partial/{digest}.json"));
    fs::write(record, "{").unwrap();
    let store = bench.open();
    assert_eq!(store.blobs.total_bytes(), 0);
    assert_eq!(store.blobs.begin(&digest, 5000, FROM).unwrap().written(), 0);
}

#[test]
fn partial_files_are_few_and_the_least_worth_goes_first() {
    let bench = Bench::new();
    let store = bench.open();
    let wanted = vec![200; 100];
    store
        .blobs
        .set_shelf(shelf(&[listed(&wanted, 1, i64::MIN, i64::MAX)]));
    drop(begun(&store, &wanted, 50));
    for n in 0..MAX_PARTIALS {
        drop(begun(&store, &[u8::try_from(n).unwrap(); 100], 50));
    }
    let left = fs::read_dir(bench.dir.path().join("blobs/partial")).unwrap();
    assert_eq!(left.count(), 2 * MAX_PARTIALS, "files and records");
    let writer = store.blobs.begin(&Digest::of(&wanted), 100, FROM).unwrap();
    assert_eq!(writer.written(), 50, "what the manifest names stays");
}

fn listed(whole: &[u8], priority: u8, from_ms: i64, until_ms: i64) -> Listed {
    Listed {
        digest: Digest::of(whole),
        size: whole.len() as u64,
        priority,
        urgent: false,
        from_ms,
        until_ms,
        kind: 0,
        document: None,
        source: 0,
        documents: 1,
    }
}

fn shelf(items: &[Listed]) -> Arc<Shelf> {
    Arc::new(Shelf::new(items.to_vec(), Vec::new()))
}

const KIB_200: usize = 200 << 10;

#[test]
fn room_is_made_by_what_is_worth_less_and_never_by_what_is_scheduled() {
    let bench = Bench::new();
    let store = bench.open();
    let now_ms = bench.clock.wall_ms();
    let blob = |n: u8| vec![n; KIB_200];
    let [unlisted, expired, later, low, high, new] = [0, 1, 2, 3, 4, 5].map(blob);
    let rest = [
        listed(&expired, 9, i64::MIN, now_ms),
        listed(&later, 9, now_ms + 2 * SOON_MS, i64::MAX),
        listed(&low, 2, now_ms + SOON_MS, i64::MAX),
        listed(&high, 5, i64::MIN, now_ms + 1),
    ];
    store.blobs.set_shelf(shelf(&rest));
    // 1 MiB: five of them fit.
    for bytes in [&high, &low, &later, &expired, &unlisted] {
        put(&store, bytes).unwrap();
    }
    let here = |bytes: &[u8]| store.blobs.contains(&Digest::of(bytes));
    assert!(
        put(&store, &new).is_err(),
        "what no document names pushes nobody out"
    );
    let mut with_new = rest.to_vec();
    with_new.push(listed(&new, 2, i64::MIN, i64::MAX));
    store.blobs.set_shelf(shelf(&with_new));
    let order = [&unlisted, &expired, &later];
    for gone in order {
        put(&store, &new).unwrap();
        assert!(!here(gone) && here(&low) && here(&high));
        // Takes its place under another name.
        store.blobs.remove(&Digest::of(&new)).unwrap();
        let filler = vec![gone[0] + 100; KIB_200];
        with_new.push(listed(&filler, 9, i64::MIN, i64::MAX));
        store.blobs.set_shelf(shelf(&with_new));
        put(&store, &filler).unwrap();
    }
    assert!(
        matches!(put(&store, &new), Err(WriteBlobError::Quota { .. })),
        "equals don't push each other out"
    );
    with_new[4].priority = 9;
    store.blobs.set_shelf(shelf(&with_new));
    assert!(
        matches!(put(&store, &new), Err(WriteBlobError::Quota { .. })),
        "the highest priority has the next place, not one that is taken"
    );
    assert!(here(&low) && here(&high));
}

#[test]
fn nothing_goes_because_its_document_has_not_come_yet() {
    let bench = Bench::new();
    let store = bench.open();
    let blobs: Vec<Vec<u8>> = (0..5).map(|n| vec![n; KIB_200]).collect();
    for bytes in &blobs {
        put(&store, bytes).unwrap();
    }
    let new = vec![9; KIB_200];
    let known = Shelf::new(vec![listed(&new, 9, i64::MIN, i64::MAX)], Vec::new());
    store
        .blobs
        .set_shelf(Arc::new(known.clone().still_coming()));
    assert!(matches!(
        put(&store, &new),
        Err(WriteBlobError::Quota { .. })
    ));
    store.blobs.set_shelf(Arc::new(known));
    put(&store, &new).unwrap();
}

#[test]
fn of_equal_worth_the_one_not_served_for_longest_goes() {
    let bench = Bench::new();
    let store = bench.open();
    let blobs: Vec<Vec<u8>> = (0..5).map(|n| vec![n; KIB_200]).collect();
    for bytes in &blobs {
        put(&store, bytes).unwrap();
        bench.clock.advance(Duration::from_secs(60));
    }
    let first = Digest::of(&blobs[0]);
    bench.clock.advance(Duration::from_secs(2 * 24 * 3600));
    store.blobs.open(&first).unwrap().unwrap();
    drop(store);
    // The order outlives a restart.
    let store = bench.open();
    let new = vec![9; KIB_200];
    store
        .blobs
        .set_shelf(shelf(&[listed(&new, 0, i64::MIN, i64::MAX)]));
    put(&store, &new).unwrap();
    assert!(store.blobs.contains(&first));
    assert_eq!(store.blobs.total_bytes(), 5 * KIB_200 as u64);
}

#[test]
fn media_make_room_for_orders_the_least_worth_first() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.orders_reserve = ByteSize::bytes(1000);
    let store = Store::open(&config, bench.clock.clone()).unwrap();
    let blobs: Vec<Vec<u8>> = (0..5_u8).map(|n| vec![n; 300]).collect();
    for bytes in &blobs {
        put(&store, bytes).unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    store.blobs.set_shelf(shelf(&[
        listed(&blobs[0], 1, i64::MIN, i64::MAX),
        listed(&blobs[1], 2, i64::MIN, i64::MAX),
    ]));
    let coming = begun(&store, b"xy", 1);
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(500)), 0);
    // 600 are missing to the reserve: two of 300.
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(400)), 600);
    let there = || {
        let here = blobs
            .iter()
            .map(|bytes| Digest::of(bytes))
            .collect::<Vec<_>>();
        store.blobs.are_here(here.iter())
    };
    assert_eq!(there(), [true, true, false, false, true]);
    assert_eq!(store.blobs.total_bytes(), 902);
    // Orders are worth more than what is scheduled, too.
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(499)), 600);
    assert_eq!(there(), [false, true, false, false, false]);
    drop(coming);
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(0)), 301);
    assert_eq!(store.blobs.total_bytes(), 0);
}
