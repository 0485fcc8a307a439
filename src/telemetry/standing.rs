//! How the box stands with the platform: told by the WAN side, shown by the front page and `comptoir status`. Never a
//! secret, and never the claim code: that one is printed on the box.

use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;

/// How the box stands with the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrolmentState {
    /// The platform was not reached yet.
    #[default]
    NotEnrolled,
    /// The site file has all that is needed.
    BySettings,
    /// The platform knows the box, and nobody has claimed it yet.
    WaitingForClaim,
    /// The box belongs to a site.
    Enrolled,
    /// It did, and was told off.
    Revoked,
}

/// The same with its times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EnrolmentStatus {
    /// How the box stands.
    pub state: EnrolmentState,
    /// The site it was claimed for.
    pub site_id: Option<String>,
    /// Claimed since, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// When the first of its credentials ends, milliseconds since 1970.
    pub valid_until_ms: Option<i64>,
}

/// Where it is told. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<EnrolmentStatus>>);

impl Standing {
    /// How the box stands with the platform.
    #[must_use]
    pub fn enrolment(&self) -> EnrolmentStatus {
        self.lock().clone()
    }

    /// The box stands otherwise.
    pub fn tell_enrolment(&self, status: EnrolmentStatus) {
        let mut standing = self.lock();
        if standing.state != status.state {
            tracing::info!(event = "enrol.state_changed", state = ?status.state);
        }
        *standing = status;
    }

    fn lock(&self) -> MutexGuard<'_, EnrolmentStatus> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
