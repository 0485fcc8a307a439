//! `comptoir supervise` with the real server: killed, hung, stopped, orphaned, and under systemd's protocols.

pub mod bench;
mod systemd;

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use bench::{Box, Load, get, read, signal, wait};

#[test]
fn a_killed_server_is_replaced_under_load_and_no_connection_is_refused() {
    let this = Box::started("");
    let load = Load::on(&this);
    load.wait_served(50);
    for _ in 0..2 {
        let old = this.server().unwrap();
        signal(old, Signal::SIGKILL);
        this.wait_other_server(old);
        this.wait_ready();
        load.wait_served(50);
    }
    assert_eq!(load.end(), 0, "connections were refused");
    wait("the restart is told", || {
        let status = read(this.addr("front"), "/status.json").unwrap();
        status.contains("supervisor.server_restarted")
    });
    let reasons = this.reasons();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|reason| reason["cause"] == "killed" && reason["signal"] == 9),
        "{reasons:?}"
    );
}

#[test]
fn a_hung_server_is_replaced_under_load_and_the_reason_is_recorded() {
    let this = Box::started("[supervisor]\nhang_s = 8\n");
    let load = Load::on(&this);
    load.wait_served(50);
    let old = this.server().unwrap();
    signal(old, Signal::SIGSTOP);
    this.wait_other_server(old);
    this.wait_ready();
    load.wait_served(50);
    assert_eq!(load.end(), 0, "connections were refused");
    let reasons = this.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(reasons[0]["cause"], "hung");
    assert!(
        reasons[0]["part"]
            .as_str()
            .is_some_and(|part| !part.is_empty()),
        "{reasons:?}"
    );
}

#[test]
fn an_idle_server_counts_as_alive() {
    let this = Box::started("[supervisor]\nhang_s = 5\n");
    let (old, until) = (this.server(), Instant::now() + Duration::from_secs(12));
    wait("twelve idle seconds", || Instant::now() > until);
    assert_eq!(this.server(), old);
    assert!(this.reasons().is_empty(), "{:?}", this.reasons());
}

#[test]
fn a_stop_ends_server_and_supervisor_in_good_order() {
    let mut this = Box::started("");
    let server = this.server().unwrap();
    let mut supervisor = this.supervisor.take().unwrap();
    signal(supervisor.id(), Signal::SIGTERM);
    assert!(supervisor.wait().unwrap().success());
    assert!(
        !fs::exists(format!("/proc/{server}")).unwrap(),
        "the server was left behind"
    );
    let log = this.log();
    assert!(
        log.contains("daemon.ended") && !log.contains("panicked"),
        "not in good order"
    );
    let error = get(this.addr("front")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_server_does_not_outlive_a_killed_supervisor() {
    let mut this = Box::started("");
    let server = this.server().unwrap();
    let mut supervisor = this.supervisor.take().unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    wait("the server ends itself", || {
        !fs::exists(format!("/proc/{server}/exe")).unwrap()
    });
    let command = this.command("supervise");
    this.start(command);
    this.wait_ready();
}
