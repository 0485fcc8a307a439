//! What only the weather asks of the platform.

use std::time::Duration;

use crate::platform::{Platform, SITE};

impl Platform {
    /// No fault is armed any more.
    pub fn disarm(&self) {
        self.call("DELETE", "faults", &[], b"");
    }

    /// Only a signature opens the container from now on.
    pub fn close_container(&self, name: &str) {
        self.call(
            "PUT",
            &format!("containers/{name}"),
            &[],
            br#"{"access":null}"#,
        );
    }

    /// Requests of blobs whose path holds `part`, as the platform answered them: status and bytes.
    pub fn blob_answers(&self, part: &str) -> Vec<(u64, u64)> {
        let requests = self.call("GET", "requests", &[], b"");
        let last = requests["last"].as_array().unwrap();
        let of_it = last.iter().filter(|request| {
            request["flow"] == "blob" && request["path"].as_str().unwrap().contains(part)
        });
        of_it
            .map(|request| {
                (
                    request["status"].as_u64().unwrap(),
                    request["bytes"].as_u64().unwrap(),
                )
            })
            .collect()
    }

    /// How long credentials are good that are handed out from now on.
    pub fn set_life(&self, life: Duration) {
        let body = serde_json::json!({ "life_s": life.as_secs() });
        self.call("PUT", "enrol", &[], body.to_string().as_bytes());
    }

    /// How long a message received from the site's queue stays locked.
    pub fn set_lock(&self, lock: Duration) {
        let body = serde_json::json!({ "lock_ms": u64::try_from(lock.as_millis()).unwrap() });
        let path = format!("bus/queues/site-{SITE}");
        self.call("PUT", &path, &[], body.to_string().as_bytes());
    }
}
