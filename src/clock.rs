//! Ground: clock.
