//! The page's cards and its table of ports.

use std::fmt::Write as _;

use super::Page;
use super::html::{Escaped, pill, tag};
use crate::lan::status::{DeviceStatus, Level};
use crate::language::Language;
use crate::store::OrderState;
use crate::telemetry::outgoing::StreamStatus;
use crate::wan::time::Quality;

/// Collections that are named; a shop's phone shows no more.
const MAX_COLLECTIONS: usize = 6;

/// Transfers that are shown; more would only flicker.
const MAX_DOWNLOADS: usize = 3;

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

    /// What the box itself is busy with: its time, images and videos, what it sends for support.
    fn machine(&self, html: &mut String) {
        let status = self.status;
        head(html, &self.say("The box", "La box"), "");
        html.push_str("<dl>");
        let (level, quality) = match status.time.quality {
            Quality::Good => (Level::Good, self.say("confirmed", "confirmée")),
            Quality::Weak => (Level::Good, self.say("by one host", "selon un hôte")),
            Quality::Floor => (Level::Warning, self.say("earliest possible", "au plus tôt")),
            Quality::Unset => (Level::Notice, self.say("not confirmed", "non confirmée")),
        };
        let now = status.now.get(11..16).unwrap_or_default();
        let time = format!("{now} UTC {}", pill(level, &quality));
        row(html, &self.say("Time", "Heure"), &time);
        let heard = status
            .platform
            .last_pull_ms
            .map_or_else(|| self.words.never.to_owned(), |at_ms| self.ago(at_ms));
        row(html, self.words.last_heard, &heard);
        self.media(html);
        for (stream, sent) in &status.sent {
            self.sent(html, stream, sent);
        }
        html.push_str("</dl></section>");
    }

    fn media(&self, html: &mut String) {
        let media = &self.status.media;
        let count = |count: u64| self.number(i64::try_from(count).unwrap_or(i64::MAX));
        let mut value = format!("{} / {}", count(media.fetched), count(media.listed));
        if media.failed + media.without_place > 0 {
            let aside = count(media.failed + media.without_place);
            let _ = write!(
                value,
                " <small>{aside} {}</small>",
                self.say("set aside", "mises de côté")
            );
        }
        row(
            html,
            &self.say("Images and videos here", "Images et vidéos présentes"),
            &value,
        );
        if let Some(opens_ms) = media.window_opens_ms.filter(|_| media.waiting > 0) {
            let span = self.span(opens_ms - self.status.now_ms);
            let waits = match self.language {
                Language::English => format!("go on in {span}"),
                Language::French => format!("reprennent dans {span}"),
            };
            row(html, &self.say("Night window", "Plage de nuit"), &waits);
        }
        for download in media.downloads.iter().take(MAX_DOWNLOADS) {
            let size = self.bytes(download.size);
            let value = format!(
                "<progress max=\"100\" value=\"{}\"></progress> {}\u{a0}% <small>{size}</small>",
                download.percent, download.percent
            );
            row(html, &self.say("Coming in", "En cours"), &value);
        }
    }

    fn sent(&self, html: &mut String, stream: &str, sent: &StreamStatus) {
        let name = match stream {
            "logs" => self.say("Logs for support", "Journaux pour l'assistance"),
            "support" => self.say("Events for support", "Événements pour l'assistance"),
            other => Escaped(other).to_string(),
        };
        let count = |count: u64| self.number(i64::try_from(count).unwrap_or(i64::MAX));
        let value = if sent.on {
            let mut parts = vec![format!(
                "{} {}",
                count(sent.sent),
                self.say("sent", "envoyés")
            )];
            if sent.waiting > 0 {
                parts.push(format!(
                    "{} {}",
                    count(sent.waiting),
                    self.say("wait", "en attente")
                ));
            }
            if sent.lost > 0 {
                parts.push(format!(
                    "{} {}",
                    count(sent.lost),
                    self.say("lost", "perdus")
                ));
            }
            parts.join(" · ")
        } else {
            self.say("nothing leaves", "rien n'est envoyé")
        };
        row(html, &name, &value);
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

fn head(html: &mut String, title: &str, beside: &str) {
    let _ = write!(html, "<section><h2>{title}{beside}</h2>");
}

fn row(html: &mut String, name: &str, value: &str) {
    let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
}
