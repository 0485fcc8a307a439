//! Who goes when there is no room.

use tracing::warn;

use super::shelf::Worth;
use super::{Blobs, Shared, Table, WriteBlobError, partial};
use crate::digest::Digest;
use crate::store::room::RoomError;
use crate::telemetry::chain;
use crate::units::ByteSize;

/// Something that may go.
struct Victim {
    digest: Digest,
    /// Its announced or real size, which it takes of the quota.
    claimed: u64,
    /// What it takes of the disk.
    on_disk: u64,
    is_partial: bool,
}

impl Blobs {
    /// Removes blobs while less than half the reserve for orders is free, until it is whole again; how many bytes went.
    /// The least worth go first; orders are worth more than any blob. They come again when there is room: the manifest
    /// still names them.
    pub fn relieve(&self) -> u64 {
        match self.shared.room.free() {
            Ok(free) => self.relieve_at(free),
            Err(error) => {
                warn!(event = "store.room_unknown", error = &*chain(&error));
                0
            }
        }
    }

    pub(in crate::store) fn relieve_at(&self, free: ByteSize) -> u64 {
        let reserve = self.shared.room.reserve();
        if free.as_u64() >= reserve.as_u64() / 2 {
            return 0;
        }
        let wanted = reserve.as_u64() - free.as_u64();
        let mut table = self.shared.lock();
        let (mut gone, mut count) = (0, 0);
        for victim in self.shared.victims(&table, None) {
            if gone >= wanted {
                break;
            }
            if self.shared.evict(&mut table, &victim) {
                gone += victim.on_disk;
                count += 1;
            }
        }
        if count > 0 {
            warn!(
                event = "store.media_evicted",
                blobs = count,
                bytes = gone,
                free = %free,
                "the disk is nearly full: media made room for orders"
            );
        }
        gone
    }
}

impl Shared {
    /// Sees to it that `claim` more bytes fit the quota and `on_disk` more the disk, for the blob `digest`: others that
    /// are worth less go, but nothing whole that is scheduled.
    pub(super) fn make_room(
        &self,
        table: &mut Table,
        digest: &Digest,
        claim: u64,
        on_disk: u64,
    ) -> Result<(), WriteBlobError> {
        let quota = self.quota.as_u64();
        let over_quota = |table: &Table| table.used.saturating_add(claim).saturating_sub(quota);
        let pending: u64 = table
            .coming
            .values()
            .filter(|blob| blob.is_open)
            .map(|blob| blob.size.saturating_sub(blob.written()))
            .sum();
        // What others have begun will be written too.
        let needed = ByteSize::bytes(on_disk.saturating_add(pending));
        let mut short = match self.room.check(needed) {
            Ok(()) => 0,
            Err(RoomError::Reserved { free, reserve, .. }) => reserve
                .as_u64()
                .saturating_add(needed.as_u64())
                .saturating_sub(free.as_u64()),
            Err(unknown) => return Err(unknown.into()),
        };
        if over_quota(table) == 0 && short == 0 {
            return Ok(());
        }
        let worth = table.worth(digest, self.clock.wall_ms());
        let victims = self.victims(table, Some(worth));
        // All or nothing: no blob goes for one that does not fit even so.
        let (claimed, freed) = victims.iter().fold((0, 0), |(claimed, freed), victim| {
            (claimed + victim.claimed, freed + victim.on_disk)
        });
        if over_quota(table) > claimed {
            return Err(WriteBlobError::Quota {
                wanted: ByteSize::bytes(claim),
                quota: self.quota,
                used: ByteSize::bytes(table.used),
            });
        }
        if short > freed {
            self.room.check(needed)?;
            return Ok(());
        }
        for victim in victims {
            if over_quota(table) == 0 && short == 0 {
                break;
            }
            if self.evict(table, &victim) {
                short = short.saturating_sub(victim.on_disk);
                tracing::info!(event = "store.blob_evicted", digest = %victim.digest, bytes = victim.on_disk);
            }
        }
        Ok(())
    }

    /// One partial file that nobody writes goes, the least worth first.
    pub(super) fn drop_partial(&self, table: &mut Table) {
        let least = self
            .victims(table, None)
            .into_iter()
            .find(|victim| victim.is_partial);
        if let Some(victim) = least {
            self.evict(table, &victim);
        }
    }

    /// All that may go, the least worth first: with `below` for a blob of that worth, else for orders. For a blob goes what is
    /// worth less, and of what is scheduled only partial files. Of equal worth partial files go first, then what was not
    /// served for the longest time.
    fn victims(&self, table: &Table, below: Option<Worth>) -> Vec<Victim> {
        let now_ms = self.clock.wall_ms();
        let held = table.held.iter().map(|(digest, blob)| {
            let victim = Victim {
                digest: *digest,
                claimed: blob.len,
                on_disk: blob.len,
                is_partial: false,
            };
            (table.worth(digest, now_ms), blob.served_s, victim)
        });
        let coming = table.coming.iter().filter(|(_, blob)| !blob.is_open);
        let coming = coming.map(|(digest, blob)| {
            let victim = Victim {
                digest: *digest,
                claimed: blob.size,
                on_disk: blob.written(),
                is_partial: true,
            };
            (table.worth(digest, now_ms), i64::MIN, victim)
        });
        let mut list: Vec<_> = held
            .chain(coming)
            .filter(|(worth, _, victim)| {
                let may_go = victim.is_partial || *worth < Worth::Scheduled(0);
                below.is_none_or(|below| may_go && *worth < below)
            })
            .collect();
        list.sort_by_key(|(worth, served_s, victim)| (*worth, *served_s, victim.digest));
        list.into_iter().map(|(.., victim)| victim).collect()
    }

    fn evict(&self, table: &mut Table, victim: &Victim) -> bool {
        if victim.is_partial {
            partial::discard(&self.dir, table, &victim.digest);
            return true;
        }
        matches!(self.remove(table, &victim.digest), Ok(true))
    }
}
