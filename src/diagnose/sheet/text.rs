//! The sheet as plain text of 80 columns: for A4, for a ticket, for a mail.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Port, Row, Sheet};
use crate::language::{Language, Sentence};

/// Columns of a page.
const WIDTH: usize = 80;

/// The whole sheet. Writing to a String can't fail, so results of `write!` are dropped.
#[must_use]
pub fn write(sheet: &Sheet, language: Language) -> String {
    let mut page = Page {
        language,
        text: String::new(),
    };
    page.head(sheet);
    page.source(sheet);
    page.outbound(sheet);
    page.inside(sheet);
    page.notes(sheet);
    page.text
}

struct Page {
    language: Language,
    text: String,
}

impl Page {
    fn say(&self, en: &'static str, fr: &'static str) -> String {
        self.sentence(Sentence { en, fr })
    }

    fn sentence(&self, sentence: Sentence) -> String {
        self.language.typeset(sentence.to(self.language))
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// Breaks `words` between words; what follows the first line is set `indent` in.
    fn wrapped(&mut self, first: &str, words: &str, indent: usize) {
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in words.split(' ') {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = " ".repeat(indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.line(&line);
    }

    fn heading(&mut self, title: &str) {
        let rule = "-".repeat(WIDTH.saturating_sub(title.chars().count() + 1));
        self.line("");
        self.line(&format!("{title} {rule}"));
    }

    fn head(&mut self, sheet: &Sheet) {
        let title = self.say(
            "FIREWALL SHEET: Comptoir, the shop's box",
            "FICHE PARE-FEU : Comptoir, la box du magasin",
        );
        let day = Timestamp::now().strftime("%Y-%m-%d").to_string();
        let shop = [sheet.site_id.as_str(), sheet.site_name.as_str(), &day]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" · ");
        self.line(&title);
        self.line(&shop);
        self.line(&"=".repeat(WIDTH));
    }

    fn source(&mut self, sheet: &Sheet) {
        self.line(&self.say("SOURCE (the box)", "SOURCE (la box)"));
        if sheet.source.is_empty() {
            self.line(&self.say("  no address yet", "  pas encore d'adresse"));
        }
        for interface in &sheet.source {
            self.line(&format!(
                "  {:10} {:19} {}",
                interface.name, interface.mac, interface.address
            ));
        }
    }

    fn outbound(&mut self, sheet: &Sheet) {
        self.heading(&self.say(
            "A. OUT TO THE INTERNET: HTTPS, nothing else",
            "A. VERS INTERNET : HTTPS, rien d'autre",
        ));
        let proxies: BTreeSet<&str> = sheet
            .flows
            .iter()
            .filter_map(|row| row.proxy.as_deref())
            .collect();
        for proxy in proxies {
            self.line(&format!(
                "{:54}{}",
                format!("  {proxy}  (TCP)"),
                self.say("required", "obligatoire")
            ));
            let only = self.say(
                "the proxy is the only destination; the proxy must allow CONNECT to:",
                "le proxy est la seule destination ; il doit autoriser CONNECT vers :",
            );
            self.wrapped("      ", &only, 6);
            let behind: Vec<&Row> = sheet
                .flows
                .iter()
                .filter(|row| row.proxy.as_deref() == Some(proxy))
                .collect();
            for row in behind {
                self.row(row, "    ");
            }
        }
        for row in sheet.flows.iter().filter(|row| row.proxy.is_none()) {
            self.row(row, "  ");
        }
        if !sheet.unused.is_empty() {
            let unused = format!(
                "{} {}",
                self.say(
                    "Not used with this shop's settings:",
                    "Non utilisés avec les réglages de ce magasin :"
                ),
                sheet.unused.join(", ")
            );
            self.wrapped("  ", &unused, 2);
        }
    }

    fn row(&mut self, row: &Row, indent: &str) {
        let place = format!("{indent}{}", row.host);
        let port = format!("TCP {}", row.port);
        self.line(&format!("{place:44}{port:10}{}", self.sentence(row.need)));
        self.because(&row.purpose, &row.without);
    }

    fn because(&mut self, purpose: &Sentence, without: &Sentence) {
        let purpose = self.sentence(*purpose);
        self.wrapped("      ", &purpose, 6);
        let closed = format!(
            "{} {}",
            self.say("closed:", "fermé :"),
            self.sentence(*without)
        );
        self.wrapped("      ", &closed, 6);
    }

    fn inside(&mut self, sheet: &Sheet) {
        self.heading(&self.say(
            "B. IN THE SHOP: devices -> box",
            "B. DANS LE MAGASIN : appareils -> box",
        ));
        self.ports(&sheet.lan_in);
        self.heading(&self.say(
            "C. IN THE SHOP: box -> devices",
            "C. DANS LE MAGASIN : box -> appareils",
        ));
        self.ports(&sheet.lan_out);
    }

    fn ports(&mut self, ports: &[Port]) {
        for port in ports {
            let number = format!("{} {}", port.protocol, port.port);
            let first = format!("  {number:11}{:13}", self.sentence(port.need));
            let words = format!(
                "{} ({} {})",
                self.sentence(port.purpose),
                self.say("closed:", "fermé :"),
                self.sentence(port.without)
            );
            self.wrapped(&first, &words, 26);
        }
    }

    fn notes(&mut self, sheet: &Sheet) {
        self.heading(&self.say("D. GOOD TO KNOW", "D. BON À SAVOIR"));
        let names = if sheet.name_servers.is_empty() {
            self.say(
                "No DNS: the proxy looks the names up.",
                "Pas de DNS : le proxy résout les noms.",
            )
        } else {
            format!(
                "{} {}",
                self.say(
                    "DNS: the servers that DHCP hands out:",
                    "DNS : les serveurs donnés par le DHCP :"
                ),
                sheet.name_servers
            )
        };
        let silence = match self.language {
            Language::English => format!(
                "Connections are silent for up to {} s on purpose: idle timeouts of 90 s or more.",
                sheet.longest_silence_s
            ),
            Language::French => self.language.typeset(&format!(
                "Les connexions restent volontairement muettes jusqu'à {} s : délais d'inactivité de 90 s au moins.",
                sheet.longest_silence_s
            )),
        };
        let notes = [
            names,
            self.say(
                "No NTP, no VPN, no remote access, nothing from the internet to the box.",
                "Ni NTP, ni VPN, ni accès distant, rien d'internet vers la box.",
            ),
            silence,
            self.say(
                "TLS inspection: exclude these hosts, or give the box the inspecting authority's certificate (wan.trust.ca_files).",
                "Inspection TLS : excluez ces hôtes, ou fournissez à la box le certificat de l'autorité qui inspecte (wan.trust.ca_files).",
            ),
            self.say(
                "Filter by name, not by address: the addresses behind these names change.",
                "Filtrez par nom, pas par adresse : les adresses derrière ces noms changent.",
            ),
            self.say(
                "To check from the box: comptoir check",
                "Pour vérifier depuis la box : comptoir check",
            ),
        ];
        for note in notes {
            self.wrapped("  - ", &note, 4);
        }
    }
}
