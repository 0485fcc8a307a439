//! The allow-list: fields that may leave, each with its kind. A field that is not here stays on the box, whatever it holds.

use std::fmt::Debug;

use tracing::field::{Field, Visit};

use super::record::{Scalar, Version, Word};

/// What a field's value must be to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number or yes/no.
    Number,
    /// A [`Word`].
    Word,
    /// The firmware's version.
    Version,
}

/// Every field that may leave. Absent on purpose: `error`, `detail`, `reason`, `problems` (free text, which may quote what was
/// received), `order_id`, `id`, `key`, `path`, `url`, `address`, `name`.
pub const FIELDS: &[(&str, Kind)] = &[
    ("after_s", Kind::Number),
    ("at_s", Kind::Number),
    ("attempt", Kind::Number),
    ("bytes", Kind::Number),
    ("cause", Kind::Word),
    ("check", Kind::Word),
    ("code", Kind::Word),
    ("database", Kind::Word),
    ("documents", Kind::Number),
    ("dropped", Kind::Number),
    ("exit_code", Kind::Number),
    ("failures", Kind::Number),
    ("items", Kind::Number),
    ("lane", Kind::Word),
    ("last_seq", Kind::Number),
    ("missing", Kind::Number),
    ("offset_ms", Kind::Number),
    ("parked", Kind::Number),
    ("part", Kind::Word),
    ("port", Kind::Number),
    ("quality", Kind::Word),
    ("ran_s", Kind::Number),
    ("records", Kind::Number),
    ("retry_ms", Kind::Number),
    ("rss_mib", Kind::Number),
    ("salvaged_rows", Kind::Number),
    ("severity", Kind::Word),
    ("signal", Kind::Number),
    ("slot", Kind::Word),
    ("status", Kind::Number),
    ("swept", Kind::Number),
    ("verdict", Kind::Word),
    ("version", Kind::Version),
    ("wait_ms", Kind::Number),
    ("why_kind", Kind::Word),
    ("worker", Kind::Word),
];

/// Events that support is told of at once, whatever the level of the logs is.
pub const SUPPORT_EVENTS: &[&str] = &[
    "conditions.cleared",
    "conditions.raised",
    "daemon.serves",
    "diagnose.verdict_changed",
    "supervisor.restart_told",
    "update.boot_told",
];

/// Fields of one event at most.
const MAX_FIELDS: usize = 12;
/// Of a value that has to be printed to be looked at, no more is printed.
const MAX_PRINTED: usize = 48;

/// Collects an event's name and its allowed fields.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) event: Option<Word>,
    pub(super) fields: Vec<(&'static str, Scalar)>,
}

impl Collected {
    fn take(&mut self, field: &Field, read: impl FnOnce(Kind) -> Option<Scalar>) {
        let Ok(at) = FIELDS.binary_search_by(|(name, _)| (*name).cmp(field.name())) else {
            return;
        };
        if self.fields.len() < MAX_FIELDS
            && let (name, kind) = FIELDS[at]
            && let Some(scalar) = read(kind)
        {
            self.fields.push((name, scalar));
        }
    }
}

fn of_text(kind: Kind, text: &str) -> Option<Scalar> {
    match kind {
        Kind::Number => text.parse().ok().map(Scalar::Number),
        Kind::Word => Word::new(text).map(Scalar::Word),
        Kind::Version => Version::new(text).map(Scalar::Version),
    }
}

impl Visit for Collected {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.event = Word::new(value);
        } else {
            self.take(field, |kind| of_text(kind, value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, |kind| {
            (kind == Kind::Number).then_some(Scalar::Number(value))
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_i64(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, |kind| {
            (kind == Kind::Number).then_some(Scalar::Flag(value))
        });
    }

    /// Values given by `%` and `?`, errors and strings of other types: printed, no further than a word is long.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, |kind| {
            let mut printed = Printed(String::new());
            // It fails when the text is longer than any that may leave.
            std::fmt::write(&mut printed, format_args!("{value:?}")).ok()?;
            of_text(kind, &printed.0)
        });
    }
}

struct Printed(String);

impl std::fmt::Write for Printed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_PRINTED {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_names_nothing_twice() {
        assert!(FIELDS.is_sorted_by(|a, b| a.0 < b.0), "binary search");
        assert!(SUPPORT_EVENTS.is_sorted());
        for (name, _) in FIELDS {
            assert!(
                ![
                    "error", "detail", "order_id", "body", "token", "key", "url", "address"
                ]
                .contains(name)
            );
        }
    }
}
