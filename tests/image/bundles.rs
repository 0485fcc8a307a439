//! Two bundles beside the image: one with another version of the same server, one whose server does not start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::vm::script;

pub const GOOD_VERSION: &str = "test-good";
pub const BROKEN_VERSION: &str = "test-broken";

/// Makes both in `dir` and returns their paths; the good one has the binary of the image itself.
pub fn make(dir: &Path) -> [PathBuf; 2] {
    fs::create_dir_all(dir).unwrap();
    let good_path = script("cross", &["--print-path"]);
    let broken_path = dir.join("broken-server");
    fs::write(&broken_path, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&broken_path, fs::Permissions::from_mode(0o755)).unwrap();
    [
        (GOOD_VERSION, good_path.trim()),
        (BROKEN_VERSION, broken_path.to_str().unwrap()),
    ]
    .map(|(version, binary)| {
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
        out.join(format!("comptoir-{version}.raucb"))
    })
}
