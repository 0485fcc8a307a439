//! hawkBit's Direct Device Integration API, version 1, as far as a box uses it.
//!
//! What a path answers, and in which state of an action, follows hawkBit's own `DdiRootController` (eclipse-hawkbit/hawkbit,
//! hawkbit-ddi-resource); README.md says what is assumed and what is left out.

mod actions;
mod artifact;
mod documents;

use std::sync::Arc;

use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;

use crate::api::{knows, store_failed};
use crate::percent::segments;
use crate::platform::Platform;
use crate::serve::body::Payload;
use crate::serve::reply::{Reply, json, problem};
use crate::store::StoreError;

/// The tenant of a hawkBit that has only one.
const TENANT: &str = "DEFAULT";

/// Largest body of a box's call.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Whether a path belongs here.
pub fn is_ddi(path: &str) -> bool {
    matches!(
        segments(path)
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()[..],
        [_, "controller", "v1", _, ..]
    )
}

/// One call of a box.
struct Call<'a> {
    method: Method,
    controller: &'a str,
    /// Segments after the controller's id.
    path: Vec<&'a str>,
    body: Payload,
    /// `https://HOST`, as the box reached us.
    origin: String,
}

/// Answers one call.
pub async fn answer(request: Request<Payload>, platform: &Arc<Platform>) -> Reply {
    match is_authorized(&request, platform).await {
        Ok(true) => {}
        Ok(false) => {
            return problem(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "no valid target or gateway token was given",
            );
        }
        Err(error) => return store_failed(&error),
    }
    let segments = segments(request.uri().path());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let [tenant, _, _, controller, path @ ..] = segments.as_slice() else {
        return not_found();
    };
    if *tenant != TENANT {
        return not_found();
    }
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let wants_plain = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let head = request.headers().clone();
    let call = Call {
        method: request.method().clone(),
        controller,
        path: path.to_vec(),
        origin: format!("https://{}", host.unwrap_or("localhost")),
        body: request.into_body(),
    };
    let answer = match call.path.as_slice() {
        ["softwaremodules", module, "artifacts", file] if call.method == Method::GET => {
            artifact::answer(&call, module, file, &head, platform).await
        }
        _ => actions::answer(&call, platform).await,
    };
    let mut reply = answer.unwrap_or_else(|error| store_failed(&error));
    let is_json = reply
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if is_json && !wants_plain {
        let hal = HeaderValue::from_static("application/hal+json");
        reply.headers_mut().insert(CONTENT_TYPE, hal);
    }
    reply
}

/// `TargetToken` or `GatewayToken`; both are what the API's token may be.
async fn is_authorized(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<bool, StoreError> {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.split_once(' ')) {
        Some(("TargetToken" | "GatewayToken", token)) => knows(platform, token).await,
        _ => Ok(false),
    }
}

fn not_found() -> Reply {
    problem(StatusCode::NOT_FOUND, "not-found", "no such resource")
}

fn ok(value: &impl Serialize) -> Result<Reply, StoreError> {
    Ok(json(StatusCode::OK, value))
}
