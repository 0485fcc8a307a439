//! One file per question. A question's name is its file's name and is stable: support and scripts search for it.

mod clock;
mod data_dir;
mod databases;
mod disk_space;
mod lan_ports;
mod platform;
mod settings;

use std::fmt;

use serde::Serialize;

use crate::config::Config;

/// What a question was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Does not apply to this box.
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
            Self::Failed => "FAILED",
        })
    }
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Stable name of the question.
    pub name: &'static str,
    /// The question, for people.
    pub question: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty when there is nothing to do.
    pub advice: &'static str,
}

/// What one question saw.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    seen: String,
    advice: &'static str,
}

impl Finding {
    fn ok(seen: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            seen: seen.into(),
            advice: "",
        }
    }

    fn skipped(seen: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Skipped,
            seen: seen.into(),
            advice: "",
        }
    }

    fn warning(seen: impl Into<String>, advice: &'static str) -> Self {
        Self {
            verdict: Verdict::Warning,
            seen: seen.into(),
            advice,
        }
    }

    fn failed(seen: impl Into<String>, advice: &'static str) -> Self {
        Self {
            verdict: Verdict::Failed,
            seen: seen.into(),
            advice,
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

type Question = (&'static str, &'static str, fn(&Asked) -> Finding);

/// The questions, in the order in which an answer explains the next.
const QUESTIONS: [Question; 7] = [
    ("settings", "are the shop's settings usable?", settings::ask),
    (
        "data_dir",
        "does the data disk keep what it is given?",
        data_dir::ask,
    ),
    ("disk_space", "is there room for orders?", disk_space::ask),
    ("clock", "is the clock plausible?", clock::ask),
    ("databases", "are the databases sound?", databases::ask),
    ("lan_ports", "does every port answer?", lan_ports::ask),
    (
        "platform",
        "do the hosts outside the shop answer?",
        platform::ask,
    ),
];

/// Asks every question, one after the other.
#[must_use]
pub fn ask_all(asked: &Asked) -> Vec<Answer> {
    let ask = |(name, question, ask): &Question| {
        let Finding {
            verdict,
            seen,
            advice,
        } = ask(asked);
        Answer {
            name,
            question,
            verdict,
            seen,
            advice,
        }
    };
    QUESTIONS.iter().map(ask).collect()
}

/// The worst verdict of all.
#[must_use]
pub fn worst(answers: &[Answer]) -> Verdict {
    answers
        .iter()
        .map(|answer| answer.verdict)
        .max()
        .unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A box whose outside world refuses every connection.
    pub(super) fn asked(data_dir: &Path) -> Asked {
        let nowhere = "https://127.0.0.1:9";
        let site = format!(
            "[store]\ndata_dir = {data_dir:?}\n[lan]\nbind = '127.0.0.1'\n[wan]\n\
             api_url = '{nowhere}'\nbus_url = '{nowhere}'\nmedia_url = '{nowhere}'\n"
        );
        let config = Config::from_layers(&[(Path::new("site.toml"), &site)]).unwrap();
        Asked {
            config,
            refused: None,
        }
    }

    #[test]
    fn every_question_is_asked_and_the_worst_answer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = asked(dir.path());
        // Nobody listens on this box.
        asked.config.lan.port_offset = 6500;
        let answers = ask_all(&asked);
        assert_eq!(answers.len(), QUESTIONS.len());
        assert_eq!(worst(&answers), Verdict::Failed);
        let by_name = |name| answers.iter().find(|answer| answer.name == name).unwrap();
        assert_eq!(by_name("lan_ports").verdict, Verdict::Failed);
        assert_eq!(by_name("data_dir").verdict, Verdict::Ok);
        assert_eq!(worst(&answers[..1]), Verdict::Ok);
    }
}
