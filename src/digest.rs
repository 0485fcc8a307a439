//! Ground: digest.
