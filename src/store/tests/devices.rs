//! A device is its key, not its address.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use crate::store::testing::Bench;
use crate::store::{NewDevice, StoreEvent};

fn till() -> NewDevice {
    NewDevice {
        name: "Caisse 1".into(),
        role: "till".into(),
        address: Some(IpAddr::from([192, 168, 1, 20])),
    }
}

#[test]
fn a_device_is_known_by_its_token_until_it_is_revoked() {
    let bench = Bench::new();
    let store = bench.open();
    let paired = store.devices.pair(till()).wait().unwrap();
    let token = paired.token.expose();
    assert_eq!(token.len(), 64);
    assert_eq!(
        store.devices.by_token(token).unwrap().device_id,
        paired.device_id
    );
    assert!(store.devices.by_token("").is_none());
    drop(store);
    let store = bench.open();
    let device = store.devices.by_token(token).unwrap();
    assert_eq!(device.command_key, paired.command_key);
    assert_eq!(
        (device.name.as_str(), device.role.as_str()),
        ("Caisse 1", "till")
    );
    assert!(!format!("{device:?} {paired:?}").contains(token));
    assert!(store.devices.revoke(&paired.device_id).wait().unwrap());
    assert!(!store.devices.revoke(&paired.device_id).wait().unwrap());
    assert!(store.devices.by_token(token).is_none());
    drop(store);
    assert!(bench.open().devices.list().is_empty());
}

#[test]
fn the_disk_holds_no_token_and_is_closed_to_others() {
    let bench = Bench::new();
    let store = bench.open();
    let paired = store.devices.pair(till()).wait().unwrap();
    for entry in std::fs::read_dir(bench.dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            let token = paired.token.expose().as_bytes();
            assert!(!bytes.windows(token.len()).any(|window| window == token));
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
    }
}

#[test]
fn being_seen_writes_only_when_the_address_changed() {
    let bench = Bench::new();
    let store = bench.open();
    let id = store.devices.pair(till()).wait().unwrap().device_id;
    let mut events = store.events.subscribe();
    let same = Some(IpAddr::from([192, 168, 1, 20]));
    store.devices.seen(&id, same, 5);
    store.devices.seen(&id, None, 6);
    assert_eq!(store.devices.by_id(&id).unwrap().seen_at_ms, Some(6));
    assert!(events.try_recv().is_err());
    let moved = IpAddr::from([192, 168, 1, 99]);
    store.devices.seen(&id, Some(moved), 7);
    assert_eq!(store.devices.by_id(&id).unwrap().address, Some(moved));
    store
        .devices
        .set_address(&id, moved, Some(9081))
        .wait()
        .unwrap();
    assert_eq!(
        events.try_recv().unwrap(),
        StoreEvent::Device {
            device_id: id.clone()
        }
    );
    drop(store);
    let device = bench.open().devices.by_id(&id).unwrap();
    assert_eq!(
        (device.address, device.command_port),
        (Some(moved), Some(9081))
    );
}
