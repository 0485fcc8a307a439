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

/// Longest waits of the box in these tests: short, since its weather is.
const DEADLINES: &str = "resolve_s = 2\nconnect_s = 2\nfirst_byte_s = 2\nstall_s = 2\n";

impl World {
    /// The box reaches the platform directly.
    pub fn direct(name: &'static str) -> Self {
        Self::new(name, false)
    }

    /// The box reaches the platform through a real proxy with a password.
    pub fn proxied(name: &'static str) -> Self {
        Self::new(name, true)
    }

    fn new(name: &'static str, proxied: bool) -> Self {
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
        let settings = format!(
            "[site]\nsite_id = \"{SITE}\"\nclaim_code = \"{CLAIM_CODE}\"\n\
             [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\ntoken = \"{TOKEN}\"\n\
             retry_first_ms = 100\nretry_max_s = 1\n{way_out}\
             [wan.trust]\nca_files = [\"{}\"]\n\
             [wan.bus]\nkey_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\nwait_s = 2\n\
             [wan.pull]\nwait_s = 2\n[wan.deadlines]\n{DEADLINES}",
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
            _dir: dir,
        }
    }

    /// Opens the shop: all is up, and customers come.
    pub fn open(&mut self) {
        self.server.start();
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
        let told = self.told.lock().unwrap().clone();
        let mut last = String::from("nothing");
        self.until_none("nothing waits any more", || {
            let waits = oracle::still_waits(self, &told);
            if let Some(why) = &waits {
                last.clone_from(why);
            }
            waits
        });
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
