//! Azure Service Bus over REST, as far as a box uses it: send, send batch, peek-lock, receive-and-delete,
//! complete, unlock, renew, dead-letter queues, topics with subscriptions.
//!
//! README.md says which behaviour is documented, which was seen from foreign clients, and which is assumed.

mod path;
pub mod properties;
mod receive;
pub mod reply;
mod sas;
mod send;

pub use send::{read_messages, store};

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode};

use crate::percent::Query;
use crate::platform::Platform;
use crate::serve::body::Payload;
use crate::serve::reply::Reply;
use crate::store::StoreError;
use crate::store::entities::{self, Kind, Settings};
use crate::store::messages::{Settle, Source};
use path::{Operation, Target};
use reply::error;

/// Answers one request to the bus.
pub async fn answer(request: Request<Payload>, host: &str, platform: &Arc<Platform>) -> Reply {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let credentials = &platform.credentials;
    let rule = sas::Rule {
        name: &credentials.bus_key_name,
        key: &credentials.bus_key,
    };
    if let Err(refusal) = sas::verify(
        token,
        rule,
        (host, request.uri().path()),
        platform.clock.now_ms() / 1000,
    ) {
        return error(StatusCode::UNAUTHORIZED, &refusal.to_string());
    }
    if lacks_length(&request) {
        return error(
            StatusCode::LENGTH_REQUIRED,
            "A Content-Length is required, also for an empty body.",
        );
    }
    let Some(target) = Target::parse(request.uri().path()) else {
        return error(
            StatusCode::NOT_FOUND,
            "The path names no operation of the runtime API.",
        );
    };
    operate(request, host, target, platform)
        .await
        .unwrap_or_else(|failure| {
            tracing::error!(event = "store.call_failed", error = %failure);
            error(StatusCode::INTERNAL_SERVER_ERROR, "The store failed.")
        })
}

async fn operate(
    request: Request<Payload>,
    host: &str,
    target: Target,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let name = target.entity.clone();
    let entity = platform
        .store
        .call(move |connection| entities::find(connection, &name))
        .await?;
    let Some(entity) = entity else {
        return Ok(error(
            StatusCode::GONE,
            "The messaging entity could not be found.",
        ));
    };
    let query = Query::parse(request.uri().query());
    let method = request.method().clone();
    if target.operation == Operation::Send {
        return match (method, target.dead, entity.kind) {
            (Method::POST, false, Kind::Queue | Kind::Topic) => {
                send::answer(request, entity, platform).await
            }
            _ => Ok(error(
                StatusCode::METHOD_NOT_ALLOWED,
                "Only a POST to a queue or topic sends.",
            )),
        };
    }
    if entity.kind == Kind::Topic {
        return Ok(error(
            StatusCode::BAD_REQUEST,
            "A topic is received from through a subscription.",
        ));
    }
    let source = Source {
        entity,
        dead: target.dead,
    };
    let place = receive::Place {
        base: format!("https://{host}/{}", target.written),
        source,
    };
    match (method, target.operation) {
        (Method::POST, Operation::Head) => receive::next(place, &query, true, platform).await,
        (Method::DELETE, Operation::Head) => receive::next(place, &query, false, platform).await,
        (Method::DELETE, Operation::Settle(id, lock)) => {
            receive::settle(place.source, (id, lock), Settle::Complete, platform).await
        }
        (Method::PUT, Operation::Settle(id, lock)) => {
            receive::settle(place.source, (id, lock), Settle::Unlock, platform).await
        }
        (Method::POST, Operation::Settle(id, lock)) => {
            receive::settle(place.source, (id, lock), Settle::Renew, platform).await
        }
        _ => Ok(error(
            StatusCode::METHOD_NOT_ALLOWED,
            "The resource has no such operation.",
        )),
    }
}

fn lacks_length(request: &Request<Payload>) -> bool {
    let headers = request.headers();
    matches!(*request.method(), Method::POST | Method::PUT)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Creates the site's own queue and those named on the command line, unless they exist.
pub fn create_queues(platform: &Platform, further: &[String]) -> Result<(), StoreError> {
    let own = format!("site-{}", platform.credentials.site);
    platform.store.call_blocking(|connection| {
        for name in further.iter().chain([&own]).map(|name| name.to_lowercase()) {
            if entities::find(connection, &name)?.is_none() {
                entities::create(connection, &name, Kind::Queue, &Settings::default())?;
            }
        }
        Ok(())
    })
}
