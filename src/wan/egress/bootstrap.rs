//! The exchange that finds out what time it is.
//!
//! Until the time is known, no certificate can be judged by it; and dropping the check is no option. So a host is asked with
//! its certificate judged at a *candidate* time, and a certificate that is refused as not yet valid says from when on it
//! is: the next candidate. What the answer's `Date` says is believed only when the certificate holds at that time, too,
//! which the caller finds out by asking once more.

use std::sync::Arc;

use super::tls::{At, Tls};
use super::{Client, Connections, Settings};

impl Client {
    /// This client with new connections, whose certificates are judged as if it were `at_s` (seconds since 1970), and no
    /// session taken over from another time. No secret belongs on it. Ending either ends both.
    #[must_use]
    pub fn judging_at(&self, at_s: i64) -> Self {
        let mut settings = Settings::clone(&self.settings);
        settings.tls = Tls::new(&settings.roots, Arc::new(At(at_s)));
        let stop = self.connections().stop;
        let new = Connections::new(self.flow, &settings, stop);
        *self
            .connections
            .write()
            .expect("no holder of this lock panics") = new;
        Self {
            flow: self.flow,
            connections: Arc::clone(&self.connections),
            settings: Arc::new(settings),
        }
    }
}
