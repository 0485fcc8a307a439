//! Are the shop's settings usable?

use super::{Asked, Finding};

pub(super) fn ask(asked: &Asked) -> Finding {
    match &asked.refused {
        None => Finding::ok("every key is understood"),
        Some(refused) => Finding::failed(
            format!("the box runs without the shop's settings: {refused}"),
            "correct the site file and bring it in again",
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
        assert!(finding.seen.contains("lan.bindd"), "{}", finding.seen);
    }
}
