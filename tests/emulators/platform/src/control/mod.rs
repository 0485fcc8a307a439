//! The control API: plain HTTP and JSON, for tests and scripts, never for a box. README.md lists every call.
//! It stays open while the platform is "offline".

mod blobs;
mod bus;
mod documents;
mod enrol;
mod events;
mod faults;
mod logs;
mod orders;
mod rollouts;
mod state;

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use crate::percent::{self, Query};
use crate::platform::Platform;
use crate::serve::body;
use crate::serve::reply::{Reply, problem};
use crate::store::StoreError;

/// Largest body of a control call.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// Answers one control call.
pub async fn answer(request: Request<Incoming>, platform: Arc<Platform>) -> Reply {
    let (head, body) = request.into_parts();
    let segments = percent::segments(head.uri.path());
    let Some(body) = body::read(body, MAX_BODY_BYTES).await else {
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "a control call has at most 256 MiB",
        );
    };
    let call = Call {
        method: head.method,
        path: segments.iter().skip(1).map(String::as_str).collect(),
        query: Query::parse(head.uri.query()),
        headers: head.headers,
        body,
    };
    let known = segments.first().is_some_and(|first| first == "control");
    let outcome = if known {
        route(&call, &platform).await
    } else {
        Err(CallError::NoSuchCall)
    };
    outcome.unwrap_or_else(|error| error.reply())
}

/// One control call, its body read.
struct Call<'a> {
    method: Method,
    /// Segments after `/control`.
    path: Vec<&'a str>,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| CallError::Bad(error.to_string()))
    }

    fn number(&self, name: &str, default: u64, max: u64) -> Result<u64, CallError> {
        self.query
            .number(name, default, 0..=max)
            .map_err(CallError::Bad)
    }
}

/// Why a control call failed.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no such control call")]
    NoSuchCall,
    #[error("{0}")]
    Bad(String),
    #[error("{0} does not exist")]
    Absent(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CallError {
    fn reply(&self) -> Reply {
        let (status, kind) = match self {
            Self::NoSuchCall => (StatusCode::NOT_FOUND, "no-such-call"),
            Self::Bad(_) => (StatusCode::BAD_REQUEST, "bad-request"),
            Self::Absent(_) => (StatusCode::NOT_FOUND, "not-found"),
            Self::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        problem(status, kind, &self.to_string())
    }
}

async fn route(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    match (call.method.as_str(), call.path.as_slice()) {
        ("GET", ["ready"]) => Ok(state::ready(platform)),
        ("GET", ["state"]) => state::summary(platform).await,
        ("GET", ["requests"]) => Ok(state::requests(platform)),
        ("PUT", ["feed"]) => state::keep_changes(call, platform).await,
        ("POST", ["feed", "forget"]) => state::forget_changes(platform).await,
        ("GET", ["events"]) => events::list(call, platform).await,
        ("POST", ["events", "refusals"]) => faults::refuse(call, platform),
        ("GET", ["faults"]) => Ok(faults::list(platform)),
        ("POST", ["faults"]) => faults::arm(call, platform),
        ("DELETE", ["faults"]) => Ok(faults::clear(platform)),
        ("GET", ["logs"]) => Ok(logs::list(platform)),
        ("PUT", ["logs"]) => logs::set_bounds(call, platform),
        ("DELETE", ["logs"]) => Ok(logs::clear(platform)),
        ("PUT", ["clock"]) => faults::set_clock(call, platform),
        ("PUT", ["offline"]) => faults::set_offline(call, platform).await,
        ("GET", ["documents", collection]) => documents::list(platform, collection).await,
        ("DELETE", ["snapshots"]) => state::drop_snapshots(platform).await,
        ("POST", ["documents", collection, "generate"]) => {
            documents::generate(call, platform, collection).await
        }
        ("POST", ["documents", collection]) => documents::load(call, platform, collection).await,
        ("GET", ["documents", collection, id]) => documents::read(platform, collection, id).await,
        ("PUT", ["documents", collection, id]) => {
            documents::put(call, platform, collection, id).await
        }
        ("DELETE", ["documents", collection, id]) => {
            documents::delete(call, platform, collection, id).await
        }
        (_, ["enrol", path @ ..]) => enrol::route(call, platform, path).await,
        ("POST", ["orders"]) => orders::order(call, platform).await,
        ("POST", ["orders", "feed"]) => orders::raw(call, platform).await,
        ("GET", ["orders", "feed"]) => orders::list(platform).await,
        ("POST", ["orders", "forget"]) => orders::forget(platform).await,
        (_, ["bus", path @ ..]) => bus::route(call, platform, path).await,
        (_, ["rollouts", path @ ..]) => rollouts::route(call, platform, path).await,
        ("GET" | "PUT", ["controllers"]) => rollouts::controllers(call, platform).await,
        ("PUT", ["containers", container]) => blobs::set_access(call, platform, container).await,
        (_, ["blobs", container, name @ ..]) if !name.is_empty() => {
            blobs::route(call, platform, &format!("{container}/{}", name.join("/"))).await
        }
        _ => Err(CallError::NoSuchCall),
    }
}
