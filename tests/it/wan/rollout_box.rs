//! A box with nothing but roll-outs, over slots in memory that tests boot as they like.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use comptoir::clock::{Clock, SystemClock};
use comptoir::config::Config;
use comptoir::digest::Digest;
use comptoir::identity::{BoxIdentity, Secret};
use comptoir::shutdown::Shutdown;
use comptoir::store::Store;
use comptoir::telemetry::{Telemetry, UpdateStatus, UpdateWait};
use comptoir::wan::credentials::Credentials;
use comptoir::wan::rollouts::{InstallBundleError, Standing, Updater};
use comptoir::wan::time::PlatformTime;
use comptoir::wan::{RolloutSetup, Wan, WanHandle, WanParts};

use super::azurite::Container;
use super::platform::{PATIENCE, Platform, SITE, TOKEN, eventually};
use super::shop::CLAIM_CODE;

/// Slots in memory. Clones share them.
#[derive(Clone)]
pub struct Slots(Arc<Mutex<State>>);

pub struct State {
    pub standing: Standing,
    /// Digest of each bundle that was installed.
    pub installed: Vec<Digest>,
    pub restarts: u32,
    pub refusals: VecDeque<InstallBundleError>,
    /// Happens while a bundle is being written.
    pub meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Slots {
    fn new() -> Self {
        let standing = Standing {
            version: "1.0".into(),
            slot: Some("A".into()),
            hardware: "test-box".into(),
            boot_id: "boot-1".into(),
            ..Standing::default()
        };
        Self(Arc::new(Mutex::new(State {
            standing,
            installed: Vec::new(),
            restarts: 0,
            refusals: VecDeque::new(),
            meanwhile: None,
        })))
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    pub fn boot(&self, boot_id: &str, version: &str, in_trial: bool) {
        self.with(|state| {
            state.standing.boot_id = boot_id.into();
            state.standing.version = version.into();
            state.standing.in_trial = in_trial;
            state.standing.staged = None;
        });
    }
}

impl Updater for Slots {
    fn standing(&mut self) -> Standing {
        self.with(|state| state.standing.clone())
    }

    fn install(
        &mut self,
        bundle_path: &Path,
        version: &str,
        progress: &mut dyn FnMut(u8),
    ) -> Result<(), InstallBundleError> {
        let bytes = fs::read(bundle_path).unwrap();
        progress(50);
        if let Some(meanwhile) = self.with(|state| state.meanwhile.take()) {
            meanwhile();
        }
        self.with(|state| {
            if let Some(refusal) = state.refusals.pop_front() {
                return Err(refusal);
            }
            state.installed.push(Digest::of(&bytes));
            state.standing.staged = Some(version.into());
            Ok(())
        })
    }

    fn restart(&mut self) {
        self.with(|state| state.restarts += 1);
    }
}

struct Running {
    shutdown: Shutdown,
    wan: WanHandle,
    telemetry: Telemetry,
    store: Store,
}

/// A box with nothing but roll-outs.
pub struct RolloutBox {
    pub dir: tempfile::TempDir,
    settings: String,
    clock: Arc<dyn Clock>,
    pub slots: Slots,
    running: Option<Running>,
}

impl Drop for RolloutBox {
    fn drop(&mut self) {
        match &self.running {
            // Its threads end by themselves.
            Some(running) if std::thread::panicking() => {
                running.shutdown.trigger();
                eprintln!("--- {:?}", self.status());
                eprintln!("--- {:?}", running.wan.outcomes().list());
            }
            _ => self.stop(),
        }
    }
}

impl RolloutBox {
    pub fn of(platform: &Platform) -> Self {
        platform.set_poll_sleep("00:00:01");
        let settings = format!(
            "[site]\nsite_id = \"{SITE}\"\n\
             [wan]\napi_url = \"{}\"\nmedia_url = \"{}\"\ntoken = \"{TOKEN}\"\nretry_first_ms = 100\nretry_max_s = 1\n\
             [wan.trust]\nca_files = [\"{}\"]\n\
             [wan.pull]\nenabled = false\n[wan.bus]\nenabled = false\n[wan.push]\nenabled = false\n[wan.media]\nenabled = false\n\
             [wan.rollouts]\npoll_min_s = 1\n\
             [wan.deadlines]\nfirst_byte_s = 10\nstall_s = 3\n\
             [update]\nwindow = \"\"\n",
            platform.text("api_url"),
            platform.text("blob_url"),
            platform.ca_file().display(),
        );
        Self {
            dir: tempfile::tempdir().unwrap(),
            settings,
            clock: Arc::new(SystemClock::default()),
            slots: Slots::new(),
            running: None,
        }
    }

    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.settings.contains(from), "{from} is not there");
        self.settings = self.settings.replace(from, to);
        self
    }

    /// The shop's quiet hours begin in five hours.
    pub fn quiet_hours_ahead(self) -> Self {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        let hours = |ahead: i8| format!("{:02}:00", (now.hour() + ahead) % 24);
        let window = format!("window = \"{}-{}\"", hours(5), hours(6));
        self.with("window = \"\"", &window)
            .with("[site]\n", "[site]\ntime_zone = \"UTC0\"\n")
    }

    /// The same with its data in `dir`.
    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.dir = tempfile::tempdir_in(dir).unwrap();
        self
    }

    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// `container` stands at the media host's place.
    pub fn with_media_host(self, platform: &Platform, container: &Container) -> Self {
        let ca_file = container.ca_file().display().to_string();
        let url = format!("https://{}", container.addr());
        self.with(platform.text("blob_url"), &url)
            .with("ca_files = [", &format!("ca_files = [\"{ca_file}\", "))
    }

    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    pub fn start(&mut self) {
        let text = format!(
            "{}\n[store]\ndata_dir = \"{}\"\norders_reserve_mib = 8\n",
            self.settings,
            self.dir.path().display()
        );
        let config = Config::from_layers(&[(Path::new("site.toml"), &text)]).unwrap();
        let clock = Arc::clone(&self.clock);
        let store = Store::open(&config.store, Arc::clone(&clock)).unwrap();
        let (telemetry, shutdown) = (Telemetry::default(), Shutdown::default());
        let wan = Wan::start(WanParts {
            credentials: Credentials::from_settings(&config.site.site_id, &config.wan),
            rollouts: Some(RolloutSetup {
                box_id: "box-0123456789ab".into(),
                update: config.update.clone(),
                updater: Box::new(self.slots.clone()),
            }),
            outgoing: comptoir::telemetry::outgoing::Outgoing::default(),
            config: config.wan,
            store: store.clone(),
            telemetry: telemetry.clone(),
            time: PlatformTime::new(clock),
            identity: Arc::new(BoxIdentity::from_seed([7; 32])),
            claim_code: Secret::new(CLAIM_CODE),
            data_dir: self.dir.path().to_owned(),
            shutdown: shutdown.clone(),
        })
        .unwrap();
        self.running = Some(Running {
            shutdown,
            wan,
            telemetry,
            store,
        });
    }

    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown.trigger();
            assert!(running.wan.join(PATIENCE), "a worker does not end");
        }
    }

    /// The slots are booted while the server is down.
    pub fn reboot(&mut self, boot_id: &str, version: &str, in_trial: bool) {
        self.stop();
        self.slots.boot(boot_id, version, in_trial);
        self.start();
    }

    pub fn telemetry(&self) -> &Telemetry {
        &self.running.as_ref().expect("the box runs").telemetry
    }

    pub fn store(&self) -> &Store {
        &self.running.as_ref().expect("the box runs").store
    }

    pub fn status(&self) -> UpdateStatus {
        self.telemetry().update.read()
    }

    pub fn waits_for(&self, wait: UpdateWait) {
        eventually("the order waits", || {
            (self.status().ordered?.waits_for == Some(wait)).then_some(())
        });
    }

    pub fn restart_is_asked(&self) {
        eventually("the restart is asked for", || {
            self.slots.with(|state| (state.restarts > 0).then_some(()))
        });
    }

    /// Bytes of bundles on the disk.
    pub fn bundle_bytes(&self) -> u64 {
        let files = fs::read_dir(self.dir.path().join("rollout"));
        files
            .into_iter()
            .flatten()
            // One that is removed meanwhile has none.
            .filter_map(|file| Some(file.ok()?.metadata().ok()?.len()))
            .sum()
    }
}
