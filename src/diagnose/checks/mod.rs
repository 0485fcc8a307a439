//! Questions about the box itself, one file a question. A question's name is its file's name and is stable: support and
//! scripts search for it. What lies outside the shop is asked flow by flow, in [`super::flows`].

mod clock;
mod data_dir;
mod databases;
mod disk_space;
mod lan_ports;
mod settings;

use std::fmt;

use serde::Serialize;

use crate::config::Config;
use crate::language::{Language, Said, Sentence};

/// What a question was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Does not apply, or could not be asked because of another answer.
    Skipped,
    /// The shop goes on, and somebody should look.
    Warning,
    /// Something does not work.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Stable name of the question.
    pub name: &'static str,
    /// The question, for people.
    pub question: Sentence,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: Said,
    /// What to do about it; empty when there is nothing to do.
    pub advice: Sentence,
}

/// What one question saw.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    seen: Said,
    advice: Sentence,
}

impl Finding {
    const fn ok(seen: Said) -> Self {
        Self {
            verdict: Verdict::Ok,
            seen,
            advice: Sentence::EMPTY,
        }
    }

    const fn skipped(seen: Said) -> Self {
        Self {
            verdict: Verdict::Skipped,
            seen,
            advice: Sentence::EMPTY,
        }
    }

    const fn warning(seen: Said, en: &'static str, fr: &'static str) -> Self {
        Self {
            verdict: Verdict::Warning,
            seen,
            advice: Sentence { en, fr },
        }
    }

    const fn failed(seen: Said, en: &'static str, fr: &'static str) -> Self {
        Self {
            verdict: Verdict::Failed,
            seen,
            advice: Sentence { en, fr },
        }
    }
}

/// What the questions are asked about.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The settings the box runs with.
    pub config: Config,
    /// Why the shop's own settings are not among them, if they are not.
    pub refused: Option<String>,
}

type Question = (&'static str, Sentence, fn(&Asked) -> Finding);

/// The questions, in the order in which an answer explains the next.
const QUESTIONS: [Question; 5] = [
    (
        "settings",
        Sentence {
            en: "Are the shop's settings usable?",
            fr: "Les réglages du magasin sont-ils utilisables ?",
        },
        settings::ask,
    ),
    (
        "data_dir",
        Sentence {
            en: "Does the data disk keep what it is given?",
            fr: "Le disque garde-t-il ce qu'on lui confie ?",
        },
        data_dir::ask,
    ),
    (
        "disk_space",
        Sentence {
            en: "Is there room for orders?",
            fr: "Y a-t-il de la place pour les commandes ?",
        },
        disk_space::ask,
    ),
    (
        "databases",
        Sentence {
            en: "Are the databases sound?",
            fr: "Les bases de données sont-elles saines ?",
        },
        databases::ask,
    ),
    (
        "lan_ports",
        Sentence {
            en: "Does every port answer?",
            fr: "Chaque port répond-il ?",
        },
        lan_ports::ask,
    ),
];

const CLOCK: Sentence = Sentence {
    en: "Is the clock right?",
    fr: "L'horloge est-elle à l'heure ?",
};

/// Asks every question about the box, one after the other.
pub(super) fn ask_all(asked: &Asked) -> Vec<Answer> {
    QUESTIONS
        .iter()
        .map(|(name, question, ask)| answer(name, *question, ask(asked)))
        .collect()
}

/// The first question alone.
pub(super) fn ask_settings(asked: &Asked) -> Answer {
    let (name, question, ask) = QUESTIONS[0];
    answer(name, question, ask(asked))
}

/// Asked last: the answers of hosts outside tell the time. `skew_s` is how far the box is ahead of them.
pub(super) fn ask_clock(asked: &Asked, skew_s: Option<i64>) -> Answer {
    answer("clock", CLOCK, clock::ask(asked, skew_s))
}

fn answer(name: &'static str, question: Sentence, finding: Finding) -> Answer {
    Answer {
        name,
        question,
        verdict: finding.verdict,
        seen: finding.seen,
        advice: finding.advice,
    }
}

/// A count with its noun, for texts that say how much.
fn seconds(count: i64, language: Language) -> String {
    let (hours, minutes) = (count / 3600, count / 60 % 60);
    match (count, language) {
        (0..600, _) => format!("{count} s"),
        (600..3600, _) => format!("{minutes} min"),
        (3600..172_800, _) => format!("{hours} h {minutes:02} min"),
        (_, Language::English) => format!("{} days", count / 86_400),
        (_, Language::French) => format!("{} jours", count / 86_400),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;

    /// A box whose outside world refuses every connection.
    pub(crate) fn asked(data_dir: &Path) -> Asked {
        let nowhere = "https://127.0.0.1:9";
        let site = format!(
            "[store]\ndata_dir = {data_dir:?}\n[lan]\nbind = '127.0.0.1'\nport_offset = 6600\n[wan]\n\
             api_url = '{nowhere}'\nbus_url = '{nowhere}'\nmedia_url = '{nowhere}'\n\
             logs_url = '{nowhere}'\nsupport_url = '{nowhere}'\n"
        );
        let config = Config::from_layers(&[(Path::new("site.toml"), &site)]).unwrap();
        Asked {
            config,
            refused: None,
        }
    }

    #[test]
    fn every_question_is_asked_in_both_languages() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = asked(dir.path());
        // Nobody listens on this box.
        asked.config.lan.port_offset = 6500;
        let answers = ask_all(&asked);
        assert_eq!(answers.len(), QUESTIONS.len());
        for answer in &answers {
            assert!(!answer.seen.en.is_empty() && !answer.seen.fr.is_empty());
            assert_ne!(answer.question.en, answer.question.fr);
            assert_eq!(answer.advice.en.is_empty(), answer.advice.fr.is_empty());
        }
        let by_name = |name| answers.iter().find(|answer| answer.name == name).unwrap();
        assert_eq!(by_name("data_dir").verdict, Verdict::Ok);
        // Its server never ran here, so nobody misses it.
        assert_eq!(by_name("lan_ports").verdict, Verdict::Skipped);
    }

    #[test]
    fn long_spans_are_told_in_days() {
        assert_eq!(seconds(59, Language::French), "59 s");
        assert_eq!(seconds(3700, Language::French), "1 h 01 min");
        assert_eq!(seconds(900_000, Language::French), "10 jours");
    }
}
