//! Is the clock right?
//!
//! A wrong clock shows as something else: "bad certificate", "token expired". Without any network two things are known: it is
//! not before this software was written, and not before the last thing this box wrote down. With one, the hosts' own answers
//! say the time.

use std::fs;

use jiff::Timestamp;

use super::{Asked, Finding, seconds};
use crate::clock::SOFTWARE_MADE_MS;
use crate::language::{Language, Said};

/// This software did not exist before.
const FLOOR_S: i64 = SOFTWARE_MADE_MS / 1000;

/// Files on the data partition that the box writes again and again.
const WRITTEN_OFTEN: [&str; 4] = [
    "state/boots.json",
    "state/restarts.json",
    "orders.db-wal",
    "orders.db",
];

/// A step back by less than this is an ordinary correction; beyond it, signatures that expire are refused.
const TOLERANCE_S: i64 = 300;

pub(super) fn ask(asked: &Asked, skew_s: Option<i64>) -> Finding {
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
    judge(Timestamp::now().as_second(), written_s, skew_s)
}

fn judge(now_s: i64, written_s: Option<i64>, skew_s: Option<i64>) -> Finding {
    let now = Timestamp::from_second(now_s)
        .map(|at| at.to_string())
        .unwrap_or_default();
    if let Some(skew_s) = skew_s.filter(|skew_s| skew_s.abs() > TOLERANCE_S) {
        let (en, fr) = if skew_s > 0 {
            ("ahead of", "en avance")
        } else {
            ("behind", "en retard")
        };
        let span = |language| seconds(skew_s.abs(), language);
        return Finding::warning(
            Said::new(
                format!("{now}: {} {en} the hosts outside", span(Language::English)),
                format!(
                    "{now} : {} {fr} sur les hôtes extérieurs",
                    span(Language::French)
                ),
            ),
            "The box reckons with the platform's time; if this stays, call support.",
            "La box calcule avec l'heure de la plateforme ; si cela dure, appelez l'assistance.",
        );
    }
    if now_s < FLOOR_S {
        return Finding::failed(
            Said::new(
                format!("{now}: before this software was made"),
                format!("{now} : avant que ce logiciel n'existe"),
            ),
            "Without a clock chip it begins at this software's release: the image was made with a wrong time.",
            "Sans puce d'horloge, elle part de la date de ce logiciel : l'image a été faite avec une heure fausse.",
        );
    }
    if let Some(written_s) = written_s.filter(|written_s| now_s + TOLERANCE_S < *written_s) {
        let behind = |language| seconds(written_s - now_s, language);
        return Finding::warning(
            Said::new(
                format!(
                    "{now}: {} before the box last wrote",
                    behind(Language::English)
                ),
                format!(
                    "{now} : {} avant la dernière écriture de la box",
                    behind(Language::French)
                ),
            ),
            "It went back, as without a clock chip it does at every start; orders go on, times shown are wrong.",
            "Elle a reculé, comme à chaque démarrage sans puce d'horloge ; les commandes continuent, les heures affichées sont fausses.",
        );
    }
    match skew_s {
        None => Finding::ok(Said::new(
            format!("{now}, plausible; no host outside has told the time"),
            format!("{now}, plausible ; aucun hôte extérieur n'a donné l'heure"),
        )),
        Some(_) => Finding::ok(Said::new(
            format!("{now}, as the hosts outside say"),
            format!("{now}, comme le disent les hôtes extérieurs"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_before_the_software_or_before_the_last_write_is_found() {
        let judge = |now_s, written_s| judge(now_s, written_s, None).verdict;
        assert_eq!(judge(FLOOR_S + 10, Some(FLOOR_S)), Verdict::Ok);
        assert_eq!(judge(FLOOR_S + 10, None), Verdict::Ok);
        assert_eq!(judge(0, None), Verdict::Failed);
        assert_eq!(
            judge(FLOOR_S + 10, Some(FLOOR_S + 10_000)),
            Verdict::Warning
        );
        assert_eq!(judge(FLOOR_S + 10, Some(FLOOR_S + 60)), Verdict::Ok);
    }

    #[test]
    fn what_the_hosts_say_outweighs_what_is_plausible() {
        let ahead = judge(FLOOR_S + 10, None, Some(86_400 * 400));
        assert_eq!(ahead.verdict, Verdict::Warning);
        assert!(ahead.seen.en.contains("400 days ahead"), "{:?}", ahead.seen);
        assert!(ahead.seen.fr.contains("400 jours en avance"));
        let behind = judge(FLOOR_S + 10, None, Some(-3600));
        assert!(behind.seen.fr.contains("1 h 00 min en retard"));
        assert_eq!(judge(FLOOR_S + 10, None, Some(2)).verdict, Verdict::Ok);
    }
}
