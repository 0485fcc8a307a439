//! One shop under the weather: platform, perhaps a proxy, box, kitchen, customers.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::kitchen::Kitchen;
use crate::net::Loss;
use crate::oracle;
use crate::platform::{KEY, KEY_NAME, Platform, SITE, TOKEN};
use crate::proxy::{PASSWORD, Proxy, USER, ports_of};
use crate::server::{CLAIM_CODE, Server};
use crate::traffic::{Told, Traffic};

pub struct World {
    pub name: &'static str,
    pub platform: Arc<Platform>,
    pub proxy: Option<Proxy>,
    pub server: Server,
    pub kitchen: Kitchen,
    pub told: Arc<Mutex<Told>>,
    token: String,
    traffic: Option<Traffic>,
    enrols: bool,
    // Last, so that everybody has left it.
    _dir: tempfile::TempDir,
}

/// How long a minute of weather lasts here.
pub fn minutes(count: u32) -> Duration {
    let minute_ms = std::env::var("WEATHER_MINUTE_MS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    Duration::from_millis(minute_ms) * count
}

/// The weather lasts.
pub fn lasts(time: Duration) {
    thread::sleep(time);
}

/// How long the bus keeps a message for the box that received it.
const LOCK: Duration = Duration::from_secs(4);

/// How long credentials are good that are handed out at enrolment: hardly longer than the box takes them at all.
pub const LIFE: Duration = Duration::from_secs(66);

/// Longest waits of the box in these tests: short, since its weather is.
const DEADLINES: &str = "resolve_s = 2\nconnect_s = 2\nfirst_byte_s = 2\nstall_s = 2\n";

/// What is special about a shop.
#[derive(Default)]
struct Setup {
    proxied: bool,
    enrols: bool,
    in_crumbs: bool,
}

impl World {
    /// The box reaches the platform directly.
    pub fn direct(name: &'static str) -> Self {
        Self::new(name, Setup::default())
    }

    /// The box reaches the platform through a real proxy with a password.
    pub fn proxied(name: &'static str) -> Self {
        Self::new(
            name,
            Setup {
                proxied: true,
                ..Setup::default()
            },
        )
    }

    /// The box is new, and a person at the platform has claimed it: what it may is handed out, and has an end. Its images
    /// are for who has a signature.
    pub fn enrolled(name: &'static str) -> Self {
        Self::new(
            name,
            Setup {
                enrols: true,
                ..Setup::default()
            },
        )
    }

    /// A box that asks for everything in crumbs.
    pub fn in_crumbs(name: &'static str) -> Self {
        Self::new(
            name,
            Setup {
                in_crumbs: true,
                ..Setup::default()
            },
        )
    }

    fn new(name: &'static str, setup: Setup) -> Self {
        let Setup {
            proxied,
            enrols,
            in_crumbs,
        } = setup;
        let dir = tempfile::tempdir().unwrap();
        let platform = Arc::new(Platform::start());
        platform.load_products(200);
        // In fast motion as all else: a real lock would outlast most of the weather.
        platform.set_lock(LOCK);
        let proxy = proxied.then(|| Proxy::start(dir.path().join("proxy"), &platform));
        let way_out = proxy.as_ref().map_or_else(String::new, |proxy| {
            format!(
                "[wan.proxy]\nurl = \"http://127.0.0.1:{}\"\nuser = \"{USER}\"\npassword = \"{PASSWORD}\"\n",
                proxy.port
            )
        });
        let (site, token, key) = if enrols {
            platform.close_container("images");
            Default::default()
        } else {
            (
                format!("site_id = \"{SITE}\"\n"),
                format!("token = \"{TOKEN}\"\n"),
                format!("key_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\n"),
            )
        };
        let (page, batch) = if in_crumbs {
            ("page_items = 10\n", "[wan.push]\nbatch_items = 1\n")
        } else {
            Default::default()
        };
        let settings = format!(
            "[site]\n{site}claim_code = \"{CLAIM_CODE}\"\n\
             [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\n{token}\
             retry_first_ms = 100\nretry_max_s = 1\n{way_out}\
             [wan.trust]\nca_files = [\"{}\"]\n\
             [wan.bus]\n{key}wait_s = 2\n\
             [wan.pull]\nwait_s = 2\n{page}[wan.orders_feed]\nwait_s = 2\n{batch}[wan.deadlines]\n{DEADLINES}",
            platform.text("api_url"),
            platform.text("bus_url"),
            platform.text("blob_url"),
            platform.ca_file().display(),
        );
        let server = Server::new(dir.path(), &settings);
        let kitchen = Kitchen::unpaired(&dir.path().join("kitchen")).with(&[
            "--care-url",
            &server.url(8004, ""),
            "--pair-code",
            CLAIM_CODE,
            "--role",
            "kitchen",
            "--heartbeat-s",
            "1",
        ]);
        Self {
            name,
            platform,
            proxy,
            server,
            kitchen,
            told: Arc::default(),
            token: String::new(),
            traffic: None,
            enrols,
            _dir: dir,
        }
    }

    /// Opens the shop: all is up, and customers come.
    pub fn open(&mut self) {
        self.server.start();
        if self.enrols {
            self.platform.set_life(LIFE);
            self.until("the box shows itself", || {
                self.platform.enrolling().is_some()
            });
            assert_eq!(self.platform.claim(CLAIM_CODE), 200, "{}", self.name);
        }
        self.kitchen.start();
        self.token = self.kitchen.token();
        self.customers_come();
        // The weather begins on a shop that works.
        let told = Arc::clone(&self.told);
        self.until("the first orders are made", || {
            told.lock().unwrap().internet.len() > 3 && self.kitchen.seen().len() > 3
        });
    }

    pub fn customers_come(&mut self) {
        self.traffic = Some(Traffic::start(
            Arc::clone(&self.platform),
            self.server.url(8001, "/v1/orders"),
            self.token.clone(),
            Arc::clone(&self.told),
        ));
    }

    pub fn customers_go(&mut self) {
        if let Some(traffic) = self.traffic.take() {
            traffic.stop();
        }
    }

    /// A device's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// So many percent of the packets between box and platform get lost, each way, until this is dropped.
    pub fn loses(&self, percent: u32) -> Loss {
        Loss::of(percent, &ports_of(&self.platform))
    }

    /// The plug of the box is pulled and put in again.
    pub fn power_cut(&mut self) {
        self.server.kill();
        self.server.start();
    }

    /// The weather is over: everything must come right by itself, and be as the oracle says.
    pub fn settle(&mut self) {
        self.customers_go();
        let over = Instant::now();
        let last = self.comes_to_rest("nothing waits any more");
        let told = self.told.lock().unwrap().clone();
        println!(
            "weather {}: {} orders from the internet, {} at the counter, {} images; at rest {:.1} s after the weather, last waited for: {last}",
            self.name,
            told.internet.len(),
            told.counter.len(),
            told.images.len(),
            over.elapsed().as_secs_f32()
        );
        oracle::everything_is_there_exactly_once(self, &told);
        oracle::catches_what_is_wrong(self, &told);
    }

    /// All that was told is where it belongs; what was waited for last.
    pub fn comes_to_rest(&self, what: &str) -> String {
        let told = self.told.lock().unwrap().clone();
        let mut last = String::from("nothing");
        self.until_none(what, || {
            let waits = oracle::still_waits(self, &told);
            if let Some(why) = &waits {
                last.clone_from(why);
            }
            waits
        });
        last
    }

    /// Reports that wait on the box for the platform.
    pub fn to_send(&self) -> i64 {
        let status = self.server.json(80, "/status.json", None);
        status["orders"]["to_send"].as_i64().unwrap()
    }

    /// The same of each lane, those that nobody waits for, too.
    pub fn waiting_reports(&self) -> Vec<u64> {
        let status = self.server.json(80, "/status.json", None);
        let lanes = status["orders"]["outbox"].as_array().unwrap();
        let waiting = lanes.iter().map(|lane| lane["waiting"].as_u64().unwrap());
        waiting.filter(|waiting| *waiting > 0).collect()
    }

    pub fn until(&self, what: &str, level: impl Fn() -> bool) {
        self.until_none(what, || (!level()).then(String::new));
    }

    fn until_none(&self, what: &str, mut why_not: impl FnMut() -> Option<String>) {
        let started = Instant::now();
        while let Some(why_not) = why_not() {
            assert!(
                started.elapsed() < oracle::PATIENCE,
                "{}: waited in vain until {what}: {why_not}\nthe box's last words:\n{}",
                self.name,
                self.server.last_words()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}
