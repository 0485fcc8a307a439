//! Port 8002: what happens, live. Server-sent events for those that can hold a connection, long polls for the rest.
//!
//! An event is a hint that something changed; the truth is on the other ports. A reader that lost its place gets `reset`,
//! reads what it needs afresh and goes on. A reader that does not keep up is dropped and counted: it comes back and
//! resumes by `Last-Event-ID`, or is reset.

mod ring;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

pub use ring::Ring;

use super::answer::{Answer, Answered, Body, json};
use super::auth;
use super::house::House;
use super::problem::{Kind, Problem};
use super::request::{Ask, bad};
use super::server::{LONGEST_WAIT, PortCount};
use crate::config::LanPort;
use crate::telemetry::{Counter, Metrics};
use ring::{Event, Position, Read};

/// Streams and long polls at a time. Beyond: 503.
const MAX_STREAMS: usize = 256;

/// A line of comment after this long without an event, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events handed over in one piece.
const BATCH: usize = 64;

/// Pieces that wait for a slow socket.
const PIECES: usize = 2;

/// A reader that takes no piece for this long is dropped.
const SLOW: Duration = Duration::from_secs(10);

/// How long a browser waits before it connects again, milliseconds.
const RETRY_MS: u32 = 2000;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The bound on streams.
#[derive(Debug)]
pub struct Streams {
    places: Arc<Semaphore>,
    dropped: Counter,
}

impl Streams {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            dropped: PortCount::of(LanPort::Events, metrics).dropped_streams,
        }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Box<Problem>> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::new(
                Kind::Busy,
                format!("{MAX_STREAMS} streams are open, as many as the box takes"),
            )
            .retry_after(5)
        })
    }
}

/// `GET /v1/events`: a stream; with `wait_s` (and `after`) or `Accept: application/json` one answer.
pub async fn events(house: &Arc<House>, ask: &Ask) -> Answered {
    auth::device(house, ask)?;
    let place = house.streams.place()?;
    let wants_json = ask
        .header(&header::ACCEPT)
        .is_some_and(|accept| accept.starts_with("application/json"));
    let wait = ask.query("wait_s")?;
    if wants_json || wait.is_some() || ask.query("after")?.is_some() {
        poll(house, ask, wait).await
    } else {
        Ok(stream(house, ask, place))
    }
}

async fn poll(house: &House, ask: &Ask, wait: Option<String>) -> Answered {
    let longest = LONGEST_WAIT.as_secs();
    let wait = match wait.map(|text| text.parse::<u64>()) {
        None => 0,
        Some(Ok(seconds)) if seconds <= longest => seconds,
        Some(_) => {
            return Err(bad(format!(
                "wait_s must be a whole number from 0 to {longest}"
            )));
        }
    };
    let after = match ask.query("after")?.as_deref() {
        None | Some("") => Ok(house.ring.end()),
        // An id of another firmware, or none at all: the answer is a reset, as for one that is too old.
        Some(text) => text.parse::<Position>(),
    };
    let Ok(after) = after else {
        return polled(house.ring.end(), true, &[]);
    };
    let end = Instant::now() + Duration::from_secs(wait);
    let mut bell = house.ring.bell();
    loop {
        match house.ring.after(after, BATCH) {
            Read::Reset(end) => return polled(end, true, &[]),
            Read::Events(events) if !events.is_empty() => {
                let last = events.last().map_or(after, |event| event.position);
                return polled(last, false, &events);
            }
            Read::Events(_) => {}
        }
        let rung = tokio::select! {
            () = house.shutdown.triggered() => false,
            rung = timeout_at(end, bell.changed()) => matches!(rung, Ok(Ok(()))),
        };
        if !rung {
            return polled(after, false, &[]);
        }
    }
}

fn polled(next: Position, reset: bool, events: &[Event]) -> Answered {
    #[derive(serde::Serialize)]
    struct Item<'e> {
        id: String,
        event: &'static str,
        data: &'e RawValue,
    }
    #[derive(serde::Serialize)]
    struct Page<'e> {
        items: Vec<Item<'e>>,
        next: String,
        reset: bool,
    }
    let items = events
        .iter()
        .filter_map(|event| {
            Some(Item {
                id: event.position.to_string(),
                event: event.name,
                // The ring holds what it wrote as JSON itself.
                data: serde_json::from_str(&event.data).ok()?,
            })
        })
        .collect();
    let page = Page {
        items,
        next: next.to_string(),
        reset,
    };
    json(StatusCode::OK, &page)
}

fn stream(house: &Arc<House>, ask: &Ask, place: OwnedSemaphorePermit) -> Answer {
    let (pieces, body) = mpsc::channel(PIECES);
    if ask.head.method != Method::HEAD {
        let resume = ask.header(&LAST_EVENT_ID).map(str::to_owned);
        let house = Arc::clone(house);
        tokio::spawn(async move {
            feed(&house, resume.as_deref(), &pieces).await;
            drop(place);
        });
    }
    let mut answer = Answer::new(Body::events(body));
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies of the nginx kind hold a stream back unless told otherwise.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    answer
}

/// Feeds one reader until it leaves, falls behind, or the server ends.
async fn feed(house: &House, resume: Option<&str>, pieces: &mpsc::Sender<Bytes>) {
    let ring = &house.ring;
    let mut bell = ring.bell();
    let mut position = ring.end();
    let mut text = format!("retry: {RETRY_MS}\n");
    match resume.map(str::parse::<Position>) {
        None => write_event(&mut text, position, "hello", "{}"),
        Some(Ok(seen)) if matches!(ring.after(seen, 0), Read::Events(_)) => {
            position = seen;
            text.push_str(": resumed\n\n");
        }
        Some(_) => write_event(&mut text, position, "reset", "{}"),
    }
    loop {
        if !text.is_empty() {
            let piece = Bytes::from(std::mem::take(&mut text));
            match timeout(SLOW, pieces.send(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return fell_behind(house),
            }
        }
        match ring.after(position, BATCH) {
            Read::Reset(_) => return fell_behind(house),
            Read::Events(events) => {
                for event in &events {
                    write_event(&mut text, event.position, event.name, &event.data);
                    position = event.position;
                }
            }
        }
        if text.is_empty() {
            tokio::select! {
                () = house.shutdown.triggered() => return,
                () = pieces.closed() => return,
                // The ring lives as long as the house, so this only ends by a change.
                _ = bell.changed() => {}
                () = tokio::time::sleep(HEARTBEAT) => text.push_str(": \n\n"),
            }
        }
    }
}

fn fell_behind(house: &House) {
    house.streams.dropped.add_one();
    debug!(event = "lan.stream_dropped");
}

fn write_event(text: &mut String, position: Position, name: &str, data: &str) {
    use std::fmt::Write as _;
    // Writing to a String can't fail; JSON holds no line break.
    let _ = write!(text, "id: {position}\nevent: {name}\ndata: {data}\n\n");
}
