//! Prices with dates: switched by the box's own clock when their moment comes, whether the internet is there or not.
//!
//! The task sleeps until the next date the catalogue knows, and looks sooner when documents change. It never sleeps long:
//! the clock may be set meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use super::house::{House, blocking};
use super::problem::Problem;
use crate::store::StoreEvent;

/// The longest sleep: after a step of the clock prices are right again by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);
/// After a write that was refused.
const RETRY: Duration = Duration::from_secs(1);
/// Changes that follow each other closely are looked at together.
const SETTLE: Duration = Duration::from_millis(250);

/// Switches prices until the shutdown.
pub async fn switch(house: Arc<House>) {
    let mut events = house.store.events.subscribe();
    loop {
        let wait = look(&house).await;
        tokio::select! {
            () = house.shutdown.triggered() => return,
            () = tokio::time::sleep(wait) => {}
            () = changed(&mut events) => tokio::time::sleep(SETTLE.min(wait)).await,
        }
    }
}

/// Returns when documents have changed; never when nobody tells any more.
async fn changed(events: &mut tokio::sync::broadcast::Receiver<StoreEvent>) {
    loop {
        match events.recv().await {
            Ok(StoreEvent::Catalogue { .. }) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Switches what is due; how long there is nothing to do then.
async fn look(house: &Arc<House>) -> Duration {
    loop {
        match switch_due(house).await {
            Ok(Some(0)) => {}
            Ok(Some(documents)) => info!(event = "lan.prices_switched", documents),
            Ok(None) => break,
            Err(problem) => {
                warn!(
                    event = "lan.prices_not_switched",
                    problem = problem.kind.urn()
                );
                return RETRY;
            }
        }
    }
    match house.store.catalogue.next_switch_ms() {
        Ok(Some(next_ms)) => {
            let left = next_ms.saturating_sub(house.clock.wall_ms());
            Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(LONGEST_SLEEP)
        }
        Ok(None) => LONGEST_SLEEP,
        Err(_) => RETRY,
    }
}

/// One slice of what is due: how many prices are others now; `None` when nothing is due.
async fn switch_due(house: &Arc<House>) -> Result<Option<usize>, Box<Problem>> {
    let now_ms = house.clock.wall_ms();
    let catalogue = house.store.catalogue.clone();
    let is_due = blocking(move || {
        let due = catalogue.next_switch_ms()?.is_some_and(|at| at <= now_ms);
        Ok::<_, Box<Problem>>(due || catalogue.was_set_back(now_ms)?)
    })
    .await??;
    if !is_due {
        return Ok(None);
    }
    Ok(Some(house.store.catalogue.switch_prices(now_ms).await?))
}
