//! Is there room for orders?

use nix::sys::statvfs::statvfs;

use super::{Asked, Finding};
use crate::language::Said;
use crate::units::ByteSize;

/// Below this even orders are in danger.
const LAST_RESERVE: ByteSize = ByteSize::mib(16);

/// Below this many free inodes new files can't be made although there is room.
const FEW_INODES: u64 = 256;

pub(super) fn ask(asked: &Asked) -> Finding {
    // Before the first start the folder is not there; it will be made on the same disk as what it lies in.
    let data_dir = &asked.config.store.data_dir;
    let there = data_dir.ancestors().find(|dir| dir.exists());
    let stat = match statvfs(there.unwrap_or(data_dir)) {
        Ok(stat) => stat,
        Err(error) => {
            return Finding::failed(
                Said::new(
                    format!("cannot be asked: {error}"),
                    format!("impossible à savoir : {error}"),
                ),
                "See data_dir.",
                "Voir data_dir.",
            );
        }
    };
    // Widths of these fields differ between machines.
    let free =
        ByteSize::bytes(wide(stat.blocks_available()).saturating_mul(wide(stat.fragment_size())));
    // A file system without a fixed number of inodes says 0 of 0.
    let inodes_short = wide(stat.files()) > 0 && wide(stat.files_available()) < FEW_INODES;
    judge(free, asked.config.store.orders_reserve, inodes_short)
}

fn judge(free: ByteSize, reserve: ByteSize, inodes_short: bool) -> Finding {
    let seen = Said::new(
        format!("{free} free, {reserve} are kept for orders"),
        format!("{free} libres, {reserve} sont réservés aux commandes").replace("iB", "io"),
    );
    if free < LAST_RESERVE || inodes_short {
        return Finding::failed(
            seen,
            "Orders are in danger: remove media or change the disk.",
            "Les commandes sont en danger : retirez des médias ou changez le disque.",
        );
    }
    if free < reserve {
        return Finding::warning(
            seen,
            "Media no longer come in; orders go on.",
            "Les médias n'arrivent plus ; les commandes continuent.",
        );
    }
    Finding::ok(seen)
}

fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn room_is_judged_against_the_reserve_for_orders() {
        let reserve = ByteSize::mib(256);
        assert_eq!(
            judge(ByteSize::mib(300), reserve, false).verdict,
            Verdict::Ok
        );
        assert_eq!(
            judge(ByteSize::mib(200), reserve, false).verdict,
            Verdict::Warning
        );
        assert_eq!(
            judge(ByteSize::mib(10), reserve, false).verdict,
            Verdict::Failed
        );
        assert_eq!(
            judge(ByteSize::mib(300), reserve, true).verdict,
            Verdict::Failed
        );
    }
}
