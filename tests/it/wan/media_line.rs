//! Transfers from real Azurite over TLS, on a line that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use comptoir::clock::{Clock, SystemClock};
use comptoir::digest::Digest;
use comptoir::identity::Secret;
use comptoir::store::blobs::{Download, MediaReport};
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use comptoir::wan::credentials::Granted;
use serde_json::{Value, json};

use super::azurite::Container;
use super::line::{Fault, Line};
use super::platform::{Platform, SITE, eventually};
use super::shop::Shop;

const MIB: u64 = 1 << 20;
/// Handshakes, headers, TLS's own bytes, and what was on its way when a connection ended.
const A_CONNECTION: u64 = 64 << 10;

/// A clock that a test puts forward.
#[derive(Default)]
pub struct StepClock {
    machine: SystemClock,
    ahead_s: AtomicU64,
}

impl StepClock {
    pub fn advance(&self, step_s: u64) {
        self.ahead_s.fetch_add(step_s, Ordering::SeqCst);
    }

    fn ahead(&self) -> Duration {
        Duration::from_secs(self.ahead_s.load(Ordering::SeqCst))
    }
}

impl Clock for StepClock {
    fn wall(&self) -> jiff::Timestamp {
        self.machine.wall() + self.ahead()
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic() + self.ahead()
    }
}

/// Bytes that no compression and no chance makes equal to others.
pub fn media_bytes(seed: u32, len: u64) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// The manifest's entry for `bytes` at `name`, with `more` fields.
pub fn entry(container: &Container, line: &Line, name: &str, bytes: &[u8], more: Value) -> Value {
    let mut entry = json!({
        "url": format!("{}{}", line.url(), container.path(name)),
        "sha256": Digest::of(bytes).to_string(),
        "size": bytes.len(),
        "content_type": "video/mp4",
    });
    if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
        entry.extend(more);
    }
    entry
}

/// Platform, container and line of one test.
pub struct Bench {
    pub platform: Platform,
    pub container: Container,
    pub line: Line,
}

impl Bench {
    pub fn new(container: Container) -> Self {
        Self {
            platform: Platform::start(),
            line: Line::to(container.addr()),
            container,
        }
    }

    /// A shop, started, with these settings of `[wan.media]` and more sections.
    pub fn shop(&self, media: &str) -> Shop {
        Shop::of(&self.platform)
            .with_media(&self.container, &self.line, media)
            .start()
    }

    /// Uploads and announces.
    pub fn publish(&self, name: &str, bytes: &[u8]) {
        self.container.put(name, bytes);
        self.announce(name, bytes, json!({}));
    }

    pub fn announce(&self, name: &str, bytes: &[u8], more: Value) {
        let entry = entry(&self.container, &self.line, name, bytes, more);
        self.platform.put_document("media", name, &entry);
    }
}

pub fn is_here(shop: &Shop, bytes: &[u8]) -> bool {
    shop.store().blobs.contains(&Digest::of(bytes))
}

pub fn comes(shop: &Shop, what: &str, bytes: &[u8]) {
    eventually(what, || is_here(shop, bytes).then_some(()));
    let digest = Digest::of(bytes);
    assert_eq!(shop.store().blobs.verify(&digest).unwrap(), Some(true));
}

pub fn report(shop: &Shop, what: &str, holds: impl Fn(&MediaReport) -> bool) -> MediaReport {
    eventually(what, || {
        Some(shop.store().blobs.report()).filter(|report| holds(report))
    })
}

#[test]
fn a_transfer_goes_on_at_the_byte_over_a_line_that_is_reset_cut_and_stalls() {
    let bench = Bench::new(Container::public());
    let bytes = media_bytes(1, 8 * MIB);
    bench.line.arm(MIB / 2, Fault::Reset);
    bench.line.arm(2 * MIB, Fault::Cut);
    bench.line.arm(MIB, Fault::Stall);
    bench.line.arm(2 * MIB, Fault::Cut);
    bench.publish("film.mp4", &bytes);
    let shop = bench.shop("");
    comes(&shop, "the film", &bytes);
    assert!(bench.line.is_spent());
    // What had passed the line when it was reset may be lost in the box's own buffers.
    let most = bytes.len() as u64 + MIB / 2 + bench.line.connections() * A_CONNECTION;
    assert!(bench.line.down() < most, "{} of {most}", bench.line.down());
    let transferred = shop.metric("comptoir_media_bytes_total");
    assert_eq!(transferred, bytes.len() as u64, "no byte came twice");
    shop.counts("comptoir_media_fetched_total", 1);
    shop.is_over(Code::MediaUnreachable);
    let report = report(&shop, "all is here", |report| report.fetched == 1);
    assert_eq!((report.listed, report.waiting, report.failed), (1, 0, 0));
    assert_eq!(report.bytes, bytes.len() as u64);
}

/// What enrolment hands out: here only the signature.
fn signature(sas: &str) -> Option<Granted> {
    Some(Granted {
        site_id: SITE.to_owned(),
        media_sas: Some(Secret::new(sas)),
        ..Granted::default()
    })
}

#[test]
fn a_signature_that_ends_in_mid_file_costs_a_question_and_no_byte() {
    let bench = Bench::new(Container::private());
    let bytes = media_bytes(2, 4 * MIB);
    let shop = bench.shop("");
    shop.credentials()
        .grant(signature(&bench.container.sign(10)));
    bench.line.set_rate(MIB / 2);
    bench.publish("film.mp4", &bytes);
    let download = |bytes: u64| {
        let is_far = move |download: &Download| download.bytes >= bytes;
        report(&shop, "it comes", |report| {
            report.downloads.iter().any(is_far)
        })
    };
    let seen = download(MIB);
    let [film] = seen.downloads.as_slice() else {
        panic!("one download, not {:?}", seen.downloads)
    };
    assert_eq!((film.sha256, film.size), (Digest::of(&bytes), 4 * MIB));
    assert!((25..100).contains(&film.percent), "{film:?}");
    // The next question comes when the signature is over.
    let begun = std::time::Instant::now();
    bench.line.arm(MIB / 4, Fault::Cut);
    eventually("the line is cut", || bench.line.is_spent().then_some(()));
    bench.line.set_dead(true);
    eventually("the signature is over", || {
        (begun.elapsed() > Duration::from_secs(11)).then_some(())
    });
    let had = bench.line.down();
    bench.line.set_dead(false);
    bench.line.set_rate(0);
    eventually("it is refused", || {
        shop.outcome(Worker::Media)
            .filter(|outcome| outcome.cause == Some("forbidden"))
    });
    eventually("it is told", || shop.condition(Code::Unauthorized));
    eventually("another one is asked for", || {
        shop.credentials().is_refused().then_some(())
    });
    assert!(!is_here(&shop, &bytes));
    shop.credentials()
        .grant(signature(&bench.container.sign(600)));
    comes(&shop, "the film", &bytes);
    assert!(bench.line.down() - had < 4 * MIB - had + 3 * A_CONNECTION);
    assert_eq!(shop.metric("comptoir_media_bytes_total"), 4 * MIB);
    eventually("nothing is refused any more", || {
        shop.condition(Code::Unauthorized).is_none().then_some(())
    });
}

#[test]
fn a_document_with_a_signature_of_its_own_is_asked_with_it_and_then_with_the_sites() {
    let bench = Bench::new(Container::private());
    let (good, bad) = (media_bytes(3, 1000), media_bytes(4, 1000));
    for (name, bytes, for_s) in [("good.png", &good, 600), ("bad.png", &bad, -10)] {
        bench.container.put(name, bytes);
        let own = bench.container.sign(for_s);
        let url = format!("{}{}?{own}", bench.line.url(), bench.container.path(name));
        bench.announce(name, bytes, json!({ "url": url }));
    }
    let shop = bench.shop("");
    comes(&shop, "the one with a good signature", &good);
    let detail = eventually("the other is refused", || shop.condition(Code::MediaFailed));
    assert!(detail.contains("does not show it"), "{detail}");
    assert!(!shop.credentials().is_refused(), "it was not the site's");
    drop(shop);
    let shop = bench.shop("");
    shop.credentials()
        .grant(signature(&bench.container.sign(600)));
    comes(&shop, "the one with an old signature", &bad);
}

#[test]
fn a_blob_that_changes_in_mid_file_is_fetched_from_the_start() {
    let bench = Bench::new(Container::public());
    let (old, new) = (media_bytes(5, 3 * MIB), media_bytes(6, 3 * MIB));
    bench.container.put("film.mp4", &old);
    bench.line.arm(2 * MIB, Fault::Cut);
    let shop = bench.shop("");
    // The manifest is ahead of the container.
    bench.announce("film.mp4", &new, json!({}));
    eventually("the line is cut", || {
        let is_cut = bench.line.is_spent();
        if is_cut {
            bench.line.set_dead(true);
        }
        is_cut.then_some(())
    });
    bench.container.put("film.mp4", &new);
    bench.line.set_dead(false);
    eventually("the new one, or another try", || {
        (is_here(&shop, &new) || shop.metric("comptoir_media_wrong_total") > 0).then_some(())
    });
    assert_eq!(
        shop.metric("comptoir_media_wrong_total"),
        0,
        "412 is heeded"
    );
    comes(&shop, "the new one", &new);
}

#[test]
fn a_file_that_is_not_what_was_announced_is_told_and_not_fetched_for_ever() {
    let bench = Bench::new(Container::public());
    let (announced, stands) = (media_bytes(7, MIB), media_bytes(8, MIB));
    bench.container.put("film.mp4", &stands);
    bench.announce("film.mp4", &announced, json!({}));
    let clock = Arc::new(StepClock::default());
    let shop = Shop::of(&bench.platform)
        .with_media(&bench.container, &bench.line, "")
        .with_clock(clock.clone())
        .start();
    let wrong = |times: u64| {
        eventually("it is transferred", || {
            (shop.metric("comptoir_media_wrong_total") == times).then_some(())
        });
        report(&shop, "it is told", |report| report.failed == 1);
    };
    let longest_pause_s = 6 * 3600;
    for times in 1..=3 {
        wrong(times);
        clock.advance(longest_pause_s);
    }
    let detail = eventually("it is told", || shop.condition(Code::MediaFailed));
    assert!(detail.contains("not what was announced"), "{detail}");
    // From now on only its state is asked for.
    for asked in 4..=6 {
        eventually("it is asked for", || {
            (shop.metric("comptoir_media_refused_total") == asked).then_some(())
        });
        clock.advance(longest_pause_s);
    }
    assert!(bench.line.down() < 3 * MIB + bench.line.connections() * A_CONNECTION);
    wrong(3);
    assert_eq!(shop.store().blobs.total_bytes(), 0, "nothing of it is kept");
    bench.container.put("film.mp4", &announced);
    clock.advance(longest_pause_s);
    comes(&shop, "the right one", &announced);
    eventually("it is no worry any more", || {
        shop.condition(Code::MediaFailed).is_none().then_some(())
    });
}

#[test]
fn a_file_that_is_missing_or_has_another_size_is_told_and_another_address_is_followed() {
    let bench = Bench::new(Container::public());
    let (missing, short) = (media_bytes(9, 50_000), media_bytes(10, 50_000));
    bench.container.put("short.mp4", &short[1..]);
    bench.announce("missing.mp4", &missing, json!({}));
    bench.announce("short.mp4", &short, json!({}));
    let shop = bench.shop("");
    report(&shop, "both are told", |report| report.failed == 2);
    shop.counts("comptoir_media_refused_total", 2);
    shop.counts("comptoir_media_wrong_total", 1);
    assert!(
        shop.metric("comptoir_media_bytes_total") == 0,
        "a wrong length is seen before the first byte"
    );
    eventually("it is told", || shop.condition(Code::MediaFailed));
    // Another document names the same bytes elsewhere.
    bench.container.put("copy.mp4", &missing);
    let elsewhere = entry(
        &bench.container,
        &bench.line,
        "copy.mp4",
        &missing,
        json!({}),
    );
    bench.platform.put_document("media", "z-copy", &elsewhere);
    comes(&shop, "the missing one", &missing);
    bench.platform.delete_document("media", "short.mp4");
    eventually("what nobody announces is no worry", || {
        shop.condition(Code::MediaFailed).is_none().then_some(())
    });
}
