//! Discovery across a real network: two network namespaces, a wire between them, real broadcasts.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use comptoir::devices::handshake::CommandKey;
use comptoir::identity::{BoxIdentity, Secret};
use comptoir::lan::discovery::{Announcement, Discovery, Sighting, wire};
use comptoir::shutdown::Shutdown;
use comptoir::store::devices::Paired;
use nix::sched::{CloneFlags, setns};

use crate::kitchen::{DEADLINE, Kitchen, wait_for};

const PORT: u16 = 57854;
/// Far apart in a network that is wider than /24: who assumes /24 does not find anybody.
const BOX: Ipv4Addr = Ipv4Addr::new(10, 99, 16, 1);
const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 99, 30, 7);
const PREFIX: u8 = 20;
/// On the same wire, but of another network: answering it would be answering the internet.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 5);

/// Two hosts and a wire; gone when dropped.
struct Wire {
    box_host: String,
    device_host: String,
}

impl Wire {
    /// `None` where this machine cannot make one.
    fn lay() -> Option<Self> {
        let id = std::process::id();
        let wire = Self {
            box_host: format!("cmpt-box-{id}"),
            device_host: format!("cmpt-dev-{id}"),
        };
        let (a, b) = (&wire.box_host, &wire.device_host);
        if !ip(&["netns", "add", a]) {
            return None;
        }
        let laid = ip(&["netns", "add", b])
            && ip(&[
                "-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b,
            ])
            && [(a, BOX), (b, DEVICE)].into_iter().all(|(host, address)| {
                let address = format!("{address}/{PREFIX}");
                ip(&["-n", host, "addr", "add", &address, "dev", "wire"])
                    && ip(&["-n", host, "link", "set", "wire", "up"])
                    && ip(&["-n", host, "link", "set", "lo", "up"])
            })
            // The box could answer the stranger: there is a way back.
            && ip(&["-n", b, "addr", "add", &format!("{STRANGER}/24"), "dev", "wire"])
            && ip(&["-n", a, "route", "add", &format!("{STRANGER}/32"), "dev", "wire"]);
        laid.then_some(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.box_host]);
        ip(&["netns", "del", &self.device_host]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `work` on a host: a thread of its own that lives there.
fn on<T: Send + 'static>(host: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let namespace = File::open(format!("/var/run/netns/{host}")).unwrap();
    thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

fn identity() -> BoxIdentity {
    BoxIdentity::from_seed([42; 32])
}

/// The box's discovery on its host.
fn run_box(host: &str, shutdown: &Shutdown) -> (JoinHandle<()>, mpsc::Receiver<Sighting>) {
    let (tell, sightings) = mpsc::channel();
    let shutdown = shutdown.clone();
    let thread = on(host, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            let announcement = Announcement {
                ports: vec![80, 8000, 8004],
                front_port: 80,
                command_port: 8081,
            };
            let tell = move |sighting| {
                let _ = tell.send(sighting);
            };
            Discovery::new(socket, Arc::new(identity()), announcement, tell)
                .unwrap()
                .run(shutdown)
                .await;
        });
    });
    (thread, sightings)
}

/// Asks the box from `source` and gives its answer.
fn ask(host: &str, source: Ipv4Addr, nonce: u8, patience: Duration) -> Option<Vec<u8>> {
    on(host, move || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        let mut question = [&b"CMPT\x01\x01"[..], &[nonce; 16]].concat();
        question.resize(wire::DATAGRAM_LIMIT, 0);
        let deadline = Instant::now() + patience;
        let mut answer = [0; 1024];
        // Asked again as a device would: the box may not be there yet, and datagrams may be lost.
        while Instant::now() < deadline {
            socket.send_to(&question, (BOX, PORT)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(700)))
                .unwrap();
            if let Ok(length) = socket.recv(&mut answer) {
                return Some(answer[..length].to_vec());
            }
        }
        None
    })
    .join()
    .unwrap()
}

#[test]
fn box_and_device_find_each_other_on_a_wide_network_and_strangers_get_no_answer() {
    let Some(net) = Wire::lay() else {
        // Not a macro of the test harness: this has to be seen although the test passes.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: discovery across a network needs root, ip and network namespaces"
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let paired = Paired {
        device_id: "dev-1".into(),
        token: Secret::new("t"),
        command_key: [5; 32],
    };
    let address = DEVICE.to_string();
    let mut kitchen = Kitchen::paired(
        dir.path(),
        &paired,
        identity().id(),
        &identity().public_key(),
    )
    .on_host(&net.device_host, &address)
    .with(&["--discover", &address, "--heartbeat-s", "1"]);
    kitchen.start();

    let shutdown = Shutdown::default();
    let (thread, sightings) = run_box(&net.box_host, &shutdown);

    // The box finds the device: its broadcast is heard, the answer proves itself and comes from the device's address.
    let sighting = sightings.recv_timeout(DEADLINE).unwrap();
    assert_eq!(sighting.device_id, "dev-1");
    assert_eq!(sighting.address, IpAddr::V4(DEVICE));
    assert!(CommandKey::new([5; 32]).verifies_here(&sighting.proven_part, &sighting.mac));

    // The device finds the box, by broadcast.
    let found = format!("{} is at {BOX}, front port 80", identity().id());
    wait_for("the device to find the box", || {
        kitchen.errors().contains(&found).then_some(())
    });

    // A neighbour is answered; who is on the same wire with another network's address is not.
    let answer = ask(&net.device_host, DEVICE, 1, DEADLINE).unwrap();
    assert_eq!(
        answer,
        wire::box_here(&identity(), &[1; 16], &[80, 8000, 8004], 80)
    );
    assert_eq!(
        ask(&net.device_host, STRANGER, 2, Duration::from_secs(2)),
        None
    );

    shutdown.trigger();
    thread.join().unwrap();
}
