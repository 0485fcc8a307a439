//! Port 8004: pairing, heartbeats, receipts.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use tracing::{info, warn};

use super::answer::{Answered, json};
use super::auth;
use super::house::House;
use super::orders::idempotency_key;
use super::problem::{Kind, Problem};
use super::request::{Ask, object};
use crate::clock::rfc3339;
use crate::devices::{Turn, tell_turn};
use crate::digest::{Digest, equal_in_constant_time, hex};
use crate::store::{NewDevice, Receipt, ReceiptTaken, RoomError};
use crate::units::ByteSize;

/// Longest name of a device, characters.
const MAX_NAME: usize = 64;

/// Longest role and kind, characters.
const MAX_WORD: usize = 64;

/// When a device whose receipt found no room may try again, seconds.
const NO_ROOM_S: u64 = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pairing {
    code: String,
    name: String,
    role: String,
}

/// `POST /v1/pair`: the code printed on the box makes a device, with its token and its key.
pub async fn pair(house: &Arc<House>, ask: &mut Ask) -> Answered {
    let source = ask.peer.ip();
    house
        .attempts
        .may_try(source, house.clock.monotonic())
        .map_err(too_many)?;
    let wish: Pairing = ask.json().await?;
    check_text("name", &wish.name, MAX_NAME)?;
    check_word("role", &wish.role)?;
    // Digests have one length, so the comparison tells nothing of the code's either.
    let sent = Digest::of(wish.code.trim().as_bytes());
    let right = Digest::of(house.claim_code.expose().as_bytes());
    let is_right = equal_in_constant_time(sent.as_bytes(), right.as_bytes());
    if house.claim_code.is_empty() || !is_right {
        house.attempts.failed(source, house.clock.monotonic());
        warn!(event = "lan.pairing_refused", %source);
        return Err(Problem::new(
            Kind::CodeRefused,
            "the code is printed on the box; it is not this one",
        ));
    }
    if house.store.devices.count() >= house.devices.max_devices {
        return Err(Problem::new(
            Kind::DevicesFull,
            format!(
                "{} devices are paired, as many as the box takes",
                house.devices.max_devices
            ),
        ));
    }
    let paired = house
        .store
        .devices
        .pair(NewDevice {
            name: wish.name,
            role: wish.role.clone(),
            address: Some(source),
        })
        .await?;
    info!(event = "lan.device_paired", device_id = %paired.device_id, %source);
    // The device is paired, whether the platform can be told or not.
    let orders = &house.store.orders;
    let told = tell_turn(orders, Turn::Paired, &paired.device_id, &wish.role);
    if let Err(error) = told.await {
        warn!(event = "lan.pairing_untold", device_id = %paired.device_id, %error);
    }
    json(
        StatusCode::CREATED,
        &json!({
            "device_id": paired.device_id,
            "token": paired.token.expose(),
            "command_key": hex(&paired.command_key),
            "box_id": house.identity.id(),
            "box_key": hex(&house.identity.public_key()),
        }),
    )
}

fn too_many(wait: Duration) -> Box<Problem> {
    Problem::new(
        Kind::TooMany,
        format!("too many wrong codes; try again in {} s", wait.as_secs()),
    )
    .retry_after(wait.as_secs())
}

/// What a device says of itself. Everything but these fields is its own affair.
#[derive(Deserialize)]
struct Heartbeat {
    #[serde(default, deserialize_with = "port")]
    command_port: Option<u16>,
}

/// A port, or null. JSON knows one kind of number, so `8081.0` is 8081; 0 is no port.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    // A whole f64 is written without a point.
    let port = number.to_string().parse::<NonZeroU16>();
    port.map(|port| Some(port.get()))
        .map_err(|_| D::Error::custom("a port is a whole number from 1 to 65535"))
}

/// `POST /v1/heartbeat`: the box learns where the device is, the device learns the time and what waits for it.
pub async fn heartbeat(house: &Arc<House>, ask: &mut Ask) -> Answered {
    let device = auth::device(house, ask)?;
    let beat: Heartbeat = ask.json().await?;
    let contract_port = house.devices.command_port;
    // A shop's firewall knows one port for commands; only a developer's machine, where ports are shifted, has others.
    if let Some(port) = beat.command_port
        && port != contract_port
        && house.lan.port_offset == 0
    {
        let what = format!(
            "command_port: the box sends commands to port {contract_port} only, not to {port}"
        );
        return Err(Problem::new(Kind::Unprocessable, what));
    }
    let now_ms = house.clock.wall_ms();
    let (devices, address) = (&house.store.devices, ask.peer.ip());
    devices.seen(&device.device_id, Some(address), now_ms);
    if beat
        .command_port
        .is_some_and(|port| device.command_port != Some(port))
    {
        devices
            .set_address(&device.device_id, address, beat.command_port)
            .await?;
    }
    let pending = house
        .store
        .orders
        .open_commands(&device.device_id, &device.role)?;
    json(
        StatusCode::OK,
        &json!({
            "now": rfc3339(now_ms),
            "now_ms": now_ms,
            "command_port": beat.command_port.or(device.command_port).unwrap_or(house.devices.command_port),
            "pending_commands": pending,
        }),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptDocument {
    kind: String,
    body: Box<RawValue>,
}

/// `POST /v1/receipts`: what a device has to tell the platform, kept until it was told.
pub async fn receipt(house: &Arc<House>, ask: &mut Ask) -> Answered {
    let device = auth::device(house, ask)?;
    let idempotency_key = idempotency_key(ask)?;
    ask.expect_json()?;
    let bytes = ask.body().await?;
    let document: ReceiptDocument = object(&bytes)?;
    check_word("kind", &document.kind)?;
    // Receipts are never dropped, so a device that sends them in a loop while the platform is away would fill the disk.
    let size = ByteSize::bytes(bytes.len() as u64);
    if let Err(RoomError::Reserved { .. }) = house.store.room.check(size) {
        return Err(Problem::new(
            Kind::Storage,
            "the box's disk is nearly full, and what is left is for orders; nothing was kept",
        )
        .retry_after(NO_ROOM_S));
    }
    let receipt = Receipt {
        device_id: device.device_id.clone(),
        idempotency_key,
        request_digest: Digest::of(&bytes),
        kind: format!("receipt.{}", document.kind),
        body: document.body,
    };
    match house.store.orders.receipt(receipt).await? {
        ReceiptTaken::New { .. } => json(StatusCode::CREATED, &json!({"taken": true})),
        ReceiptTaken::Replayed => json(StatusCode::OK, &json!({"taken": true})),
        ReceiptTaken::KeyConflict => Err(Problem::new(
            Kind::KeyConflict,
            "this Idempotency-Key came before with another body; a new receipt needs a new key",
        )),
    }
}

fn check_text(field: &str, text: &str, max: usize) -> Result<(), Box<Problem>> {
    let fits = (1..=max).contains(&text.chars().count())
        && !text.trim().is_empty()
        && !text.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Unprocessable,
        format!("{field} must be 1 to {max} characters that can be seen"),
    )
    .with("where", json!({"field": field})))
}

fn check_word(field: &str, word: &str) -> Result<(), Box<Problem>> {
    let fits = (1..=MAX_WORD).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Unprocessable,
        format!("{field} must be 1 to {MAX_WORD} of the characters A-Z a-z 0-9 _ - ."),
    )
    .with("where", json!({"field": field})))
}
