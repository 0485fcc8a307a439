//! What the platform wants: orders, changed terms, questions for consent, cancellations, the box's own data.

use serde_json::json;

use super::decide::{self, Verdict, same_bytes};
use super::documents::{Artifact, DeploymentDocument, Poll, UnusableOrder, action_of};
use super::record::{Order, Stage};
use super::updater::Standing;
use super::{Report, Rollouts};
use crate::clock::Clock as _;
use crate::telemetry::{Code, chain};
use crate::wan::worker::StepError;

/// An order that a box can carry out.
struct Judged {
    version: String,
    artifact: Artifact,
    /// How it ends at once, when there is nothing to be done.
    ends: Option<Verdict>,
}

impl Rollouts {
    /// Polls, and takes in what there is.
    pub(super) fn take_in(&mut self, standing: &Standing) -> Result<(), StepError> {
        let poll: Poll = self.ddi.poll()?;
        self.schedule_poll(poll.sleep());
        let is_asked = poll.link("configData").is_some();
        if is_asked || self.records.now.told_version != standing.version {
            self.tell_who_we_are(standing)?;
        }
        if let Some(href) = poll.link("confirmationBase") {
            self.answer_confirmation(href, standing)?;
        }
        if let Some(action_id) = poll.link("cancelAction").and_then(action_of) {
            return self.cancel(action_id);
        }
        match poll.link("deploymentBase") {
            Some(href) => self.take_order(href, standing),
            None => self.miss_order(),
        }
    }

    fn tell_who_we_are(&mut self, standing: &Standing) -> Result<(), StepError> {
        let data = json!({
            "box_id": self.ddi.box_id,
            "site_id": self.ddi.credentials.site_id().unwrap_or_default(),
            "version": standing.version,
            "slot": standing.slot.as_deref().unwrap_or("none"),
            "hardware": standing.hardware,
            "channel": self.config.channel,
        });
        self.ddi.put_config_data(&data)?;
        self.records.now.told_version.clone_from(&standing.version);
        self.records.keep()?;
        Ok(())
    }

    /// The shop's staff is not asked: the installer's settings (window, downgrade) are its consent.
    fn answer_confirmation(&mut self, href: &str, standing: &Standing) -> Result<(), StepError> {
        let Some(action_id) = action_of(href) else {
            return Ok(());
        };
        let document: DeploymentDocument = self.ddi.read(href)?;
        let (consent, why) = match self.judged(&document, standing) {
            Ok(Judged {
                ends: Some((false, why)),
                ..
            }) => (false, why),
            Ok(judged) => (true, format!("version {} may come", judged.version)),
            Err(error) => (false, error.to_string()),
        };
        self.ddi.confirm(action_id, consent, &why)?;
        tracing::info!(
            event = "rollouts.consent_given",
            action = action_id,
            consent,
            why
        );
        Ok(())
    }

    fn judged(
        &self,
        document: &DeploymentDocument,
        standing: &Standing,
    ) -> Result<Judged, UnusableOrder> {
        let limit = self.config.max_bundle.as_u64();
        let (version, artifact) = document.bundle(&self.ddi.places, limit)?;
        let terms = document.terms();
        let ends = decide::judge_new(&version, terms, self.update.downgrade, standing);
        Ok(Judged {
            version,
            artifact,
            ends,
        })
    }

    fn take_order(&mut self, href: &str, standing: &Standing) -> Result<(), StepError> {
        let Some(action_id) = action_of(href) else {
            return Ok(());
        };
        if let Some(order) = &self.records.now.order {
            let is_past_return = !matches!(order.stage, Stage::Fetching | Stage::Fetched);
            if order.href == href || is_past_return {
                return Ok(());
            }
        }
        let document: DeploymentDocument = self.ddi.read(href)?;
        if document.id() != action_id {
            tracing::warn!(
                event = "rollouts.order_confused",
                action = action_id,
                named = document.id()
            );
            return Ok(());
        }
        let known = self.records.now.order.take();
        let last = self.records.now.last.as_ref();
        let told_before = last.filter(|last| last.action_id == action_id);
        let stage = |ended: Option<Verdict>| match (ended, told_before) {
            // It ended before, and the platform has not kept what it was told.
            (_, Some(last)) => Stage::Ended {
                success: last.success,
                detail: last.detail.clone(),
            },
            (Some((success, detail)), None) => Stage::Ended { success, detail },
            (None, None) => Stage::Fetching,
        };
        let order = match self.judged(&document, standing) {
            Ok(judged) => {
                let fits = same_bytes(
                    known.as_ref().and_then(|order| order.artifact.as_ref()),
                    Some(&judged.artifact),
                );
                let mut order = Order {
                    action_id: action_id.to_owned(),
                    href: href.to_owned(),
                    version: judged.version,
                    artifact: Some(judged.artifact),
                    terms: document.terms(),
                    stage: stage(judged.ends),
                    etag: None,
                    misses: 0,
                    interruptions: 0,
                    told: String::new(),
                };
                match known {
                    // The same bytes under other terms, or for another action: what is here is good.
                    Some(known) if fits && order.stage == Stage::Fetching => {
                        order.stage = known.stage;
                        order.etag = known.etag;
                        if known.action_id == order.action_id {
                            order.told = known.told;
                            order.misses = known.misses;
                            order.interruptions = known.interruptions;
                        }
                    }
                    _ => self.bundle.clear(),
                }
                order
            }
            Err(error) => {
                self.bundle.clear();
                Order {
                    action_id: action_id.to_owned(),
                    href: href.to_owned(),
                    version: String::new(),
                    artifact: None,
                    terms: document.terms(),
                    stage: stage(Some((false, error.to_string()))),
                    etag: None,
                    misses: 0,
                    interruptions: 0,
                    told: String::new(),
                }
            }
        };
        tracing::info!(event = "rollouts.order_taken", action = action_id, version = order.version, terms = ?order.terms, stage = ?order.stage);
        // The last one's failure is yesterday's; this one's end says how things stand.
        self.telemetry.conditions.clear(Code::UpdateFailed);
        self.refusals = 0;
        self.restart_due = None;
        self.records.now.order = Some(order);
        self.records.keep()?;
        self.show(None, None);
        Ok(())
    }

    /// The platform offers nothing: what it wanted before it does not want any more.
    fn miss_order(&mut self) -> Result<(), StepError> {
        match &self.records.now.order {
            // Over for the platform once it is here; it waits for the order that installs it.
            Some(Order {
                stage: Stage::Fetched,
                terms,
                ..
            }) if terms.is_download_only() => Ok(()),
            Some(Order {
                stage: Stage::Fetching | Stage::Fetched,
                ..
            }) => self.drop_order("withdrawn by the platform"),
            _ => Ok(()),
        }
    }

    fn cancel(&mut self, action_id: &str) -> Result<(), StepError> {
        let ours = self
            .records
            .now
            .order
            .as_ref()
            .filter(|order| order.action_id == action_id);
        let is_past_return = ours.is_some_and(|order| {
            !matches!(
                order.stage,
                Stage::Fetching | Stage::Fetched | Stage::Ended { .. }
            )
        });
        let report = if is_past_return {
            Report {
                execution: "rejected",
                finished: "none",
                percent: None,
                detail: "the version is already in the other slot; its trial decides",
            }
        } else {
            Report {
                execution: "closed",
                finished: "success",
                percent: None,
                detail: "nothing was installed",
            }
        };
        if !is_past_return && ours.is_some() {
            // First here: should the answer get lost, the platform asks again and gets the same one.
            self.drop_order("cancelled")?;
        }
        match self.ddi.report("cancelAction", action_id, report) {
            Ok(_) => {
                tracing::info!(
                    event = "rollouts.cancel_answered",
                    action = action_id,
                    answer = report.execution
                );
                // Whatever comes next, it is there now.
                self.poll_at = self.ddi.time.monotonic() + self.config.poll_min;
                Ok(())
            }
            Err(error) => {
                tracing::debug!(event = "rollouts.report_failed", error = chain(&error));
                Err(error.into())
            }
        }
    }
}
