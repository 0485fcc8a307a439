//! Port 8005: numbers and checks for support. Closed unless it was opened; no customers' data.

use std::sync::Arc;

use hyper::StatusCode;

use super::answer::{Answered, json_text, typed};
use super::house::{House, blocking};
use super::problem::{Kind, Problem};
use crate::store::disk::written_bytes;
use crate::telemetry::Metrics;

/// `GET /metrics`: Prometheus' text exposition format, version 0.0.4.
pub fn metrics(house: &House) -> Answered {
    let metrics = &house.telemetry.metrics;
    look(house, metrics)?;
    Ok(typed(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        metrics.render(),
    ))
}

/// `GET /v1/checks`: asks every question of the self-diagnosis; one asker at a time.
pub async fn checks(house: &Arc<House>) -> Answered {
    let Ok(_turn) = house.checking.try_acquire() else {
        return Err(
            Problem::new(Kind::Busy, "the checks are being run for somebody else").retry_after(5),
        );
    };
    let checks = Arc::clone(&house.checks);
    let report = blocking(move || checks()).await?;
    Ok(json_text(StatusCode::OK, report))
}

/// `GET /v1/sent`: what left the shop for support lately, word by word.
pub fn sent(house: &House) -> Answered {
    let batches = house.telemetry.sent.batches();
    let text = serde_json::to_string(&batches).expect("batches are JSON");
    Ok(json_text(StatusCode::OK, text))
}

/// Sets the gauges that are looked up when somebody asks.
fn look(house: &House, metrics: &Metrics) -> Result<(), Box<Problem>> {
    let set = |name, labels: &str, help, value| metrics.gauge(name, labels, help).set(value);
    for count in house.store.catalogue.collections()? {
        // A collection's name comes from the platform; as a label it is bounded by what the store holds.
        let name: String = count
            .collection
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c))
            .collect();
        set(
            "comptoir_documents",
            &format!("collection=\"{name}\""),
            "Documents that are not deleted.",
            count.documents,
        );
    }
    for count in house.store.orders.open_orders()? {
        set(
            "comptoir_open_orders",
            &format!("state=\"{}\"", count.state),
            "Orders that are not closed.",
            count.orders,
        );
    }
    for lane in house.store.orders.outbox_counts()?.lanes {
        let name = format!("{:?}", lane.lane).to_lowercase();
        let label = format!("lane=\"{name}\"");
        set(
            "comptoir_outbox_waiting",
            &label,
            "What the platform is to be told.",
            lane.waiting,
        );
        set(
            "comptoir_outbox_parked",
            &label,
            "Set aside until somebody looks.",
            lane.parked,
        );
    }
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let devices = house.store.devices.count() as u64;
    set("comptoir_devices", "", "Paired devices.", number(devices));
    set(
        "comptoir_blob_bytes",
        "",
        "Media on disk.",
        number(house.store.blobs.total_bytes()),
    );
    if let Some(bytes) = written_bytes() {
        set(
            "comptoir_disk_written_bytes",
            "",
            "Given to the disk to write since the server started.",
            number(bytes),
        );
        let steps = house.day.steps();
        set(
            "comptoir_disk_written_day_bytes",
            "",
            "Given to the disk to write in the last 24 hours, at most since the server started.",
            number(steps.iter().map(|step| step.written_bytes).sum()),
        );
    }
    let held = house.telemetry.conditions.list().len() as u64;
    set(
        "comptoir_conditions",
        "",
        "Conditions that hold.",
        number(held),
    );
    if let Some(age_s) = house.catalogue_age_s() {
        set(
            "comptoir_catalogue_age_seconds",
            "",
            "Since the pull last heard the platform.",
            number(age_s),
        );
    }
    set(
        "comptoir_uptime_seconds",
        "",
        "Since the server started.",
        number(house.uptime().as_secs()),
    );
    Ok(())
}
