//! Is the clock plausible?
//!
//! A wrong clock shows as something else: "bad certificate", "token expired". Two things are known without any network:
//! it is not before this software was written, and not before the last thing this box wrote down.

use std::fs;

use jiff::Timestamp;

use super::{Asked, Finding};

/// This software did not exist before: 2026-01-01T00:00:00Z.
const FLOOR_S: i64 = 1_767_225_600;

/// Files on the data partition that the box writes again and again.
const WRITTEN_OFTEN: [&str; 4] = [
    "state/boots.json",
    "state/restarts.json",
    "orders.db-wal",
    "orders.db",
];

/// A step back by less than this is an ordinary correction.
const TOLERANCE_S: i64 = 300;

pub(super) fn ask(asked: &Asked) -> Finding {
    let written_s = WRITTEN_OFTEN
        .iter()
        .filter_map(|name| {
            fs::metadata(asked.config.store.data_dir.join(name))
                .ok()?
                .modified()
                .ok()
        })
        .filter_map(|at| Timestamp::try_from(at).ok())
        .map(Timestamp::as_second)
        .max();
    judge(Timestamp::now().as_second(), written_s)
}

fn judge(now_s: i64, written_s: Option<i64>) -> Finding {
    let now = Timestamp::from_second(now_s)
        .map(|at| at.to_string())
        .unwrap_or_default();
    if now_s < FLOOR_S {
        return Finding::failed(
            format!("{now}: before this software was made"),
            "without a clock chip it begins at this software's release: the image was made with a wrong time",
        );
    }
    if let Some(written_s) = written_s.filter(|written_s| now_s + TOLERANCE_S < *written_s) {
        let behind_s = written_s - now_s;
        return Finding::warning(
            format!("{now}: {behind_s} s before the box last wrote"),
            "it went back, as without a clock chip it does at every start; orders go on, times shown are wrong",
        );
    }
    Finding::ok(now)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_before_the_software_or_before_the_last_write_is_found() {
        assert_eq!(judge(FLOOR_S + 10, Some(FLOOR_S)).verdict, Verdict::Ok);
        assert_eq!(judge(FLOOR_S + 10, None).verdict, Verdict::Ok);
        assert_eq!(judge(0, None).verdict, Verdict::Failed);
        assert_eq!(
            judge(FLOOR_S + 10, Some(FLOOR_S + 10_000)).verdict,
            Verdict::Warning
        );
        assert_eq!(judge(FLOOR_S + 10, Some(FLOOR_S + 60)).verdict, Verdict::Ok);
    }
}
