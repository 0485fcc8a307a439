//! One port's loop: accept, bound, serve, end in good order.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, header};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use super::limits::{DRAIN, MAX_HEADER_FIELDS, MAX_TURNED_AWAY, TURN_AWAY};
use super::wire::{InFlight, Phase, Wire};
use super::{Limits, PortCount};
use crate::config::LanPort;
use crate::lan::answer::Answer;
use crate::lan::problem::{Kind, Problem};
use crate::lan::request::{Ask, LARGE_BODIES};
use crate::shutdown::Shutdown;

/// Answers requests.
pub trait Service: Clone + Send + Sync + 'static {
    /// The answer to one request. Errors are answers too.
    fn answer(&self, port: LanPort, ask: Ask) -> impl Future<Output = Answer> + Send;

    /// What every answer of every port carries, whoever makes it. Taken before a request is handled.
    fn stamp(&self) -> HeaderMap;
}

/// What a port is made of.
#[derive(Debug, Clone)]
pub struct Port {
    /// Which one.
    pub port: LanPort,
    /// Its bounds.
    pub limits: Limits,
    /// Its counters.
    pub count: PortCount,
    /// Places for large bodies, [`LARGE_BODIES`] of them.
    pub large_bodies: Arc<Semaphore>,
}

impl Port {
    /// `port` with these bounds and counters.
    #[must_use]
    pub fn new(port: LanPort, limits: Limits, count: PortCount) -> Self {
        Self {
            port,
            limits,
            count,
            large_bodies: Arc::new(Semaphore::new(LARGE_BODIES)),
        }
    }
}

/// Small pieces of work a loop takes at a time from [`LoopProbe`]s; beyond, they are dropped, which reads as "no progress".
const MAX_PROBES: usize = 4;

/// Sources remembered before those without a connection are forgotten; with those that have one it is bounded by the
/// connections.
const MAX_IDLE_SOURCES: usize = 256;

/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8192;

/// After a failed accept (no descriptors left, say) the loop rests, instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(50);

const TURNED_AWAY: &str = r#"{"type":"urn:comptoir:busy","title":"The box is busy","status":503,"detail":"Port is crowded"}"#;

/// Lets a port's own accept loop do a small piece of work: the proof that it turns.
#[derive(Clone)]
pub struct LoopProbe(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for LoopProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoopProbe")
    }
}

impl LoopProbe {
    /// Hands `work` to the loop; never waits. What a stuck loop does not take is dropped.
    pub fn ask(&self, work: impl FnOnce() + Send + 'static) {
        // A full queue is what a stuck loop looks like, and the missing work says so.
        let _ = self.0.try_send(Box::new(work));
    }
}

/// Serves `listener` until `shutdown`, then lets open requests finish for [`DRAIN`]. The task and its probe.
pub fn serve<S: Service>(
    listener: TcpListener,
    port: Port,
    service: S,
    shutdown: Shutdown,
) -> (impl Future<Output = ()> + Send, LoopProbe) {
    let (probe, probes) = mpsc::channel(MAX_PROBES);
    let task = Loop {
        port,
        service,
        shutdown,
        sources: HashMap::new(),
        turn_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
        connections: JoinSet::new(),
    }
    .run(listener, probes);
    (task, LoopProbe(probe))
}

struct Loop<S> {
    port: Port,
    service: S,
    shutdown: Shutdown,
    /// One handle a connection holds, by source; how many there are is how many connections the source has.
    sources: HashMap<IpAddr, Arc<()>>,
    turn_away: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl<S: Service> Loop<S> {
    async fn run(
        mut self,
        listener: TcpListener,
        mut probes: mpsc::Receiver<Box<dyn FnOnce() + Send>>,
    ) {
        let shutdown = self.shutdown.clone();
        let mut end = pin!(shutdown.triggered());
        loop {
            tokio::select! {
                biased;
                () = &mut end => break,
                Some(work) = probes.recv() => work(),
                Some(ended) = self.connections.join_next() => self.handle_ended(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.handle_client(stream, peer),
                    Err(error) => self.handle_accept_error(&error).await,
                },
            }
        }
        drop(listener);
        self.drain().await;
    }

    fn handle_client(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.place(peer.ip()) else {
            self.port.count.turned_away.add_one();
            if let Ok(permit) = Arc::clone(&self.turn_away).try_acquire_owned() {
                let answer = turned_away(&self.service.stamp());
                tokio::spawn(async move {
                    // Who does not take the answer in time is cut; nothing else can be done for it.
                    let _ = timeout(TURN_AWAY, turn_away(stream, &answer)).await;
                    drop(permit);
                });
            }
            return;
        };
        // Answers are written whole; waiting for more would only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(event = "lan.nodelay_refused", %error);
        }
        let port = self.port.clone();
        let service = self.service.clone();
        let shutdown = self.shutdown.clone();
        self.connections.spawn(async move {
            port.count.connections.add(1);
            let count = port.count.clone();
            let _open = OpenConnection(&count, place);
            serve_connection(stream, peer, port, service, shutdown).await;
        });
    }

    /// A place for a connection of `source`; none when the port or the source has as many as it may.
    fn place(&mut self, source: IpAddr) -> Option<Arc<()>> {
        if self.connections.len() >= self.port.limits.connections {
            return None;
        }
        if self.sources.len() >= MAX_IDLE_SOURCES {
            self.sources.retain(|_, held| Arc::strong_count(held) > 1);
        }
        let held = self.sources.entry(source).or_default();
        // The table's own handle is not a connection.
        let connections = Arc::strong_count(held) - 1;
        (connections < self.port.limits.per_source).then(|| Arc::clone(held))
    }

    fn handle_ended(&self, ended: Result<(), tokio::task::JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.port.count.panics.add_one();
            error!(
                event = "lan.connection_panicked",
                port = self.port.port.name()
            );
        }
    }

    async fn handle_accept_error(&self, error: &io::Error) {
        self.port.count.accept_failed.add_one();
        warn!(event = "lan.accept_failed", port = self.port.port.name(), %error);
        tokio::time::sleep(ACCEPT_REST).await;
    }

    async fn drain(mut self) {
        let all_ended = async { while self.connections.join_next().await.is_some() {} };
        if timeout(DRAIN, all_ended).await.is_err() {
            info!(
                event = "lan.connections_cut",
                port = self.port.port.name(),
                connections = self.connections.len()
            );
            self.connections.shutdown().await;
        }
    }
}

/// A connection's place; given back however the connection ends.
struct OpenConnection<'c>(
    &'c PortCount,
    #[expect(dead_code, reason = "held, not read")] Arc<()>,
);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.add(-1);
    }
}

async fn serve_connection<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    port: Port,
    service: S,
    shutdown: Shutdown,
) {
    let phase = Arc::new(Phase::default());
    let cut_by = Arc::new(OnceLock::new());
    let wire = Wire::new(stream, Arc::clone(&phase), port.limits, Arc::clone(&cut_by));
    let count = port.count.clone();
    let max_head = port.limits.head_bytes;
    let name = port.port.name();
    let handler = service_fn(move |request| {
        let in_flight = InFlight::start(&phase);
        let (port, service) = (port.clone(), service.clone());
        async move {
            let mut answer = answer(request, peer, &port, &service).await;
            answer.body_mut().in_flight = Some(in_flight);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    // The socket itself keeps the header and idle deadlines apart; see `wire`.
    http.timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_HEADER_FIELDS)
        .max_header_size(max_head)
        .max_buf_size(max_head.max(MIN_BUFFER));
    let mut connection = pin!(http.serve_connection(wire, handler));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.triggered() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Some(deadline) = cut_by.get() {
        count.cut(*deadline);
        debug!(event = "lan.connection_cut", port = name, %peer, ?deadline);
    } else if let Err(error) = served {
        if error.is_parse() {
            count.malformed();
        }
        debug!(event = "lan.connection_failed", port = name, %peer, %error);
    }
}

/// One request under its deadline. Where panics unwind (tests, trials), one of its handler is an answer too; a release
/// aborts, and the supervisor starts the server again.
async fn answer<S: Service>(
    request: Request<Incoming>,
    peer: SocketAddr,
    port: &Port,
    service: &S,
) -> Answer {
    let started = Instant::now();
    // Before anything is read: what is answered is never older than the version it names.
    let stamp = service.stamp();
    let (head, body) = request.into_parts();
    let uri = head.uri.clone();
    let bodies = Arc::clone(&port.large_bodies);
    let ask = Ask::new(head, body, peer, port.limits.body_bytes, bodies);
    let mut handled = pin!(service.answer(port.port, ask));
    let guarded = std::future::poll_fn(|cx| {
        // The handler's own state is dropped after a panic; what it shares is behind locks that poison.
        match std::panic::catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => std::task::Poll::Ready(None),
        }
    });
    let mut answer = match timeout(port.limits.request, guarded).await {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            port.count.panics.add_one();
            error!(event = "lan.handler_panicked", port = port.port.name());
            Problem::new(
                Kind::Internal,
                "the request met a mistake in the box's program",
            )
            .into_answer(uri.path())
        }
        Err(_) => Problem::new(
            Kind::Timeout,
            format!("no answer within {} s", port.limits.request.as_secs()),
        )
        .header(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        )
        .into_answer(uri.path()),
    };
    answer.headers_mut().extend(stamp);
    port.count.answered(answer.status(), started.elapsed());
    answer
}

/// The whole answer to who finds no place.
fn turned_away(stamp: &HeaderMap) -> Vec<u8> {
    let mut text =
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n".to_vec();
    for (name, value) in stamp {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let length = TURNED_AWAY.len();
    let end = format!("retry-after: 2\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    text.extend_from_slice(end.as_bytes());
    text.extend_from_slice(TURNED_AWAY.as_bytes());
    text
}

async fn turn_away(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // Read what the client sent: closing over unread bytes would reset the connection and take the answer with it.
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
