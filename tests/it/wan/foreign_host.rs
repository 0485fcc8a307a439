//! The platform hands out addresses on a host that the shop was not opened for: nothing goes there, and it is told.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use comptoir::digest::Digest;
use comptoir::telemetry::Code;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::rollout_box::RolloutBox;
use super::shop::Shop;

/// A host outside the contract, within reach.
struct ForeignHost(TcpListener);

impl ForeignHost {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn authority(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// An address there, signed.
    fn url(&self, name: &str) -> String {
        format!("https://{}/images/{name}?sig=secret", self.authority())
    }

    /// Nobody has connected: whoever did would wait in the listener's queue.
    fn is_untouched(&self) {
        let accepted = self.0.accept();
        let nobody = accepted.err().map(|error| error.kind());
        assert_eq!(nobody, Some(ErrorKind::WouldBlock), "somebody came");
    }

    /// It is named in what is told, and the signature is not.
    fn is_named(&self, told: &str) {
        assert!(told.contains(&self.authority()), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn a_claim_check_and_a_media_entry_on_a_foreign_host_send_nothing_there() {
    let (platform, foreign) = (Platform::start(), ForeignHost::start());
    let order = br#"{"order_id":"order-1","placed_at":"2026-01-01T00:00:00Z","lines":[]}"#;
    let claim = json!({"claim_check": {"url": foreign.url("order-1"),
        "sha256": Digest::of(order).to_string(), "size": order.len()}});
    platform.message("over-the-bus", claim.to_string().as_bytes());
    platform.feed_item("over-the-feed", &claim.to_string());
    let entry = json!({"url": foreign.url("film.mp4"),
        "sha256": Digest::of(b"film").to_string(), "size": 4});
    platform.put_document("media", "film", &entry);
    let good = platform.put_blob("good.png", b"good", true);
    let shop = Shop::of(&platform).start();
    let parked = eventually("both messages are parked", || {
        let parked = shop.store().orders.inbox_parked(10).unwrap();
        (parked.len() == 2).then_some(parked)
    });
    for message in &parked {
        assert_eq!(message.body, claim.to_string().as_bytes(), "kept as it is");
    }
    let told = eventually("the shop is told of the orders", || {
        shop.condition(Code::OrderDocumentMissing)
    });
    foreign.is_named(&told);
    let told = eventually("the shop is told of the entry", || {
        shop.condition(Code::MediaDocumentRefused)
    });
    foreign.is_named(&told);
    // Neither holds anything else up.
    let good: Digest = good["sha256"].as_str().unwrap().parse().unwrap();
    eventually("the good one is there", || {
        shop.store().blobs.contains(&good).then_some(())
    });
    platform.order("order-2");
    eventually("the next order comes", || {
        (shop.order_ids() == ["order-2"]).then_some(())
    });
    eventually("the bus is done with", || {
        (platform.queued() == 0).then_some(())
    });
    foreign.is_untouched();
}

#[test]
fn a_bundle_on_a_foreign_host_and_a_redirect_to_one_send_nothing_there() {
    let (platform, foreign) = (Platform::start(), ForeignHost::start());
    let box_ = RolloutBox::of(&platform).started();
    let place = format!(
        "https%3A%2F%2F{}%2Fx.raucb%3Fsig%3Dsecret",
        foreign.authority()
    );
    for query in [
        format!("version=2.0&link={place}"),
        format!("version=2.1&redirect={place}"),
    ] {
        let id = platform.order_rollout(&query, b"bytes");
        let told = eventually("the platform is told", || {
            let rollout = platform.rollout(id);
            (rollout["status"] == "error").then(|| rollout["feedback"].to_string())
        });
        foreign.is_named(&told);
    }
    let told = eventually("the shop is told", || {
        let conditions = box_.telemetry().conditions.list();
        let failed = conditions
            .into_iter()
            .find(|(code, _)| *code == Code::UpdateFailed);
        failed.map(|(_, condition)| condition.detail)
    });
    foreign.is_named(&told);
    foreign.is_untouched();
}
