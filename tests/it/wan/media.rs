//! Blobs.

use comptoir::digest::Digest;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::shop::Shop;

fn media_bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

#[test]
fn a_blob_is_published_only_when_it_is_what_was_announced() {
    let platform = Platform::start();
    let (good, other) = (media_bytes(1, 70_000), media_bytes(2, 70_000));
    let forged = Digest::of(b"what was announced");
    let data = platform.put_blob("other.bin", &other, false);
    // Right size, right place, wrong bytes.
    let document = json!({"url": data["url"], "sha256": forged.to_string(), "size": other.len()});
    platform.put_document("media", &forged.to_string(), &document);
    // A place that is not the media host: the API's, with its token in reach.
    let elsewhere = Digest::of(b"elsewhere");
    let url = format!("{}/v1/steal", platform.text("api_url"));
    let document = json!({"url": url, "sha256": elsewhere.to_string(), "size": 1});
    platform.put_document("media", &elsewhere.to_string(), &document);
    platform.put_blob("good%20name.png", &good, true);
    let shop = Shop::of(&platform).start();
    let blobs = &shop.store().blobs;
    eventually("the good one is published", || {
        blobs.contains(&Digest::of(&good)).then_some(())
    });
    eventually("the forged one is refused", || {
        (shop.metric("comptoir_media_refused_total") == 1).then_some(())
    });
    assert!(!blobs.contains(&forged));
    assert!(!blobs.contains(&Digest::of(&other)));
    assert_eq!(platform.asked(&["/v1/steal"]), 0);
    let blob = blobs.open(&Digest::of(&good)).unwrap().unwrap();
    assert_eq!(blob.len, 70_000);
    assert_eq!(
        blobs.total_bytes(),
        70_000,
        "nothing is left of the refused one"
    );
}

#[test]
fn a_broken_transfer_goes_on_at_the_byte_where_it_broke() {
    let platform = Platform::start();
    let bytes = media_bytes(3, 500_000);
    platform.arm("truncate_after_bytes:200000", "blob", 2, None, "/images/");
    let shop = Shop::of(&platform).start();
    shop.filled();
    platform.put_blob("large.bin", &bytes, true);
    eventually("the blob is published", || {
        shop.store()
            .blobs
            .contains(&Digest::of(&bytes))
            .then_some(())
    });
    assert!(platform.faults_are_spent());
    assert_eq!(
        platform.asked(&["/images/large.bin", "206"]),
        2,
        "{:?}",
        platform.requests()
    );
}

#[test]
fn a_blob_that_changed_under_way_is_fetched_from_the_start() {
    let platform = Platform::start();
    let (old, new) = (media_bytes(4, 400_000), media_bytes(5, 400_000));
    platform.arm("truncate_after_bytes:100000", "blob", 1, None, "/images/");
    platform.arm("status:503", "blob", 1, None, "/images/");
    let data = platform.put_blob("changing.bin", &old, false);
    let digest = Digest::of(&new);
    let document = json!({"url": data["url"], "sha256": digest.to_string(), "size": new.len()});
    platform.put_document("media", &digest.to_string(), &document);
    let shop = Shop::of(&platform).start();
    // The box has the first bytes of the old one and waits out the 503; then the new one stands there.
    eventually("the transfer broke", || {
        platform.faults_are_spent().then_some(())
    });
    platform.put_blob("changing.bin", &new, false);
    eventually("the new one is published", || {
        shop.store().blobs.contains(&digest).then_some(())
    });
    assert!(
        platform.asked(&["/images/changing.bin", "412"]) >= 1,
        "{:?}",
        platform.requests()
    );
}
