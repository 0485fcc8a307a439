//! Are the shop's settings usable?

use super::{Asked, Finding};
use crate::language::Said;

pub(super) fn ask(asked: &Asked) -> Finding {
    match &asked.refused {
        None => Finding::ok(Said::new(
            "every key is understood",
            "chaque clé est comprise",
        )),
        Some(refused) => Finding::failed(
            Said::new(
                format!("the box runs without the shop's settings: {refused}"),
                format!("la box fonctionne sans les réglages du magasin : {refused}"),
            ),
            "Correct the site file and bring it in again.",
            "Corrigez le fichier du site et importez-le de nouveau.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::asked};
    use super::*;

    #[test]
    fn settings_that_are_refused_are_shown_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = asked(dir.path());
        assert_eq!(ask(&asked).verdict, Verdict::Ok);
        asked.refused = Some("site.toml:2: unknown key lan.bindd".to_owned());
        let finding = ask(&asked);
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.seen.fr.contains("lan.bindd"), "{:?}", finding.seen);
    }
}
