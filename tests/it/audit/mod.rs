//! The egress audit: a box in a network of its own, a whole day's work in fast motion, and every packet on its wire held
//! against the network contract. Once with a proxy as the only way out, once without one.
//!
//! The box has a default route in both cases, so that what should not leave could leave, and is seen when it does.

mod capture;
mod day;
mod net;
mod rules;
mod town;

use std::io::Write;

use capture::Capture;
use day::Day;
use rules::{Rules, Seen};
use town::{BOX, PLATFORM, Town};

/// A town, unless this machine cannot make one: then it is said, although the test passes.
fn town(with_proxy: bool) -> Option<Town> {
    let town = Town::build(with_proxy);
    if town.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: the egress audit needs root, ip, tcpdump, squid, dnsmasq and network namespaces"
        );
    }
    town
}

#[test]
fn with_a_proxy_a_days_work_leaves_the_box_by_the_proxy_alone() {
    let Some(mut town) = town(true) else { return };
    let capture = Capture::start(&town);
    Day::of(&mut town).work();
    let packets = capture.stop(&town);
    let seen = Rules::with_proxy().judge(&packets);
    seen.report();
    assert_eq!(seen.strays, Vec::<String>::new());
    seen.must_have(&["proxy", "lan", "commands", "discovery"]);
    assert!(
        seen.names.is_empty(),
        "not one DNS question: {:?}",
        seen.names
    );
    town.assert_proxy_saw_the_contract_only();
}

#[test]
fn without_a_proxy_a_days_work_leaves_by_443_to_the_contracts_hosts() {
    let Some(mut town) = town(false) else { return };
    let capture = Capture::start(&town);
    Day::of(&mut town).work();
    let packets = capture.stop(&town);
    let seen = Rules::without_proxy().judge(&packets);
    seen.report();
    assert_eq!(seen.strays, Vec::<String>::new());
    seen.must_have(&["https", "dns", "lan", "commands", "discovery"]);
    let hosts: Vec<&str> = seen.names.iter().map(String::as_str).collect();
    assert_eq!(hosts, town::HOSTS_SORTED, "the names asked for");
}

/// What the audit must catch, or it proves nothing: each of these is one packet or one program that breaks the contract.
#[test]
fn the_audit_catches_what_breaks_the_contract() {
    let Some(town) = town(true) else { return };
    let judged = |what: &str, breaks: &dyn Fn()| -> Seen {
        let capture = Capture::start(&town);
        breaks();
        let seen = Rules::with_proxy().judge(&capture.stop(&town));
        assert!(!seen.strays.is_empty(), "{what} was not caught");
        seen
    };
    let clock = judged("a question for the time", &|| {
        town.stray_datagram(&format!("{PLATFORM}:123"));
    });
    assert!(clock.strays[0].contains(":123"), "{:?}", clock.strays);
    let direct = judged("a connection past the proxy", &|| {
        town.stray_connection(&format!("{PLATFORM}:443"));
    });
    assert!(direct.strays[0].contains(":443"), "{:?}", direct.strays);
    judged("a connection to a device's other port", &|| {
        town.stray_connection(&format!("{}:9100", town::DEVICE));
    });
    let by_v6 = judged("a connection by IPv6", &|| {
        town.stray_connection(&format!("[{}]:443", town::ROUTER_V6));
    });
    assert!(by_v6.strays[0].contains("fd98"), "{:?}", by_v6.strays);
    // The real program, told nothing of the proxy: it resolves names by itself and goes straight to the hosts.
    let program = judged("a program without the proxy", &|| {
        town.check_without_proxy();
    });
    assert!(!program.names.is_empty(), "it asked for names");
    assert!(
        program.strays.iter().any(|stray| stray.contains(":53")),
        "from {BOX}: {:?}",
        program.strays
    );
}
