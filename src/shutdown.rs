//! Ground: shutdown.
