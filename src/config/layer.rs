//! One file of settings, read with the place of every key.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem};

/// What a key may hold. The settings need no more kinds than these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    Texts(Vec<String>),
}

impl Value {
    /// The kind, as an administrator would say it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text in quotes",
            Self::Integer(_) => "a whole number",
            Self::Flag(_) => "true or false",
            Self::Texts(_) => "a list of texts",
        }
    }
}

/// A key with its value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// Dotted, as in `wan.proxy.url`.
    pub key: String,
    pub value: Value,
    pub origin: Origin,
}

/// Reads `text` of `file` into settings; everything that is wrong goes to `problems`.
pub(super) fn read(file: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        problems.push(Problem::at(
            Origin::new(file, line),
            "",
            format!("this is not TOML: {}", error.message()),
        ));
    }
    let mut walk = Walk {
        file,
        text,
        problems,
        settings: Vec::new(),
    };
    walk.table("", table.get_ref());
    walk.settings
}

struct Walk<'a> {
    file: &'a str,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
    settings: Vec<Setting>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let origin = Origin::new(self.file, line_of(self.text, name.span().start));
            if let DeValue::Table(inner) = value.get_ref() {
                self.table(&key, inner);
            } else {
                self.leaf(key, origin, value);
            }
        }
    }

    fn leaf(&mut self, key: String, origin: Origin, value: &Spanned<DeValue<'_>>) {
        match leaf_value(value.get_ref()) {
            Ok(value) => self.settings.push(Setting { key, value, origin }),
            Err(what) => self.problems.push(Problem::at(origin, &key, what)),
        }
    }
}

fn leaf_value(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::Text(text.to_string())),
        DeValue::Boolean(flag) => Ok(Value::Flag(*flag)),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix())
                .map(Value::Integer)
                .map_err(|_| format!("{} is too large a number", number.as_str()))
        }
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(format!("a list here holds texts, not {}", other.type_str())),
            })
            .collect::<Result<_, _>>()
            .map(Value::Texts),
        other => Err(format!("no setting holds a {}", other.type_str())),
    }
}

/// The line (from 1) of byte `at` of `text`.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(at)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
