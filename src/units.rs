//! Ground: units.
