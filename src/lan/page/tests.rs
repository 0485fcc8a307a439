//! What people see, and what nobody may smuggle in.

use std::collections::BTreeMap;

use super::*;
use crate::lan::status::{
    CatalogueStatus, DeviceStatus, Level, LinkState, OrdersStatus, Platform, Verdict,
};
use crate::store::blobs::MediaReport;

use crate::telemetry::{
    EnrolmentState, FlowSetup, FlowState, FlowStatus, LastUpdate, OrderedUpdate, Trouble,
    UpdateState, UpdateWait,
};
use crate::wan::time::PlatformTime;

/// A line that is broken by an interceptor with a name of its own choice.
fn broken(name: &'static str) -> FlowStatus {
    let same = |text| Sentence { en: text, fr: text };
    FlowStatus {
        setup: FlowSetup {
            name,
            purpose: same("orders"),
            need: same("optional"),
            host: "host:443".into(),
            proxy: Some("proxy.shop:3128".into()),
            used: true,
        },
        state: FlowState::Down,
        since_ms: Some(9_000_000),
        well_ms: Some(8_000_000),
        trouble: Some(Trouble {
            cause: "tls_intercepted",
            staff: same("Somebody opens it."),
            action: same("Take it out."),
            evidence: vec![(same("issued by"), "<b>Evil</b>".into())],
        }),
    }
}

fn status() -> Status {
    Status {
        box_id: "box-0123456789ab".into(),
        site_id: "s1".into(),
        site_name: "Chez <script>alert(1)</script> & Cie".into(),
        version: "0.0.0",
        now: String::new(),
        now_ms: 10_000_000,
        started_at_ms: 0,
        verdict: Verdict {
            level: Level::Good,
            since_ms: 10_000_000 - 7_380_000,
            sentence: Sentence {
                en: "All is well.",
                fr: "Tout va bien.",
            },
        },
        conditions: Vec::new(),
        contact: "\"Aide\" 01 23".into(),
        platform: Platform {
            data: LinkState::Up,
            orders: LinkState::Down,
            media: LinkState::Waiting,
            last_pull_ms: Some(9_997_000),
        },
        flows: Vec::new(),
        catalogue: CatalogueStatus {
            version: "g-1".to_owned(),
            filling: None,
            set_aside: 0,
            collections: Vec::new(),
            documents: 1_234_567,
            caught_up: true,
            age_s: Some(3),
            media_bytes: 0,
        },
        media: MediaReport::default(),
        orders: OrdersStatus {
            level: Level::Good,
            open: Vec::new(),
            waiting: 1,
            to_send: 2000,
            parked: 0,
            outbox: Vec::new(),
        },
        update: crate::telemetry::UpdateStatus::default(),
        enrolment: crate::telemetry::EnrolmentStatus::default(),
        devices: vec![DeviceStatus {
            device_id: "d1".into(),
            name: "<b>Bar".into(),
            role: "bar".into(),
            seen_at_ms: None,
            present: false,
        }],
        device_count: 1,
        ports: Vec::new(),
        time: PlatformTime::of_system().status(),
        sent: BTreeMap::new(),
        minutes: vec![crate::lan::history::Minute::default(); 60],
        day: vec![crate::lan::day::Step::default(); 144],
    }
}

#[test]
fn names_from_outside_are_text_and_never_markup() {
    let page = whole(&status(), Language::English, "n0nce");
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(!page.contains("<b>Bar"), "{page}");
    assert!(page.contains("Chez &lt;script&gt;alert(1)&lt;/script&gt; &amp; Cie"));
    assert!(page.contains("&quot;Aide&quot; 01 23"));
}

#[test]
fn the_page_loads_nothing_from_anywhere() {
    let page = whole(&status(), Language::French, "n0nce");
    for word in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(page.matches("nonce=\"n0nce\"").count(), 2);
    assert!(
        !page.contains("style=\""),
        "the policy allows no style in attributes"
    );
    assert!(page.contains("<html lang=\"fr\">"));
}

#[test]
fn both_languages_say_the_same_in_their_own_way() {
    let english = main_part(&status(), Language::English);
    let french = main_part(&status(), Language::French);
    assert!(english.contains("for 2 h 03 min"), "{english}");
    assert!(french.contains("depuis 2 h 03 min"), "{french}");
    assert!(english.contains("1,234,567") && french.contains("1\u{202f}234\u{202f}567"));
    assert!(english.contains("<strong>1</strong> order for a device"));
    assert!(french.contains("<strong>2\u{202f}000</strong> messages pour la plateforme"));
}

#[test]
fn the_worst_is_the_verdict_and_the_others_are_listed() {
    let fact = |code, en, level| Fact {
        code,
        level,
        since_ms: 9_000_000,
        sentence: Sentence { en, fr: "…" },
    };
    let mut status = status();
    status.conditions = vec![
        fact("a.b", "The worst.", Level::Critical),
        fact("c.d", "The other.", Level::Notice),
    ];
    status.verdict.level = Level::Critical;
    status.verdict.sentence = status.conditions[0].sentence;
    let page = main_part(&status, Language::English);
    assert_eq!(page.matches("The worst.").count(), 1);
    assert!(
        page.contains("The other. <small>for 16 min</small>"),
        "{page}"
    );
    assert!(page.contains("Act now"));
}

#[test]
fn a_state_is_a_word_and_a_sign_beside_its_colour() {
    for level in [Level::Good, Level::Notice, Level::Warning, Level::Critical] {
        let pill = pill(level, "word");
        assert!(
            pill.contains("word</span>") && pill.contains("<b aria-hidden"),
            "{pill}"
        );
    }
}

#[test]
fn a_broken_line_comes_first_and_says_once_who_can_mend_it() {
    let mut status = status();
    status.flows = vec![broken("api"), broken("bus")];
    let page = main_part(&status, Language::English);
    assert!(page.find("The way out") < page.find("Devices"), "{page}");
    assert_eq!(page.matches("Take it out.").count(), 1);
    assert_eq!(page.matches("For the same reason.").count(), 1);
    assert!(page.contains("id=\"why-bus\"") && page.contains("tls_intercepted"));
    assert!(page.contains("&lt;b&gt;Evil&lt;/b&gt;"), "{page}");
    assert_eq!(page.matches("proxy.shop:3128").count(), 1);
    status.flows.insert(1, broken("media"));
    status.flows[1].setup.proxy = Some("other.shop:8080".into());
    let page = main_part(&status, Language::English);
    assert_eq!(page.matches("proxy.shop:3128").count(), 1);
    status.flows.remove(1);
    let french = main_part(&status, Language::French);
    assert!(
        french.contains("coupée") && french.contains("Pour l’administrateur du réseau\u{a0}:"),
        "{french}"
    );
    status.flows[0].state = FlowState::Up;
    status.flows[1].state = FlowState::Off;
    let page = main_part(&status, Language::English);
    assert!(page.find("The way out") > page.find("Devices"), "{page}");
    assert!(
        !page.contains("Take it out."),
        "what is mended is not explained"
    );
}

#[test]
fn a_new_version_is_followed_on_its_way() {
    let mut status = status();
    status.update.ordered = Some(OrderedUpdate {
        version: "2.0<b>".into(),
        state: UpdateState::Fetched,
        percent: Some(40),
        waits_for: Some(UpdateWait::ShopsWindow),
        waits_until_ms: Some(status.now_ms + 7_200_000),
    });
    status.update.last = Some(LastUpdate {
        version: "1.9".into(),
        success: false,
        detail: String::new(),
        at_ms: status.now_ms - 60_000,
    });
    let page = main_part(&status, Language::French);
    assert!(
        page.contains("2.0&lt;b&gt;") && page.contains("value=\"40\""),
        "{page}"
    );
    assert!(
        page.contains("les heures calmes du magasin, dans 2 h 00 min"),
        "{page}"
    );
    assert!(page.contains("abandonnée"), "{page}");
}

#[test]
fn a_box_that_nobody_has_claimed_says_what_it_waits_for() {
    let mut status = status();
    status.enrolment.state = EnrolmentState::WaitingForClaim;
    assert!(main_part(&status, Language::French).contains("attend la saisie de son code"));
    status.enrolment.state = EnrolmentState::Enrolled;
    status.enrolment.site_id = Some("<shop>".into());
    assert!(
        main_part(&status, Language::English).contains("&lt;shop&gt; <span class=\"pill good\">")
    );
}
