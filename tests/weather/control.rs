//! What only the weather asks of the platform.

use std::time::Duration;

use crate::platform::{Platform, SITE};

impl Platform {
    /// No fault is armed any more.
    pub fn disarm(&self) {
        self.call("DELETE", "faults", &[], b"");
    }

    /// How long a message received from the site's queue stays locked.
    pub fn set_lock(&self, lock: Duration) {
        let body = serde_json::json!({ "lock_ms": u64::try_from(lock.as_millis()).unwrap() });
        let path = format!("bus/queues/site-{SITE}");
        self.call("PUT", &path, &[], body.to_string().as_bytes());
    }
}
