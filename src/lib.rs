//! Comptoir.
