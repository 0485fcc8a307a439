//! `comptoir check` and `comptoir boot-report` on a real box.

use std::fs;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::supervisor::bench::{Box, NOWHERE, signal, wait};

fn run(this: &Box, verb: &str, more: &[&str]) -> Output {
    this.command(verb).args(more).output().unwrap()
}

/// Exit code and verdicts of `comptoir check --json`.
fn check(this: &Box) -> (Option<i32>, Value) {
    let output = run(this, "check", &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), report)
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    &checks.iter().find(|check| check["name"] == name).unwrap()["verdict"]
}

#[test]
fn a_box_at_work_without_a_platform_lacks_what_is_required_and_a_stopped_one_itself() {
    let mut this = Box::started("");
    let (code, report) = check(&this);
    assert_eq!(code, Some(2), "{report:#}");
    assert_eq!(report["outcome"], "required_impaired");
    for name in [
        "settings",
        "data_dir",
        "disk_space",
        "clock",
        "databases",
        "lan_ports",
    ] {
        assert_eq!(verdict(&report, name), "ok", "{report:#}");
    }
    let api = &report["flows"][0];
    assert_eq!(
        (&api["name"], &api["cause"]),
        (&"api".into(), &"tcp_refused".into())
    );

    let mut supervisor = this.supervisor.take().unwrap();
    signal(supervisor.id(), Signal::SIGTERM);
    supervisor.wait().unwrap();
    let (code, report) = check(&this);
    assert_eq!(code, Some(3), "{report:#}");
    assert_eq!(verdict(&report, "lan_ports"), "failed");
    assert_eq!(verdict(&report, "databases"), "ok");
}

#[test]
fn refused_settings_are_named_with_file_line_and_key() {
    let this = Box::new("[lan.limits]\nmax_conections = 5\n");
    // Without the shop's settings the image's hold: they keep this test to itself.
    let image_file = this.dir.path().join("image.toml");
    let data_dir = this.dir.path().join("data");
    fs::write(
        &image_file,
        format!("{NOWHERE}[store]\ndata_dir = {data_dir:?}\n"),
    )
    .unwrap();
    let image_file = image_file.to_str().unwrap();
    let output = run(
        &this,
        "check",
        &["--lang", "en", "--image-file", image_file],
    );
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains("settings")).unwrap();
    assert!(line.contains("FAILED"), "{said}");
    assert!(
        said.contains("max_conections") && said.contains("site.toml"),
        "{said}"
    );
}

#[test]
fn the_boot_report_tells_listeners_and_restarts() {
    let this = Box::started("");
    let old = this.server().unwrap();
    signal(old, Signal::SIGKILL);
    wait("the restart is recorded", || !this.reasons().is_empty());
    let output = run(&this, "boot-report", &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    let report: Value =
        serde_json::from_str(said.strip_prefix("comptoir-boot: ").unwrap()).unwrap();
    let listeners = report["listeners"].as_array().unwrap();
    for name in ["front", "catalogue", "orders", "events", "media", "care"] {
        let wanted = format!("tcp {}", this.addr(name));
        assert!(
            listeners
                .iter()
                .any(|listener| *listener == wanted.as_str()),
            "{wanted}: {said}"
        );
    }
    assert_eq!(report["restarts"][0]["cause"], "killed");
    assert_eq!(report["boot"]["why"]["kind"], "kept");
    assert_eq!(report["in_trial"], false);
}

#[test]
fn a_damaged_list_of_restarts_does_not_keep_the_box_down() {
    let mut this = Box::new("");
    let state_dir = this.dir.path().join("data/state");
    fs::create_dir_all(&state_dir).unwrap();
    fs::write(state_dir.join("restarts.json"), b"\0\0\0").unwrap();
    fs::write(state_dir.join("boots.json"), b"{").unwrap();
    let command = this.command("supervise");
    this.start(command);
    this.wait_ready();
    assert!(state_dir.join("restarts.json.bad").exists());
    assert!(state_dir.join("boots.json.bad").exists());
}
