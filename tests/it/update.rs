//! `comptoir update` against the real RAUC.

use std::fs;
use std::path::Path;

use crate::rauc_bench::{Bench, text};

fn show(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_bundle_goes_to_the_other_slot_and_is_tried_next() {
    let bench = Bench::new();
    let bundle = bench.bundle("test-box", "7.1");
    let installed = bench.comptoir(&["update", "install", show(&bundle)]);
    let said = text(&installed);
    assert!(installed.status.success(), "{said}");
    assert!(said.contains("100% Installing done."), "{said}");
    assert!(
        said.contains("version 7.1 is in slot B") && said.contains("a reboot is needed"),
        "{said}"
    );
    assert!(bench.slot_begins_with("b.img", "7.17.17.1"));
    assert!(bench.slot_begins_with("a.img", "\0\0\0"));
    assert_eq!(
        bench.boot_state(),
        ["BOOT_A_LEFT=9", "BOOT_B_LEFT=2", "BOOT_ORDER=B A"]
    );

    let status = bench.comptoir(&["update", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["next_slot"], "B");
    assert_eq!(status["trial"]["version"], "7.1");
    assert_eq!(status["slots"][0]["slot"], "A");
    let said = text(&bench.comptoir(&["update", "status"]));
    assert!(said.contains("next boot slot B"), "{said}");
    assert!(
        said.contains("new       version 7.1 in slot B: tried at the next boot"),
        "{said}"
    );
}

#[test]
fn the_running_slot_is_kept_on_request() {
    let bench = Bench::new();
    fs::write(
        bench.path("env"),
        "BOOT_ORDER=A B\nBOOT_A_LEFT=1\nBOOT_B_LEFT=9\n",
    )
    .unwrap();
    let kept = bench.comptoir(&["update", "commit"]);
    assert!(kept.status.success(), "{}", text(&kept));
    assert_eq!(bench.boot_state()[0], "BOOT_A_LEFT=9");
}

#[test]
fn what_is_no_bundle_for_this_box_changes_nothing() {
    let bench = Bench::new();
    let before = bench.boot_state();
    let other = bench.bundle("toaster", "1.0");
    let refused = bench.comptoir(&["update", "install", show(&other)]);
    assert!(!refused.status.success());
    assert!(
        text(&refused).contains("made for \"toaster\", this box is \"test-box\""),
        "{}",
        text(&refused)
    );

    let mut damaged = fs::read(bench.bundle("test-box", "1.1")).unwrap();
    let middle = damaged.len() / 3;
    damaged[middle] ^= 0xff;
    fs::write(bench.path("damaged.raucb"), damaged).unwrap();
    let refused = bench.comptoir(&["update", "install", show(&bench.path("damaged.raucb"))]);
    assert!(!refused.status.success(), "{}", text(&refused));

    let missing = bench.comptoir(&["update", "install", "/nonexistent.raucb"]);
    assert!(
        text(&missing).contains("cannot find the bundle /nonexistent.raucb"),
        "{}",
        text(&missing)
    );
    assert_eq!(bench.boot_state(), before);
    assert!(bench.slot_begins_with("b.img", "\0\0\0"));
}

#[test]
fn a_version_that_failed_before_is_refused_until_somebody_insists() {
    let bench = Bench::new();
    let bundle = bench.bundle("test-box", "6.6");
    fs::create_dir_all(bench.path("data/state")).unwrap();
    let failed = r#"{"boots":[],"trial":null,"failed":[{"version":"6.6","reason":"port orders","at":"2026-11-01T00:00:00Z"}]}"#;
    fs::write(bench.path("data/state/boots.json"), failed).unwrap();
    let refused = bench.comptoir(&["update", "install", show(&bundle)]);
    assert!(
        text(&refused).contains("version 6.6 failed on this box before (port orders)"),
        "{}",
        text(&refused)
    );
    let forced = bench.comptoir(&["update", "install", "--force", show(&bundle)]);
    assert!(forced.status.success(), "{}", text(&forced));
    assert!(bench.slot_begins_with("b.img", "6.6"));
}
