//! From raw settings to checked ones: typed look-ups that note every problem and go on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::layer::{Setting, Value};
use super::problem::Problem;
use super::window::DailyWindow;
use crate::identity::Secret;
use crate::units::ByteSize;

/// All settings, the later layer over the earlier.
pub(super) struct Reader {
    settings: BTreeMap<String, Setting>,
    pub problems: Vec<Problem>,
}

impl Reader {
    /// The built-in layer: it names all keys there are and the kind of each.
    pub(super) fn new(defaults: Vec<Setting>, problems: Vec<Problem>) -> Self {
        Self {
            settings: defaults
                .into_iter()
                .map(|setting| (setting.key.clone(), setting))
                .collect(),
            problems,
        }
    }

    /// Lays `layer` over what is there; unknown keys and wrong kinds are problems.
    pub(super) fn lay_over(&mut self, layer: Vec<Setting>) {
        for setting in layer {
            match self.settings.get_mut(&setting.key) {
                None => {
                    let hint = self
                        .nearest(&setting.key)
                        .map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
                    self.problems.push(Problem::at(
                        setting.origin,
                        &setting.key,
                        format!("there is no such setting{hint}"),
                    ));
                }
                Some(known) => {
                    let empty_list =
                        matches!(&setting.value, Value::Texts(list) if list.is_empty());
                    if known.value.kind() == setting.value.kind() || empty_list {
                        *known = setting;
                    } else {
                        self.problems.push(Problem::at(
                            setting.origin,
                            &setting.key,
                            format!(
                                "{} is expected here, not {}",
                                known.value.kind(),
                                setting.value.kind()
                            ),
                        ));
                    }
                }
            }
        }
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        let last = key.rsplit('.').next().unwrap_or(key);
        self.settings
            .keys()
            .find(|known| known.rsplit('.').next() == Some(last))
            .map(String::as_str)
    }

    fn setting(&self, key: &str) -> &Setting {
        self.settings
            .get(key)
            .unwrap_or_else(|| panic!("default.toml lacks the key {key}"))
    }

    /// Notes that `key` is wrong.
    pub(super) fn refuse(&mut self, key: &str, what: impl Into<String>) {
        let problem = Problem::at(self.setting(key).origin.clone(), key, what);
        // Two sections may read one key.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn text(&self, key: &str) -> String {
        match &self.setting(key).value {
            Value::Text(text) => text.clone(),
            _ => panic!("default.toml holds no text at {key}"),
        }
    }

    pub(super) fn secret(&self, key: &str) -> Secret {
        Secret::new(self.text(key))
    }

    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        match &self.setting(key).value {
            Value::Texts(texts) => texts.clone(),
            _ => panic!("default.toml holds no list at {key}"),
        }
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        match &self.setting(key).value {
            Value::Flag(flag) => *flag,
            _ => panic!("default.toml holds no flag at {key}"),
        }
    }

    /// A number within `range`; outside it a problem is noted and the nearest bound is returned.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u32>) -> u32 {
        let Value::Integer(number) = self.setting(key).value else {
            panic!("default.toml holds no number at {key}")
        };
        let (low, high) = range.into_inner();
        match u32::try_from(number) {
            Ok(number) if (low..=high).contains(&number) => number,
            _ => {
                self.refuse(key, format!("{number} is not between {low} and {high}"));
                low
            }
        }
    }

    pub(super) fn seconds(&mut self, key: &str, range: RangeInclusive<u32>) -> Duration {
        Duration::from_secs(self.number(key, range).into())
    }

    pub(super) fn milliseconds(&mut self, key: &str, range: RangeInclusive<u32>) -> Duration {
        Duration::from_millis(self.number(key, range).into())
    }

    pub(super) fn mib(&mut self, key: &str, range: RangeInclusive<u32>) -> ByteSize {
        ByteSize::mib(self.number(key, range).into())
    }

    pub(super) fn kib(&mut self, key: &str, range: RangeInclusive<u32>) -> ByteSize {
        ByteSize::kib(self.number(key, range).into())
    }

    pub(super) fn port(&mut self, key: &str) -> u16 {
        u16::try_from(self.number(key, 1..=65535)).unwrap_or(u16::MAX)
    }

    pub(super) fn address(&mut self, key: &str) -> IpAddr {
        let text = self.text(key);
        IpAddr::from_str(&text).unwrap_or_else(|_| {
            self.refuse(key, format!("\"{text}\" is not an IP address"));
            IpAddr::from([127, 0, 0, 1])
        })
    }

    /// A time zone as a POSIX rule, which needs no tables that grow old: `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub(super) fn zone(&mut self, key: &str) -> TimeZone {
        let text = self.text(key);
        TimeZone::posix(&text).unwrap_or_else(|_| {
            let what = format!("\"{text}\" is no time zone like \"CET-1CEST,M3.5.0,M10.5.0/3\"");
            self.refuse(key, what);
            TimeZone::UTC
        })
    }

    /// A daily span of the shop's local time; none when the text is empty.
    pub(super) fn window(&mut self, key: &str) -> Option<DailyWindow> {
        let text = self.text(key);
        if text.is_empty() {
            return None;
        }
        DailyWindow::parse(&text, &self.zone("site.time_zone"))
            .map_err(|what| self.refuse(key, what))
            .ok()
    }

    /// One of `choices`.
    pub(super) fn choice(&mut self, key: &str, choices: &[&str]) -> String {
        let text = self.text(key);
        if !choices.contains(&text.as_str()) {
            self.refuse(
                key,
                format!("\"{text}\" is not one of {}", choices.join(", ")),
            );
        }
        text
    }

    /// A name as ids are: at most `max` letters, digits, `-` and `_`; empty passes.
    pub(super) fn name(&mut self, key: &str, max: usize) -> String {
        let text = self.text(key);
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.len() > max || !text.chars().all(fits) {
            self.refuse(
                key,
                format!("\"{text}\" is not a name of at most {max} letters, digits, - and _"),
            );
        }
        text
    }
}
