//! Roll-outs: the platform orders a version by hawkBit's DDI API; the box fetches the bundle, has it installed, restarts
//! into its trial, and tells what became of it.
//!
//! ```text
//!  poll ──▶ order ──▶ Fetching ──▶ Fetched ──▶ Installing ──▶ Written ──▶ restart ──▶ trial ──▶ Ended ──▶ told
//!   ▲         │ unusable, failed here before,     │ windows, other updates            kept: success │
//!   │         │ older, runs already ──────────────┴── refused by RAUC ──────── left: failure, why ──┤
//!   └────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! # Invariants
//! - RAUC is never shown a file that is not whole and of the announced SHA-256; RAUC then checks the signature.
//! - `closed/success` is told only when the version runs and is kept; a rollback is `closed/failure` with its reason.
//! - Every stage is durable before what it stands for begins ([`record`]): after a power cut in any of them the same action
//!   goes on, and its end is told until the platform has heard it.
//! - Credentials go to the API's host only; a bundle comes from the contract's hosts only ([`documents::Places`]).
//! - A cancellation is granted as long as nothing is written to a slot, and refused after that.

mod bundle;
mod carry;
mod ddi;
mod decide;
mod documents;
mod intake;
mod record;
mod show;
mod updater;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock as _;
use crate::config::{RolloutsConfig, UpdateConfig, WanConfig};
use crate::durable::ReplaceFileError;
use crate::identity::dice;
use crate::store::{Orders, Room};
use crate::telemetry::{Code, Telemetry};
use crate::wan::credentials::Credentials;
use crate::wan::egress::Client;
use crate::wan::time::PlatformTime;
use crate::wan::worker::{Life, Next, StepError, Work};

use bundle::BundleDir;
use ddi::{Ddi, Report};
use decide::Means;
use documents::Places;
use record::{Order, Records, Stage};

pub use show::status_on_disk;
pub use updater::{InstallBundleError, Standing, Updater};

/// The platform's wish when it has none: hawkBit's default.
const POLL_DEFAULT: Duration = Duration::from_secs(300);

/// What roll-outs work with.
pub(super) struct RolloutParts {
    pub(super) client: Client,
    pub(super) media_client: Client,
    pub(super) wan: WanConfig,
    pub(super) update: UpdateConfig,
    pub(super) credentials: Credentials,
    pub(super) box_id: String,
    pub(super) data_dir: PathBuf,
    pub(super) orders: Orders,
    pub(super) room: Arc<Room>,
    pub(super) time: PlatformTime,
    pub(super) telemetry: Telemetry,
    pub(super) updater: Box<dyn Updater>,
}

/// The worker.
pub(super) struct Rollouts {
    ddi: Ddi,
    config: RolloutsConfig,
    update: UpdateConfig,
    records: Records,
    bundle: BundleDir,
    orders: Orders,
    updater: Box<dyn Updater>,
    telemetry: Telemetry,
    /// Monotonic time of the next poll.
    poll_at: Duration,
    /// Monotonic time since when a restart is due.
    restart_due: Option<Duration>,
    refusals: u32,
}

impl From<ReplaceFileError> for StepError {
    fn from(error: ReplaceFileError) -> Self {
        Self::Disk(std::io::Error::other(error))
    }
}

impl Rollouts {
    pub(super) fn new(parts: RolloutParts) -> Self {
        let places = Places {
            api: parts.wan.api_url.clone(),
            media: parts.wan.media_url.clone(),
        };
        let poll_at = parts.time.monotonic();
        let rollouts = Self {
            ddi: Ddi {
                client: parts.client,
                media_client: parts.media_client,
                places,
                credentials: parts.credentials,
                config: parts.wan.rollouts.clone(),
                box_id: parts.box_id,
                time: parts.time,
            },
            config: parts.wan.rollouts,
            update: parts.update,
            records: Records::load(&parts.data_dir),
            bundle: BundleDir::new(&parts.data_dir, parts.room),
            orders: parts.orders,
            updater: parts.updater,
            poll_at,
            telemetry: parts.telemetry,
            restart_due: None,
            refusals: 0,
        };
        if let Some(last) = rollouts.records.now.last.as_ref()
            && !last.success
        {
            let text = format!("{}: {}", last.version, last.detail);
            let conditions = &rollouts.telemetry.conditions;
            conditions.raise(Code::UpdateFailed, text, last.at_ms);
        }
        rollouts.show(None, None);
        rollouts
    }

    /// The stage moves on; durable when this returns.
    fn enter(&mut self, stage: Stage) -> Result<(), StepError> {
        if let Some(order) = &mut self.records.now.order {
            tracing::info!(
                event = "rollouts.stage_entered",
                action = order.action_id,
                version = order.version,
                ?stage
            );
            order.stage = stage;
        }
        self.records.keep()?;
        self.show(None, None);
        Ok(())
    }

    fn end(&mut self, success: bool, detail: String) -> Result<(), StepError> {
        if !success {
            tracing::warn!(event = "rollouts.order_failed", detail);
        }
        self.enter(Stage::Ended { success, detail })?;
        // The platform may be out of reach for weeks; the disk need not wait for it.
        self.bundle.clear();
        Ok(())
    }

    /// Forgets an order that the platform does not want any more.
    fn drop_order(&mut self, why: &str) -> Result<(), StepError> {
        if let Some(order) = self.records.now.order.take() {
            tracing::info!(
                event = "rollouts.order_dropped",
                action = order.action_id,
                version = order.version,
                why
            );
        }
        self.bundle.clear();
        self.records.keep()?;
        self.show(None, None);
        Ok(())
    }

    /// What a boot, a commit or a rollback has decided since the last look.
    fn settle(&mut self, standing: &Standing) -> Result<(), StepError> {
        let Some(order) = &mut self.records.now.order else {
            return Ok(());
        };
        match decide::judge(order, standing) {
            Means::GoOn | Means::OnTrial => Ok(()),
            Means::InstallAgain => {
                order.interruptions += 1;
                self.enter(Stage::Fetched)
            }
            Means::Ends((success, detail)) => self.end(success, detail),
        }
    }

    /// Until the next poll, or until `look` if that is sooner.
    fn until(&self, look: Option<Duration>) -> Next {
        let until_poll = self.poll_at.saturating_sub(self.ddi.time.monotonic());
        Next::Rest(look.map_or(until_poll, |look| look.min(until_poll)))
    }

    fn schedule_poll(&mut self, wish: Option<Duration>) {
        let sleep = wish
            .unwrap_or(POLL_DEFAULT)
            .clamp(self.config.poll_min, self.config.poll_max);
        // A tenth more or less, so that the boxes of a chain do not come together.
        let tenth = sleep / 10;
        let jitter = tenth.mul_f64(2.0 * f64::from(dice()) / f64::from(u32::MAX));
        self.poll_at = self.ddi.time.monotonic() + sleep - tenth + jitter;
    }
}

impl Work for Rollouts {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let standing = self.updater.standing();
        self.settle(&standing)?;
        let is_ended = |order: &Order| matches!(order.stage, Stage::Ended { .. });
        let owes_an_end = self.records.now.order.as_ref().is_some_and(is_ended);
        if !owes_an_end && self.ddi.time.monotonic() >= self.poll_at {
            self.take_in(&standing)?;
        }
        self.advance(&standing, life)
    }
}
