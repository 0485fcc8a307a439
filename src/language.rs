//! The two languages of everything people read: French and English.

use std::env;

use serde::Serialize;

/// A language that the box speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English, also for those who ask for neither.
    English,
    /// French.
    French,
}

impl Language {
    /// Both.
    pub const ALL: [Self; 2] = [Self::English, Self::French];

    /// The language with that tag.
    #[must_use]
    pub fn by_tag(tag: &str) -> Option<Self> {
        match tag.split(['-', '_', '.']).next()?.trim() {
            tag if tag.eq_ignore_ascii_case("fr") => Some(Self::French),
            tag if tag.eq_ignore_ascii_case("en") => Some(Self::English),
            _ => None,
        }
    }

    /// The best of an `Accept-Language` (RFC 9110 §12.5.4).
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let mut best = (0, Self::English);
        for range in header.split(',') {
            let mut parts = range.split(';');
            let Some(language) = Self::by_tag(parts.next().unwrap_or_default()) else {
                continue;
            };
            let weight = parts
                .find_map(|part| part.trim().strip_prefix("q="))
                .map_or(1000, thousandths);
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// The language of whoever sits at this terminal: the first of `LC_ALL`, `LC_MESSAGES`, `LANG` that is set (locale(7)).
    #[must_use]
    pub fn of_terminal() -> Self {
        ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
            .and_then(|locale| Self::by_tag(&locale))
            .unwrap_or(Self::English)
    }

    /// Its tag (RFC 5646).
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    /// What its speakers call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::French => "Français",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::English => Self::French,
            Self::French => Self::English,
        }
    }

    /// `text` as it is set in this language. French has spaces that don't break before `: ; ? !` and inside guillemets, and
    /// a curved apostrophe; in the source they are written as they are typed.
    #[must_use]
    pub fn typeset(self, text: &str) -> String {
        if self == Self::English {
            return text.to_owned();
        }
        let mut set = String::with_capacity(text.len() + 8);
        let mut chars = text.chars().peekable();
        let mut last = ' ';
        while let Some(c) = chars.next() {
            let next = chars.peek().copied().unwrap_or(' ');
            set.push(match (last, c, next) {
                (_, ' ', ':' | '»') | ('«', ' ', _) => '\u{a0}',
                (_, ' ', ';' | '?' | '!') => '\u{202f}',
                (l, '\'', n) if l.is_alphabetic() && (n.is_alphanumeric() || n == '«') => '’',
                (_, c, _) => c,
            });
            last = c;
        }
        set
    }
}

/// `0.85` as 850: a weight has one digit and at most three behind the point. What is none weighs nothing.
fn thousandths(weight: &str) -> u32 {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{part:0<3}");
    match (whole, digits.parse::<u32>()) {
        ("1", Ok(_)) => 1000,
        ("0", Ok(part)) if digits.len() == 3 => part,
        _ => 0,
    }
}

/// The same sentence twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sentence {
    /// English.
    pub en: &'static str,
    /// French.
    pub fr: &'static str,
}

impl Sentence {
    /// Nothing to say.
    pub const EMPTY: Self = Self { en: "", fr: "" };

    /// In one of the languages.
    #[must_use]
    pub const fn to(self, language: Language) -> &'static str {
        match language {
            Language::English => self.en,
            Language::French => self.fr,
        }
    }
}

/// The same text twice, made at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// English.
    pub en: String,
    /// French.
    pub fr: String,
}

impl Said {
    /// Both.
    #[must_use]
    pub fn new(en: impl Into<String>, fr: impl Into<String>) -> Self {
        Self {
            en: en.into(),
            fr: fr.into(),
        }
    }

    /// A text that is the same in both languages: names, numbers, another program's words.
    #[must_use]
    pub fn same(text: impl Into<String>) -> Self {
        let en = text.into();
        Self { fr: en.clone(), en }
    }

    /// In one of the languages.
    #[must_use]
    pub fn to(&self, language: Language) -> &str {
        match language {
            Language::English => &self.en,
            Language::French => &self.fr,
        }
    }

    /// Several, one behind the other.
    #[must_use]
    pub fn join(parts: &[Self], between: &str) -> Self {
        let all = |of: fn(&Self) -> &str| parts.iter().map(of).collect::<Vec<_>>().join(between);
        Self::new(all(|part| &part.en), all(|part| &part.fr))
    }
}

impl From<Sentence> for Said {
    fn from(sentence: Sentence) -> Self {
        Self::new(sentence.en, sentence.fr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_the_reader_prefers() {
        for (header, expected) in [
            ("fr", Language::French),
            ("fr-CH, fr;q=0.9, en;q=0.8", Language::French),
            ("de, en;q=0.7, fr;q=0.8", Language::French),
            ("fr;q=0.3,en-GB;q=0.9", Language::English),
            ("fr;q=0", Language::English),
            ("de", Language::English),
            ("", Language::English),
            (";;;,q=,fr;q=x", Language::English),
        ] {
            assert_eq!(Language::accepted(header), expected, "{header}");
        }
        assert_eq!(Language::by_tag("fr_FR.UTF-8"), Some(Language::French));
        assert_eq!(Language::by_tag("C.UTF-8"), None);
    }

    #[test]
    fn french_is_set_as_printers_set_it() {
        assert_eq!(
            Language::French.typeset("L'hôte « x » : pourquoi ? 12:30 http://a 'b'"),
            "L’hôte «\u{a0}x\u{a0}»\u{a0}: pourquoi\u{202f}? 12:30 http://a 'b'"
        );
        assert_eq!(Language::English.typeset("it's : a"), "it's : a");
    }

    #[test]
    fn texts_are_joined_in_both_languages() {
        let both = [Said::new("one", "un"), Said::same("2")];
        assert_eq!(Said::join(&both, "; "), Said::new("one; 2", "un; 2"));
    }
}
