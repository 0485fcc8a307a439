//! Does every port answer?

use super::{Asked, Finding};
use crate::update::probe::probe_port;

pub(super) fn ask(asked: &Asked) -> Finding {
    let ports: Vec<_> = asked.config.lan.ports_on().collect();
    if ports.is_empty() {
        return Finding::skipped("every port is switched off");
    }
    let problems: Vec<_> = ports
        .iter()
        .filter_map(|port| probe_port(*port, asked.config.lan.addr(*port)).err())
        .map(|error| error.to_string())
        .collect();
    if problems.is_empty() {
        let names: Vec<_> = ports.iter().map(|port| port.name()).collect();
        return Finding::ok(format!("{} answer", names.join(", ")));
    }
    Finding::failed(
        problems.join("; "),
        "devices are not served: see the server's log",
    )
}
