//! Devices that asked for work when there was none. The next order of their role is theirs in the very transaction that
//! takes it in, so that it goes out after one fsync and not two.
//!
//! Only in memory: what a device holds is in the store, and whoever is forgotten here asks again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// Who waits, and what was set by for whom. Clones share it. As many entries as there are devices.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// Device and role, who asked first first.
    devices: VecDeque<(String, String)>,
    /// Device and key of the command it holds and was not given yet.
    set_by: HashMap<String, i64>,
}

impl Idle {
    /// `device_id` has nothing to do.
    pub(super) fn waits(&self, device_id: &str, role: &str) {
        let mut waiting = self.lock();
        waiting.devices.retain(|(device, _)| device != device_id);
        waiting
            .devices
            .push_back((device_id.to_owned(), role.to_owned()));
    }

    /// `device_id` is out of reach, or through with its session.
    pub(super) fn left(&self, device_id: &str) {
        self.lock()
            .devices
            .retain(|(device, _)| device != device_id);
    }

    /// Who has waited longest for work of `role`; it waits no more.
    pub(super) fn take(&self, role: &str) -> Option<String> {
        let mut waiting = self.lock();
        let at = waiting.devices.iter().position(|(_, of)| of == role)?;
        waiting.devices.remove(at).map(|(device, _)| device)
    }

    /// The command `key` was set by for `device_id`.
    pub(super) fn set_by(&self, device_id: String, key: i64) {
        self.lock().set_by.insert(device_id, key);
    }

    /// Whether `key` was set by for `device_id` and never given to it.
    pub(super) fn is_set_by(&self, device_id: &str, key: i64) -> bool {
        self.lock().set_by.get(device_id) == Some(&key)
    }

    /// `device_id` is given what it holds.
    pub(super) fn given(&self, device_id: &str) {
        self.lock().set_by.remove(device_id);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
