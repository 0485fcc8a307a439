//! Dates as HTTP writes them: RFC 9110 section 5.6.7, with the two old forms a reader has to take too.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` or `Sun Nov  6 08:49:37 1994`.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(date) = rfc2822::parse(text) {
        return Some(date.timestamp());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| {
            let parsed = strtime::parse(form, text).ok()?;
            let date: DateTime = parsed.to_datetime().ok()?;
            Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_say_the_same_second() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            let date = parse(text).map(Timestamp::as_second);
            assert_eq!(date, Some(784_111_777), "{text}");
        }
        for text in [
            "",
            "0",
            "yesterday",
            "Sun, 06 Nov 1994",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
