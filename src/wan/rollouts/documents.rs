//! What hawkBit's DDI API answers, read into what a box needs. Pure.
//!
//! Source of the shapes: eclipse-hawkbit/hawkbit, `hawkbit-ddi-api`, package `ddi.json.model`. Fields that are not used are
//! passed over; links are followed as given, but never to another place than the contract's hosts ([`Places`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::HttpsUrl;
use crate::digest::Digest;
use crate::wan::egress::{OutsideContract, within};

/// Ids and versions longer than this are nothing an operator has typed.
const MAX_NAME_CHARS: usize = 128;

/// The answer to a poll.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Poll {
    #[serde(default)]
    config: PollConfig,
    #[serde(default, rename = "_links")]
    links: BTreeMap<String, Link>,
}

#[derive(Debug, Default, Deserialize)]
struct PollConfig {
    #[serde(default)]
    polling: Polling,
}

#[derive(Debug, Default, Deserialize)]
struct Polling {
    #[serde(default)]
    sleep: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Link {
    href: String,
}

impl Poll {
    /// How long the platform wishes us to wait: `config.polling.sleep`, `HH:MM:SS`.
    pub(super) fn sleep(&self) -> Option<Duration> {
        let mut parts = self.config.polling.sleep.split(':').map(str::parse::<u64>);
        let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
        let (hours, minutes) = (
            hours.ok()?.checked_mul(3600)?,
            minutes.ok()?.checked_mul(60)?,
        );
        let seconds = hours.checked_add(minutes)?.checked_add(seconds.ok()?)?;
        parts.next().is_none().then(|| Duration::from_secs(seconds))
    }

    /// The link of this relation, as given.
    pub(super) fn link(&self, relation: &str) -> Option<&str> {
        self.links.get(relation).map(|link| &*link.href)
    }
}

/// The action a link is about: the last part of its path.
pub(super) fn action_of(href: &str) -> Option<&str> {
    let path = href.split(['?', '#']).next().unwrap_or_default();
    let id = path.rsplit('/').next().unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!id.is_empty() && id.len() <= MAX_NAME_CHARS && id.chars().all(fits)).then_some(id)
}

/// `skip`, `attempt` or `forced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Handling {
    /// Not now.
    Skip,
    /// When it suits the shop.
    Attempt,
    /// At once.
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MaintenanceWindow {
    Available,
    Unavailable,
}

/// `GET deploymentBase/{id}` and `GET confirmationBase/{id}`.
#[derive(Debug, Deserialize)]
pub(super) struct DeploymentDocument {
    id: String,
    #[serde(alias = "confirmation")]
    deployment: Deployment,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deployment {
    download: Handling,
    update: Handling,
    maintenance_window: Option<MaintenanceWindow>,
    #[serde(default)]
    chunks: Vec<Chunk>,
}

#[derive(Debug, Deserialize)]
struct Chunk {
    version: String,
    #[serde(default)]
    artifacts: Vec<ArtifactDocument>,
}

#[derive(Debug, Deserialize)]
struct ArtifactDocument {
    filename: String,
    size: u64,
    hashes: Hashes,
    #[serde(default, rename = "_links")]
    links: BTreeMap<String, Link>,
}

#[derive(Debug, Default, Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

/// When what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) download: Handling,
    pub(super) update: Handling,
    /// The platform has a maintenance window and it is closed.
    pub(super) window_closed: bool,
}

impl Terms {
    /// To be fetched and no more.
    pub(super) fn is_download_only(self) -> bool {
        self.update == Handling::Skip && !self.window_closed
    }
}

/// The bundle that is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Artifact {
    pub(super) size: u64,
    pub(super) sha256: Digest,
    pub(super) url: String,
}

/// A deployment that a box can't carry out, in words for the platform's operator.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnusableOrder {
    #[error("the order holds {0} bundles where a box needs one")]
    NotOneBundle(usize),
    #[error("the version has no name of at most {MAX_NAME_CHARS} printable characters")]
    Version,
    #[error("{0} has no SHA-256")]
    NoHash(String),
    #[error("{0} has no download link")]
    NoLink(String),
    #[error("the bundle has {size} bytes, more than the {limit} that are allowed")]
    TooLarge { size: u64, limit: u64 },
    #[error("the bundle's address is refused: {0}")]
    Outside(#[from] OutsideContract),
}

impl DeploymentDocument {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            download: self.deployment.download,
            update: self.deployment.update,
            window_closed: self.deployment.maintenance_window
                == Some(MaintenanceWindow::Unavailable),
        }
    }

    /// The version that is ordered and its bundle: the one `.raucb`, or the one file there is.
    pub(super) fn bundle(
        &self,
        places: &Places,
        limit: u64,
    ) -> Result<(String, Artifact), UnusableOrder> {
        let all: Vec<_> = self
            .deployment
            .chunks
            .iter()
            .flat_map(|chunk| {
                chunk
                    .artifacts
                    .iter()
                    .map(move |artifact| (chunk, artifact))
            })
            .collect();
        let bundles: Vec<_> = all
            .iter()
            .filter(|(_, artifact)| artifact.filename.ends_with(".raucb"))
            .collect();
        let (chunk, artifact) = match (&bundles[..], &all[..]) {
            ([one], _) => **one,
            ([], [one]) => *one,
            _ => return Err(UnusableOrder::NotOneBundle(bundles.len())),
        };
        let version = chunk.version.trim();
        let is_name = !version.is_empty()
            && version.chars().count() <= MAX_NAME_CHARS
            && !version.chars().any(char::is_control);
        if !is_name {
            return Err(UnusableOrder::Version);
        }
        let name = || artifact.filename.chars().take(MAX_NAME_CHARS).collect();
        let hash = artifact.hashes.sha256.as_deref().unwrap_or_default();
        let sha256 = hash.parse().map_err(|_| UnusableOrder::NoHash(name()))?;
        if artifact.size > limit {
            let size = artifact.size;
            return Err(UnusableOrder::TooLarge { size, limit });
        }
        // `download-http` is the plain one, where a hawkBit offers it.
        let link = artifact.links.get("download");
        let link = link.ok_or_else(|| UnusableOrder::NoLink(name()))?;
        places.of(&link.href)?;
        let artifact = Artifact {
            size: artifact.size,
            sha256,
            url: link.href.clone(),
        };
        Ok((version.to_owned(), artifact))
    }
}

/// The places that a bundle may come from.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) api: HttpsUrl,
    pub(super) media: HttpsUrl,
}

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The API's host.
    Api,
    /// The media host, to which no credential of the API goes.
    Media,
}

impl Places {
    /// Where `url` is; an address away from both is refused.
    pub(super) fn of(&self, url: &str) -> Result<Place, OutsideContract> {
        let media = |_| within(url, &self.media).map(|_| Place::Media);
        within(url, &self.api).map(|_| Place::Api).or_else(media)
    }
}

/// Whether `ordered` is an older version than `running`: both begin with numbers between dots, and those are less. Labels
/// that do not begin so can't be compared and are no downgrade.
pub(super) fn is_older(ordered: &str, running: &str) -> bool {
    let numbers = |label: &str| -> Vec<u64> {
        label
            .trim_start_matches('v')
            .split(['-', '+', ' '])
            .next()
            .unwrap_or_default()
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect()
    };
    let (ordered, running) = (numbers(ordered), numbers(running));
    !ordered.is_empty() && !running.is_empty() && ordered < running
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn places() -> Places {
        Places {
            api: HttpsUrl::parse("https://api.example").unwrap(),
            media: HttpsUrl::parse("https://media.example:8443").unwrap(),
        }
    }

    fn deployment(artifacts: &Value) -> DeploymentDocument {
        serde_json::from_value(json!({"id": "7", "deployment": {
            "download": "attempt", "update": "skip", "maintenanceWindow": "unavailable",
            "chunks": [{"part": "os", "version": "2.0", "name": "box", "artifacts": artifacts}],
        }}))
        .unwrap()
    }

    fn artifact(filename: &str, href: &str) -> Value {
        json!({"filename": filename, "size": 10, "hashes": {"sha1": "x", "sha256": "ab".repeat(32)},
               "_links": {"download": {"href": href}, "md5sum-http": {"href": "http://x"}}})
    }

    #[test]
    fn a_poll_says_how_long_to_wait_and_what_there_is() {
        let poll: Poll = serde_json::from_value(json!({
            "config": {"polling": {"sleep": "01:02:03"}},
            "_links": {"deploymentBase": {"href": "https://api.example/DEFAULT/controller/v1/b/deploymentBase/12?c=-3"}},
        }))
        .unwrap();
        assert_eq!(poll.sleep(), Some(Duration::from_secs(3723)));
        assert_eq!(action_of(poll.link("deploymentBase").unwrap()), Some("12"));
        assert_eq!(poll.link("cancelAction"), None);
        let poor: Poll = serde_json::from_str("{}").unwrap();
        assert_eq!(poor.sleep(), None);
        let most = format!("0:{0}:{0}", u64::MAX);
        let endless = json!({"config": {"polling": {"sleep": most}}});
        let endless: Poll = serde_json::from_value(endless).unwrap();
        assert_eq!(endless.sleep(), None);
        assert_eq!(action_of("https://api.example/x/..%2f"), None);
    }

    #[test]
    fn an_order_is_one_bundle_with_a_hash_on_a_known_host() {
        let order = deployment(&json!([
            artifact("notes.txt", "https://api.example/n"),
            artifact("box.raucb", "https://API.example:443/b"),
        ]));
        assert_eq!(order.id(), "7");
        let terms = order.terms();
        assert_eq!(
            (terms.download, terms.update, terms.window_closed),
            (Handling::Attempt, Handling::Skip, true)
        );
        let (version, bundle) = order.bundle(&places(), 10).unwrap();
        assert_eq!((&*version, bundle.size), ("2.0", 10));
        assert_eq!(bundle.url, "https://API.example:443/b");
        assert_eq!(
            order.bundle(&places(), 9),
            Err(UnusableOrder::TooLarge { size: 10, limit: 9 })
        );
    }

    #[test]
    fn what_a_box_cannot_carry_out_is_said_and_not_tried() {
        let refused = |artifacts: Value| deployment(&artifacts).bundle(&places(), 99).unwrap_err();
        assert_eq!(refused(json!([])), UnusableOrder::NotOneBundle(0));
        let two = json!([
            artifact("a.raucb", "https://api.example/a"),
            artifact("b.raucb", "https://api.example/b")
        ]);
        assert_eq!(refused(two), UnusableOrder::NotOneBundle(2));
        let mut bare = artifact("a.raucb", "https://api.example/a");
        bare["hashes"] = json!({"md5": "x"});
        assert_eq!(
            refused(json!([bare])),
            UnusableOrder::NoHash("a.raucb".into())
        );
        for (href, host) in [
            ("https://evil.example/a", "evil.example:443"),
            ("https://api.example:8443/a", "api.example:8443"),
            ("https://media.example/a", "media.example:443"),
            ("http://api.example/a", "api.example:80"),
        ] {
            let error = refused(json!([artifact("a.raucb", href)])).to_string();
            assert!(
                error.contains(&format!(": {host} is no host")),
                "{href}: {error}"
            );
        }
        let mut linkless = artifact("a.raucb", "");
        linkless["_links"] = json!({"download-http": {"href": "https://api.example/a"}});
        let error = refused(json!([linkless]));
        assert_eq!(error, UnusableOrder::NoLink("a.raucb".into()));
    }

    #[test]
    fn only_numbers_can_be_older() {
        assert!(is_older("1.9.9", "1.10.0"));
        assert!(is_older("v1.2", "1.2.1-rc1+abc"));
        assert!(!is_older("1.10.0", "1.10.0"));
        assert!(!is_older("2.0-beta", "1.9"));
        assert!(!is_older("test-good", "1.0"));
    }
}
