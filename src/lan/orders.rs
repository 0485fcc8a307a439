//! Port 8001: orders. The only port with customers' data; nothing of them is logged.
//!
//! An order is answered 201 only after the commit that holds it was fsynced.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Answered, json};
use super::auth;
use super::house::{House, blocking};
use super::problem::{Kind, Problem};
use super::request::{Ask, bad};
use crate::digest::Digest;
use crate::store::orders::LIST_BOUND;
use crate::store::{
    Advanced, OrderDocument, OrderShapeError, OrderState, OrderView, ReadError, Store, Submission,
    Submitted,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAY: HeaderName = HeaderName::from_static("idempotent-replay");

/// Longest `Idempotency-Key`.
pub const MAX_KEY: usize = 128;

/// Orders of a page unless asked otherwise.
const DEFAULT_LIMIT: u64 = 100;

/// Bytes of orders after which a page ends.
const PAGE_BYTES: usize = 1024 * 1024;

/// Orders read at a time: an order from the platform may have a megabyte.
const STEP: usize = 32;

/// `POST /v1/orders`
pub async fn submit(house: &Arc<House>, ask: &mut Ask) -> Answered {
    let device = auth::device(house, ask)?;
    let idempotency_key = idempotency_key(ask)?;
    ask.expect_json()?;
    let body = ask.body().await?;
    let order =
        OrderDocument::parse(&body, &house.devices.order_role).map_err(|error| shape(&error))?;
    let order_id = order.order_id.clone();
    let submission = Submission {
        device_id: device.device_id.clone(),
        idempotency_key,
        request_digest: Digest::of(&body),
        order,
    };
    match house.store.orders.submit(submission).await? {
        Submitted::New(view) => located(StatusCode::CREATED, &view, false),
        Submitted::Replayed(view) => located(StatusCode::OK, &view, true),
        // Two holders of one order, or a client that lost its key: the same order is a repeat, another one is not.
        Submitted::OrderExists(view) if view.body.get().as_bytes() == body.trim_ascii() => {
            located(StatusCode::OK, &view, true)
        }
        Submitted::OrderExists(_) => Err(Problem::new(
            Kind::OrderExists,
            format!("the box holds another order {order_id}; an id is given once"),
        )),
        Submitted::KeyConflict => Err(Problem::new(
            Kind::KeyConflict,
            "this Idempotency-Key came before with another body; a new order needs a new key",
        )),
    }
}

/// `GET /v1/orders?after=&limit=&state=`, in the order of their last change.
pub async fn list(house: &Arc<House>, ask: &Ask) -> Answered {
    auth::device(house, ask)?;
    let limit = ask.query_number("limit", DEFAULT_LIMIT, LIST_BOUND as u64)?;
    let limit = usize::try_from(limit).unwrap_or(LIST_BOUND);
    let after = match ask.query("after")? {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            bad("the parameter after must be the number an earlier page gave as next")
        })?,
    };
    let state = match ask.query("state")? {
        None => None,
        Some(name) => Some(
            OrderState::by_name(&name).ok_or_else(|| bad(format!("there is no state {name}")))?,
        ),
    };
    let store = house.store.clone();
    let (orders, next) = blocking(move || page(&store, after, state, limit)).await??;
    let bytes = orders.iter().map(|order| order.body.get().len()).sum();
    let share = house.share(bytes)?;
    let answer = json(StatusCode::OK, &json_page(&orders, next))?;
    Ok(answer.map(|body| body.holding(share)))
}

/// A page of at most `limit` orders that ends early when they are large, and where the next one begins.
fn page(
    store: &Store,
    mut after: i64,
    state: Option<OrderState>,
    limit: usize,
) -> Result<(Vec<OrderView>, Option<i64>), ReadError> {
    let (mut orders, mut bytes) = (Vec::new(), 0);
    while orders.len() < limit && bytes < PAGE_BYTES {
        let step = (limit - orders.len()).min(STEP);
        let some = store.orders.list(after, state, step)?;
        bytes += some
            .iter()
            .map(|order| order.body.get().len())
            .sum::<usize>();
        let was_last = some.len() < step;
        after = some.last().map_or(after, |last| last.seq);
        orders.extend(some);
        if was_last {
            return Ok((orders, None));
        }
    }
    Ok((orders, Some(after)))
}

/// `GET /v1/orders/{id}`
pub fn order(house: &House, ask: &Ask, id: &str) -> Answered {
    auth::device(house, ask)?;
    let view = house
        .store
        .orders
        .order(id)?
        .ok_or_else(|| no_such_order(id))?;
    json(StatusCode::OK, &view)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    to: OrderState,
}

/// `POST /v1/orders/{id}/advance` with `{"to": STATE}`. Asking for the state it has changes nothing and is fine.
pub async fn advance(house: &Arc<House>, ask: &mut Ask, id: &str) -> Answered {
    let device = auth::device(house, ask)?;
    let Step { to } = ask.json().await?;
    match house
        .store
        .orders
        .advance(id, to, &device.device_id)
        .await?
    {
        Advanced::Done(view) | Advanced::Unchanged(view) => json(StatusCode::OK, &view),
        Advanced::Refused(error) => Err(Problem::new(Kind::StateRefused, error.to_string())
            .with("from", error.from.name())
            .with("to", error.to.name())),
        Advanced::NoSuchOrder => Err(no_such_order(id)),
    }
}

/// The key that makes a write repeatable.
///
/// # Errors
/// 400 without one, or with one that is no key.
pub fn idempotency_key(ask: &Ask) -> Result<String, Box<Problem>> {
    let missing = |detail: &str| Problem::new(Kind::IdempotencyKeyMissing, detail);
    if !ask.head.headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(missing(
            "send an Idempotency-Key header: a new random text for each write, the same one on every repeat",
        ));
    }
    ask.header(&IDEMPOTENCY_KEY)
        .filter(|key| {
            (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .map(str::to_owned)
        .ok_or_else(|| {
            missing("the Idempotency-Key must be one value of 1 to 128 visible ASCII characters")
        })
}

fn located(status: StatusCode, view: &OrderView, replay: bool) -> Answered {
    let mut answer: Answer = json(status, view)?;
    let headers = answer.headers_mut();
    let location = HeaderValue::try_from(format!("/v1/orders/{}", view.order_id))
        .map_err(|_| Problem::new(Kind::Internal, "the order's id is no path"))?;
    headers.insert(header::LOCATION, location);
    if replay {
        headers.insert(REPLAY, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

fn json_page(orders: &[OrderView], next: Option<i64>) -> impl serde::Serialize {
    #[derive(serde::Serialize)]
    struct Page<'o> {
        items: &'o [OrderView],
        next: Option<i64>,
    }
    Page {
        items: orders,
        next,
    }
}

fn no_such_order(id: &str) -> Box<Problem> {
    Problem::new(Kind::NotFound, format!("the box has no order {id}"))
}

fn shape(error: &OrderShapeError) -> Box<Problem> {
    let problem = Problem::new(Kind::Unprocessable, error.to_string());
    match error {
        OrderShapeError::TooLarge(_) | OrderShapeError::NotText | OrderShapeError::NotObject => {
            problem
        }
        OrderShapeError::NotJson { line, column, .. } => {
            problem.with("where", json!({"line": line, "column": column}))
        }
        OrderShapeError::Missing { field }
        | OrderShapeError::WrongKind { field, .. }
        | OrderShapeError::Twice { field }
        | OrderShapeError::BadName { field } => problem.with("where", json!({"field": field})),
        OrderShapeError::UnknownVersion(_) => {
            problem.with("where", json!({"field": "format_version"}))
        }
        OrderShapeError::BadTime => problem.with("where", json!({"field": "placed_at"})),
    }
}
