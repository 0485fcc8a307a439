//! The card of the box itself: its time, a new version on its way, images and videos, what it sends for support.

use std::fmt::Write as _;

use super::Page;
use super::cards::{head, progress, row};
use super::html::{Escaped, pill};
use crate::lan::status::Level;
use crate::language::Language;
use crate::telemetry::outgoing::StreamStatus;
use crate::telemetry::{EnrolmentState, UpdateState, UpdateWait};
use crate::wan::time::Quality;

/// Transfers that are shown; more would only flicker.
const MAX_DOWNLOADS: usize = 3;

impl Page<'_> {
    /// What the box itself is busy with: its time, images and videos, what it sends for support.
    pub(super) fn machine(&self, html: &mut String) {
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
        self.enrolment(html);
        let heard = status
            .platform
            .last_pull_ms
            .map_or_else(|| self.words.never.to_owned(), |at_ms| self.ago(at_ms));
        row(html, self.words.last_heard, &heard);
        self.update(html);
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
            let value = format!("{} <small>{size}</small>", progress(download.percent));
            row(html, &self.say("Coming in", "En cours"), &value);
        }
    }

    /// How the box stands with the platform.
    fn enrolment(&self, html: &mut String) {
        let enrolment = &self.status.enrolment;
        let (level, word) = match enrolment.state {
            EnrolmentState::Enrolled => (Level::Good, self.say("claimed", "rattachée")),
            EnrolmentState::BySettings => {
                (Level::Good, self.say("by its settings", "par ses réglages"))
            }
            EnrolmentState::WaitingForClaim => (
                Level::Notice,
                self.say(
                    "waits for its code to be entered",
                    "attend la saisie de son code",
                ),
            ),
            EnrolmentState::NotEnrolled => (Level::Notice, self.say("not yet", "pas encore")),
            EnrolmentState::Revoked => (Level::Warning, self.say("withdrawn", "retirée")),
        };
        let site = enrolment.site_id.as_deref().unwrap_or_default();
        let value = format!("{} {}", Escaped(site), pill(level, &word));
        row(
            html,
            &self.say("Belongs to the shop", "Rattachement au magasin"),
            &value,
        );
    }

    /// A new version on its way, and how the last one ended.
    fn update(&self, html: &mut String) {
        let update = &self.status.update;
        if let Some(ordered) = &update.ordered {
            let state = match ordered.state {
                UpdateState::Fetching => self.say("comes in", "en téléchargement"),
                UpdateState::Fetched => self.say("is here", "téléchargée"),
                UpdateState::Installing => self.say("is being installed", "en installation"),
                UpdateState::Restarting => self.say("the box restarts", "la box redémarre"),
                UpdateState::OnTrial => self.say("on trial", "à l'essai"),
                UpdateState::Ended => self.say("decided", "décidée"),
            };
            let mut value = format!("{} <small>{state}</small>", Escaped(&ordered.version));
            if let Some(percent) = ordered.percent {
                value = format!("{value} {}", progress(percent));
            }
            row(html, &self.say("New version", "Nouvelle version"), &value);
            if let Some(waits_for) = ordered.waits_for {
                let mut what = match waits_for {
                    UpdateWait::Platform => {
                        self.say("the platform's word", "l'accord de la plateforme")
                    }
                    UpdateWait::ShopsWindow => {
                        self.say("the shop's quiet hours", "les heures calmes du magasin")
                    }
                    UpdateWait::OtherUpdate => self.say("another update", "une autre mise à jour"),
                    UpdateWait::QuietMoment => {
                        self.say("a moment without orders", "un moment sans commande")
                    }
                    UpdateWait::Room => self.say("room on the disk", "de la place sur le disque"),
                };
                if let Some(until_ms) = ordered.waits_until_ms {
                    let span = self.span(until_ms - self.status.now_ms);
                    what = match self.language {
                        Language::English => format!("{what}, in {span}"),
                        Language::French => format!("{what}, dans {span}"),
                    };
                }
                row(html, &self.say("It waits for", "Elle attend"), &what);
            }
        }
        if let Some(last) = &update.last {
            let how = if last.success {
                pill(Level::Good, &self.say("kept", "gardée"))
            } else {
                pill(Level::Warning, &self.say("not kept", "abandonnée"))
            };
            let value = format!(
                "{} {how} <small>{}</small>",
                Escaped(&last.version),
                self.ago(last.at_ms)
            );
            row(
                html,
                &self.say("Last version ordered", "Dernière version demandée"),
                &value,
            );
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
}
