//! Ground: backoff.
