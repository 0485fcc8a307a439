//! The lan room.
