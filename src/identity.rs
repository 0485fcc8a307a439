//! Ground: identity.
