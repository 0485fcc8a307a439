//! Does the data disk keep what it is given?

use super::{Asked, Finding};
use crate::update::probe::probe_disk;

pub(super) fn ask(asked: &Asked) -> Finding {
    let dir = asked.config.store.data_dir.display();
    match probe_disk(&asked.config.store.data_dir) {
        Ok(()) => Finding::ok(format!("{dir}: written, read back from the disk, equal")),
        Err(error) => Finding::failed(
            format!("{dir}: {error}"),
            "orders cannot be stored: change the disk, or free space if it is full",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::asked};
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_fails() {
        let finding = ask(&asked(std::path::Path::new("/proc/1")));
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(
            finding.seen.contains("can't be written"),
            "{}",
            finding.seen
        );
    }
}
