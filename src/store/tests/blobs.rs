//! Whatever has a blob's name has its bytes.

use std::fs;
use std::io::Read;

use crate::digest::Digest;
use crate::store::testing::Bench;
use crate::store::{Store, WriteBlobError};
use crate::units::ByteSize;

fn put(store: &Store, bytes: &[u8]) -> Result<Digest, WriteBlobError> {
    let digest = Digest::of(bytes);
    let mut writer = store.blobs.begin(&digest, bytes.len() as u64)?;
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
    let mut writer = store.blobs.begin(&digest, 5000).unwrap();
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
    let mut short = store.blobs.begin(&digest, 9).unwrap();
    short.write(b"annou").unwrap();
    assert!(matches!(
        short.publish(),
        Err(WriteBlobError::Size {
            expected: 9,
            found: 5
        })
    ));
    let mut other = store.blobs.begin(&digest, 9).unwrap();
    other.write(b"Announced").unwrap();
    assert!(matches!(
        other.publish(),
        Err(WriteBlobError::Digest { .. })
    ));
    let mut long = store.blobs.begin(&digest, 9).unwrap();
    assert!(matches!(
        long.write(b"announced and more"),
        Err(WriteBlobError::Size { .. })
    ));
    drop(long);
    assert!(!store.blobs.contains(&digest));
    assert_eq!(store.blobs.total_bytes(), 0);
    assert_eq!(
        fs::read_dir(bench.dir.path().join("blobs/tmp"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn the_quota_counts_what_is_announced_and_a_removal_gives_it_back() {
    let bench = Bench::new();
    let store = bench.open();
    let announced = store.blobs.begin(&Digest::of(b"big"), 1 << 20).unwrap();
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
    let writer = store.blobs.begin(&Digest::of(b"x"), 1).unwrap();
    std::mem::forget(writer);
    drop(store);
    let store = bench.open();
    assert_eq!(
        fs::read_dir(bench.dir.path().join("blobs/tmp"))
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

#[test]
fn media_make_room_for_orders_oldest_first() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.orders_reserve = ByteSize::bytes(1000);
    let store = Store::open(&config, bench.clock.clone()).unwrap();
    let blobs: Vec<_> = (0..5_u8)
        .map(|n| {
            let digest = put(&store, &[n; 300]).unwrap();
            let name = digest.to_string();
            let path = bench.dir.path().join("blobs").join(&name[..2]).join(&name);
            let came = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 - u64::from(n));
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(came)
                .unwrap();
            digest
        })
        .collect();
    let coming = store.blobs.begin(&Digest::of(b"x"), 1).unwrap();
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(500)), 0);
    // 600 are missing to the reserve: two of 300.
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(400)), 600);
    let there: Vec<_> = blobs
        .iter()
        .map(|digest| store.blobs.contains(digest))
        .collect();
    assert_eq!(there, [true, true, true, false, false]);
    drop(coming);
    assert_eq!(store.blobs.total_bytes(), 900);
    assert_eq!(store.blobs.relieve_at(ByteSize::bytes(0)), 900);
}
