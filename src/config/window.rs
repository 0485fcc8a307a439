//! A daily span of the shop's local time, for what should not disturb its day.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY_MIN: u32 = 24 * 60;

/// A span that begins and ends at the same minutes every day; it may pass midnight.
#[derive(Debug, Clone)]
pub struct DailyWindow {
    from_min: u32,
    to_min: u32,
    zone: TimeZone,
}

impl DailyWindow {
    /// Reads `HH:MM-HH:MM`, which is meant in `zone`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no span of the day like \"03:00-05:00\"");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let (from_min, to_min) = (
            minute(from).ok_or_else(wrong)?,
            minute(to).ok_or_else(wrong)?,
        );
        if from_min == to_min {
            return Err(format!("\"{text}\" ends where it begins"));
        }
        Ok(Self {
            from_min,
            to_min,
            zone: zone.clone(),
        })
    }

    /// Whether `at_ms` (milliseconds since 1970) lies in it.
    #[must_use]
    pub fn is_open(&self, at_ms: i64) -> bool {
        self.opens_in(at_ms).is_zero()
    }

    /// From `at_ms` until it is open; zero when it is. On the two days a year when the clocks change it may be an hour
    /// wrong: who waits asks again.
    #[must_use]
    pub fn opens_in(&self, at_ms: i64) -> Duration {
        let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let local = self.zone.to_datetime(at);
        let (hour, minute) = (part(local.hour()), part(local.minute()));
        let now_min = hour * 60 + minute;
        let since_opening = (now_min + DAY_MIN - self.from_min) % DAY_MIN;
        let length = (self.to_min + DAY_MIN - self.from_min) % DAY_MIN;
        if since_opening < length {
            return Duration::ZERO;
        }
        let seconds = (DAY_MIN - since_opening) * 60 - part(local.second());
        Duration::from_secs(seconds.into())
    }
}

fn part(number: i8) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// `HH:MM` as the minute of the day.
fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn paris() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn a_window_is_meant_in_the_shops_own_time() {
        let window = DailyWindow::parse("03:00-05:00", &paris()).unwrap();
        assert!(window.is_open(at("2026-07-01T01:00:00Z")), "summer time");
        assert!(!window.is_open(at("2026-12-01T01:30:00Z")), "winter time");
        assert!(window.is_open(at("2026-12-01T02:00:00Z")));
        assert!(!window.is_open(at("2026-12-01T04:00:00Z")));
        let wait = window.opens_in(at("2026-12-01T04:00:30Z"));
        assert_eq!(wait, Duration::from_secs(22 * 3600 - 30));
    }

    #[test]
    fn a_window_may_pass_midnight() {
        let window = DailyWindow::parse("22:30-05:00", &TimeZone::UTC).unwrap();
        assert!(window.is_open(at("2026-12-01T23:00:00Z")));
        assert!(window.is_open(at("2026-12-02T04:59:59Z")));
        assert!(!window.is_open(at("2026-12-02T05:00:00Z")));
        let wait = window.opens_in(at("2026-12-02T22:00:00Z"));
        assert_eq!(wait, Duration::from_secs(1800));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in [
            "",
            "3-5",
            "03:00",
            "24:00-25:00",
            "03:00-03:00",
            "03:60-04:00",
        ] {
            assert!(DailyWindow::parse(text, &TimeZone::UTC).is_err(), "{text}");
        }
    }
}
