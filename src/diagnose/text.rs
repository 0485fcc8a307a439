//! The report for people at a terminal: in French or English, a state is sign and word beside its colour.

use std::fmt::Write as _;

use super::checks::{Answer, Verdict};
use super::flows::FlowAnswer;
use super::report::{Outcome, Report};
use crate::language::{Language, Sentence};

/// How the text is written.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// In which language.
    pub language: Language,
    /// With colours (ANSI).
    pub colour: bool,
}

/// The whole report. Writing to a String can't fail, so results of `write!` are dropped.
#[must_use]
pub fn write(report: &Report, style: Style) -> String {
    let mut text = format!(
        "{} {} · {}{}\n",
        style.bold("Comptoir"),
        report.version,
        if report.site_id.is_empty() {
            String::new()
        } else {
            format!("{} · ", report.site_id)
        },
        report.at
    );
    if !report.checks.is_empty() {
        style.heading(&mut text, "The box", "La box");
        for answer in &report.checks {
            style.answer(&mut text, answer);
        }
    }
    style.heading(&mut text, "Out to the internet", "Vers internet");
    for flow in &report.flows {
        style.flow(&mut text, flow);
    }
    style.result(&mut text, report);
    text
}

impl Style {
    fn say(self, en: &'static str, fr: &'static str) -> String {
        self.sentence(Sentence { en, fr })
    }

    fn sentence(self, sentence: Sentence) -> String {
        self.language.typeset(sentence.to(self.language))
    }

    fn heading(self, text: &mut String, en: &'static str, fr: &'static str) {
        let _ = writeln!(text, "\n{}", self.bold(&self.say(en, fr)));
    }

    fn bold(self, text: &str) -> String {
        self.painted("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.painted("2", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn verdict(self, verdict: Verdict) -> String {
        let (code, sign, en, fr) = match verdict {
            Verdict::Ok => ("32", "✓", "ok     ", "bon    "),
            Verdict::Skipped => ("2", "–", "skipped", "omis   "),
            Verdict::Warning => ("33", "!", "warning", "réserve"),
            Verdict::Failed => ("1;31", "✗", "FAILED ", "ÉCHEC  "),
        };
        self.painted(code, &format!("{sign} {}", self.say(en, fr)))
    }

    fn sign(self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Ok => self.painted("32", "✓"),
            Verdict::Skipped => self.painted("2", "–"),
            Verdict::Warning => self.painted("33", "!"),
            Verdict::Failed => self.painted("1;31", "✗"),
        }
    }

    fn answer(self, text: &mut String, answer: &Answer) {
        let seen = self.language.typeset(answer.seen.to(self.language));
        let _ = writeln!(
            text,
            "  {}  {} {}",
            self.verdict(answer.verdict),
            self.sentence(answer.question),
            self.dim(&seen)
        );
        if !answer.advice.to(self.language).is_empty() {
            let _ = writeln!(text, "             → {}", self.sentence(answer.advice));
        }
    }

    fn flow(self, text: &mut String, flow: &FlowAnswer) {
        let need = match flow.need {
            "required" => self.say("required", "obligatoire"),
            "optional" => self.say("optional", "facultatif"),
            _ => self.say("recommended", "recommandé"),
        };
        let host = format!("{}:{}", flow.host, flow.port);
        let way = match &flow.proxy {
            Some(proxy) => format!(" {} {proxy}", self.say("through", "via")),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "  {}  {:8}{need:12} {host}{way}  {}",
            self.verdict(flow.verdict),
            flow.name,
            self.dim(&self.sentence(flow.purpose)),
        );
        if flow.steps.is_empty() {
            let unused = self.say(
                "not used with this shop's settings",
                "non utilisé avec les réglages de ce magasin",
            );
            let _ = writeln!(text, "             {}", self.dim(&unused));
            return;
        }
        let steps: Vec<_> = flow
            .steps
            .iter()
            .map(|step| {
                let name = self.step(step.name);
                match step.verdict {
                    Verdict::Skipped => {
                        self.dim(&format!("– {name} {}", self.say("skipped", "omis")))
                    }
                    verdict => format!("{} {name} {} ms", self.sign(verdict), step.took_ms),
                }
            })
            .collect();
        let _ = writeln!(text, "             {}", steps.join(" · "));
        for step in flow
            .steps
            .iter()
            .filter(|step| step.verdict == Verdict::Failed)
        {
            let seen = self.language.typeset(step.seen.to(self.language));
            self.line(text, &self.step(step.name), &seen);
        }
        let (Some(cause), Some(culprit)) = (flow.cause, &flow.culprit) else {
            return;
        };
        let said = self.language.typeset(culprit.said.to(self.language));
        self.line(text, &self.say("culprit", "en cause"), &self.bold(&said));
        self.line(
            text,
            &self.say("shop", "magasin"),
            &self.sentence(flow.staff),
        );
        self.line(
            text,
            &self.say("network", "réseau"),
            &self.sentence(flow.action),
        );
        self.line(text, &self.say("code", "code"), cause);
        for proof in &flow.evidence {
            let line = format!("{} : {}", self.sentence(proof.what), proof.value);
            let line = match self.language {
                Language::English => line.replacen(" : ", ": ", 1),
                Language::French => self.language.typeset(&line),
            };
            self.line(text, &self.say("seen", "constaté"), &line);
        }
    }

    fn line(self, text: &mut String, name: &str, words: &str) {
        let _ = writeln!(
            text,
            "             {}{words}",
            self.dim(&format!("{name:10}"))
        );
    }

    fn step(self, name: &str) -> String {
        match name {
            "lookup" => self.say("name", "nom"),
            "connect" => "TCP".to_owned(),
            "tunnel" => "CONNECT".to_owned(),
            "tls" => "TLS".to_owned(),
            _ => self.say("answer", "réponse"),
        }
    }

    fn result(self, text: &mut String, report: &Report) {
        let (code, en, fr) = match report.outcome {
            Outcome::Well => ("1;32", "All is well.", "Tout va bien."),
            Outcome::OptionalImpaired => (
                "1;33",
                "The shop works; something it can do without for a while does not.",
                "Le magasin fonctionne ; quelque chose dont il peut se passer un temps ne fonctionne pas.",
            ),
            Outcome::RequiredImpaired => (
                "1;31",
                "A connection the box needs does not work.",
                "Une connexion dont la box a besoin ne fonctionne pas.",
            ),
            Outcome::BoxImpaired => (
                "1;31",
                "The box itself does not work as it should.",
                "La box elle-même ne fonctionne pas comme il faut.",
            ),
        };
        let (sentence, word) = (self.say(en, fr), self.say("exit code", "code de retour"));
        let _ = writeln!(
            text,
            "\n{} ({word} {})",
            self.painted(code, &sentence),
            report.exit_code
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::asked;
    use super::super::report::Scope;
    use super::*;

    #[test]
    fn both_languages_tell_the_same_and_only_colour_is_colour() {
        let dir = tempfile::tempdir().unwrap();
        let report = Report::make(&asked(dir.path()), Scope::Everything);
        let text = |language, colour| write(&report, Style { language, colour });
        let english = text(Language::English, false);
        let french = text(Language::French, false);
        assert_eq!(english.lines().count(), french.lines().count());
        assert!(
            english.contains("✗ FAILED   api     required     127.0.0.1:9"),
            "{english}"
        );
        assert!(english.contains("– answer skipped"), "{english}");
        assert!(
            french.contains("✗ ÉCHEC    api     obligatoire  127.0.0.1:9"),
            "{french}"
        );
        assert!(
            french.contains("en cause  un pare-feu sur le chemin de 127.0.0.1:9"),
            "{french}"
        );
        assert!(!english.contains('\x1b') && text(Language::English, true).contains('\x1b'));
    }
}
