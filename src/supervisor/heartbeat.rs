//! How the server proves work to the supervisor: small datagrams over a pair of sockets.
//!
//! A timer that says "alive" proves that a timer runs. Here each part counts what its *own* loop has done, a probe
//! asks every part once a second to do a small thing through that loop, and the sender passes on only which parts
//! moved. A part whose loop is stuck stops moving although the sender still runs.
//!
//! The channel is one-way and lossy on purpose: it never blocks the server. A full socket (the supervisor is stopped)
//! loses beats, and the next one says the same again. When the supervisor is gone, the server ends itself in good order,
//! so that two servers never share the listeners.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::policy::MAX_PARTS;
use crate::shutdown::Shutdown;

/// Between two beats.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Longest datagram of the channel; longer ones are dropped by the receiver.
const MAX_DATAGRAM: usize = 4096;

/// Longest name of a part; a longer one is cut, so that all names fit a datagram.
const MAX_NAME: usize = 32;

/// Beats read in one go; what lies beyond waits for the next turn, so that a babbling server cannot hold the supervisor.
const MAX_PER_TURN: usize = 64;

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The parts that will prove work, in the order [`Message::Moved`] counts them.
    Parts(Vec<String>),
    /// Every port answers.
    Serves,
    /// These parts have moved since the last beat.
    Moved(Vec<u8>),
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Receiver(UnixDatagram);

/// Makes both ends; the second goes to the server.
///
/// # Errors
/// When the operating system has no socket left.
pub fn pair() -> io::Result<(Receiver, OwnedFd)> {
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((Receiver(ours), theirs.into()))
}

impl Receiver {
    /// The socket, to wait on.
    #[must_use]
    pub fn socket(&self) -> &UnixDatagram {
        &self.0
    }

    /// What has arrived, without waiting; datagrams that are no message are dropped with a warning.
    #[must_use]
    pub fn drain(&self) -> Vec<Message> {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        let mut messages = Vec::new();
        for _ in 0..MAX_PER_TURN {
            let Ok(length) = self.0.recv(&mut buffer) else {
                break;
            };
            // A closed peer reads as an endless row of empty datagrams on some kernels.
            if length == 0 {
                break;
            }
            match postcard::from_bytes(&buffer[..length]) {
                Ok(message) if length <= MAX_DATAGRAM => messages.push(message),
                _ => warn!(event = "supervisor.beat_unreadable", length),
            }
        }
        messages
    }
}

/// The counters of every part, shared by the parts and the sender.
#[derive(Clone, Default)]
pub struct Progress {
    parts: Arc<Mutex<Vec<Counted>>>,
}

struct Counted {
    part: Part,
    probe: Box<dyn Fn(Part) + Send>,
    seen: u64,
}

/// One part's counter. A clone counts for the same part.
#[derive(Debug, Clone)]
pub struct Part {
    name: Arc<str>,
    count: Arc<AtomicU64>,
}

impl Part {
    /// Work was done. To be called from the part's own loop and nowhere else.
    pub fn moved(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    /// Adds a part. `probe` is called once a second: it must hand a small piece of work to the part's own loop, which
    /// calls [`Part::moved`] when it comes to it, and must not wait (`try_send`, `spawn`, a queue's no-op).
    ///
    /// A part beyond the first [`MAX_PARTS`] is not watched, and that is said.
    pub fn watch(&self, name: &str, probe: impl Fn(Part) + Send + 'static) -> Part {
        let name: String = name.chars().take(MAX_NAME).collect();
        let part = Part {
            name: name.into(),
            count: Arc::default(),
        };
        let mut parts = self.parts.lock().expect("no holder of this lock panics");
        if parts.len() < MAX_PARTS {
            parts.push(Counted {
                part: part.clone(),
                probe: Box::new(probe),
                seen: 0,
            });
        } else {
            warn!(event = "supervisor.part_unwatched", part = %part.name);
        }
        part
    }

    fn names(&self) -> Vec<String> {
        let parts = self.parts.lock().expect("no holder of this lock panics");
        parts
            .iter()
            .map(|counted| counted.part.name.to_string())
            .collect()
    }

    /// Which parts moved since the last call; then asks every part to move again.
    fn turn(&self) -> Vec<u8> {
        let mut moved = Vec::new();
        let mut parts = self.parts.lock().expect("no holder of this lock panics");
        for (place, counted) in (0_u8..).zip(parts.iter_mut()) {
            let count = counted.part.count.load(Ordering::Relaxed);
            if count != counted.seen {
                counted.seen = count;
                moved.push(place);
            }
            (counted.probe)(counted.part.clone());
        }
        moved
    }
}

/// The server's end.
#[derive(Debug)]
pub struct Sender(UnixDatagram);

impl Sender {
    /// Speaks through a socket made by [`pair`].
    #[must_use]
    pub fn new(socket: UnixDatagram) -> Self {
        Self(socket)
    }

    /// Says which parts will prove work and that every port answers, then beats until `shutdown`. Blocks: give it a thread.
    ///
    /// When the supervisor is gone it triggers `shutdown` itself.
    pub fn run(&self, progress: &Progress, shutdown: &Shutdown) {
        let mut greeting = vec![Message::Serves, Message::Parts(progress.names())];
        loop {
            while let Some(message) = greeting.pop() {
                match self.send(&message) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        greeting.push(message);
                        break;
                    }
                    Err(error) => return orphaned(&error, shutdown),
                }
            }
            match self.send(&Message::Moved(progress.turn())) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return orphaned(&error, shutdown);
                }
                _ => {}
            }
            if shutdown.wait(BEAT_EVERY) {
                return;
            }
        }
    }

    fn send(&self, message: &Message) -> io::Result<()> {
        let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
        self.0.send(&bytes).map(drop)
    }
}

fn orphaned(error: &io::Error, shutdown: &Shutdown) {
    warn!(event = "supervisor.lost", %error);
    shutdown.trigger();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Collects messages until `enough` says so.
    fn listen(receiver: &Receiver, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut heard = Vec::new();
        while !enough(&heard) {
            assert!(Instant::now() < deadline, "only heard {heard:?}");
            heard.extend(receiver.drain());
            std::thread::yield_now();
        }
        heard
    }

    fn sender(theirs: OwnedFd) -> Sender {
        Sender::new(UnixDatagram::from(theirs))
    }

    #[test]
    fn a_part_with_a_stuck_loop_stops_moving_while_the_others_go_on() {
        let (receiver, theirs) = pair().unwrap();
        let (progress, shutdown) = (Progress::default(), Shutdown::default());
        let (work, queue) = mpsc::channel::<Part>();
        progress.watch("store", move |part| drop(work.send(part)));
        progress.watch("lan", |part| part.moved());
        let beats = std::thread::spawn({
            let (progress, shutdown) = (progress.clone(), shutdown.clone());
            move || sender(theirs).run(&progress, &shutdown)
        });
        let names = vec!["store".to_owned(), "lan".to_owned()];
        let heard = listen(&receiver, |heard| heard.len() >= 3);
        assert_eq!(heard[0], Message::Parts(names));
        assert_eq!(heard[1], Message::Serves);

        queue.recv().unwrap().moved();
        listen(&receiver, |heard| {
            heard.contains(&Message::Moved(vec![0, 1]))
        });
        let heard = listen(&receiver, |heard| heard.len() >= 2);
        assert!(
            heard
                .iter()
                .all(|message| *message == Message::Moved(vec![1])),
            "{heard:?}"
        );
        shutdown.trigger();
        beats.join().unwrap();
    }

    #[test]
    fn the_server_ends_itself_when_the_supervisor_is_gone() {
        let (receiver, theirs) = pair().unwrap();
        drop(receiver);
        let shutdown = Shutdown::default();
        sender(theirs).run(&Progress::default(), &shutdown);
        assert!(shutdown.is_triggered());
    }

    #[test]
    fn the_longest_list_of_parts_fits_a_datagram() {
        let names = vec!["x".repeat(MAX_NAME * 4); MAX_PARTS];
        let progress = Progress::default();
        names
            .iter()
            .for_each(|name| drop(progress.watch(name, |_| {})));
        progress.watch("one too many", |_| {});
        let listed = progress.names();
        assert_eq!(listed.len(), MAX_PARTS);
        assert!(
            postcard::to_allocvec(&Message::Parts(listed))
                .unwrap()
                .len()
                <= MAX_DATAGRAM
        );
    }

    #[test]
    fn what_is_no_message_is_dropped_and_the_next_is_read() {
        let (receiver, theirs) = pair().unwrap();
        let socket = UnixDatagram::from(theirs);
        socket.send(&[9; 40]).unwrap();
        socket.send(&[0; MAX_DATAGRAM + 1]).unwrap();
        Sender::new(socket).send(&Message::Serves).unwrap();
        assert_eq!(receiver.drain(), vec![Message::Serves]);
    }
}
