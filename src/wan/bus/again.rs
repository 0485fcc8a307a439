//! Documents that could not be had when their claim check came: fetched again until the order is one.
//!
//! ```text
//!   parked, its document missing --due--> fetch --the document--> taken: a new order, one that is here, or parked for
//!        ^                                  |                      another fault, which is told
//!        '--- put off, waits double --------' not there, not the one announced, host or network fails
//! ```
//! At once after it was parked (a document may come just after its message), then by the back-off, as long as the inbox
//! keeps the message. One at a time, on a thread of its own: what is fetched again delays no order that comes. Until then
//! `bus.order_document_missing` holds.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::identity::dice;
use crate::store::Orders;
use crate::store::orders::{Content, DueClaim, ParkCode};
use crate::telemetry::Telemetry;
use crate::wan::time::{PlatformTime, milliseconds};
use crate::wan::worker::{Life, Next, StepError, Work};

use super::claim::{self, Claims};
use super::report::OrdersReport;

/// Between two looks for what is due: also how long a person waits who asked for it.
const LOOK: Duration = Duration::from_secs(5);

/// The worker.
pub(in crate::wan) struct ClaimsAgain {
    claims: Claims,
    orders: Orders,
    retry: Backoff,
    time: PlatformTime,
    report: OrdersReport,
}

impl ClaimsAgain {
    pub(in crate::wan) fn new(
        claims: Claims,
        orders: Orders,
        retry: Backoff,
        time: PlatformTime,
        telemetry: &Telemetry,
    ) -> Self {
        Self {
            claims,
            orders,
            retry,
            time,
            report: OrdersReport::of_claims(telemetry),
        }
    }

    /// What the document is, or why there is still none and how long the host wants to be left alone.
    fn look_up(&self, due: &DueClaim) -> Result<Content, (String, Duration)> {
        let Some(claim) = claim::read(&due.message.body) else {
            // It was a claim check when it was parked; judged as it is, it says what is wrong.
            return Ok(Content::Itself);
        };
        match self.claims.fetch(&claim) {
            Ok(Content::Missing {
                why: ParkCode::NoDocument,
                reason,
            }) => Err((reason, Duration::ZERO)),
            Ok(content) => Ok(content),
            Err(error) => Err((
                format!("its document can't be fetched: {}", error.cause.as_str()),
                error.retry_after.unwrap_or_default(),
            )),
        }
    }
}

impl Work for ClaimsAgain {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let now_ms = self.time.now_ms();
        let longest_ms = milliseconds(self.retry.longest());
        let Some(due) = self.orders.claim_due(now_ms, longest_ms)? else {
            self.report.look(&self.orders, now_ms)?;
            return Ok(Next::Rest(LOOK));
        };
        let looked_up = self.look_up(&due);
        life.sign();
        match looked_up {
            Ok(content) => {
                let taken = self.orders.claim_take(due.message, content).wait()?;
                if let Some(received) = taken {
                    self.report.took(&received);
                }
            }
            Err((reason, asked)) => {
                let tries = due.tries.saturating_add(1);
                let wait = self.retry.wait(tries, dice()).max(asked);
                let wait_ms = milliseconds(wait.min(self.retry.longest()));
                tracing::info!(
                    event = "orders.document_still_missing",
                    reason,
                    tries,
                    wait_ms
                );
                let due_ms = self.time.now_ms().saturating_add(wait_ms);
                self.orders
                    .claim_put_off(&due.message.message_id, reason, due_ms)
                    .wait()?;
            }
        }
        self.report.look(&self.orders, self.time.now_ms())?;
        Ok(Next::Again)
    }

    /// What its document's host says is told by the message's own condition.
    fn tells_outcomes(&self) -> bool {
        true
    }
}
