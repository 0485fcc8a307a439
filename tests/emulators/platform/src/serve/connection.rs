//! One connection: handshake, faults, requests.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, DATE, HOST, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::body::{Ending, MAX_PAYLOAD_BYTES, Payload, STALL};
use super::fault::Kind;
use super::reply::{self, NothingNew, Reply};
use super::{Flow, Flows, body};
use crate::platform::{Platform, RequestRecord, rfc1123};
use crate::{api, blob, bus, control, intake};

/// A client must finish its handshake within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// A client must send a request's head within this, also on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// What a TLS connection needs to know of its door.
pub struct Secured {
    /// How the flow is told.
    pub flows: Flows,
    /// Certificate and protocol versions.
    pub tls: Arc<ServerConfig>,
}

/// Serves one TLS connection to its end, or until the platform goes offline.
pub async fn serve_secured(stream: TcpStream, door: Secured, platform: Arc<Platform>) {
    let Ok((stream, resetter)) = Resetter::split(stream) else {
        return;
    };
    let mut offline = platform.offline();
    let mut stopped = platform.stopped();
    let reset = tokio::select! {
        reset = converse(stream, &door, &platform) => reset,
        _ = offline.wait_for(|offline| *offline) => true,
        _ = stopped.wait_for(|stopped| *stopped) => false,
    };
    // The resetter's handle is the last one: only now the socket closes, one way or the other.
    if reset {
        resetter.arm();
    }
}

/// Handshake and requests; returns whether the connection is to be reset.
async fn converse(stream: TcpStream, door: &Secured, platform: &Arc<Platform>) -> bool {
    if let Flows::One(flow) = door.flows
        && platform.faults.hit_connection(flow, Kind::Refuse)
    {
        return true;
    }
    let handshake = async {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let flow = door.flows.of_host(start.client_hello().server_name());
        let shared = matches!(door.flows, Flows::ByHost(_));
        let hits = |kind| flow.is_some_and(|flow| platform.faults.hit_connection(flow, kind));
        if (shared && hits(Kind::Refuse)) || hits(Kind::ResetHandshake) {
            return Ok(None);
        }
        start.into_stream(Arc::clone(&door.tls)).await.map(Some)
    };
    let outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    let stream = match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Some(stream)) => stream,
        Ok(None) => return true,
        Err(error) => {
            tracing::debug!(event = "serve.handshake_failed", %error);
            return false;
        }
    };
    let reset = AtomicBool::new(false);
    let service = service_fn(|request| async {
        let answer = answer(request, &door.flows, Arc::clone(platform)).await;
        reset.store(answer.is_err(), Ordering::Relaxed);
        answer
    });
    if let Err(error) = http_settings()
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(event = "serve.connection_failed", %error);
    }
    reset.load(Ordering::Relaxed)
}

/// Serves one plain connection of the control API.
pub async fn serve_control(stream: TcpStream, platform: Arc<Platform>) {
    let service = service_fn(|request| {
        let platform = Arc::clone(&platform);
        async move { Ok::<_, Infallible>(control::answer(request, platform).await) }
    });
    let mut stopped = platform.stopped();
    tokio::select! {
        ended = http_settings().serve_connection(TokioIo::new(stream), service) => if let Err(error) = ended {
            tracing::debug!(event = "control.connection_failed", %error);
        },
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

fn http_settings() -> http1::Builder {
    let mut settings = http1::Builder::new();
    // Without a timer hyper's header timeout does nothing.
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(false);
    settings
}

/// Answers a request, or fails: then the connection is to be reset.
async fn answer(
    request: Request<Incoming>,
    flows: &Flows,
    platform: Arc<Platform>,
) -> Result<Reply, io::Error> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned);
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
    let Some(flow) = flows.of_host(host.as_deref()) else {
        let detail = "no flow of the platform has this host name";
        return Ok(reply::problem(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            detail,
        ));
    };
    let (method, path) = (
        request.method().to_string(),
        request.uri().path().to_owned(),
    );
    let fault = platform.faults.hit_request(flow, &method, &path);
    let began = Instant::now();
    let record = |answer: Option<&Reply>| {
        let fault = fault.map(|kind| kind.to_string());
        let status = answer.map_or(0, |answer| answer.status().as_u16());
        platform.requests.record(RequestRecord {
            flow,
            method,
            path,
            status,
            bytes: answer.map_or(0, body_bytes),
            empty: status == 204
                || answer.is_some_and(|answer| answer.extensions().get::<NothingNew>().is_some()),
            held_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            fault,
        });
    };
    if fault == Some(Kind::Stall) {
        record(None);
        tokio::time::sleep(STALL).await;
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (head, incoming) = request.into_parts();
    let payload = body::read(incoming, MAX_PAYLOAD_BYTES).await;
    let request = Request::from_parts(head, payload);
    let result = match fault {
        Some(Kind::Refuse) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Kind::Status(code)) => Ok(refusal(flow, code)),
        Some(Kind::Throttle(seconds)) => Ok(throttled(flow, seconds)),
        Some(Kind::TruncateAfterBytes(bytes)) => {
            let answer = dispatch(flow, request, host, &platform).await;
            Ok(answer.map(|inner| body::truncated(inner, bytes, Ending::Cut)))
        }
        Some(Kind::StallAfterBytes(bytes)) => {
            let answer = dispatch(flow, request, host, &platform).await;
            Ok(answer.map(|inner| body::truncated(inner, bytes, Ending::Stall)))
        }
        Some(Kind::Slow(rate)) => Ok(dispatch(flow, request, host, &platform)
            .await
            .map(|inner| body::slowed(inner, rate))),
        Some(Kind::LoseAnswer) => {
            let _ = dispatch(flow, request, host, &platform).await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Kind::Stall | Kind::ResetHandshake) | None => {
            Ok(dispatch(flow, request, host, &platform).await)
        }
    };
    let result = result.map(|mut answer| {
        // In place of the HTTP server's own, which knows nothing of the platform's clock.
        reply::set(&mut answer, DATE, &rfc1123(platform.clock.now_ms()));
        answer
    });
    record(result.as_ref().ok());
    result
}

/// Length of the body as announced.
fn body_bytes(answer: &Reply) -> u64 {
    let announced = answer.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    announced.or(answer.body().size_hint().exact()).unwrap_or(0)
}

async fn dispatch(
    flow: Flow,
    request: Request<Payload>,
    host: Option<String>,
    platform: &Arc<Platform>,
) -> Reply {
    match flow {
        Flow::Api => api::answer(request, platform).await,
        Flow::Bus => bus::answer(request, host.as_deref().unwrap_or_default(), platform).await,
        Flow::Blob => blob::answer(request, platform).await,
        Flow::Logs => intake::answer(&request, platform),
    }
}

/// The text is the documentation's; the status is assumed.
fn throttled(flow: Flow, seconds: u64) -> Reply {
    let detail =
        "The request was terminated because the namespace is being throttled. Error code: 50009.";
    let mut answer = match flow {
        Flow::Bus => crate::bus::reply::error(StatusCode::TOO_MANY_REQUESTS, detail),
        _ => refusal(flow, 429),
    };
    reply::set(&mut answer, RETRY_AFTER, &seconds.to_string());
    answer
}

/// The answer of a `status` fault, in the manner of the flow.
fn refusal(flow: Flow, code: u16) -> Reply {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    match flow {
        Flow::Api => reply::problem(status, "fault", "armed through the control API"),
        Flow::Bus => bus::reply::error(status, "armed through the control API"),
        Flow::Blob => blob::reply::error(status, "ServerBusy", "armed through the control API"),
        Flow::Logs => intake::fault(status),
    }
}

/// A second handle on a connection's socket, to make its close a reset.
struct Resetter(std::net::TcpStream);

impl Resetter {
    fn split(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        let stream = stream.into_std()?;
        stream.set_nodelay(true)?;
        let second = stream.try_clone()?;
        Ok((TcpStream::from_std(stream)?, Self(second)))
    }

    /// From now on closing the socket sends RST and forgets what was not sent.
    fn arm(&self) {
        // It fails only on a socket that is gone already.
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }
}
