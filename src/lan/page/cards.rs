//! The page's cards and its table of ports.

use std::fmt::Write as _;

use super::Page;
use super::html::{Escaped, pill, tag};
use crate::lan::status::{DeviceStatus, Level};
use crate::store::OrderState;

/// Collections that are named; a shop's phone shows no more.
const MAX_COLLECTIONS: usize = 6;

impl Page<'_> {
    pub(super) fn cards(&self, html: &mut String) {
        html.push_str("<div class=\"cards\">");
        self.orders(html);
        self.machine(html);
        self.catalogue(html);
        self.devices(html);
        html.push_str("</div>");
    }

    fn orders(&self, html: &mut String) {
        let (orders, words) = (&self.status.orders, self.words);
        // What was set aside shows also while nobody has told its reason yet.
        let level = if orders.parked > 0 {
            orders.level.max(Level::Warning)
        } else {
            orders.level
        };
        let word = match level {
            Level::Good => "OK",
            level => words.level(level),
        };
        head(html, words.orders, &pill(level, word));
        let of = |state: OrderState| {
            let count = orders.open.iter().find(|count| count.state == state);
            count.map_or(0, |count| count.orders)
        };
        html.push_str("<dl>");
        for (name, count) in [
            (words.waiting, orders.waiting),
            (words.accepted, of(OrderState::Accepted)),
            (words.in_progress, of(OrderState::InProgress)),
            (words.ready, of(OrderState::Ready)),
            (words.to_send, orders.to_send),
            (words.parked, orders.parked),
        ] {
            row(html, name, &self.number(count));
        }
        html.push_str("</dl></section>");
    }

    fn catalogue(&self, html: &mut String) {
        let (catalogue, words) = (&self.status.catalogue, self.words);
        let state = if catalogue.caught_up {
            pill(Level::Good, words.complete)
        } else {
            pill(Level::Notice, words.filling)
        };
        head(html, words.catalogue, &state);
        let _ = write!(
            html,
            "<p class=\"big\">{} <small>{}</small></p><dl>",
            self.number(catalogue.documents),
            words.documents
        );
        if let Some(filling) = &catalogue.filling {
            let value = progress(filling.percent);
            row(html, &self.say("First data", "Premières données"), &value);
        }
        for count in catalogue.collections.iter().take(MAX_COLLECTIONS) {
            let name = Escaped(&count.collection).to_string();
            row(html, &name, &self.number(count.documents));
        }
        let held = self.bytes(catalogue.media_bytes);
        row(html, words.media_held, &held);
        html.push_str("</dl></section>");
    }

    fn devices(&self, html: &mut String) {
        let (status, words) = (self.status, self.words);
        let present = status
            .devices
            .iter()
            .filter(|device| device.present)
            .count();
        let count = format!("<small>{present} / {}</small>", status.device_count);
        head(html, words.devices, &count);
        if status.devices.is_empty() {
            let _ = write!(html, "<p>{}</p>", words.no_devices);
        } else {
            html.push_str("<ul class=\"devices\">");
            for device in &status.devices {
                self.device(html, device);
            }
            html.push_str("</ul>");
        }
        html.push_str("</section>");
    }

    fn device(&self, html: &mut String, device: &DeviceStatus) {
        let words = self.words;
        let state = if device.present {
            pill(Level::Good, words.present)
        } else {
            pill(Level::Notice, words.silent)
        };
        let seen = device
            .seen_at_ms
            .map_or_else(|| words.not_heard.to_owned(), |at_ms| self.ago(at_ms));
        let _ = write!(
            html,
            "<li><span><strong>{}</strong> <small>{} · {seen}</small></span>{state}</li>",
            Escaped(&device.name),
            Escaped(&device.role),
        );
    }

    pub(super) fn ports(&self, html: &mut String) {
        let words = self.words;
        let _ = write!(
            html,
            "<section><h2>{}</h2><table><thead><tr><th>{}</th><th>{}</th><th>{}</th></tr></thead><tbody>",
            words.ports, words.port, words.role, words.state
        );
        for port in &self.status.ports {
            let state = if port.open {
                tag("good", "✓", words.open)
            } else {
                tag("off", "–", words.closed)
            };
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{state}</td></tr>",
                port.port,
                words.port_role(port.name),
            );
        }
        html.push_str("</tbody></table></section>");
    }
}

pub(super) fn head(html: &mut String, title: &str, beside: &str) {
    let _ = write!(html, "<section><h2>{title}{beside}</h2>");
}

/// A bar and its number.
pub(super) fn progress(percent: u8) -> String {
    format!("<progress max=\"100\" value=\"{percent}\"></progress> {percent}\u{a0}%")
}

pub(super) fn row(html: &mut String, name: &str, value: &str) {
    let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
}
