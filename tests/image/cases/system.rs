//! The system under the server: root, units, sockets, consoles, data.

use std::collections::BTreeSet;

use crate::world::World;

/// The LAN side of the network contract; 8005 only opens when support asks for it.
const TCP_PORTS: [u16; 6] = [80, 8000, 8001, 8002, 8003, 8004];
const DISCOVERY_PORT: u16 = 57854;
/// DHCP's client side: how the box gets its address.
const DHCP_CLIENT_PORT: u16 = 68;

/// States of /proc/net: a TCP listener, an unconnected UDP socket.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

pub fn root_is_read_only_and_verified(world: &mut World) {
    let report = &world.boot_report["root"];
    assert_eq!(report["read_only"], true, "{report}");
    assert_eq!(report["verity"], true, "{report}");
    let shell = &mut world.shell;
    for path in ["/etc/passwd", "/usr/bin/comptoir", "/new-file"] {
        let ran = shell.run(&format!("echo x >>{path}"));
        assert_ne!(ran.status, 0, "{path} could be written");
        assert!(
            ran.output.contains("Read-only file system"),
            "{}",
            ran.output
        );
    }
    assert_ne!(
        shell.run("mount -o remount,rw /").status,
        0,
        "root could be remounted"
    );
    // V: every block read so far was what its hash says. C would be corruption.
    let status = shell.run("dmsetup status root").ok();
    assert!(status.ends_with(" V"), "{status}");
    let table = shell.run("dmsetup table root").ok();
    assert!(
        table.contains("verity") && table.contains("restart_on_corruption"),
        "{table}"
    );
}

pub fn no_unit_has_failed(world: &mut World) {
    assert_eq!(world.boot_report["failed_units"], serde_json::json!([]));
    assert_eq!(
        world
            .shell
            .run("systemctl --failed --plain --no-legend")
            .ok(),
        ""
    );
    let state = world.shell.run("systemctl is-system-running --wait").output;
    assert_eq!(state, "running");
}

pub fn nothing_listens_outside_the_contract(world: &mut World) {
    world.wait_until_ready();
    let mut listening = |files: &str, state: &str| -> BTreeSet<u16> {
        let table = world
            .shell
            .run(&format!("cat {files} 2>/dev/null; true"))
            .ok();
        table
            .lines()
            .filter_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let local = fields.get(1)?.rsplit_once(':')?.1;
                (fields.get(3) == Some(&state)).then(|| u16::from_str_radix(local, 16).unwrap())
            })
            .collect()
    };
    let tcp = listening("/proc/net/tcp /proc/net/tcp6", TCP_LISTEN);
    let udp = listening("/proc/net/udp /proc/net/udp6", UDP_UNCONNECTED);
    let raw = listening("/proc/net/raw /proc/net/raw6", UDP_UNCONNECTED);
    assert_eq!(tcp, BTreeSet::from(TCP_PORTS));
    assert!(udp.contains(&DISCOVERY_PORT), "{udp:?}");
    assert!(
        udp.iter()
            .all(|port| [DISCOVERY_PORT, DHCP_CLIENT_PORT].contains(port)),
        "{udp:?}"
    );
    assert!(raw.is_empty(), "{raw:?}");
}

pub fn no_console_offers_a_login(world: &mut World) {
    let shell = &mut world.shell;
    let processes = shell.run("ps").ok();
    for login in ["getty", "login", "sulogin", "sshd"] {
        assert!(!processes.contains(login), "{processes}");
    }
    let units = shell
        .run("systemctl list-unit-files --no-legend '*getty*.service' 'debug-shell*'; true")
        .ok();
    assert_eq!(units, "");
    let hashes = shell.run("cut -d: -f1,2 /etc/shadow").ok();
    for line in hashes.lines() {
        assert!(line.contains(":!"), "a password is set or empty: {line}");
    }
}

pub fn data_fills_the_disk_and_root_owns_nothing_running(world: &mut World) {
    assert_eq!(world.boot_report["data"], "created");
    let shell = &mut world.shell;
    let mib: u64 = shell
        .run("df -m /data | awk 'END { print $2 }'")
        .ok()
        .parse()
        .unwrap();
    // Of the disk's 2 GiB, 465 MiB are slots.
    assert!(mib > 1400, "{mib} MiB");
    let owners = shell
        .run("for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" = /usr/bin/comptoir ] && stat -c %U $p 2>/dev/null; done | sort -u")
        .ok();
    assert_eq!(owners, "comptoir");
}
