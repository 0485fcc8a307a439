//! Are the shop's settings usable?

use super::{Asked, Finding};

pub(super) fn ask(asked: &Asked) -> Finding {
    match &asked.refused {
        None => Finding::ok(format!(
            "every key of {} is understood",
            asked.site_file.display()
        )),
        Some(refused) => Finding::failed(
            format!("the box runs without the shop's settings: {refused}"),
            "correct the site file and bring it in again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn settings_that_are_refused_are_shown_with_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let (image_file, site_file) = (dir.path().join("image.toml"), dir.path().join("site.toml"));
        fs::write(&site_file, "[lan]\nbindd = '127.0.0.1'\n").unwrap();
        let finding = ask(&Asked::load(&image_file, &site_file).unwrap());
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.seen.contains("bindd"), "{}", finding.seen);
        fs::write(&site_file, "[lan]\nbind = '127.0.0.1'\n").unwrap();
        assert_eq!(
            ask(&Asked::load(&image_file, &site_file).unwrap()).verdict,
            Verdict::Ok
        );
    }
}
