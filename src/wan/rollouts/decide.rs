//! What is to be done with an order: the rules, as functions of values. Nothing here asks or writes.

use std::time::Duration;

use super::documents::{Artifact, Handling, Terms, is_older};
use super::record::{Order, Stage};
use super::updater::Standing;
use crate::config::{DailyWindow, Downgrade};

/// An installation that was interrupted (power cut, killed server) so often is given up.
pub(super) const MAX_INTERRUPTIONS: u32 = 3;

/// Downloads that were not what was announced, after which the order is given up.
pub(super) const MAX_MISSES: u32 = 3;

/// A restart waits at most this long for a moment in which no device works on an order.
pub(super) const MAX_BUSY: Duration = Duration::from_secs(30 * 60);

/// While the time is not known, nobody can say when a window opens.
const UNKNOWN_WAIT: Duration = Duration::from_secs(600);

/// How an order ends, and why.
pub(super) type Verdict = (bool, String);

/// Judges a new order before a byte of it is fetched; `None`: it is carried out.
pub(super) fn judge_new(
    version: &str,
    terms: Terms,
    downgrade: Downgrade,
    standing: &Standing,
) -> Option<Verdict> {
    if version == standing.version && !standing.in_trial {
        return Some((true, format!("version {version} runs already")));
    }
    if let Some(reason) = standing.failure_of(version) {
        let why = format!("version {version} failed on this box before: {reason}");
        return Some((false, why));
    }
    let is_forced = terms.download == Handling::Forced;
    if is_older(version, &standing.version)
        && !(is_forced && downgrade == Downgrade::Forced)
        && version != standing.version
    {
        let why = format!(
            "version {version} is older than {}, which runs here; {}",
            standing.version,
            match downgrade {
                Downgrade::Forced => "only a forced order leads back",
                Downgrade::Never => "this box takes no older version",
            }
        );
        return Some((false, why));
    }
    None
}

/// What a stage means at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Means {
    /// Go on with it as it stands.
    GoOn,
    /// The installation did not come to its end: again from the whole bundle.
    InstallAgain,
    /// The version runs, and is not kept yet.
    OnTrial,
    /// It is decided.
    Ends(Verdict),
}

/// Reads a stage in the light of what runs now.
pub(super) fn judge(order: &Order, standing: &Standing) -> Means {
    let (begun_in, was_written) = match &order.stage {
        // Somebody else brought it, or RAUC was through although nobody could tell us.
        Stage::Fetching | Stage::Fetched
            if standing.version == order.version && !standing.in_trial =>
        {
            return Means::Ends((true, format!("version {} runs and is kept", order.version)));
        }
        Stage::Fetching | Stage::Fetched | Stage::Ended { .. } => return Means::GoOn,
        Stage::Installing { boot_id } => (boot_id.as_str(), false),
        Stage::Written { boot_id } => (boot_id.as_str(), true),
        // In another boot: whoever wrote it is not who runs now.
        Stage::Unknown => ("", true),
    };
    if begun_in == standing.boot_id {
        if was_written {
            return Means::GoOn;
        }
    } else if standing.version == order.version {
        // Also after a power cut between RAUC's last word and ours: what runs is the fact.
        return if standing.in_trial {
            Means::OnTrial
        } else {
            Means::Ends((true, format!("version {} runs and is kept", order.version)))
        };
    } else if let Some(reason) = standing.failure_of(&order.version) {
        let detail = format!(
            "version {} was left, {} runs: {reason}",
            order.version, standing.version
        );
        return Means::Ends((false, detail));
    } else if standing.in_trial {
        return Means::GoOn;
    } else if was_written {
        let detail = format!(
            "the box came back with version {} instead of {}",
            standing.version, order.version
        );
        return Means::Ends((false, detail));
    }
    if order.interruptions + 1 >= MAX_INTERRUPTIONS {
        let detail = format!("the installation was interrupted {MAX_INTERRUPTIONS} times");
        return Means::Ends((false, detail));
    }
    Means::InstallAgain
}

/// Why a whole bundle is not installed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// The platform wants it fetched and no more.
    DownloadOnly,
    /// The platform's maintenance window is closed.
    PlatformsWindow,
    /// The shop's own window is closed; it opens after this.
    ShopsWindow(Duration),
    /// A trial runs, or something else waits for the next boot.
    OtherUpdate,
}

/// Whether a whole bundle may be installed at `now_ms` (`None`: the time is not known); `None`: yes.
///
/// A forced order overrides the shop's window, which is a wish; never the platform's, and never another update.
pub(super) fn hold(
    terms: Terms,
    window: Option<&DailyWindow>,
    now_ms: Option<i64>,
    standing: &Standing,
) -> Option<Hold> {
    if standing.in_trial || standing.staged.is_some() {
        return Some(Hold::OtherUpdate);
    }
    if terms.window_closed {
        return Some(Hold::PlatformsWindow);
    }
    match terms.update {
        Handling::Skip => Some(Hold::DownloadOnly),
        Handling::Forced => None,
        Handling::Attempt => window
            .map(|window| now_ms.map_or(UNKNOWN_WAIT, |now_ms| window.opens_in(now_ms)))
            .filter(|wait| !wait.is_zero())
            .map(Hold::ShopsWindow),
    }
}

/// Whether the two orders are for the same bytes, so that what was fetched serves both.
pub(super) fn same_bytes(one: Option<&Artifact>, other: Option<&Artifact>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.sha256 == other.sha256)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::digest::Digest;

    const fn terms(update: Handling) -> Terms {
        Terms {
            download: update,
            update,
            window_closed: false,
        }
    }

    fn standing(version: &str, boot_id: &str, in_trial: bool) -> Standing {
        Standing {
            version: version.into(),
            boot_id: boot_id.into(),
            in_trial,
            ..Standing::default()
        }
    }

    fn order(stage: Stage) -> Order {
        Order {
            action_id: "7".into(),
            href: "h".into(),
            version: "2.0".into(),
            artifact: Some(Artifact {
                size: 1,
                sha256: Digest::of(b"x"),
                url: "https://api.example/x".into(),
            }),
            terms: terms(Handling::Forced),
            stage,
            etag: None,
            misses: 0,
            interruptions: 0,
            told: String::new(),
        }
    }

    fn written() -> Order {
        order(Stage::Written {
            boot_id: "b1".into(),
        })
    }

    fn installing() -> Order {
        order(Stage::Installing {
            boot_id: "b1".into(),
        })
    }

    #[test]
    fn a_new_order_is_judged_before_a_byte_is_fetched() {
        let judged = |version, update, downgrade, standing: &Standing| {
            judge_new(version, terms(update), downgrade, standing)
        };
        let mut box_ = standing("2.0", "b1", false);
        let ends = judged("2.0", Handling::Forced, Downgrade::Never, &box_);
        assert_eq!(ends.unwrap(), (true, "version 2.0 runs already".into()));
        assert_eq!(
            judged("2.1", Handling::Attempt, Downgrade::Never, &box_),
            None
        );
        box_.failed.push(("2.1".into(), "port orders".into()));
        let (success, why) = judged("2.1", Handling::Forced, Downgrade::Forced, &box_).unwrap();
        assert!(
            !success && why.contains("failed on this box before: port orders"),
            "{why}"
        );
        let soft = judged("1.9", Handling::Attempt, Downgrade::Forced, &box_);
        assert!(soft.unwrap().1.contains("older than 2.0"));
        assert_eq!(
            judged("1.9", Handling::Forced, Downgrade::Forced, &box_),
            None
        );
        assert!(judged("1.9", Handling::Forced, Downgrade::Never, &box_).is_some());
    }

    #[test]
    fn success_is_only_what_runs_and_is_kept() {
        assert_eq!(
            judge(&written(), &standing("1.0", "b1", false)),
            Means::GoOn
        );
        assert_eq!(
            judge(&written(), &standing("2.0", "b2", true)),
            Means::OnTrial
        );
        let Means::Ends((true, _)) = judge(&written(), &standing("2.0", "b2", false)) else {
            panic!("kept is a success");
        };
    }

    #[test]
    fn a_version_that_came_another_way_is_a_success_too() {
        let order = order(Stage::Fetched);
        assert_eq!(judge(&order, &standing("1.0", "b1", false)), Means::GoOn);
        assert_eq!(judge(&order, &standing("2.0", "b2", true)), Means::GoOn);
        assert!(matches!(
            judge(&order, &standing("2.0", "b2", false)),
            Means::Ends((true, _))
        ));
    }

    #[test]
    fn a_rollback_is_a_failure_with_the_gates_reason() {
        let mut back = standing("1.0", "b4", false);
        back.failed
            .push(("2.0".into(), "port orders does not answer".into()));
        for order in [written(), installing()] {
            let Means::Ends((false, why)) = judge(&order, &back) else {
                panic!("left is a failure");
            };
            assert!(why.contains("port orders does not answer"), "{why}");
        }
        let Means::Ends((false, why)) = judge(&written(), &standing("1.0", "b2", false)) else {
            panic!("another version is a failure");
        };
        assert!(why.contains("came back with version 1.0"), "{why}");
    }

    #[test]
    fn a_cut_in_mid_installation_is_no_verdict_until_it_repeats() {
        let mut order = installing();
        for here in [standing("1.0", "b1", false), standing("1.0", "b2", false)] {
            assert_eq!(judge(&order, &here), Means::InstallAgain);
        }
        // RAUC was through when the power went: the trial is what counts.
        assert_eq!(judge(&order, &standing("2.0", "b2", true)), Means::OnTrial);
        order.interruptions = MAX_INTERRUPTIONS - 1;
        assert!(matches!(
            judge(&order, &standing("1.0", "b2", false)),
            Means::Ends((false, _))
        ));
    }

    #[test]
    fn a_forced_order_overrides_the_shops_wish_and_nothing_else() {
        let window = DailyWindow::parse("03:00-05:00", &TimeZone::UTC).unwrap();
        let (noon, night) = (12 * 3_600_000, 4 * 3_600_000);
        let here = standing("1.0", "b1", false);
        let ask = |terms, now_ms, here: &Standing| hold(terms, Some(&window), Some(now_ms), here);
        assert_eq!(
            ask(terms(Handling::Attempt), noon, &here),
            Some(Hold::ShopsWindow(Duration::from_secs(15 * 3600)))
        );
        assert_eq!(ask(terms(Handling::Attempt), night, &here), None);
        assert_eq!(ask(terms(Handling::Forced), noon, &here), None);
        assert_eq!(hold(terms(Handling::Attempt), None, None, &here), None);
        assert_eq!(
            hold(terms(Handling::Attempt), Some(&window), None, &here),
            Some(Hold::ShopsWindow(UNKNOWN_WAIT)),
            "a time that nobody knows opens no window"
        );
        assert_eq!(
            ask(terms(Handling::Skip), night, &here),
            Some(Hold::DownloadOnly)
        );
        let closed = Terms {
            window_closed: true,
            ..terms(Handling::Forced)
        };
        assert_eq!(ask(closed, night, &here), Some(Hold::PlatformsWindow));
        let mut busy = standing("1.0", "b1", true);
        assert_eq!(
            ask(terms(Handling::Forced), night, &busy),
            Some(Hold::OtherUpdate)
        );
        busy.in_trial = false;
        busy.staged = Some("3.0".into());
        assert_eq!(
            ask(terms(Handling::Forced), night, &busy),
            Some(Hold::OtherUpdate)
        );
    }
}
