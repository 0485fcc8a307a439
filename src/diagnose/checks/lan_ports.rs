//! Does every port answer?
//!
//! Asked of the running box. Where nobody listens on any port and no server ever ran, as when settings are tried before they
//! are saved, there is nothing to ask; where one ran, its absence is the finding.

use std::thread;

use super::{Asked, Finding};
use crate::diagnose::listeners::listeners;
use crate::language::Said;
use crate::update::probe::probe_port;

/// What a server leaves behind once it has run.
const TRACE_OF_A_SERVER: &str = "orders.db";

pub(super) fn ask(asked: &Asked) -> Finding {
    let lan = &asked.config.lan;
    let ports: Vec<_> = lan.ports_on().collect();
    if ports.is_empty() {
        return Finding::skipped(Said::new(
            "every port is switched off",
            "tous les ports sont désactivés",
        ));
    }
    let listening = listeners();
    let nobody = ports.iter().all(|port| {
        let ending = format!(":{}", lan.addr(*port).port());
        !listening.iter().any(|socket| socket.ends_with(&ending))
    });
    if nobody && !asked.config.store.data_dir.join(TRACE_OF_A_SERVER).exists() {
        return Finding::skipped(Said::new(
            "the server has not run here yet",
            "le serveur n'a pas encore fonctionné ici",
        ));
    }
    let asking: Vec<_> = ports
        .iter()
        .map(|port| (*port, lan.addr(*port)))
        .map(|(port, addr)| thread::spawn(move || probe_port(port, addr)))
        .collect();
    let problems: Vec<_> = asking
        .into_iter()
        .filter_map(|asking| asking.join().ok()?.err())
        .map(|error| error.to_string())
        .collect();
    if problems.is_empty() {
        let names: Vec<_> = ports
            .iter()
            .map(|port| format!("{} ({})", port.name(), lan.addr(*port).port()))
            .collect();
        let names = names.join(", ");
        return Finding::ok(Said::new(
            format!("{names} answer"),
            format!("{names} répondent"),
        ));
    }
    Finding::failed(
        Said::same(problems.join("; ")),
        "Devices are not served: see the server's log.",
        "Les appareils ne sont pas servis : voyez le journal du serveur.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::asked};
    use super::*;

    #[test]
    fn a_server_that_ran_and_is_gone_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = asked(dir.path());
        asked.config.lan.port_offset = 6400;
        assert_eq!(ask(&asked).verdict, Verdict::Skipped);
        std::fs::write(dir.path().join(TRACE_OF_A_SERVER), b"").unwrap();
        let finding = ask(&asked);
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.seen.en.contains("front"), "{:?}", finding.seen);
    }
}
