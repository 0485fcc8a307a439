//! What the box may show to the platform's hosts: set by the installer, or handed out at enrolment. Asked for at every
//! request, so that a renewal needs no restart and a revocation ends a flow at once.
//!
//! What the settings say goes first, credential by credential. What enrolment brought counts only for the site the
//! settings name, or when they name none: a token of another shop must not be mixed with this one's.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::outcome::Worker;
use super::sas::percent_encoded;
use crate::config::WanConfig;
use crate::identity::Secret;

/// Where support events go unless the settings or the enrolment name another queue, topic or hub.
pub const SUPPORT_ENTITY: &str = "support-events";

/// How the box proves itself to a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusAccess {
    /// A rule's key; the box makes its signatures itself.
    Key {
        /// The rule's name.
        name: String,
        /// The key's text, as shown.
        key: Secret,
    },
    /// A signature made by the platform.
    Sas {
        /// The whole value of the header: `SharedAccessSignature …`.
        token: Secret,
        /// When it ends, in seconds since 1970.
        expires_at_s: i64,
    },
}

/// What enrolment hands out; each part may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// The shop.
    pub site_id: String,
    /// For the platform's API.
    pub api_token: Option<Secret>,
    /// For this site's own queue.
    pub bus: Option<BusAccess>,
    /// The queue, or `TOPIC/subscriptions/NAME`; `None`: `site-SITE_ID`.
    pub bus_entity: Option<String>,
    /// Query string of a signature for this site's container, without `?`.
    pub media_sas: Option<Secret>,
    /// For the support bus.
    pub support: Option<BusAccess>,
    /// The queue, topic or hub for support events; `None`: [`SUPPORT_ENTITY`].
    pub support_entity: Option<String>,
    /// For the log input.
    pub logs_key: Option<Secret>,
}

/// What a request to the API needs.
#[derive(Debug, Clone)]
pub struct ApiAccess {
    /// The shop.
    pub site_id: String,
    /// Its token.
    pub token: Secret,
    /// Of which version of the credentials both are.
    pub version: u64,
    /// The token comes from enrolment: the platform hands out another when it refuses this one.
    pub is_renewable: bool,
}

/// The credentials. Clones share them.
#[derive(Clone)]
pub struct Credentials(Arc<Shared>);

struct Shared {
    settings: Settings,
    state: Mutex<State>,
    changed: Condvar,
}

struct Settings {
    site_id: String,
    token: Secret,
    bus_key_name: String,
    bus_key: Secret,
    bus_entity: String,
    logs_key: Secret,
    support_entity: String,
    support_key_name: String,
    support_key: Secret,
    /// Roll-outs have a token of their own.
    has_rollout_token: bool,
}

#[derive(Default)]
struct State {
    granted: Option<Granted>,
    version: u64,
    /// The version whose token the platform refused.
    refused: Option<u64>,
}

impl Credentials {
    /// Those of the settings; `site_id` is `site.site_id`.
    #[must_use]
    pub fn from_settings(site_id: &str, config: &WanConfig) -> Self {
        Self(Arc::new(Shared {
            settings: Settings {
                site_id: site_id.to_owned(),
                token: config.token.clone(),
                bus_key_name: config.bus.key_name.clone(),
                bus_key: config.bus.key.clone(),
                bus_entity: config.bus.queue.clone(),
                logs_key: config.logs.key.clone(),
                support_entity: config.support.entity.clone(),
                support_key_name: config.support.key_name.clone(),
                support_key: config.support.key.clone(),
                has_rollout_token: !config.rollouts.token.is_empty(),
            },
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// The shop, once it is known.
    #[must_use]
    pub fn site_id(&self) -> Option<String> {
        let settings = &self.0.settings;
        if !settings.site_id.is_empty() {
            return Some(settings.site_id.clone());
        }
        self.granted(|granted| Some(granted.site_id.clone()))
    }

    /// The token for the platform's API.
    #[must_use]
    pub fn api_token(&self) -> Option<Secret> {
        set(&self.0.settings.token).or_else(|| self.granted(|granted| granted.api_token.clone()))
    }

    /// Site, token and version as they belong together.
    #[must_use]
    pub fn api(&self) -> Option<ApiAccess> {
        // Read before the parts: a change in between makes it look older than it is, which costs one needless renewal.
        let version = self.version();
        Some(ApiAccess {
            site_id: self.site_id()?,
            token: self.api_token()?,
            version,
            is_renewable: self.is_renewable(),
        })
    }

    /// Whether the API's token comes from enrolment, and not from the settings.
    #[must_use]
    pub fn is_renewable(&self) -> bool {
        self.0.settings.token.is_empty()
    }

    /// For the bus that brings orders.
    #[must_use]
    pub fn bus(&self) -> Option<BusAccess> {
        let settings = &self.0.settings;
        if !settings.bus_key_name.is_empty() && !settings.bus_key.is_empty() {
            return Some(BusAccess::Key {
                name: settings.bus_key_name.clone(),
                key: settings.bus_key.clone(),
            });
        }
        self.granted(|granted| granted.bus.clone())
    }

    /// Where the bus keeps this site's orders: `QUEUE` or `TOPIC/subscriptions/NAME`.
    #[must_use]
    pub fn bus_entity(&self) -> Option<String> {
        let settings = &self.0.settings;
        if !settings.bus_entity.is_empty() {
            return Some(settings.bus_entity.clone());
        }
        self.granted(|granted| granted.bus_entity.clone())
            .or_else(|| Some(format!("site-{}", self.site_id()?)))
    }

    /// A query string, without `?`, to append to addresses on the media host and nowhere else.
    #[must_use]
    pub fn media_sas(&self) -> Option<Secret> {
        self.granted(|granted| granted.media_sas.clone())
    }

    /// For the bus that takes support events.
    #[must_use]
    pub fn support(&self) -> Option<BusAccess> {
        let settings = &self.0.settings;
        if !settings.support_key_name.is_empty() && !settings.support_key.is_empty() {
            return Some(BusAccess::Key {
                name: settings.support_key_name.clone(),
                key: settings.support_key.clone(),
            });
        }
        self.granted(|granted| granted.support.clone())
    }

    /// Where support events go: queue, topic or hub.
    #[must_use]
    pub fn support_entity(&self) -> String {
        let settings = &self.0.settings;
        if !settings.support_entity.is_empty() {
            return settings.support_entity.clone();
        }
        self.granted(|granted| granted.support_entity.clone())
            .unwrap_or_else(|| SUPPORT_ENTITY.to_owned())
    }

    /// For the log input.
    #[must_use]
    pub fn logs_key(&self) -> Option<Secret> {
        set(&self.0.settings.logs_key).or_else(|| self.granted(|granted| granted.logs_key.clone()))
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Waits at most `timeout` for another version than `seen`; true when there is one.
    #[must_use]
    pub fn wait_change(&self, seen: u64, timeout: Duration) -> bool {
        let state = self
            .0
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| state.version == seen);
        state.expect("no holder of this lock panics").0.version != seen
    }

    /// What `worker` can't work without and has not got.
    #[must_use]
    pub fn missing_for(&self, worker: Worker) -> Option<&'static str> {
        match worker {
            Worker::Pull | Worker::OrdersFeed | Worker::Push if self.site_id().is_none() => {
                Some("site.site_id is empty")
            }
            Worker::Pull | Worker::OrdersFeed | Worker::Push if self.api_token().is_none() => {
                Some("wan.token is empty")
            }
            Worker::Bus if self.bus_entity().is_none() => Some("site.site_id is empty"),
            Worker::Bus if self.bus().is_none() => Some("wan.bus.key_name or wan.bus.key is empty"),
            Worker::Logs if self.logs_key().is_none() => Some("wan.logs.key is empty"),
            Worker::Support if self.support().is_none() => {
                Some("wan.support.key_name or wan.support.key is empty")
            }
            Worker::Rollouts
                if !self.0.settings.has_rollout_token && self.api_token().is_none() =>
            {
                Some("wan.token is empty")
            }
            _ => None,
        }
    }

    /// Takes what enrolment brought, or `None` after a revocation.
    pub fn grant(&self, granted: Option<Granted>) {
        let mut state = self.lock();
        if state.granted == granted {
            return;
        }
        state.granted = granted;
        state.version += 1;
        drop(state);
        self.0.changed.notify_all();
    }

    /// The platform refused the token of `version`: whoever looks after the enrolment asks for another.
    pub fn refused(&self, version: u64) {
        self.lock().refused = Some(version);
        self.0.changed.notify_all();
    }

    /// Whether the present version's token was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let state = self.lock();
        state.refused == Some(state.version)
    }

    fn granted<T>(&self, part: impl Fn(&Granted) -> Option<T>) -> Option<T> {
        let settings = &self.0.settings;
        self.lock()
            .granted
            .as_ref()
            .filter(|granted| settings.site_id.is_empty() || settings.site_id == granted.site_id)
            .and_then(part)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder of this lock panics")
    }
}

fn set(secret: &Secret) -> Option<Secret> {
    (!secret.is_empty()).then(|| secret.clone())
}

/// `https://HOST/ENTITY`, each segment percent-encoded.
#[must_use]
pub(super) fn entity_url(host_url: &str, entity: &str) -> String {
    let segments: Vec<_> = entity.split('/').map(percent_encoded).collect();
    format!("{host_url}/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::thread;

    use super::*;
    use crate::config::Config;

    fn credentials(site_file: &str) -> Credentials {
        let config = Config::from_layers(&[(Path::new("site.toml"), site_file)]).unwrap();
        Credentials::from_settings(&config.site.site_id, &config.wan)
    }

    fn granted(site_id: &str) -> Granted {
        Granted {
            site_id: site_id.into(),
            api_token: Some(Secret::new("granted-token")),
            bus: Some(BusAccess::Sas {
                token: Secret::new("SharedAccessSignature sr=x"),
                expires_at_s: 7,
            }),
            media_sas: Some(Secret::new("sv=1&sig=x")),
            ..Granted::default()
        }
    }

    #[test]
    fn nothing_set_is_nothing_to_show_until_enrolment_brings_it() {
        let credentials = credentials("");
        assert_eq!(
            credentials.missing_for(Worker::Pull),
            Some("site.site_id is empty")
        );
        assert_eq!(credentials.missing_for(Worker::Media), None);
        assert_eq!(credentials.bus_entity(), None);
        credentials.grant(Some(granted("s1")));
        assert_eq!(credentials.site_id().as_deref(), Some("s1"));
        assert_eq!(credentials.bus_entity().as_deref(), Some("site-s1"));
        for worker in Worker::ALL {
            let is_optional = matches!(worker, Worker::Logs | Worker::Support);
            let missing = credentials.missing_for(worker);
            assert_eq!(missing.is_some(), is_optional, "{worker:?}");
        }
        assert!(credentials.api().unwrap().is_renewable);
        credentials.grant(None);
        assert!(credentials.api().is_none());
        assert_eq!(credentials.version(), 2);
    }

    #[test]
    fn the_installers_choice_goes_first() {
        let credentials = credentials(
            "[site]\nsite_id = 's1'\n[wan]\ntoken = 'own'\n[wan.bus]\nqueue = 'q'\nkey_name = 'n'\nkey = 'k'\n",
        );
        credentials.grant(Some(granted("s1")));
        let api = credentials.api().unwrap();
        assert_eq!(api.token.expose(), "own");
        assert!(!api.is_renewable);
        assert_eq!(credentials.bus_entity().as_deref(), Some("q"));
        assert_eq!(credentials.support_entity(), SUPPORT_ENTITY);
        let named = Granted {
            support_entity: Some("granted-queue".into()),
            ..granted("s1")
        };
        credentials.grant(Some(named));
        assert_eq!(credentials.support_entity(), "granted-queue");
        assert!(matches!(credentials.bus(), Some(BusAccess::Key { name, .. }) if name == "n"));
        assert!(
            credentials.media_sas().is_some(),
            "what is not set comes from enrolment"
        );
    }

    #[test]
    fn a_grant_for_another_site_is_not_mixed_in() {
        let credentials = credentials("[site]\nsite_id = 's1'\n");
        credentials.grant(Some(granted("s2")));
        assert_eq!(credentials.site_id().as_deref(), Some("s1"));
        assert!(credentials.api_token().is_none());
        assert!(credentials.media_sas().is_none());
    }

    #[test]
    fn a_change_wakes_who_waits_and_a_refusal_is_of_one_version() {
        let credentials = credentials("");
        let waiting = thread::spawn({
            let credentials = credentials.clone();
            move || credentials.wait_change(0, Duration::from_secs(60))
        });
        credentials.grant(Some(granted("s1")));
        assert!(waiting.join().unwrap());
        assert!(!credentials.wait_change(1, Duration::ZERO));
        credentials.refused(0);
        assert!(!credentials.is_refused(), "that was an older token");
        credentials.refused(1);
        assert!(credentials.is_refused());
        let mut other = granted("s1");
        other.api_token = Some(Secret::new("next"));
        credentials.grant(Some(other));
        assert!(!credentials.is_refused());
    }

    #[test]
    fn an_entity_keeps_its_slashes() {
        let url = |entity| entity_url("https://ns.example", entity);
        assert_eq!(url("site-1"), "https://ns.example/site-1");
        assert_eq!(
            url("t 1/subscriptions/$s"),
            "https://ns.example/t%201/subscriptions/%24s"
        );
    }
}
