//! The range of a read. Only `bytes=a-` and `bytes=a-b` are documented; anything else is ignored and the whole
//! blob is sent.

/// What to send of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// From the first byte to the last, both included.
    Part(u64, u64),
    /// The range begins behind the end.
    Unsatisfiable,
}

/// Reads a Range (or x-ms-range) header for a blob of `size` bytes.
pub fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header.and_then(bounds) else {
        return Wanted::Whole;
    };
    match last {
        Some(last) if last < first => Wanted::Whole,
        _ if first >= size => Wanted::Unsatisfiable,
        _ => Wanted::Part(first, last.map_or(size - 1, |last| last.min(size - 1))),
    }
}

fn bounds(header: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() {
        None
    } else {
        Some(last.parse().ok()?)
    };
    Some((first.parse().ok()?, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_forms_are_taken() {
        assert_eq!(parse(Some("bytes=0-0"), 10), Wanted::Part(0, 0));
        assert_eq!(parse(Some("bytes=4-"), 10), Wanted::Part(4, 9));
        assert_eq!(parse(Some("bytes=4-99"), 10), Wanted::Part(4, 9));
        assert_eq!(parse(Some("bytes=10-"), 10), Wanted::Unsatisfiable);
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn other_forms_are_ignored() {
        for header in [
            None,
            Some("bytes=-5"),
            Some("bytes=0-1,4-5"),
            Some("bytes=5-4"),
            Some("items=0-1"),
            Some("bytes=x-"),
        ] {
            assert_eq!(parse(header, 10), Wanted::Whole, "{header:?}");
        }
    }
}
