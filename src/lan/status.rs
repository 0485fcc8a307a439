//! What the box says of itself on the front port: one document for programs, and the source of the page for people.
//!
//! Open to everybody in the shop's network, so it holds numbers and names of devices, never an order or a secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::day::Step;
use super::history::Minute;
use super::house::{House, blocking};
use super::problem::Problem;
use crate::clock::rfc3339;
use crate::config::LanPort;
use crate::language::Sentence;
use crate::store::blobs::MediaReport;
use crate::store::catalogue::SnapshotRun;
use crate::store::{CollectionCount, Lane, LaneCounts, StateCount};
use crate::telemetry::outgoing::StreamStatus;
use crate::telemetry::{Code, EnrolmentStatus, FlowStatus, Severity, UpdateStatus};
use crate::version;
use crate::wan::time::TimeStatus;

/// A status is this old at most; however many ask, it is put together once in this time.
const FRESH: Duration = Duration::from_secs(1);

/// A device that was not heard of for this long is shown as silent.
const SILENT_MS: i64 = 3 * 60 * 1000;

/// Devices the document names; further ones are only counted.
const MAX_DEVICES: usize = 200;

/// Conditions that show at the orders too.
const TOUCH_ORDERS: &[Code] = &[
    Code::OrderParked,
    Code::OrderDocumentMissing,
    Code::OrderConflict,
    Code::OrderVersionUnknown,
    Code::OrderTooLarge,
    Code::QueueMissing,
    Code::OutboxAged,
    Code::OutboxParked,
    Code::DeviceUnreachable,
    Code::NoDeviceForRole,
    Code::OrdersExpired,
    Code::OrdersSalvaged,
    Code::DiskFull,
    Code::DiskFailing,
];

/// How things stand, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Somebody should look some time.
    Notice,
    /// Something is impaired, the shop goes on.
    Warning,
    /// Orders or data are in danger, or devices are not served.
    Critical,
}

/// The one line.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// How bad the worst is.
    pub level: Level,
    /// Since when it is so.
    pub since_ms: i64,
    /// For people.
    pub sentence: Sentence,
}

/// One condition that holds.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// Stable code.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// Since when.
    pub since_ms: i64,
    /// For people.
    pub sentence: Sentence,
}

/// How a link to the platform stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It answered last.
    Up,
    /// It does not answer, or refuses.
    Down,
    /// The box belongs to no shop yet.
    NotEnrolled,
    /// Nothing was heard yet since the start.
    Waiting,
}

/// The platform.
#[derive(Debug, Clone, Serialize)]
pub struct Platform {
    /// The data link.
    pub data: LinkState,
    /// The direct delivery of orders.
    pub orders: LinkState,
    /// Images and videos.
    pub media: LinkState,
    /// When the pull last heard the platform.
    pub last_pull_ms: Option<i64>,
}

/// The documents.
#[derive(Debug, Clone, Serialize)]
pub struct CatalogueStatus {
    /// Documents of each collection.
    pub collections: Vec<CollectionCount>,
    /// All documents.
    pub documents: i64,
    /// Whether a first snapshot has come in whole.
    pub caught_up: bool,
    /// Seconds since the pull last heard the platform.
    pub age_s: Option<u64>,
    /// The state of the catalogue, as answers name it.
    pub version: String,
    /// A snapshot that is coming in; `null` when none is.
    pub filling: Option<Filling>,
    /// Items of the platform that could not be kept and are set aside; of many, the last hundred.
    pub set_aside: u32,
    /// All media together.
    pub media_bytes: u64,
}

/// How far a snapshot has come.
#[derive(Debug, Clone, Serialize)]
pub struct Filling {
    /// How urgent the part is that is coming in.
    pub class: String,
    /// Documents that have come.
    pub documents: u64,
    /// Of so many, as the platform announced.
    pub of_documents: u64,
    /// Bytes that have come.
    pub bytes: u64,
    /// Of a hundred.
    pub percent: u8,
}

impl Filling {
    fn of(run: &SnapshotRun) -> Self {
        let (documents, of_documents) = (run.place.documents, run.documents());
        let percent = documents.saturating_mul(100) / of_documents.max(1);
        let part = run.plan.parts.get(run.place.part);
        Self {
            class: part.map(|part| part.class.clone()).unwrap_or_default(),
            documents,
            of_documents,
            bytes: run.place.bytes,
            percent: u8::try_from(percent.min(100)).unwrap_or(100),
        }
    }
}

/// The orders.
#[derive(Debug, Clone, Serialize)]
pub struct OrdersStatus {
    /// How bad the worst is that touches orders.
    pub level: Level,
    /// Open orders by state.
    pub open: Vec<StateCount>,
    /// Open orders no device has taken yet.
    pub waiting: i64,
    /// What the platform is still to be told.
    pub to_send: i64,
    /// Set aside until somebody looks: messages of this box, and unreadable orders.
    pub parked: i64,
    /// The same lane by lane.
    pub outbox: Vec<LaneCounts>,
}

/// A device as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceStatus {
    /// Its id.
    pub device_id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// When it was last heard of since the server started.
    pub seen_at_ms: Option<i64>,
    /// Heard of in the last three minutes.
    pub present: bool,
}

/// A port of the contract.
#[derive(Debug, Clone, Serialize)]
pub struct PortStatus {
    /// Its number, as it is reached.
    pub port: u16,
    /// Its name.
    pub name: &'static str,
    /// Whether it is open.
    pub open: bool,
}

/// The document at `/status.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Which box.
    pub box_id: String,
    /// Which shop.
    pub site_id: String,
    /// What people call the shop.
    pub site_name: String,
    /// The firmware.
    pub version: &'static str,
    /// Now, by the box's clock.
    pub now: String,
    /// The same in milliseconds since 1970.
    pub now_ms: i64,
    /// When the server started.
    pub started_at_ms: i64,
    /// The one line.
    pub verdict: Verdict,
    /// Everything that is not as it should be, the worst first.
    pub conditions: Vec<Fact>,
    /// Whom the shop calls.
    pub contact: String,
    /// The platform.
    pub platform: Platform,
    /// Every flow of the network contract.
    pub flows: Vec<FlowStatus>,
    /// The documents.
    pub catalogue: CatalogueStatus,
    /// The fetching of images, videos, documents.
    pub media: MediaReport,
    /// The orders.
    pub orders: OrdersStatus,
    /// How the box stands with the platform.
    pub enrolment: EnrolmentStatus,
    /// New versions ordered by the platform.
    pub update: UpdateStatus,
    /// The devices; at most 200 are named.
    pub devices: Vec<DeviceStatus>,
    /// How many there are.
    pub device_count: usize,
    /// The ports of the contract.
    pub ports: Vec<PortStatus>,
    /// How well the time is known.
    pub time: TimeStatus,
    /// What left for support, by stream.
    pub sent: BTreeMap<&'static str, StreamStatus>,
    /// The last hour, minute by minute, oldest first.
    pub minutes: Vec<Minute>,
    /// The last day in steps of ten minutes, oldest first.
    pub day: Vec<Step>,
}

/// The latest status, shared by all who ask.
#[derive(Debug, Default)]
pub struct StatusBoard(Mutex<Option<(Instant, Arc<Status>)>>);

/// The status, at most a second old.
///
/// # Errors
/// When the store can't be read.
pub async fn status(house: &Arc<House>) -> Result<Arc<Status>, Box<Problem>> {
    let mut latest = house.board.0.lock().await;
    if let Some((at, status)) = &*latest
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(status));
    }
    let reader = Arc::clone(house);
    let status = Arc::new(blocking(move || put_together(&reader)).await??);
    *latest = Some((Instant::now(), Arc::clone(&status)));
    Ok(status)
}

fn put_together(house: &House) -> Result<Status, Box<Problem>> {
    let now_ms = house.clock.wall_ms();
    let conditions = conditions(house);
    let devices = house.store.devices.list();
    Ok(Status {
        box_id: house.identity.id().to_owned(),
        site_id: house.site_id(),
        site_name: house.site.name.clone(),
        version: version::running(),
        now: rfc3339(now_ms).unwrap_or_default(),
        now_ms,
        started_at_ms: now_ms
            .saturating_sub(i64::try_from(house.uptime().as_millis()).unwrap_or(0)),
        verdict: verdict(&conditions, house.well_since_ms()),
        conditions,
        contact: house.site.support_contact.clone(),
        platform: platform(house)?,
        flows: house.telemetry.flows.list(),
        catalogue: catalogue(house)?,
        media: house.store.blobs.report(),
        orders: orders(house)?,
        enrolment: house.telemetry.standing.enrolment(),
        update: house.telemetry.update.read(),
        device_count: devices.len(),
        devices: devices
            .iter()
            .take(MAX_DEVICES)
            .map(|device| DeviceStatus {
                device_id: device.device_id.clone(),
                name: device.name.clone(),
                role: device.role.clone(),
                seen_at_ms: device.seen_at_ms,
                present: device.seen_at_ms.is_some_and(|at| now_ms - at < SILENT_MS),
            })
            .collect(),
        ports: LanPort::ALL
            .into_iter()
            .map(|port| PortStatus {
                port: house.number_of(port),
                name: port.name(),
                open: house.open.contains(&port),
            })
            .collect(),
        time: house.time.status(),
        sent: house.telemetry.sent.list(),
        minutes: house.history.minutes(),
        day: house.day.steps(),
    })
}

fn conditions(house: &House) -> Vec<Fact> {
    house
        .telemetry
        .conditions
        .list()
        .into_iter()
        .map(|(code, condition)| Fact {
            code: code.as_str(),
            level: level(condition.severity),
            since_ms: condition.since_ms,
            sentence: Sentence {
                en: code.english(),
                fr: code.french(),
            },
        })
        .collect()
}

const fn level(severity: Severity) -> Level {
    match severity {
        Severity::Notice => Level::Notice,
        Severity::Warning => Level::Warning,
        Severity::Critical => Level::Critical,
    }
}

fn verdict(conditions: &[Fact], well_since_ms: i64) -> Verdict {
    match conditions.first() {
        None => Verdict {
            level: Level::Good,
            since_ms: well_since_ms,
            sentence: Sentence {
                en: "All is well.",
                fr: "Tout va bien.",
            },
        },
        Some(worst) => Verdict {
            level: worst.level,
            since_ms: worst.since_ms,
            sentence: worst.sentence,
        },
    }
}

fn platform(house: &House) -> Result<Platform, Box<Problem>> {
    let last_pull_ms = house.last_heard_ms()?;
    let holds = |code| house.telemetry.conditions.holds(code);
    let state = |unreachable: Code| {
        if holds(Code::NotEnrolled) {
            LinkState::NotEnrolled
        } else if holds(unreachable) || holds(Code::Unauthorized) {
            LinkState::Down
        } else if last_pull_ms.is_none() {
            LinkState::Waiting
        } else {
            LinkState::Up
        }
    };
    Ok(Platform {
        data: state(Code::ApiUnreachable),
        orders: state(Code::BusUnreachable),
        media: state(Code::MediaUnreachable),
        last_pull_ms,
    })
}

fn catalogue(house: &House) -> Result<CatalogueStatus, Box<Problem>> {
    let collections = house.store.catalogue.collections()?;
    Ok(CatalogueStatus {
        documents: collections.iter().map(|count| count.documents).sum(),
        collections,
        caught_up: house.store.catalogue.cursor()?.is_some(),
        age_s: house.catalogue_age_s(),
        version: house.store.catalogue.version().to_string(),
        filling: house
            .store
            .catalogue
            .running_snapshot()?
            .as_ref()
            .map(Filling::of),
        set_aside: house.store.catalogue.aside_count()?,
        media_bytes: house.store.blobs.total_bytes(),
    })
}

fn orders(house: &House) -> Result<OrdersStatus, Box<Problem>> {
    let touched = house.telemetry.conditions.list();
    let touched = touched
        .iter()
        .filter(|(code, _)| TOUCH_ORDERS.contains(code));
    let open = house.store.orders.open_orders()?;
    let outbox = house.store.orders.outbox_counts()?.lanes;
    let unreadable = house.store.orders.parked_messages()?;
    let waiting = open
        .iter()
        .filter(|count| count.state == crate::store::OrderState::Received)
        .map(|count| count.orders)
        .sum();
    Ok(OrdersStatus {
        level: touched
            .map(|(code, _)| level(code.severity()))
            .max()
            .unwrap_or(Level::Good),
        open,
        waiting,
        to_send: outbox
            .iter()
            .filter(|lane| !matches!(lane.lane, Lane::Events | Lane::Telemetry))
            .map(|lane| lane.waiting)
            .sum(),
        parked: outbox.iter().map(|lane| lane.parked).sum::<i64>() + unreadable,
        outbox,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_condition_is_the_verdict() {
        let sentence = Sentence { en: "x", fr: "y" };
        let fact = |level, since_ms| Fact {
            code: "a.b",
            level,
            since_ms,
            sentence,
        };
        let verdict_of = |facts: &[Fact]| {
            let verdict = verdict(facts, 100_000);
            (verdict.level, verdict.since_ms)
        };
        assert_eq!(verdict_of(&[]), (Level::Good, 100_000));
        assert_eq!(
            verdict_of(&[fact(Level::Critical, 7), fact(Level::Notice, 3)]),
            (Level::Critical, 7)
        );
    }
}
