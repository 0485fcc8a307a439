//! A box's store and WAN side in this process, set up by a site file as an installer would write it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use comptoir::clock::{Clock, SystemClock};
use comptoir::config::Config;
use comptoir::identity::{BoxIdentity, Secret};
use comptoir::shutdown::Shutdown;
use comptoir::store::Store;
use comptoir::store::catalogue::Stored;
use comptoir::telemetry::outgoing::{self, Outgoing, StreamStatus};
use comptoir::telemetry::{Code, EnrolmentStatus, Telemetry, start_logs};
use comptoir::wan::credentials::Credentials;
use comptoir::wan::time::PlatformTime;
use comptoir::wan::time::floor::Floor;
use comptoir::wan::{Outcome, Wan, WanHandle, WanParts, Worker};

use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use super::azurite::Container;
use super::line::Line;
use super::platform::{KEY, KEY_NAME, LOGS_KEY, PATIENCE, Platform, SITE, TOKEN, eventually};

/// The code printed on the box.
pub const CLAIM_CODE: &str = "AB12-CD34-EF";

pub struct Shop {
    dir: tempfile::TempDir,
    site_file: String,
    /// A line of the section `[store]`.
    quota: String,
    clock: Arc<dyn Clock>,
    ships: bool,
    logs_for_all: bool,
    running: Option<Running>,
}

struct Running {
    credentials: Credentials,
    store: Store,
    telemetry: Telemetry,
    shutdown: Shutdown,
    wan: WanHandle,
    events: Dispatch,
}

impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        } else {
            self.stop();
        }
    }
}

impl Shop {
    /// Set up for `platform`, not started.
    pub fn of(platform: &Platform) -> Self {
        let site_file = format!(
            "[site]\nsite_id = \"{SITE}\"\n\
             [wan]\napi_url = \"{}\"\nbus_url = \"{}\"\nmedia_url = \"{}\"\n\
             token = \"{TOKEN}\"\nretry_first_ms = 100\nretry_max_s = 1\n\
             [wan.trust]\nca_files = [\"{}\"]\n\
             [wan.bus]\nkey_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\nwait_s = 2\n\
             [wan.pull]\nwait_s = 5\n\
             [wan.deadlines]\nfirst_byte_s = 10\nstall_s = 5\n",
            platform.text("api_url"),
            platform.text("bus_url"),
            platform.text("blob_url"),
            platform.ca_file().display(),
        );
        Self {
            dir: tempfile::tempdir().unwrap(),
            site_file,
            quota: String::new(),
            clock: Arc::new(SystemClock::default()),
            ships: false,
            logs_for_all: false,
            running: None,
        }
    }

    /// Gives hosts that say nothing up soon. Not for tests that count questions: on a busy machine a host may just be slow.
    pub fn impatient(self) -> Self {
        self.with(
            "first_byte_s = 10\nstall_s = 5",
            "first_byte_s = 2\nstall_s = 2",
        )
    }

    /// Media come over this line from this container; the settings end in `[wan.media]`.
    pub fn with_media(self, container: &Container, line: &Line, media: &str) -> Self {
        let ca_file = container.ca_file().display().to_string();
        let media_url = self.site_file.split("media_url = \"").nth(1).unwrap();
        let media_url = media_url.split('"').next().unwrap().to_owned();
        let mut this = self
            .with(&media_url, &line.url())
            .with("ca_files = [", &format!("ca_files = [\"{ca_file}\", "));
        this.site_file.push_str("[wan.media]\n");
        this.site_file.push_str(media);
        this
    }

    /// The same with a changed site file.
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(
            self.site_file.contains(from),
            "{from} is not in the site file"
        );
        self.site_file = self.site_file.replace(from, to);
        self
    }

    /// What [`Shop::tell`] tells may leave for support, at once.
    pub fn shipping(mut self, platform: &Platform) -> Self {
        self.ships = true;
        let sections = format!(
            "[wan.logs]\nkey = \"{LOGS_KEY}\"\nlinger_s = 1\n\
             [wan.support]\nkey_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\nlinger_s = 0\n\
             [wan.trust]\n"
        );
        let hosts = format!(
            "[wan]\nlogs_url = \"{}\"\nsupport_url = \"{}\"\n",
            platform.text("logs_url"),
            platform.text("bus_url"),
        );
        self.with("[wan]\n", &hosts)
            .with("[wan.trust]\n", &sections)
    }

    /// The log of this whole process is the box's; once a process.
    pub fn logging_for_all(mut self) -> Self {
        self.logs_for_all = true;
        self
    }

    /// Where the box keeps its data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `tell` with its events going where the box's own would go.
    pub fn tell(&self, tell: impl FnOnce()) {
        tracing::dispatcher::with_default(&self.running().events, tell);
    }

    /// A stream in numbers.
    pub fn stream(&self, name: &str) -> StreamStatus {
        let mut streams = self.running().telemetry.sent.list();
        streams.remove(name).unwrap_or_default()
    }

    /// The same with its data in `dir`.
    pub fn in_dir(mut self, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        self.dir = tempfile::tempdir_in(dir).unwrap();
        self
    }

    /// The same without anything the platform hands out.
    pub fn unenrolled(self) -> Self {
        self.with(&format!("site_id = \"{SITE}\""), "site_id = \"\"")
            .with(&format!("token = \"{TOKEN}\""), "token = \"\"")
            .with(&format!("key_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\n"), "")
    }

    /// All media together at most.
    pub fn with_quota_mib(mut self, mib: u32) -> Self {
        self.quota = format!("blob_quota_mib = {mib}\n");
        self
    }

    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub fn start(mut self) -> Self {
        self.start_again();
        self
    }

    pub fn start_again(&mut self) {
        let text = format!(
            "{}\n[store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n{}",
            self.site_file,
            self.dir.path().display(),
            self.quota
        );
        let config = Config::from_layers(&[(Path::new("site.toml"), &text)]).unwrap();
        let time = PlatformTime::above(Floor::load(self.dir.path()), Arc::clone(&self.clock));
        let store = Store::open(&config.store, Arc::new(time.clone())).unwrap();
        let (telemetry, shutdown) = (Telemetry::default(), Shutdown::default());
        let (layer, outgoing) = if self.ships {
            outgoing::streams(&config.wan, &config.store.data_dir)
        } else {
            (None, Outgoing::default())
        };
        let events = if self.logs_for_all {
            start_logs(&config.telemetry, layer);
            Dispatch::none()
        } else {
            Dispatch::new(registry().with(layer))
        };
        let credentials = Credentials::from_settings(&config.site.site_id, &config.wan);
        let wan = Wan::start(WanParts {
            rollouts: None,
            credentials: credentials.clone(),
            config: config.wan,
            store: store.clone(),
            telemetry: telemetry.clone(),
            time,
            identity: Arc::new(
                BoxIdentity::load_or_create(&self.dir.path().join("identity.key")).unwrap(),
            ),
            claim_code: Secret::new(CLAIM_CODE),
            data_dir: self.dir.path().to_path_buf(),
            shutdown: shutdown.clone(),
            outgoing: Outgoing {
                box_id: "box-1".into(),
                ..outgoing
            },
        })
        .unwrap();
        self.running = Some(Running {
            credentials,
            store,
            telemetry,
            shutdown,
            wan,
            events,
        });
    }

    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown.trigger();
            assert!(running.wan.join(PATIENCE), "a worker does not end");
        }
    }

    /// How it stands, for the report of a test that failed; its threads end by themselves.
    fn show(&self) {
        let Some(running) = &self.running else { return };
        running.shutdown.trigger();
        for (code, condition) in running.telemetry.conditions.list() {
            eprintln!("--- condition {}: {}", code.as_str(), condition.detail);
        }
        for outcome in running.wan.outcomes().list() {
            eprintln!("--- {outcome:?}");
        }
        eprintln!("--- {:?}", running.store.blobs.report());
        let metrics = running.telemetry.metrics.render();
        let counted = metrics
            .lines()
            .filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
        counted.for_each(|line| eprintln!("--- {line}"));
    }

    /// Waits until something was counted so often, and never more often.
    pub fn counts(&self, name: &str, times: u64) {
        eventually(&format!("{name} is {times}"), || {
            (self.metric(name) >= times).then_some(())
        });
        assert_eq!(self.metric(name), times, "{name}");
    }

    /// Waits until a condition has ended, if it held.
    pub fn is_over(&self, code: Code) {
        eventually(&format!("{} is over", code.as_str()), || {
            self.condition(code).is_none().then_some(())
        });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the shop is open")
    }

    pub fn store(&self) -> &Store {
        &self.running().store
    }

    /// What the box may show to the platform.
    pub fn credentials(&self) -> &Credentials {
        &self.running().credentials
    }

    /// Where the store is.
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn outcome(&self, worker: Worker) -> Option<Outcome> {
        let outcomes = self.running().wan.outcomes().list();
        outcomes
            .into_iter()
            .find(|outcome| outcome.worker == worker)
    }

    pub fn time(&self) -> PlatformTime {
        self.running().wan.time()
    }

    pub fn enrolment(&self) -> EnrolmentStatus {
        self.running().telemetry.standing.enrolment()
    }

    /// Below the box's data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn condition(&self, code: Code) -> Option<String> {
        let list = self.running().telemetry.conditions.list();
        list.into_iter()
            .find(|(found, _)| *found == code)
            .map(|(_, condition)| condition.detail)
    }

    pub fn metric(&self, name: &str) -> u64 {
        let text = self.running().telemetry.metrics.render();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .unwrap_or(0)
    }

    pub fn document(&self, collection: &str, id: &str) -> Option<Stored> {
        self.store().catalogue.document(collection, id).unwrap()
    }

    pub fn documents(&self, collection: &str) -> i64 {
        let counts = self.store().catalogue.collections().unwrap();
        counts
            .iter()
            .find(|count| count.collection == collection)
            .map_or(0, |count| count.documents)
    }

    /// Waits until the first snapshot is whole.
    pub fn filled(&self) {
        eventually("the catalogue is filled", || {
            self.store().catalogue.cursor().unwrap()
        });
    }

    pub fn order_ids(&self) -> Vec<String> {
        let orders = self.store().orders.list(0, None, 100).unwrap();
        orders.into_iter().map(|order| order.order_id).collect()
    }
}
