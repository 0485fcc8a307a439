//! What a shop does to a box: crashes, hangs, pulled plugs, worn disks.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::load::{self, Tally};
use crate::vm::eventually;
use crate::world::World;

/// Killed: noticed at once; the new server opens its store under emulation.
const BACK_AFTER_A_KILL: Duration = Duration::from_secs(60);
/// Hung: noticed after `supervisor.hang_s`.
const BACK_AFTER_A_HANG: Duration = Duration::from_secs(120);

/// Orders that must be acknowledged before the plug is pulled.
const ORDERS_BEFORE_THE_CUT: usize = 30;

/// A process that ends while it is looked at makes the shell complain about its vanished file, which is no finding.
const FIND_SERVER: &str = "{ for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q '^/usr/bin/comptoir serve\\|^comptoir serve' && basename $p; done; } 2>/dev/null; true";

fn server_pid(world: &mut World) -> Option<u32> {
    world
        .shell
        .run(FIND_SERVER)
        .ok()
        .lines()
        .find_map(|line| line.trim().parse().ok())
}

/// Sends `signal` to the server while customers ask, and waits until another one has taken over.
fn server_is_replaced_after(world: &mut World, signal: &str, within: Duration) -> Tally {
    world.wait_until_ready();
    let before = server_pid(world).expect("a server runs");
    let load = load::keep_asking(world.url(80, "/livez"));
    world.shell.run(&format!("kill -{signal} {before}")).ok();
    let after = eventually("another server runs", within, || {
        server_pid(world).filter(|pid| *pid != before)
    });
    world.wait_until_ready();
    let tally = load.stop();
    assert_eq!(server_pid(world), Some(after), "the new server stays");
    tally
}

fn no_connection_was_refused(tally: &Tally) {
    assert_eq!(tally.refused, 0, "{tally:?}");
    assert!(tally.answered > 0, "{tally:?}");
    // One customer, one question at a time: at most the one in the server's hands is broken off.
    assert!(tally.broken.len() <= 1, "{tally:?}");
}

pub fn killed_server_comes_back_and_no_connection_is_refused(world: &mut World) {
    let tally = server_is_replaced_after(world, "KILL", BACK_AFTER_A_KILL);
    no_connection_was_refused(&tally);
    let reasons = world
        .shell
        .run("cat /data/comptoir/state/restarts.json")
        .ok();
    assert!(reasons.contains("\"killed\""), "{reasons}");
}

pub fn hung_server_comes_back_and_no_connection_is_refused(world: &mut World) {
    let tally = server_is_replaced_after(world, "STOP", BACK_AFTER_A_HANG);
    no_connection_was_refused(&tally);
    let reasons = world
        .shell
        .run("cat /data/comptoir/state/restarts.json")
        .ok();
    assert!(reasons.contains("\"hung\""), "{reasons}");
}

pub fn every_acknowledged_order_survives_a_power_cut(world: &mut World) {
    let token = world.token();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let load = load::keep_ordering(
        world.url(8001, "/v1/orders"),
        token,
        Arc::clone(&acknowledged),
    );
    eventually("orders are taken", Duration::from_secs(120), || {
        (acknowledged.lock().unwrap().len() >= ORDERS_BEFORE_THE_CUT).then_some(())
    });
    world.vm.cut_power();
    load.stop();
    world.power_on();
    let acknowledged = acknowledged.lock().unwrap().clone();
    for id in &acknowledged {
        let found = world.get(8001, &format!("/v1/orders/{id}"));
        assert_eq!(
            found.status,
            200,
            "{id} of {} is lost: {found:?}",
            acknowledged.len()
        );
    }
    assert_eq!(
        world.boot_report["slot"], "A",
        "a power cut is no failed try"
    );
}

/// Where `data` starts on the box's disk, in bytes.
fn data_start(disk_path: &str) -> u64 {
    let output = Command::new("sgdisk")
        .args(["--info=7", disk_path])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("First sector:"))
        .unwrap();
    line.split_whitespace()
        .nth(2)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 512
}

pub fn damaged_data_partition_is_repaired_or_made_anew(world: &mut World) {
    world.vm.cut_power();
    let disk_path = world.vm.data_dir().join("disk.img");
    let disk = OpenOptions::new().write(true).open(&disk_path).unwrap();
    // The first megabyte of an ext4: superblock, group descriptors, the start of the inode tables.
    let garbage = vec![0xa5; 1024 * 1024];
    disk.write_all_at(&garbage, data_start(disk_path.to_str().unwrap()))
        .unwrap();
    world.power_on();
    let data = world.boot_report["data"].as_str().unwrap().to_owned();
    assert!(["repaired", "rebuilt"].contains(&data.as_str()), "{data}");
    assert!(
        world
            .shell
            .run("grep -c ' /data ext4 rw' /proc/mounts")
            .ok()
            == "1"
    );
    // It lasts: the next cut finds the same box. (A repair once left a file system that no later mount took.)
    world.wait_until_ready();
    let box_id = box_id(world);
    world.vm.cut_power();
    world.power_on();
    assert_eq!(world.boot_report["data"], "kept");
    world.wait_until_ready();
    assert_eq!(self::box_id(world), box_id);
}

fn box_id(world: &mut World) -> Value {
    world.get(80, "/status.json").json()["box_id"].clone()
}
