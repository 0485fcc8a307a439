//! Which of a document's prices holds now, and when that changes. Pure: the time is an argument.
//!
//! A document may carry `prices`, a list of `{amount, currency, valid_from?, valid_until?}` with dates in RFC 3339. An
//! entry holds from `valid_from` on and until just before `valid_until`; a date that is missing is no bound. Of several
//! that hold, the one that began last goes first (an offer before the ordinary price), and of those the last in the
//! list. An entry whose date can't be read never holds.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Entries of one document that are looked at; further ones are left out.
pub const MAX_PRICES: usize = 128;

/// What a document's `prices` say at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Priced {
    /// The entry that holds, byte for byte as it came.
    pub current: Option<String>,
    /// Whether any entry has a date.
    pub dated: bool,
    /// When the answer may be another one, milliseconds since 1970.
    pub next_ms: Option<i64>,
}

#[derive(Deserialize)]
struct Entry {
    valid_from: Option<String>,
    valid_until: Option<String>,
}

/// The prices of `list` (the JSON text of `prices`) at `now_ms`. A list of another shape has none.
#[must_use]
pub fn at(list: &str, now_ms: i64) -> Priced {
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(list) else {
        return Priced::default();
    };
    let mut priced = Priced::default();
    let mut best: Option<i64> = None;
    for text in entries.into_iter().take(MAX_PRICES) {
        if !text.get().starts_with('{') {
            continue;
        }
        let Ok(entry) = serde_json::from_str::<Entry>(text.get()) else {
            continue;
        };
        priced.dated |= entry.valid_from.is_some() || entry.valid_until.is_some();
        let (Some(from), Some(until)) = (
            bound(entry.valid_from.as_deref(), i64::MIN),
            bound(entry.valid_until.as_deref(), i64::MAX),
        ) else {
            continue;
        };
        if from >= until {
            continue;
        }
        for date in [from, until] {
            if date > now_ms && date != i64::MAX {
                priced.next_ms = Some(priced.next_ms.map_or(date, |next| next.min(date)));
            }
        }
        if from <= now_ms && now_ms < until && best.is_none_or(|known| from >= known) {
            best = Some(from);
            priced.current = Some(text.get().to_owned());
        }
    }
    priced
}

fn bound(date: Option<&str>, open: i64) -> Option<i64> {
    match date {
        None => Some(open),
        Some(text) => text
            .parse::<Timestamp>()
            .ok()
            .map(Timestamp::as_millisecond),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    const LIST: &str = r#"[
        {"amount":"2.00","currency":"EUR"},
        {"amount":"1.50", "currency":"EUR","valid_from":"2026-05-02T08:00:00+02:00","valid_until":"2026-05-03T06:00:00Z"},
        {"amount":"9","valid_from":"yesterday"},
        7, null, {"amount":"1","valid_from":3}
    ]"#;

    #[test]
    fn an_offer_goes_before_the_ordinary_price_while_it_holds() {
        let (from, until) = (ms("2026-05-02T06:00:00Z"), ms("2026-05-03T06:00:00Z"));
        let amount = |now| {
            let priced = at(LIST, now);
            assert!(priced.dated);
            (priced.current.unwrap(), priced.next_ms)
        };
        let (before, next) = amount(from - 1);
        assert_eq!(before, r#"{"amount":"2.00","currency":"EUR"}"#);
        assert_eq!(next, Some(from));
        let (offer, next) = amount(from);
        assert!(offer.starts_with(r#"{"amount":"1.50", "#), "{offer}");
        assert_eq!(next, Some(until));
        let (after, next) = amount(until);
        assert_eq!((after, next), (before, None));
    }

    #[test]
    fn what_is_no_list_of_prices_has_none() {
        for list in [
            "null",
            "{}",
            "[]",
            "[1]",
            "\"x\"",
            r#"[{"valid_from":"never"}]"#,
        ] {
            assert_eq!(at(list, 0).current, None, "{list}");
        }
        let undated = at(r#"[{"amount":"1"},{"amount":"2"}]"#, 0);
        assert_eq!(undated.current.as_deref(), Some(r#"{"amount":"2"}"#));
        assert!(!undated.dated && undated.next_ms.is_none());
        // It ends before it begins: never, and it wakes nobody.
        let never =
            r#"[{"valid_from":"2026-05-02T00:00:00Z","valid_until":"2026-05-01T00:00:00Z"}]"#;
        assert_eq!(at(never, 0).next_ms, None);
    }
}
