//! A line between the box and a host that can be cut, reset, held and slowed. It passes bytes on as they are (TLS: it
//! could not read them) and counts them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What happens to the connection on which the bytes of a fault have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is closed.
    Cut,
    /// It is reset.
    Reset,
    /// It stays open and nothing passes any more.
    Stall,
}

/// The line. It ends when it is dropped.
pub struct Line {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    to: SocketAddr,
    down: AtomicU64,
    connections: AtomicU64,
    /// Faults in their order, each after so many further bytes to the box.
    faults: Mutex<Vec<(u64, Fault)>>,
    /// Bytes a second to the box; 0: as fast as they come.
    rate: AtomicU64,
    is_dead: AtomicBool,
    has_ended: AtomicBool,
}

/// Passed on at a time.
const CHUNK: usize = 16 * 1024;
/// The end is looked for this often.
const SLICE: u16 = 50;

impl Line {
    pub fn to(host: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: host,
            down: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            faults: Mutex::default(),
            rate: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.has_ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.pass(client));
            }
        });
        Self {
            addr,
            shared,
            thread: Some(thread),
        }
    }

    /// As the host of a URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Bytes that passed to the box so far.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// After the earlier faults and `bytes` more to the box.
    pub fn arm(&self, bytes: u64, fault: Fault) {
        self.shared.faults.lock().unwrap().push((bytes, fault));
    }

    /// Whether all faults have happened.
    pub fn is_spent(&self) -> bool {
        self.shared.faults.lock().unwrap().is_empty()
    }

    /// So many bytes a second to the box; 0: as fast as they come.
    pub fn set_rate(&self, bytes_a_second: u64) {
        self.shared.rate.store(bytes_a_second, Ordering::SeqCst);
    }

    /// While it is dead, connections are closed at once.
    pub fn set_dead(&self, is_dead: bool) {
        self.shared.is_dead.store(is_dead, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn pass(&self, mut client: TcpStream) {
        if self.is_dead.load(Ordering::SeqCst) {
            return;
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(mut host) = TcpStream::connect(self.to) else {
            return;
        };
        // What has passed is with the box, and not in a buffer on this side.
        let socket = socket2::SockRef::from(&client);
        socket.set_send_buffer_size(CHUNK).unwrap();
        let mut chunk = vec![0; CHUNK];
        while !self.has_ended.load(Ordering::Relaxed) && !self.is_dead.load(Ordering::Relaxed) {
            let (up, down) = readable(&client, &host);
            if up && !forward(&mut client, &mut host, &mut chunk) {
                return;
            }
            if !down {
                continue;
            }
            let Ok(read @ 1..) = host.read(&mut chunk) else {
                return;
            };
            let (passes, fault) = self.next_fault(read);
            if client.write_all(&chunk[..passes]).is_err() {
                return;
            }
            self.down.fetch_add(passes as u64, Ordering::SeqCst);
            match fault {
                None => {}
                Some(Fault::Cut) => return,
                Some(Fault::Reset) => {
                    let socket = socket2::SockRef::from(&client);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                Some(Fault::Stall) => {
                    self.hold(&client);
                    return;
                }
            }
            let rate = self.rate.load(Ordering::Relaxed);
            if rate > 0 {
                // The line's own slowness, no test's wait.
                thread::sleep(Duration::from_secs_f64(passes as f64 / rate as f64));
            }
        }
    }

    /// How many of the `read` bytes pass, and what happens after them.
    fn next_fault(&self, read: usize) -> (usize, Option<Fault>) {
        let mut faults = self.faults.lock().unwrap();
        let Some((left, fault)) = faults.first_mut() else {
            return (read, None);
        };
        let passes = usize::try_from(*left).map_or(read, |left| left.min(read));
        *left -= passes as u64;
        if *left > 0 {
            return (passes, None);
        }
        let fault = *fault;
        faults.remove(0);
        (passes, Some(fault))
    }

    /// Until the box gives up.
    fn hold(&self, mut client: &TcpStream) {
        client
            .set_read_timeout(Some(Duration::from_millis(SLICE.into())))
            .unwrap();
        let mut chunk = [0; 256];
        while !self.has_ended.load(Ordering::Relaxed) {
            match client.read(&mut chunk) {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

fn forward(from: &mut TcpStream, to: &mut TcpStream, chunk: &mut [u8]) -> bool {
    match from.read(chunk) {
        Ok(read @ 1..) => to.write_all(&chunk[..read]).is_ok(),
        _ => false,
    }
}

fn readable(client: &TcpStream, host: &TcpStream) -> (bool, bool) {
    let mut fds = [client, host].map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN));
    if poll(&mut fds, PollTimeout::from(SLICE)).is_err() {
        return (false, false);
    }
    let [client, host] = fds.map(|fd| fd.any().unwrap_or(false));
    (client, host)
}
