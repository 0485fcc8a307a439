//! How a roll-out stands: told by the WAN side, shown by the front page and `comptoir update status`.

use std::sync::{Arc, Mutex};

use serde::Serialize;

/// How roll-outs stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UpdateStatus {
    /// The order under way.
    pub ordered: Option<OrderedUpdate>,
    /// How the last one ended.
    pub last: Option<LastUpdate>,
}

/// A version that the platform has ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderedUpdate {
    /// Which.
    pub version: String,
    /// How far it has come.
    pub state: UpdateState,
    /// Of the download or of the installation, in per cent.
    pub percent: Option<u8>,
    /// Why it does not go on at this moment.
    pub waits_for: Option<UpdateWait>,
    /// When the shop's window opens, milliseconds since 1970; with [`UpdateWait::ShopsWindow`].
    pub waits_until_ms: Option<i64>,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// The bundle comes in.
    Fetching,
    /// It is here, whole and verified.
    Fetched,
    /// It is being written to the other slot.
    Installing,
    /// It is written; the box restarts.
    Restarting,
    /// It runs and is not kept yet.
    OnTrial,
    /// It is decided, and the platform is to be told.
    Ended,
}

/// What an order waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateWait {
    /// The platform's word.
    Platform,
    /// The shop's quiet hours.
    ShopsWindow,
    /// Another update that is on its way.
    OtherUpdate,
    /// A moment in which no device works on an order.
    QuietMoment,
    /// Room on the disk.
    Room,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastUpdate {
    /// Which version.
    pub version: String,
    /// Whether it is kept.
    pub success: bool,
    /// Why.
    pub detail: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// The board it is written on. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct UpdateBoard(Arc<Mutex<UpdateStatus>>);

impl UpdateBoard {
    /// How things stand.
    #[must_use]
    pub fn read(&self) -> UpdateStatus {
        let status = self.0.lock().expect("no holder of this lock panics");
        status.clone()
    }

    /// Changes what stands there.
    pub fn write(&self, change: impl FnOnce(&mut UpdateStatus)) {
        change(&mut self.0.lock().expect("no holder of this lock panics"));
    }
}
