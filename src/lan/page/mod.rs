//! The page on port 80, for shop staff with a phone: first the one line that says whether all is well, then the rest.
//!
//! One document, nothing loaded from anywhere. It works without script; with it, the middle part renews itself.

mod cards;
mod curve;
mod html;
mod machine;
mod way_out;
mod words;

use std::fmt::Write as _;

use super::status::{Fact, Status};
use crate::language::{Language, Sentence};
use crate::units::ByteSize;
use html::{Escaped, icon, level_class, pill};
use words::Words;

const STYLE: &str = include_str!("style.css");
const RENEW: &str = include_str!("renew.js");

/// The whole page. `nonce` is what the answer's policy allows style and script by.
pub fn whole(status: &Status, language: Language, nonce: &str) -> String {
    let words = words::words(language);
    let title = if status.site_name.is_empty() {
        words.this_box
    } else {
        &status.site_name
    };
    format!(
        "<!doctype html>\n<html lang=\"{tag}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title} · Comptoir</title>\n<style nonce=\"{nonce}\">{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{title}</h1><p>Comptoir · {box_id} · version {version}</p>\
         <a href=\"/?lang={other}\" lang=\"{other}\" hreflang=\"{other}\">{other_name}</a></header>\n\
         <p id=\"lost\" role=\"alert\" hidden>{lost}</p>\n\
         <main id=\"main\">{main}</main>\n<footer>{footer}</footer>\n\
         <script nonce=\"{nonce}\" data-language=\"{tag}\">{RENEW}</script>\n</body>\n</html>\n",
        title = Escaped(title),
        box_id = Escaped(&status.box_id),
        version = status.version,
        tag = language.tag(),
        other = language.other().tag(),
        other_name = language.other().name(),
        lost = words.lost,
        main = main_part(status, language),
        footer = words.footer,
    )
}

/// The part that is renewed.
pub fn main_part(status: &Status, language: Language) -> String {
    let page = Page {
        status,
        language,
        words: words::words(language),
    };
    let mut html = String::with_capacity(8 * 1024);
    page.verdict(&mut html);
    page.waiting_and_contact(&mut html);
    page.facts(&mut html);
    // What is broken comes first; a picture of what works can wait.
    if page.is_cut_off() {
        page.way_out(&mut html);
        page.cards(&mut html);
    } else {
        page.cards(&mut html);
        page.way_out(&mut html);
    }
    page.day(&mut html);
    page.hour(&mut html);
    page.ports(&mut html);
    html
}

/// What the parts of the page are written from. Writing to a String can't fail, so results of `write!` are dropped.
struct Page<'s> {
    status: &'s Status,
    language: Language,
    words: &'static Words,
}

impl Page<'_> {
    fn verdict(&self, html: &mut String) {
        let verdict = &self.status.verdict;
        let _ = write!(
            html,
            "<section class=\"verdict {level}\">{icon}<div><p class=\"word\">{word}</p><p class=\"line\">{line}</p>\
             <p class=\"since\">{since}</p></div></section>",
            level = level_class(verdict.level),
            icon = icon(verdict.level),
            word = self.words.level(verdict.level),
            line = self.sentence(verdict.sentence),
            since = self.since(verdict.since_ms),
        );
    }

    fn waiting_and_contact(&self, html: &mut String) {
        let (contact, words) = (&self.status.contact, self.words);
        let contact = if contact.is_empty() {
            words.no_contact.to_owned()
        } else {
            format!("<strong>{}</strong>", Escaped(contact))
        };
        let _ = write!(
            html,
            "<section class=\"two\"><div><h2>{}</h2><p>{}</p></div><div><h2>{}</h2><p>{contact}</p></div></section>",
            words.what_waits,
            self.waiting(),
            words.whom_to_call,
        );
    }

    fn waiting(&self) -> String {
        let (orders, words) = (&self.status.orders, self.words);
        let parts: Vec<String> = [
            (orders.waiting, words.orders_wait),
            (orders.to_send, words.messages_wait),
            (orders.parked, words.parked_wait),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, (one, many))| {
            let noun = if count == 1 { one } else { many };
            format!("<strong>{}</strong> {noun}", self.number(count))
        })
        .collect();
        if parts.is_empty() {
            words.nothing_waits.to_owned()
        } else {
            parts.join("<br>")
        }
    }

    /// What else is not as it should be; the worst is the verdict already.
    fn facts(&self, html: &mut String) {
        let Some((_, others @ [_, ..])) = self.status.conditions.split_first() else {
            return;
        };
        html.push_str("<ul class=\"facts\">");
        for Fact {
            level,
            since_ms,
            sentence,
            ..
        } in others
        {
            let _ = write!(
                html,
                "<li>{}<span>{} <small>{}</small></span></li>",
                pill(*level, self.words.level(*level)),
                self.sentence(*sentence),
                self.since(*since_ms),
            );
        }
        html.push_str("</ul>");
    }

    fn sentence(&self, sentence: Sentence) -> String {
        Escaped(&self.language.typeset(sentence.to(self.language))).to_string()
    }

    /// A text that is written where it is used, in both languages.
    fn say(&self, en: &'static str, fr: &'static str) -> String {
        self.sentence(Sentence { en, fr })
    }

    fn since(&self, at_ms: i64) -> String {
        let span = self.span(self.status.now_ms - at_ms);
        match self.language {
            Language::English => format!("for {span}"),
            Language::French => format!("depuis {span}"),
        }
    }

    fn ago(&self, at_ms: i64) -> String {
        let span = self.span(self.status.now_ms - at_ms);
        match self.language {
            Language::English => format!("{span} ago"),
            Language::French => format!("il y a {span}"),
        }
    }

    fn span(&self, ms: i64) -> String {
        let day = self.words.day_unit;
        match (ms / 1000).max(0) {
            s @ 0..60 => format!("{s} s"),
            s @ 60..3600 => format!("{} min", s / 60),
            s @ 3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
            s => format!("{} {day} {} h", s / 86_400, s / 3600 % 24),
        }
    }

    /// A size as the language writes it.
    fn bytes(&self, count: u64) -> String {
        let size = ByteSize::bytes(count).to_string();
        match self.language {
            Language::English => size,
            Language::French => size
                .replace('.', ",")
                .replace("iB", "io")
                .replace(" B", " o"),
        }
    }

    /// Digits in groups of three, as the language writes them.
    fn number(&self, n: i64) -> String {
        let separator = match self.language {
            Language::English => ',',
            Language::French => '\u{202f}',
        };
        let digits = n.unsigned_abs().to_string();
        let mut text = String::from(if n < 0 { "-" } else { "" });
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(separator);
            }
            text.push(digit);
        }
        text
    }
}

#[cfg(test)]
mod tests;
