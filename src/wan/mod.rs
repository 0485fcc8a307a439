//! The wan room.
