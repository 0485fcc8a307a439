//! Carrying an order out: one piece of work a step.

use std::time::Duration;

use super::Rollouts;
use super::bundle::{FetchBundleError, Fetched};
use super::ddi::Report;
use super::decide::{self, Hold, MAX_BUSY, MAX_MISSES};
use super::documents::Handling;
use super::record::{self, Order, Stage};
use super::show::{percent, quarter};
use super::updater::{InstallBundleError, Standing};
use crate::clock::Clock as _;
use crate::store::OrderState;
use crate::telemetry::{Code, UpdateState, UpdateWait, chain};
use crate::units::ByteSize;
use crate::wan::egress::{Cause, EgressError};
use crate::wan::time::Quality;
use crate::wan::worker::{Life, Next, StepError};

/// A trial is looked at this often; the gate that decides it is another process.
const LOOK_AT_TRIAL: Duration = Duration::from_secs(2);
/// Whether a device works on an order is looked at this often.
const LOOK_FOR_QUIET: Duration = Duration::from_secs(5);
/// Somebody else's update is waited for this long at a time.
const LOOK_AT_OTHER: Duration = Duration::from_secs(30);
/// The window is looked at again at least this often: the clock may have been set meanwhile.
const LOOK_AT_WINDOW: Duration = Duration::from_secs(600);
/// Room on the disk is looked for this often.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(600);
/// An address that was refused is asked for anew this often.
const LOOK_AT_ADDRESS: Duration = Duration::from_secs(60);
/// What is told while a bundle comes in.
const FETCHING: &str = "fetching";
/// RAUC says nothing for so long at most while it writes an image.
const INSTALL_SILENCE: Duration = Duration::from_secs(20 * 60);
/// Answers in a row that the bundle is not there, after which the order is given up.
const MAX_REFUSALS: u32 = 3;
/// A watchdog's worth of bytes.
const LIFE_BYTES: u64 = 64 * 1024;

impl Rollouts {
    /// One piece of work on the order.
    pub(super) fn advance(&mut self, standing: &Standing, life: &Life) -> Result<Next, StepError> {
        let Some(order) = self.records.now.order.clone() else {
            return Ok(self.until(None));
        };
        match &order.stage {
            Stage::Ended { success, detail } => self.close(&order, *success, detail),
            Stage::Fetching => self.fetch(order, life),
            Stage::Fetched => self.install_when_due(&order, standing, life),
            // The judge has looked at it: this boot's installation ended without us.
            Stage::Installing { .. } => Ok(Next::Again),
            Stage::Written { boot_id } if *boot_id == standing.boot_id => {
                self.restart_when_quiet(&order)
            }
            Stage::Written { .. } | Stage::Unknown => {
                self.show_state(UpdateState::OnTrial);
                self.tell(
                    &order,
                    "proceeding",
                    None,
                    "on trial: runs and is not kept yet",
                );
                Ok(self.until(Some(LOOK_AT_TRIAL)))
            }
        }
    }

    fn fetch(&mut self, mut order: Order, life: &Life) -> Result<Next, StepError> {
        let Some(artifact) = order.artifact.clone() else {
            self.end(false, "the order holds no bundle".to_owned())?;
            return Ok(Next::Again);
        };
        if order.terms.download == Handling::Skip {
            self.show(None, Some(UpdateWait::Platform));
            return Ok(self.until(None));
        }
        let (clock, poll_at) = (self.ddi.time.clone(), self.poll_at);
        let (ddi, board) = (&self.ddi, &self.telemetry.update);
        let (mut unsigned, mut before) = (0, self.bundle.had());
        let mut told = order.told.clone();
        let mut go_on = |had: u64| {
            // A trickle is no life: the watchdog then ends the transfer, which goes on later.
            unsigned += had.saturating_sub(before);
            before = had;
            if unsigned >= LIFE_BYTES {
                unsigned = 0;
                life.sign();
            }
            let percent = percent(had, artifact.size);
            board.write(|status| {
                if let Some(ordered) = &mut status.ordered {
                    ordered.percent = Some(percent);
                }
            });
            // Told once bytes come: before that there is nothing new, however often it is tried.
            let reached = quarter(had, artifact.size);
            let key = told_key("download", Some(reached), FETCHING);
            if told != key {
                told = key;
                let report = Report {
                    execution: "download",
                    finished: "none",
                    percent: Some(reached),
                    detail: FETCHING,
                };
                if let Err(error) = ddi.report("deploymentBase", &order.action_id, report) {
                    tracing::debug!(event = "rollouts.report_failed", error = chain(&error));
                }
            }
            // The platform may have thought better of it.
            clock.monotonic() < poll_at
        };
        let result = self
            .bundle
            .fetch(ddi, &artifact, &mut order.etag, &mut go_on);
        if let Some(known) = &mut self.records.now.order
            && (known.etag != order.etag || known.told != told)
        {
            known.etag.clone_from(&order.etag);
            known.told = told;
            self.records.keep()?;
        }
        match result {
            Ok(Fetched::Whole) => {
                self.refusals = 0;
                self.enter(Stage::Fetched)?;
                self.tell(&order, "downloaded", None, "fetched, SHA-256 verified");
            }
            Ok(Fetched::Paused) => {}
            Ok(Fetched::Another(why)) => self.miss(why)?,
            Err(FetchBundleError::Address(status)) => {
                tracing::warn!(event = "rollouts.address_refused", status);
                let detail = format!("the bundle's own address answers HTTP {status}");
                self.tell(&order, "proceeding", None, &detail);
                self.show(None, Some(UpdateWait::Platform));
                return Ok(self.until(Some(LOOK_AT_ADDRESS)));
            }
            Err(FetchBundleError::Egress(error)) => return self.refused(error),
            Err(FetchBundleError::Room(error)) => {
                tracing::warn!(event = "rollouts.no_room", error = chain(&error));
                // Orders come first; without a figure that changes, so that it is told once.
                self.bundle.clear();
                let size = ByteSize::bytes(artifact.size);
                let detail = format!("no room on the box's disk for a bundle of {size}");
                self.tell(&order, "proceeding", None, &detail);
                self.show(None, Some(UpdateWait::Room));
                return Ok(self.until(Some(LOOK_FOR_ROOM)));
            }
            Err(FetchBundleError::Disk(error)) => return Err(error.into()),
        }
        Ok(Next::Again)
    }

    /// A download that was not what was announced.
    fn miss(&mut self, why: &str) -> Result<(), StepError> {
        tracing::warn!(event = "rollouts.bundle_refused", why);
        let Some(order) = &mut self.records.now.order else {
            return Ok(());
        };
        order.misses += 1;
        order.etag = None;
        if order.misses >= MAX_MISSES {
            let detail = format!("{why}; tried {MAX_MISSES} times");
            return self.end(false, detail);
        }
        self.enter(Stage::Fetching)
    }

    /// A host that does not give the bundle: later, unless it says for good that there is none.
    fn refused(&mut self, error: EgressError) -> Result<Next, StepError> {
        let for_good = matches!(
            error.cause,
            Cause::NotFound | Cause::Gone | Cause::Refused | Cause::TooLarge
        );
        self.refusals = if for_good { self.refusals + 1 } else { 0 };
        // Where the platform leads out of the contract, no second try leads elsewhere.
        if self.refusals >= MAX_REFUSALS || error.cause == Cause::OutsideContract {
            self.refusals = 0;
            self.end(false, format!("the bundle can't be had: {error}"))?;
            return Ok(Next::Again);
        }
        Err(error.into())
    }

    fn install_when_due(
        &mut self,
        order: &Order,
        standing: &Standing,
        life: &Life,
    ) -> Result<Next, StepError> {
        if standing.staged.as_deref() == Some(&*order.version) {
            // It was written, by us before a cut or by hand: what is left is the restart.
            self.enter(Stage::Written {
                boot_id: standing.boot_id.clone(),
            })?;
            return Ok(Next::Again);
        }
        let time = &self.ddi.time;
        // A time that no host vouched for opens no window.
        let now_ms = (time.quality() >= Quality::Weak).then(|| time.wall_ms());
        match decide::hold(order.terms, self.update.window.as_ref(), now_ms, standing) {
            None => self.install(order, standing, life),
            Some(Hold::DownloadOnly | Hold::PlatformsWindow) => {
                self.tell(order, "downloaded", None, "fetched; waits for the platform");
                self.show(None, Some(UpdateWait::Platform));
                Ok(self.until(None))
            }
            Some(Hold::ShopsWindow(wait)) => {
                self.tell(
                    order,
                    "scheduled",
                    None,
                    "fetched; waits for the shop's quiet hours",
                );
                let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                let until_ms = now_ms.map(|now_ms| now_ms.saturating_add(wait_ms));
                self.show(until_ms, Some(UpdateWait::ShopsWindow));
                Ok(self.until(Some(wait.min(LOOK_AT_WINDOW))))
            }
            Some(Hold::OtherUpdate) => {
                self.tell(
                    order,
                    "scheduled",
                    None,
                    "fetched; waits for another update",
                );
                self.show(None, Some(UpdateWait::OtherUpdate));
                Ok(self.until(Some(LOOK_AT_OTHER)))
            }
        }
    }

    fn install(
        &mut self,
        order: &Order,
        standing: &Standing,
        life: &Life,
    ) -> Result<Next, StepError> {
        let artifact = order.artifact.as_ref();
        if !artifact.is_some_and(|artifact| self.bundle.is_whole(artifact)) {
            self.bundle.clear();
            self.miss("the bundle is not on the disk any more as it was fetched")?;
            return Ok(Next::Again);
        }
        self.tell(order, "proceeding", None, "installing");
        let boot_id = standing.boot_id.clone();
        self.enter(Stage::Installing {
            boot_id: boot_id.clone(),
        })?;
        life.sign_before_rest(INSTALL_SILENCE);
        let board = &self.telemetry.update;
        let mut progress = |percent: u8| {
            life.sign_before_rest(INSTALL_SILENCE);
            board.write(|status| {
                if let Some(ordered) = &mut status.ordered {
                    ordered.percent = Some(percent);
                }
            });
        };
        let path = self.bundle.path();
        match self.updater.install(&path, &order.version, &mut progress) {
            Ok(()) => {
                self.enter(Stage::Written { boot_id })?;
                self.bundle.clear();
                self.tell(
                    order,
                    "proceeding",
                    None,
                    "installed; restarts into the trial",
                );
                Ok(Next::Again)
            }
            Err(InstallBundleError::Busy) => {
                self.enter(Stage::Fetched)?;
                self.show(None, Some(UpdateWait::OtherUpdate));
                Ok(self.until(Some(LOOK_AT_OTHER)))
            }
            Err(InstallBundleError::Refused(why)) => {
                self.end(false, why)?;
                Ok(Next::Again)
            }
        }
    }

    /// A restart takes the shop's screens away for a minute: not while a device works on an order, if that ends in time.
    fn restart_when_quiet(&mut self, order: &Order) -> Result<Next, StepError> {
        let now = self.ddi.time.monotonic();
        let due = *self.restart_due.get_or_insert(now);
        let is_busy = self.orders.open_orders()?.iter().any(|count| {
            let at_work = matches!(count.state, OrderState::Accepted | OrderState::InProgress);
            at_work && count.orders > 0
        });
        if is_busy && now.saturating_sub(due) < MAX_BUSY {
            self.show(None, Some(UpdateWait::QuietMoment));
            return Ok(self.until(Some(LOOK_FOR_QUIET)));
        }
        tracing::info!(
            event = "rollouts.restart_asked",
            version = order.version,
            is_busy
        );
        self.updater.restart();
        Ok(self.until(Some(LOOK_FOR_QUIET)))
    }

    /// Tells the end until it is heard, then forgets the order and gives its space back.
    fn close(&mut self, order: &Order, success: bool, detail: &str) -> Result<Next, StepError> {
        let report = Report {
            execution: "closed",
            finished: if success { "success" } else { "failure" },
            percent: None,
            detail,
        };
        let was_known = self
            .ddi
            .report("deploymentBase", &order.action_id, report)?;
        tracing::info!(
            event = "rollouts.order_closed",
            action = order.action_id,
            version = order.version,
            success,
            detail,
            was_known
        );
        self.records.now.last = Some(record::Last {
            action_id: order.action_id.clone(),
            version: order.version.clone(),
            success,
            detail: detail.to_owned(),
            at_ms: self.ddi.time.wall_ms(),
        });
        let conditions = &self.telemetry.conditions;
        if success {
            conditions.clear(Code::UpdateFailed);
        } else {
            let text = format!("{}: {detail}", order.version);
            conditions.raise(Code::UpdateFailed, text, self.ddi.time.wall_ms());
        }
        self.drop_order("closed")?;
        // The platform may have the next one.
        self.poll_at = self.ddi.time.monotonic();
        Ok(Next::Again)
    }

    /// Tells how the order stands, once for each thing there is to tell. Not being heard stops nothing.
    fn tell(&mut self, order: &Order, execution: &str, percent: Option<u8>, detail: &str) {
        let key = told_key(execution, percent, detail);
        if self
            .records
            .now
            .order
            .as_ref()
            .is_none_or(|known| known.told == key)
        {
            return;
        }
        let report = Report {
            execution,
            finished: "none",
            percent,
            detail,
        };
        match self.ddi.report("deploymentBase", &order.action_id, report) {
            Ok(_) => {
                if let Some(known) = &mut self.records.now.order {
                    known.told = key;
                }
                if let Err(error) = self.records.keep() {
                    tracing::warn!(event = "rollouts.keep_failed", error = chain(&error));
                }
            }
            Err(error) => {
                tracing::debug!(event = "rollouts.report_failed", error = chain(&error));
            }
        }
    }
}

/// What was told last, to tell it once.
fn told_key(execution: &str, percent: Option<u8>, detail: &str) -> String {
    format!("{execution} {} {detail}", percent.unwrap_or(0))
}
