//! The update room.
