//! Does the data disk keep what it is given?

use super::{Asked, Finding};
use crate::language::Said;
use crate::update::probe::probe_data_disk;

pub(super) fn ask(asked: &Asked) -> Finding {
    let dir = asked.config.store.data_dir.display();
    if !asked.config.store.data_dir.exists() {
        // Asking must not make it: settings are tried before they are saved.
        return Finding::skipped(Said::new(
            format!("{dir} is not there yet"),
            format!("{dir} n'existe pas encore"),
        ));
    }
    match probe_data_disk(&asked.config.store.data_dir) {
        Ok(()) => Finding::ok(Said::new(
            format!("{dir}: written, read back from the disk, equal"),
            format!("{dir} : écrit, relu depuis le disque, identique"),
        )),
        Err(error) => Finding::failed(
            Said::new(format!("{dir}: {error}"), format!("{dir} : {error}")),
            "Orders cannot be stored: change the disk, or free space if it is full.",
            "Les commandes ne peuvent pas être enregistrées : changez le disque, ou libérez de la place s'il est plein.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::asked};
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        assert_eq!(ask(&asked(&data_dir)).verdict, Verdict::Skipped);
        assert!(!data_dir.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_fails() {
        let finding = ask(&asked(std::path::Path::new("/proc/1")));
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(
            finding.seen.en.contains("can't be written"),
            "{:?}",
            finding.seen
        );
    }
}
