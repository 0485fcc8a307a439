//! The way out, as a picture: the box, the shop's proxy if there is one, and every flow to the internet as a line that is
//! whole, thin or broken. Below a broken line stands who can do what about it; what support wants to know is folded away.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Page;
use super::html::{Escaped, tag};
use crate::store::Lane;
use crate::telemetry::{FlowState, FlowStatus, Trouble};

/// A box with two lights.
const BOX: &str = "<svg viewBox=\"0 0 40 40\" aria-hidden=\"true\"><rect x=\"4\" y=\"12\" width=\"32\" height=\"18\" rx=\"4\"/>\
     <circle class=\"hole\" cx=\"12\" cy=\"21\" r=\"2.5\"/><path class=\"hole\" d=\"M20 19h10v4h-10z\"/></svg>";
/// A gate.
const PROXY: &str = "<svg viewBox=\"0 0 40 40\" aria-hidden=\"true\"><path d=\"M6 34V14L20 5l14 9v20h-9V22H15v12z\"/></svg>";
/// A globe.
const INTERNET: &str = "<svg viewBox=\"0 0 40 40\" aria-hidden=\"true\"><circle cx=\"20\" cy=\"20\" r=\"15\"/>\
     <path class=\"grid\" d=\"M5 20h30M20 5v30M9 11q11 7 22 0M9 29q11-7 22 0M20 5q-9 15 0 30M20 5q9 15 0 30\"/></svg>";

impl Page<'_> {
    /// Whether a line is broken.
    pub(super) fn is_cut_off(&self) -> bool {
        let flows = &self.status.flows;
        flows.iter().any(|flow| flow.state == FlowState::Down)
    }

    /// The whole section.
    pub(super) fn way_out(&self, html: &mut String) {
        let _ = write!(
            html,
            "<section class=\"out\"><h2>{}<small>HTTPS · TCP 443</small></h2>",
            self.say("The way out", "La voie vers internet")
        );
        self.stations(html);
        html.push_str("<ul class=\"wires\">");
        for flow in &self.status.flows {
            self.wire(html, flow);
        }
        html.push_str("</ul></section>");
    }

    /// Box, proxy, internet, in the order in which a request meets them.
    fn stations(&self, html: &mut String) {
        let station = |picture: &str, name: &str, beside: &str| {
            format!(
                "<li><span class=\"pic\">{picture}</span><span><strong>{name}</strong><small>{beside}</small></span></li>"
            )
        };
        html.push_str("<ol class=\"stations\">");
        let this_box = self.say("This box", "Cette box");
        html.push_str(&station(
            BOX,
            &this_box,
            &Escaped(&self.status.box_id).to_string(),
        ));
        let proxies: BTreeSet<&str> = self
            .status
            .flows
            .iter()
            .filter(|flow| flow.setup.used)
            .filter_map(|flow| flow.setup.proxy.as_deref())
            .collect();
        for proxy in proxies {
            let name = self.say("The shop's proxy", "Le proxy du magasin");
            html.push_str(&station(PROXY, &name, &Escaped(proxy).to_string()));
        }
        html.push_str(&station(INTERNET, &self.say("Internet", "Internet"), ""));
        html.push_str("</ol>");
    }

    fn wire(&self, html: &mut String, flow: &FlowStatus) {
        let (class, sign, word) = self.state_of(flow.state);
        let purpose = capital(&self.sentence(flow.setup.purpose));
        let _ = write!(
            html,
            "<li class=\"wire {class}\">{drawing}<div class=\"what\"><strong>{purpose}</strong>\
             <small>{host} · {need}</small></div><div class=\"how\">{pill}<small>{since}</small></div>",
            drawing = drawing(flow.state),
            host = Escaped(&flow.setup.host),
            need = self.sentence(flow.setup.need),
            pill = tag(class, sign, &word),
            since = self.since_when(flow),
        );
        if let Some(trouble) = &flow.trouble
            && flow.state >= FlowState::Shaky
        {
            self.trouble(html, flow, trouble);
        }
        if flow.setup.name == "api" {
            self.lanes(html);
        }
        html.push_str("</li>");
    }

    fn state_of(&self, state: FlowState) -> (&'static str, &'static str, String) {
        match state {
            FlowState::Up => ("good", "✓", self.say("works", "fonctionne")),
            FlowState::Waiting => ("notice", "…", self.say("waits", "en attente")),
            FlowState::Shaky => ("notice", "~", self.say("tries again", "réessaie")),
            FlowState::Down => ("warning", "✕", self.say("broken", "coupée")),
            FlowState::Off => ("off", "–", self.say("not used", "non utilisée")),
        }
    }

    fn since_when(&self, flow: &FlowStatus) -> String {
        match (flow.state, flow.since_ms) {
            (FlowState::Off, _) | (_, None) => String::new(),
            (_, Some(at_ms)) => self.since(at_ms),
        }
    }

    /// Staff first, the administrator next, support last and folded.
    fn trouble(&self, html: &mut String, flow: &FlowStatus, trouble: &Trouble) {
        let last = flow.well_ms.map_or_else(
            || {
                self.say(
                    "not since the box started",
                    "jamais depuis le démarrage de la box",
                )
            },
            |at_ms| self.ago(at_ms),
        );
        // One firewall cuts several lines: its sentences stand once.
        let is_told = self
            .status
            .flows
            .iter()
            .take_while(|other| other.setup.name != flow.setup.name)
            .filter(|other| other.state >= FlowState::Shaky)
            .filter_map(|other| other.trouble.as_ref())
            .any(|other| other.cause == trouble.cause);
        let words = if is_told {
            format!(
                "<p>{}</p>",
                self.say("For the same reason.", "Pour la même raison.")
            )
        } else {
            format!(
                "<p class=\"staff\">{staff}</p><p><b>{network}</b> {action}</p>",
                staff = self.sentence(trouble.staff),
                network = self.say(
                    "For the network's administrator:",
                    "Pour l'administrateur du réseau :"
                ),
                action = self.sentence(trouble.action),
            )
        };
        let _ = write!(
            html,
            "<div class=\"why\">{words}<details id=\"why-{name}\"><summary>{details}</summary><dl>",
            name = flow.setup.name,
            details = self.say("For support", "Pour l'assistance"),
        );
        let mut row = |name: &str, value: &str| {
            let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        };
        row(&self.say("code", "code"), trouble.cause);
        row(&self.say("worked last", "dernier succès"), &last);
        for (what, value) in &trouble.evidence {
            row(&self.sentence(*what), &Escaped(value).to_string());
        }
        html.push_str("</dl></details></div>");
    }

    /// What waits for the platform, by kind.
    fn lanes(&self, html: &mut String) {
        let waiting: Vec<String> = self
            .status
            .orders
            .outbox
            .iter()
            .filter(|lane| lane.waiting + lane.parked > 0)
            .map(|lane| {
                let name = match lane.lane {
                    Lane::Orders => self.say("orders", "commandes"),
                    Lane::Receipts => self.say("receipts", "reçus"),
                    Lane::Events => self.say("events of devices", "événements d'appareils"),
                    Lane::Telemetry => self.say("telemetry", "télémesure"),
                };
                let parked = if lane.parked > 0 {
                    let parked = self.number(lane.parked);
                    format!(", {parked} {}", self.say("set aside", "mis de côté"))
                } else {
                    String::new()
                };
                let age = lane
                    .oldest_at_ms
                    .map(|at_ms| format!(" <small>{}</small>", self.since(at_ms)))
                    .unwrap_or_default();
                format!("<b>{}</b> {name}{parked}{age}", self.number(lane.waiting))
            })
            .collect();
        if !waiting.is_empty() {
            let _ = write!(
                html,
                "<p class=\"lanes\">{} {}</p>",
                self.say("Waits to leave:", "En attente de départ :"),
                waiting.join(" · ")
            );
        }
    }
}

/// With a capital at its beginning, as a heading.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// The line itself: whole, dotted, broken or barely there.
const fn drawing(state: FlowState) -> &'static str {
    match state {
        FlowState::Up => {
            "<svg class=\"line\" viewBox=\"0 0 72 24\" aria-hidden=\"true\"><path d=\"M0 12h62\"/><path class=\"head\" d=\"M60 5l11 7-11 7z\"/></svg>"
        }
        FlowState::Waiting => {
            "<svg class=\"line\" viewBox=\"0 0 72 24\" aria-hidden=\"true\"><path class=\"dots\" d=\"M1 12h70\"/></svg>"
        }
        FlowState::Shaky => {
            "<svg class=\"line\" viewBox=\"0 0 72 24\" aria-hidden=\"true\"><path d=\"M0 12h14l6-8 8 16 8-16 6 8h20\"/><path class=\"head\" d=\"M60 5l11 7-11 7z\"/></svg>"
        }
        FlowState::Down => {
            "<svg class=\"line\" viewBox=\"0 0 72 24\" aria-hidden=\"true\"><path d=\"M0 12h24M48 12h24\"/><path class=\"cross\" d=\"M29 5l14 14M43 5L29 19\"/></svg>"
        }
        FlowState::Off => {
            "<svg class=\"line\" viewBox=\"0 0 72 24\" aria-hidden=\"true\"><path class=\"faint\" d=\"M0 12h10M58 12h14\"/></svg>"
        }
    }
}
