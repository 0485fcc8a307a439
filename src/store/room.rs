//! Free space of the data partition: who may still write.

use std::io;
use std::path::PathBuf;

use crate::units::ByteSize;

/// What media and catalogue must leave free, so that orders can always be written.
#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
    reserve: ByteSize,
}

/// There is no room for something that can be fetched again later.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The rest is reserved for orders.
    #[error("{free} are free, {reserve} of them are reserved for orders, {wanted} were wanted")]
    Reserved {
        /// Free on the partition.
        free: ByteSize,
        /// Reserved for orders.
        reserve: ByteSize,
        /// What was to be written.
        wanted: ByteSize,
    },
    /// The file system does not say.
    #[error("cannot ask for the free space of {dir}")]
    Unknown {
        /// The folder asked about.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Room {
    pub(super) fn new(dir: PathBuf, reserve: ByteSize) -> Self {
        Self { dir, reserve }
    }

    /// Free bytes of the partition, for a user without privileges.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn free(&self) -> Result<ByteSize, RoomError> {
        let stat = nix::sys::statvfs::statvfs(&self.dir).map_err(|errno| RoomError::Unknown {
            dir: self.dir.clone(),
            source: errno.into(),
        })?;
        let blocks: u64 = stat.blocks_available();
        Ok(ByteSize::bytes(blocks.saturating_mul(stat.fragment_size())))
    }

    /// What is left to orders.
    #[must_use]
    pub fn reserve(&self) -> ByteSize {
        self.reserve
    }

    /// Whether `wanted` more bytes leave the reserve untouched.
    ///
    /// # Errors
    /// [`RoomError`] when they do not.
    pub fn check(&self, wanted: ByteSize) -> Result<(), RoomError> {
        let free = self.free()?;
        if free.as_u64() < self.reserve.as_u64().saturating_add(wanted.as_u64()) {
            return Err(RoomError::Reserved {
                free,
                reserve: self.reserve,
                wanted,
            });
        }
        Ok(())
    }
}
