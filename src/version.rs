//! Which version runs: the image's release label, since that is what updates carry, roll back and remember.

use std::fs;
use std::sync::OnceLock;

/// Where the image says what it is (os-release(5)).
const OS_RELEASE: &str = "/etc/os-release";

/// The label of the image this program runs from; on any other machine the package's version.
#[must_use]
pub fn running() -> &'static str {
    static RUNNING: OnceLock<String> = OnceLock::new();
    RUNNING.get_or_init(|| {
        fs::read_to_string(OS_RELEASE)
            .ok()
            .and_then(|text| of_image(&text))
            .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
    })
}

/// `IMAGE_VERSION` of an `os-release` that is ours.
fn of_image(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        os_release.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    };
    (value("ID")? == "comptoir").then(|| value("IMAGE_VERSION"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_taken_from_our_own_image_only() {
        let ours = "NAME=\"Comptoir\"\nID=comptoir\nIMAGE_ID=box\nIMAGE_VERSION=\"1.2.3+abc\"\n";
        assert_eq!(of_image(ours).as_deref(), Some("1.2.3+abc"));
        assert_eq!(of_image("ID=debian\nIMAGE_VERSION=12\n"), None);
        assert_eq!(of_image("ID=comptoir\n"), None);
        assert!(!running().is_empty());
    }
}
