//! The devices of the shop: `devices.db`.
//!
//! Few rows, read on every request: all of them are held in memory, by id and by the digest of their token. A token is
//! shown once, at pairing; the database knows only its digest. A device is its key, not its address.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use rusqlite::{Connection, Row};

use super::check::Suspicion;
use super::db::{self, OpenDatabaseError, Plan};
use super::events::{StoreEvent, StoreEvents};
use super::writer::{Reply, Writer, WriterParts};
use crate::clock::Clock;
use crate::digest::{Digest, hex};
use crate::identity::{Secret, random_bytes, random_token};

/// Devices at most, whatever the settings say: they are all held in memory.
pub const DEVICE_BOUND: usize = 10_000;

const MIGRATIONS: &[&str] = &["
    CREATE TABLE devices (
        device_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        address TEXT,
        command_port INTEGER,
        command_key BLOB NOT NULL,
        token_digest BLOB NOT NULL UNIQUE,
        paired_ms INTEGER NOT NULL,
        revoked_ms INTEGER
    );
"];

pub(super) const PLAN: Plan = Plan {
    name: "devices",
    synchronous: "FULL",
    migrations: MIGRATIONS,
    checkpoint_pages: 100,
    cache_kib: 256,
    salvage: Some(|_, _| Ok(())),
};

/// A paired device.
#[derive(Clone)]
pub struct Device {
    /// Given by the box at pairing.
    pub device_id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// Where it was heard of last.
    pub address: Option<IpAddr>,
    /// Where it listens for commands, if not at the port of the contract.
    pub command_port: Option<u16>,
    /// Shared key of the device protocol.
    pub command_key: [u8; 32],
    /// When it was paired, milliseconds since 1970.
    pub paired_at_ms: i64,
    /// When it was last heard of since the store was opened, milliseconds since 1970.
    pub seen_at_ms: Option<i64>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {})", self.device_id, self.role)
    }
}

/// A device that is to be paired.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// Where it asks from.
    pub address: Option<IpAddr>,
}

/// What a newly paired device is told, once.
#[derive(Debug, Clone)]
pub struct Paired {
    /// Its id.
    pub device_id: String,
    /// Its bearer token.
    pub token: Secret,
    /// Shared key of the device protocol.
    pub command_key: [u8; 32],
}

/// Handle on `devices.db`. Clones share it.
#[derive(Clone)]
pub struct Devices {
    writer: Writer,
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<String, Arc<Device>>,
    by_token: HashMap<Digest, String>,
}

impl Devices {
    pub(super) fn open(
        path: &Path,
        conn: Connection,
        suspicion: Arc<Suspicion>,
        clock: Arc<dyn Clock>,
        events: StoreEvents,
    ) -> Result<Self, OpenDatabaseError> {
        let known = load(&conn).map_err(|source| OpenDatabaseError::Sqlite {
            attempt: "read the devices of",
            path: path.to_path_buf(),
            source,
        })?;
        let writer = Writer::start(
            path,
            WriterParts {
                name: PLAN.name,
                conn,
                suspicion,
                clock,
                events,
                housekeeping: Box::new(|conn, _| db::give_space_back(conn)),
                after_commit: Box::new(|_| {}),
            },
        )?;
        Ok(Self {
            writer,
            known: Arc::new(RwLock::new(known)),
        })
    }

    /// Pairs a device. It is known as soon as the reply says so.
    ///
    /// Whether it may be paired (code, number of devices) is for the caller to decide.
    pub fn pair(&self, new: NewDevice) -> Reply<Paired> {
        let paired = Paired {
            device_id: format!("dev-{}", hex(&random_bytes::<8>())),
            token: random_token(),
            command_key: random_bytes(),
        };
        let digest = Digest::of(paired.token.expose().as_bytes());
        let known = Arc::clone(&self.known);
        self.writer.submit(move |tx| {
            let device = Device {
                device_id: paired.device_id.clone(),
                name: new.name.clone(),
                role: new.role.clone(),
                address: new.address,
                command_port: None,
                command_key: paired.command_key,
                paired_at_ms: tx.now_ms,
                seen_at_ms: Some(tx.now_ms),
            };
            tx.conn
                .prepare_cached(
                    "INSERT INTO devices (device_id, name, role, address, command_key, token_digest, paired_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute((
                    &device.device_id,
                    &device.name,
                    &device.role,
                    device.address.map(|address| address.to_string()),
                    device.command_key.as_slice(),
                    digest.as_bytes().as_slice(),
                    tx.now_ms,
                ))?;
            tx.tell(StoreEvent::Device {
                device_id: device.device_id.clone(),
            });
            let known = Arc::clone(&known);
            tx.once_durable(move || {
                let mut known = known.write().expect("no holder of this lock panics");
                known.by_token.insert(digest, device.device_id.clone());
                known
                    .by_id
                    .insert(device.device_id.clone(), Arc::new(device));
            });
            Ok(paired.clone())
        })
    }

    /// The device whose token this is.
    #[must_use]
    pub fn by_token(&self, token: &str) -> Option<Arc<Device>> {
        let known = self.read();
        // The lookup is by digest: how long it takes tells nothing about tokens.
        let device_id = known.by_token.get(&Digest::of(token.as_bytes()))?;
        known.by_id.get(device_id).cloned()
    }

    /// The device of that id.
    #[must_use]
    pub fn by_id(&self, device_id: &str) -> Option<Arc<Device>> {
        self.read().by_id.get(device_id).cloned()
    }

    /// All devices, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Device>> {
        let mut devices: Vec<_> = self.read().by_id.values().cloned().collect();
        devices.sort_by(|a, b| (a.paired_at_ms, &a.device_id).cmp(&(b.paired_at_ms, &b.device_id)));
        devices
    }

    /// How many devices are paired.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().by_id.len()
    }

    /// A device was heard of. Written to disk only when its address changed, and then not waited for.
    pub fn seen(&self, device_id: &str, address: Option<IpAddr>, now_ms: i64) {
        let moved = {
            let mut known = self.known.write().expect("no holder of this lock panics");
            let Some(device) = known.by_id.get_mut(device_id) else {
                return;
            };
            let device = Arc::make_mut(device);
            device.seen_at_ms = Some(now_ms);
            address.filter(|address| device.address != Some(*address))
        };
        if let Some(address) = moved {
            // A lost write is made good by the next time the device is heard of after a restart.
            drop(self.set_address(device_id, address, None));
        }
    }

    /// The device listens at `address` now, and at `command_port` if one is given; false when it is not known.
    pub fn set_address(
        &self,
        device_id: &str,
        address: IpAddr,
        command_port: Option<u16>,
    ) -> Reply<bool> {
        {
            let mut known = self.known.write().expect("no holder of this lock panics");
            if let Some(device) = known.by_id.get_mut(device_id) {
                let device = Arc::make_mut(device);
                device.address = Some(address);
                device.command_port = command_port.or(device.command_port);
            }
        }
        let device_id = device_id.to_owned();
        self.writer.submit(move |tx| {
            let changed = tx
                .conn
                .prepare_cached(
                    "UPDATE devices SET address = ?2, command_port = coalesce(?3, command_port)
                     WHERE device_id = ?1 AND revoked_ms IS NULL",
                )?
                .execute((&device_id, address.to_string(), command_port))?;
            if changed == 1 {
                tx.tell(StoreEvent::Device {
                    device_id: device_id.clone(),
                });
            }
            Ok(changed == 1)
        })
    }

    /// Ends a pairing: token and key are worth nothing from the moment of the call; false when it is not known.
    pub fn revoke(&self, device_id: &str) -> Reply<bool> {
        {
            let mut known = self.known.write().expect("no holder of this lock panics");
            known.by_id.remove(device_id);
            known.by_token.retain(|_, id| id != device_id);
        }
        let device_id = device_id.to_owned();
        self.writer.submit(move |tx| {
            let changed = tx
                .conn
                .prepare_cached("UPDATE devices SET revoked_ms = ?2 WHERE device_id = ?1 AND revoked_ms IS NULL")?
                .execute((&device_id, tx.now_ms))?;
            if changed == 1 {
                tx.tell(StoreEvent::Device {
                    device_id: device_id.clone(),
                });
            }
            Ok(changed == 1)
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no holder of this lock panics")
    }
}

fn load(conn: &Connection) -> rusqlite::Result<Known> {
    let mut known = Known::default();
    let mut query = conn.prepare(
        "SELECT device_id, name, role, address, command_port, command_key, paired_ms, token_digest FROM devices
         WHERE revoked_ms IS NULL ORDER BY paired_ms LIMIT ?1",
    )?;
    let bound = i64::try_from(DEVICE_BOUND).unwrap_or(i64::MAX);
    for row in query.query_map([bound], |row| {
        Ok((device(row)?, row.get::<_, [u8; 32]>(7)?))
    })? {
        let (device, digest) = row?;
        known
            .by_token
            .insert(Digest::from_bytes(digest), device.device_id.clone());
        known
            .by_id
            .insert(device.device_id.clone(), Arc::new(device));
    }
    Ok(known)
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    let address: Option<String> = row.get(3)?;
    Ok(Device {
        device_id: row.get(0)?,
        name: row.get(1)?,
        role: row.get(2)?,
        address: address.and_then(|address| address.parse().ok()),
        command_port: row.get(4)?,
        command_key: row.get(5)?,
        paired_at_ms: row.get(6)?,
        seen_at_ms: None,
    })
}
