//! Two bundles beside the image: one with another version of the same server, one whose server does not start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::vm::script;

pub const GOOD_VERSION: &str = "test-good";
pub const BROKEN_VERSION: &str = "test-broken";

/// Where the bundle of a version lies.
pub fn path(dir: &Path, version: &str) -> PathBuf {
    dir.join(version).join(format!("comptoir-{version}.raucb"))
}

/// Makes both in `dir`; the good one has the binary of the image itself.
pub fn make(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let good_path = script("cross", &["--print-path"]);
    let broken_path = dir.join("broken-server");
    fs::write(&broken_path, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&broken_path, fs::Permissions::from_mode(0o755)).unwrap();
    for (version, binary) in [
        (GOOD_VERSION, good_path.trim()),
        (BROKEN_VERSION, broken_path.to_str().unwrap()),
    ] {
        let out = dir.join(version);
        let out_text = out.to_str().unwrap();
        script(
            "image",
            &[
                "--only",
                "bundle",
                "--version-label",
                version,
                "--binary",
                binary,
                "--out",
                out_text,
            ],
        );
    }
}
