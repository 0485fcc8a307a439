//! The exchange that finds out what time it is.
//!
//! Until the time is known, no certificate can be judged by it; and dropping the check is no option. So a host is asked with
//! its certificate judged at a *candidate* time, and a certificate that is refused as not yet valid says from when on it
//! is: the next candidate. What the answer's `Date` says is believed only when the certificate holds at that time, too,
//! which the caller finds out by asking once more.

use std::io;
use std::sync::Arc;

use rustls::CertificateError;

use super::tls;
use super::{Agents, Client, Settings};

impl Client {
    /// This client with new connections, whose certificates are judged as if it were `at_s` (seconds since 1970), and no
    /// session taken over from another time. No secret belongs on it. Ending either ends both.
    #[must_use]
    pub fn judging_at(&self, at_s: i64) -> Self {
        let mut settings = Settings::clone(&self.settings);
        settings.tls = tls::config(&settings.roots, Arc::new(tls::At(at_s)));
        let new = Agents::new(&settings);
        *self.agents.write().expect("no holder of this lock panics") = new;
        Self {
            flow: self.flow,
            agents: Arc::clone(&self.agents),
            settings: Arc::new(settings),
        }
    }
}

/// From when on the certificate is valid that was refused for not being it yet, in seconds since 1970.
pub(super) fn valid_from_s(error: &ureq::Error) -> Option<i64> {
    let tls = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => of_io(error)?,
        _ => return None,
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        }) => i64::try_from(not_before.as_secs()).ok(),
        _ => None,
    }
}

fn of_io(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
