//! A shop that had come to rest misses a known amount of work, and catches up with it when the weather is over.

use std::path::Path;
use std::time::Duration;

use comptoir::config::Config;
use comptoir::units::ByteSize;
use comptoir::wan::contract::FlowId;
use comptoir::wan::egress::{Client, Egress, Method, Request};
use comptoir::wan::time::PlatformTime;
use serde_json::{Value, json};

use crate::measure::{Left, Used, complaints};
use crate::platform::{Platform, SITE, TOKEN};
use crate::server::submit;
use crate::world::World;

const DOCUMENTS: u32 = 2500;
const DOCUMENT_BYTES: u32 = 300;
const AT_BUS: usize = 24;
const IN_FEED: usize = 20;
const AT_COUNTER: usize = 60;
const IMAGES: usize = 4;
const IMAGE_BYTES: usize = 300_000;

/// The weather lasts while `begins` to `ends`; the box catches up with at most twice the ideal.
pub fn within_twice_the_ideal(world: &mut World, begins: fn(&mut World), ends: fn(&mut World)) {
    let (left, used) = catch_up(world, begins, ends);
    println!("weather {}: left {left:?}, used {used:?}", world.name);
    assert_eq!(complaints(&left, &used), [""; 0], "{}", world.name);
}

/// A box that does the same in crumbs: what measures must say so.
pub fn crumbs_are_caught(world: &mut World, begins: fn(&mut World), ends: fn(&mut World)) {
    let (left, used) = catch_up(world, begins, ends);
    let found = complaints(&left, &used).join("\n");
    for what in ["pages of the feed", "reports sent"] {
        assert!(
            found.contains(what),
            "{what} are not complained of: {used:?}"
        );
    }
}

fn catch_up(world: &mut World, begins: fn(&mut World), ends: fn(&mut World)) -> (Left, Used) {
    world.customers_go();
    world.comes_to_rest("before the weather");
    let bare = BareLoop::at_the_end_of_the_feed(&world.platform);
    let repeats = repeats(&world.platform);
    begins(world);
    let mut left = is_missed(world);
    // Each was submitted, and is made by the kitchen without the platform.
    world.until("all reports of the counter's orders wait", || {
        world.to_send() >= i64::try_from(2 * AT_COUNTER).unwrap()
    });
    left.reports = world.waiting_reports();
    let known = world.platform.event_count();
    let (mark, _) = record(&world.platform);
    ends(world);
    world.comes_to_rest("after the weather");
    let (end, last) = record(&world.platform);
    let since = usize::try_from(end - mark).unwrap();
    assert!(
        since <= last.len(),
        "{}: {since} requests to catch up",
        world.name
    );
    assert_eq!(
        self::repeats(&world.platform),
        repeats,
        "{}: reported twice",
        world.name
    );
    let told = u64::try_from(world.platform.event_count() - known).unwrap();
    left.news = told.saturating_sub(left.reports.iter().sum());
    left.page_bytes = bare.follows_the_feed();
    (left, Used::of(&last[last.len() - since..]))
}

/// What happens while the platform is out of reach.
fn is_missed(world: &World) -> Left {
    let platform = &world.platform;
    platform.generate("products", DOCUMENTS, DOCUMENT_BYTES);
    for n in [0, DOCUMENTS - 1] {
        let path = format!("documents/products/g{n}");
        let data = platform.call("GET", &path, &[], b"")["data"].clone();
        let mut told = world.told.lock().unwrap();
        told.documents.insert(format!("g{n}"), Some(data));
    }
    let orders_url = world.server.url(8001, "/v1/orders");
    for n in 0..AT_BUS {
        platform.order(&format!("missed-bus-{n}"));
        world
            .told
            .lock()
            .unwrap()
            .internet
            .push(format!("missed-bus-{n}"));
    }
    for n in 0..IN_FEED {
        platform.order_via(&format!("missed-feed-{n}"), "feed");
        world
            .told
            .lock()
            .unwrap()
            .internet
            .push(format!("missed-feed-{n}"));
    }
    for n in 0..AT_COUNTER {
        let id = format!("missed-counter-{n}");
        let body = json!({"order_id": id, "placed_at": "2026-11-24T20:00:00Z", "lines": []});
        let answered = submit(&orders_url, world.token(), &id, &body.to_string());
        assert_eq!(answered, Some(201), "{}: {id}", world.name);
        world.told.lock().unwrap().counter.push(id);
    }
    for n in 0..IMAGES {
        let bytes: Vec<u8> = (0..IMAGE_BYTES)
            .map(|at| u8::try_from((at * 37 + at / 241 + n * 11) % 256).unwrap())
            .collect();
        let data = platform.put_blob(&format!("missed-{n}.png"), &bytes, true);
        let sha256 = data["sha256"].as_str().unwrap().to_owned();
        world.told.lock().unwrap().images.insert(sha256, bytes);
    }
    let count = |number: usize| u64::try_from(number).unwrap();
    Left {
        // An image is a document, too.
        documents: u64::from(DOCUMENTS) + count(IMAGES),
        page_bytes: 0,
        orders_at_bus: count(AT_BUS),
        orders_in_feed: count(IN_FEED),
        reports: Vec::new(),
        news: 0,
        images: count(IMAGES),
        image_bytes: count(IMAGES * IMAGE_BYTES),
    }
}

fn record(platform: &Platform) -> (u64, Vec<Value>) {
    let requests = platform.call("GET", "requests", &[], b"");
    (
        requests["total"].as_u64().unwrap(),
        requests["last"].as_array().unwrap().clone(),
    )
}

/// How often the platform was told what it knew already.
fn repeats(platform: &Platform) -> u64 {
    let events = platform.events();
    events
        .iter()
        .map(|event| event["repeats"].as_u64().unwrap())
        .sum()
}

/// The ideal client of the feed: it knows where it stands and asks for the rest, page by page, and does nothing else.
struct BareLoop {
    client: Client,
    site_url: String,
    cursor: String,
}

/// Bytes of a page at most.
const MAX_PAGE: ByteSize = ByteSize::mib(16);

impl BareLoop {
    fn at_the_end_of_the_feed(platform: &Platform) -> Self {
        let settings = format!(
            "[wan]\napi_url = \"{}\"\n[wan.trust]\nca_files = [\"{}\"]\n",
            platform.text("api_url"),
            platform.ca_file().display()
        );
        let config = Config::from_layers(&[(Path::new("bare.toml"), &settings)]).unwrap();
        let egress = Egress::new(&config.wan, &PlatformTime::of_system()).0;
        let mut this = Self {
            client: egress.client(FlowId::Api),
            site_url: format!("{}/v1/sites/{SITE}", platform.text("api_url")),
            cursor: String::new(),
        };
        let plan = this.get("snapshot", "identity");
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        this.cursor = plan["cursor"].as_str().unwrap().to_owned();
        this
    }

    /// Bytes of all pages to the end.
    fn follows_the_feed(mut self) -> u64 {
        let mut bytes = 0;
        loop {
            let path = format!("feed?cursor={}&limit=1000&wait_s=0", self.cursor);
            bytes += self.get(&path, "gzip").len() as u64;
            let page: Value = serde_json::from_slice(&self.get(&path, "identity")).unwrap();
            self.cursor = page["next"].as_str().unwrap().to_owned();
            if page["caught_up"] == true {
                return bytes;
            }
        }
    }

    /// A body as it comes.
    fn get(&self, path: &str, encoding: &str) -> Vec<u8> {
        let authorization = format!("Bearer {TOKEN}");
        let request = Request {
            method: Method::GET,
            url: &format!("{}/{path}", self.site_url),
            headers: &[
                ("authorization", &authorization),
                ("accept-encoding", encoding),
            ],
            body: None,
            hold: Duration::ZERO,
        };
        let answer = self.client.send(&request).unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.bytes(MAX_PAGE).unwrap()
    }
}
