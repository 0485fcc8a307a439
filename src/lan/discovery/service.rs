//! The service: answers devices that look for the box, and asks for devices.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::buckets::Buckets;
use super::interfaces::{Interface, interfaces};
use super::socket::{Arrived, Buffer, DiscoverySocket};
use super::wire::{self, DATAGRAM_LIMIT, Nonce, Received};
use crate::identity::{BoxIdentity, dice, random_bytes};
use crate::shutdown::Shutdown;

/// Gaps before the questions after the start; then [`ASK_EVERY`] and up to as much again.
const FIRST_GAPS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// The least time between two questions of the box.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// The longest wait before an answer: many boxes or many questions do not all speak at once.
const ANSWER_WAIT: Duration = Duration::from_millis(250);

/// Answers waiting for their time; more are dropped, the asker asks again.
const WAITING_LIMIT: usize = 32;

/// How long an answer to a question of the box is taken.
const NONCE_LIFE: Duration = Duration::from_secs(90);

/// Questions of the box whose answers are taken at a time.
const NONCES_LIMIT: usize = 4;

/// How old the knowledge of the box's own interfaces may be.
const INTERFACES_LIFE: Duration = Duration::from_secs(2);

/// After an error of the socket, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Ports below this are services, not devices: an answer sent there would be somebody's attack.
const LOWEST_PORT: u16 = 1024;

/// What the box tells about itself.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Open TCP ports, rising.
    pub ports: Vec<u16>,
    /// The one for people and for `/.well-known/comptoir`.
    pub front_port: u16,
    /// Where devices have to listen.
    pub command_port: u16,
}

/// A device says where it is. Whether it is that device, its mac tells: see
/// [`CommandKey::verifies_here`](crate::devices::handshake::CommandKey::verifies_here).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who it says it is.
    pub device_id: String,
    /// Where the datagram came from.
    pub address: IpAddr,
    /// What the mac covers.
    pub proven_part: Vec<u8>,
    /// The proof.
    pub mac: [u8; 32],
}

/// The long-lived part behind UDP 57854.
pub struct Discovery {
    socket: DiscoverySocket,
    identity: Arc<BoxIdentity>,
    announcement: Announcement,
    on_sighting: Box<dyn Fn(Sighting) + Send>,
    state: State,
}

/// What changes while it runs.
struct State {
    started: Instant,
    buckets: Buckets,
    waiting: Vec<Answer>,
    nonces: VecDeque<(Nonce, Instant)>,
    asked: usize,
    interfaces: Option<(Vec<Interface>, Instant)>,
}

/// An answer that waits for its time.
struct Answer {
    due: Instant,
    nonce: Nonce,
    to: SocketAddrV4,
    interface: u32,
    from: Ipv4Addr,
}

impl Discovery {
    /// Takes over the bound socket; to be called inside the runtime. `on_sighting` must not wait.
    ///
    /// # Errors
    /// When the socket refuses an option discovery needs.
    pub fn new(
        socket: UdpSocket,
        identity: Arc<BoxIdentity>,
        announcement: Announcement,
        on_sighting: impl Fn(Sighting) + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: DiscoverySocket::new(socket)?,
            identity,
            announcement,
            on_sighting: Box::new(on_sighting),
            state: State {
                started: Instant::now(),
                buckets: Buckets::default(),
                waiting: Vec::new(),
                nonces: VecDeque::new(),
                asked: 0,
                interfaces: None,
            },
        })
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: Shutdown) {
        info!(event = "lan.discovery_started", ports = ?self.announcement.ports);
        let mut buffer: Buffer = [0; DATAGRAM_LIMIT + 1];
        let mut next_question = Instant::now() + FIRST_GAPS[0];
        loop {
            let next_answer = self.state.waiting.iter().map(|answer| answer.due).min();
            tokio::select! {
                () = shutdown.triggered() => return,
                () = sleep_until(next_question) => {
                    self.ask().await;
                    next_question = Instant::now() + gap(self.state.asked, dice());
                }
                () = sleep_until(next_answer.unwrap_or_else(Instant::now)), if next_answer.is_some() => {
                    self.answer_due().await;
                }
                arrived = self.socket.receive(&mut buffer) => match arrived {
                    Ok(arrived) => self.handle(&arrived, &buffer[..arrived.length]),
                    Err(error) => {
                        warn!(event = "lan.discovery_failed", %error);
                        let pause = Instant::now() + ERROR_PAUSE;
                        tokio::select! {
                            () = shutdown.triggered() => return,
                            () = sleep_until(pause) => {}
                        }
                    }
                },
            }
        }
    }

    fn handle(&mut self, arrived: &Arrived, datagram: &[u8]) {
        let received = match wire::read(datagram) {
            Ok(received) => received,
            Err(error) => {
                debug!(event = "lan.discovery_dropped", reason = error.name(), from = %arrived.from);
                return;
            }
        };
        let Some(here) = self.state.neighbourhood(arrived) else {
            debug!(event = "lan.discovery_dropped", reason = "not_a_neighbour", from = %arrived.from);
            return;
        };
        match received {
            Received::WhoIsBox { nonce } => self.state.queue_answer(arrived, here, nonce, dice()),
            Received::DeviceHere(device) => {
                let asked = self.state.has_asked(&device.nonce, Instant::now());
                if !asked || device.command_port != self.announcement.command_port {
                    debug!(event = "lan.discovery_dropped", reason = "not_asked_or_other_port", from = %arrived.from);
                    return;
                }
                (self.on_sighting)(Sighting {
                    device_id: device.device_id.to_owned(),
                    address: IpAddr::V4(*arrived.from.ip()),
                    proven_part: device.proven_part.to_vec(),
                    mac: device.mac,
                });
            }
        }
    }

    async fn answer_due(&mut self) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.state.waiting)
            .into_iter()
            .partition(|answer| answer.due <= now);
        self.state.waiting = later;
        for answer in due {
            let datagram = wire::box_here(
                &self.identity,
                &answer.nonce,
                &self.announcement.ports,
                self.announcement.front_port,
            );
            let sent = self
                .socket
                .send(&datagram, answer.to, answer.interface, answer.from)
                .await;
            if let Err(error) = sent {
                debug!(event = "lan.discovery_unsent", to = %answer.to, %error);
            }
        }
    }

    async fn ask(&mut self) {
        self.state.asked = self.state.asked.saturating_add(1);
        let nonce = random_bytes();
        self.state.remember(nonce, Instant::now());
        let question = wire::who_are_devices(&self.identity, &nonce);
        let Ok(port) = self.socket.port() else { return };
        self.state.interfaces = None;
        for interface in self.state.interfaces_now().to_vec() {
            let Some(broadcast) = interface.broadcast() else {
                continue;
            };
            let to = SocketAddrV4::new(broadcast, port);
            let sent = self
                .socket
                .send(&question, to, interface.index, interface.address)
                .await;
            if let Err(error) = sent {
                debug!(event = "lan.discovery_unsent", %to, %error);
            }
        }
    }
}

impl State {
    /// The own address on the network the datagram came in by, when its sender is a neighbour there.
    fn neighbourhood(&mut self, arrived: &Arrived) -> Option<Ipv4Addr> {
        if arrived.from.port() < LOWEST_PORT {
            return None;
        }
        let from = *arrived.from.ip();
        let interface = arrived.interface;
        self.interfaces_now()
            .iter()
            .find(|own| own.index == interface && own.has_neighbour(from))
            .map(|own| own.address)
    }

    fn interfaces_now(&mut self) -> &[Interface] {
        let fresh = self
            .interfaces
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() < INTERFACES_LIFE);
        if !fresh {
            let now = interfaces().unwrap_or_else(|error| {
                warn!(event = "lan.interfaces_unknown", %error);
                Vec::new()
            });
            self.interfaces = Some((now, Instant::now()));
        }
        self.interfaces.as_ref().map_or(&[], |(list, _)| list)
    }

    fn queue_answer(&mut self, arrived: &Arrived, from: Ipv4Addr, nonce: Nonce, dice: u32) {
        let now = Instant::now();
        let allowed = self.waiting.len() < WAITING_LIMIT
            && self
                .buckets
                .take(*arrived.from.ip(), now.duration_since(self.started));
        if !allowed {
            debug!(event = "lan.discovery_dropped", reason = "too_often", from = %arrived.from);
            return;
        }
        self.waiting.push(Answer {
            due: now + part_of(ANSWER_WAIT, dice),
            nonce,
            to: arrived.from,
            interface: arrived.interface,
            from,
        });
    }

    fn remember(&mut self, nonce: Nonce, now: Instant) {
        self.nonces.truncate(NONCES_LIMIT - 1);
        self.nonces.push_front((nonce, now));
    }

    fn has_asked(&self, nonce: &Nonce, now: Instant) -> bool {
        self.nonces
            .iter()
            .any(|(ours, at)| ours == nonce && now.duration_since(*at) <= NONCE_LIFE)
    }
}

/// The time before the question after `asked` questions.
fn gap(asked: usize, dice: u32) -> Duration {
    FIRST_GAPS
        .get(asked)
        .copied()
        .unwrap_or_else(|| ASK_EVERY + part_of(ASK_EVERY, dice))
}

/// A part of `whole`, by a random number.
fn part_of(whole: Duration, dice: u32) -> Duration {
    whole.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::handshake::CommandKey;
    use crate::digest::hmac_sha256;
    use std::sync::mpsc;
    use tokio::net::UdpSocket as Peer;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Running {
        address: SocketAddrV4,
        identity: Arc<BoxIdentity>,
        sightings: mpsc::Receiver<Sighting>,
        shutdown: Shutdown,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.shutdown.trigger();
        }
    }

    /// Discovery on a free port, asking and answering on the loopback network.
    fn start() -> Running {
        let socket = shared_socket(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let port = socket.local_addr().unwrap().port();
        let identity = Arc::new(BoxIdentity::from_seed([3; 32]));
        let (tell, sightings) = mpsc::channel();
        let announcement = Announcement {
            ports: vec![80, 8000],
            front_port: 80,
            command_port: 8081,
        };
        let discovery = Discovery::new(
            socket,
            Arc::clone(&identity),
            announcement,
            move |sighting| tell.send(sighting).unwrap(),
        )
        .unwrap();
        let shutdown = Shutdown::default();
        tokio::spawn(discovery.run(shutdown.clone()));
        Running {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            identity,
            sightings,
            shutdown,
        }
    }

    /// Box and device share one machine here, and with it the port.
    fn shared_socket(address: SocketAddrV4) -> UdpSocket {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.into()
    }

    fn question(nonce: u8) -> Vec<u8> {
        let mut question = [&b"CMPT\x01\x01"[..], &[nonce; 16]].concat();
        question.resize(DATAGRAM_LIMIT, 0);
        question
    }

    async fn hear(peer: &Peer) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let length = timeout(DEADLINE, peer.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        buffer[..length].to_vec()
    }

    #[tokio::test]
    async fn a_question_gets_a_signed_answer_no_longer_than_itself() {
        let running = start();
        let peer = Peer::bind("127.0.0.9:0").await.unwrap();
        peer.send_to(&question(7), running.address).await.unwrap();
        let answer = hear(&peer).await;
        assert_eq!(
            answer,
            wire::box_here(&running.identity, &[7; 16], &[80, 8000], 80)
        );
        assert!(answer.len() <= DATAGRAM_LIMIT);
    }

    #[tokio::test]
    async fn bad_and_too_many_questions_get_no_answer_and_do_no_harm() {
        let running = start();
        let peer = Peer::bind("127.0.0.10:0").await.unwrap();
        for bad in [&question(1)[..255], &[0; 300], b"", b"CMPT", &[0xff; 256]] {
            peer.send_to(bad, running.address).await.unwrap();
        }
        for nonce in 10..60 {
            peer.send_to(&question(nonce), running.address)
                .await
                .unwrap();
        }
        let other = Peer::bind("127.0.0.11:0").await.unwrap();
        other.send_to(&question(99), running.address).await.unwrap();
        assert_eq!(hear(&other).await[6], 99, "it still serves");

        let mut answered = 0;
        let quiet = ANSWER_WAIT + Duration::from_millis(50);
        let mut buffer = [0; 300];
        while let Ok(length) = timeout(quiet, peer.recv(&mut buffer)).await {
            assert!(
                (10..60).contains(&buffer[6]),
                "{:02x?}",
                &buffer[..length.unwrap()]
            );
            answered += 1;
        }
        // Two at once, and two a second while a busy machine works through the fifty.
        assert!((2..20).contains(&answered), "{answered} of 50 answered");
    }

    #[tokio::test]
    async fn the_box_asks_and_takes_only_answers_to_its_own_question() {
        // The box asks on the port it listens on: this listens there too, on the network's broadcast address.
        let running = start();
        let broadcast = SocketAddrV4::new([127, 255, 255, 255].into(), running.address.port());
        let ear = shared_socket(broadcast);
        ear.set_nonblocking(true).unwrap();
        let ear = Peer::from_std(ear).unwrap();
        let question = hear(&ear).await;
        assert_eq!(question.len(), DATAGRAM_LIMIT);
        assert_eq!(question[..6], *b"CMPT\x01\x03");
        let nonce: Nonce = question[6..22].try_into().unwrap();
        assert_eq!(
            question,
            wire::who_are_devices(&running.identity, &nonce),
            "signed"
        );

        let key = [5; 32];
        let here = |nonce: &Nonce, port: u16| {
            let mut answer = [&b"CMPT\x01\x04"[..], nonce, b"\x05dev-1"].concat();
            answer.extend(port.to_be_bytes());
            let mac = hmac_sha256(&key, &[b"comptoir-here-1", &answer]);
            answer.extend(mac);
            answer
        };
        let device = Peer::bind("127.0.0.12:0").await.unwrap();
        for answer in [here(&[0; 16], 8081), here(&nonce, 8082), here(&nonce, 8081)] {
            device.send_to(&answer, running.address).await.unwrap();
        }
        let sightings = async {
            loop {
                if let Ok(sighting) = running.sightings.try_recv() {
                    return sighting;
                }
                tokio::task::yield_now().await;
            }
        };
        let sighting = timeout(DEADLINE, sightings).await.unwrap();
        assert_eq!(sighting.device_id, "dev-1");
        assert_eq!(sighting.address, IpAddr::from([127, 0, 0, 12]));
        assert_eq!(sighting.proven_part[6..22], nonce);
        assert!(CommandKey::new(key).verifies_here(&sighting.proven_part, &sighting.mac));
        assert!(!CommandKey::new([6; 32]).verifies_here(&sighting.proven_part, &sighting.mac));
    }

    #[test]
    fn the_box_asks_three_times_and_then_every_30_to_60_seconds() {
        assert_eq!(gap(1, 0), Duration::from_secs(1));
        assert_eq!(gap(2, 0), Duration::from_secs(3));
        assert_eq!(gap(3, 0), Duration::from_secs(30));
        assert_eq!(gap(usize::MAX, u32::MAX), Duration::from_secs(60));
    }
}
