//! The platform's API, as `openapi.yaml` beside this crate says.

pub mod checksums;
mod cursor;
mod encoding;
mod events;
mod feed;
mod orders;
mod snapshot;

use std::sync::Arc;

use hyper::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};

use crate::ddi;
use crate::enrol;
use crate::percent;
use crate::platform::Platform;
use crate::serve::body::Payload;
use crate::serve::reply::{self, Reply, problem};
use crate::store::StoreError;

/// Answers one request to the API.
pub async fn answer(request: Request<Payload>, platform: &Arc<Platform>) -> Reply {
    if ddi::is_ddi(request.uri().path()) {
        return ddi::answer(request, platform).await;
    }
    if enrol::is_enrolment(request.uri().path()) {
        return enrol::answer(request, platform).await;
    }
    match is_authorized(&request, platform).await {
        Ok(true) => {}
        Ok(false) => return unauthorized(),
        Err(error) => return store_failed(&error),
    }
    let segments = percent::segments(request.uri().path());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["v1", "sites", site, ref resource @ ..] = segments[..] else {
        return problem(StatusCode::NOT_FOUND, "not-found", "no such resource");
    };
    if site != platform.credentials.site {
        return problem(
            StatusCode::FORBIDDEN,
            "forbidden",
            "the token is not of this site",
        );
    }
    let method = request.method().clone();
    let answer = match (method.as_str(), resource) {
        ("GET", ["snapshot"]) => snapshot::plan(platform).await,
        ("GET", ["snapshot", snapshot, part]) => {
            snapshot::part(&request, platform, snapshot, part).await
        }
        ("GET", ["feed"]) => feed::answer(&request, platform).await,
        ("GET", ["checksums"]) => checksums::totals(&request, platform).await,
        ("GET", ["checksums", collection]) => {
            checksums::of_collection(&request, platform, collection).await
        }
        ("GET", ["buckets", collection, bucket]) => {
            checksums::documents(&request, platform, collection, bucket).await
        }
        ("POST", ["events"]) => events::answer(request, platform).await,
        ("POST", ["events", "batch"]) => events::answer_batch(request, platform).await,
        ("GET", ["orders", "feed"]) => orders::answer(&request, platform).await,
        (
            _,
            ["snapshot" | "feed" | "checksums"]
            | ["snapshot" | "buckets", _, _]
            | ["checksums", _]
            | ["orders", "feed"],
        ) => Ok(method_not_allowed("GET")),
        (_, ["events"] | ["events", "batch"]) => Ok(method_not_allowed("POST")),
        _ => Ok(problem(
            StatusCode::NOT_FOUND,
            "not-found",
            "no such resource",
        )),
    };
    answer.unwrap_or_else(|error| store_failed(&error))
}

/// The answer when the emulator's own store fails.
pub fn store_failed(error: &StoreError) -> Reply {
    tracing::error!(event = "store.call_failed", %error);
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the platform's store failed",
    )
}

async fn is_authorized(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<bool, StoreError> {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let (scheme, credential) = given
        .and_then(|value| value.split_once(' '))
        .unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(false);
    }
    knows(platform, credential.trim()).await
}

/// Whether this is the site's own token, or one that enrolment handed out for it.
pub async fn knows(platform: &Arc<Platform>, credential: &str) -> Result<bool, StoreError> {
    let known = &platform.credentials;
    Ok(
        credential == known.token
            || enrol::is_token_good(platform, credential, &known.site).await?,
    )
}

fn unauthorized() -> Reply {
    let mut refusal = problem(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "no valid site token was given",
    );
    reply::set(&mut refusal, WWW_AUTHENTICATE, "Bearer");
    refusal
}

/// The answer to another method than `allowed`.
pub fn method_not_allowed(allowed: &str) -> Reply {
    let detail = format!("only {allowed} is possible here");
    let mut refusal = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        &detail,
    );
    reply::set(&mut refusal, ALLOW, allowed);
    refusal
}

fn bad_request(detail: &str) -> Reply {
    problem(StatusCode::BAD_REQUEST, "bad-request", detail)
}
