//! Lines of a stream, each of bounded length.

use std::io;

use super::members::Places;

/// A line, without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Within the bound.
    Text(&'a [u8]),
    /// Longer than the bound; it was read past and not kept.
    TooLong,
}

/// Reads line by line; memory is bounded by the longest line allowed, whatever is sent.
pub(super) struct LineReader<R> {
    reader: R,
    line: Vec<u8>,
    max_bytes: usize,
    place: Option<u64>,
}

impl<R: Places> LineReader<R> {
    pub(super) fn new(reader: R, max_bytes: usize) -> Self {
        Self {
            reader,
            line: Vec::new(),
            max_bytes,
            place: None,
        }
    }

    /// Where in the body, as sent, the last line began, if reading may begin anew there.
    pub(super) fn place(&self) -> Option<u64> {
        self.place
    }

    /// Bytes of the body, as sent, that were read so far.
    pub(super) fn taken(&self) -> u64 {
        self.reader.taken()
    }

    /// The next line that is not empty, or `None` at the end. A last line may lack its line feed.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            self.reader.fill_buf()?;
            self.place = self.reader.place();
            let (mut seen, mut too_long) = (0_usize, false);
            loop {
                let chunk = self.reader.fill_buf()?;
                if chunk.is_empty() {
                    break;
                }
                let (part, ends) = match chunk.iter().position(|byte| *byte == b'\n') {
                    Some(at) => (&chunk[..at], true),
                    None => (chunk, false),
                };
                if self.line.len() + part.len() > self.max_bytes {
                    too_long = true;
                    self.line.clear();
                }
                if !too_long {
                    self.line.extend_from_slice(part);
                }
                let used = part.len() + usize::from(ends);
                seen = seen.saturating_add(used);
                self.reader.consume(used);
                if ends {
                    break;
                }
            }
            if too_long {
                return Ok(Some(Line::TooLong));
            }
            if seen == 0 {
                return Ok(None);
            }
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            if !self.line.is_empty() {
                break;
            }
        }
        Ok(Some(Line::Text(&self.line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::members::Counted;

    /// A few bytes a read make every line span several reads.
    struct Trickle<'a>(&'a [u8]);

    impl io::Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let few = out.len().min(3);
            self.0.read(&mut out[..few])
        }
    }

    fn lines(text: &str, max_bytes: usize) -> Vec<String> {
        let mut reader = LineReader::new(Counted::new(Trickle(text.as_bytes()), 0), max_bytes);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(match line {
                Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Line::TooLong => "<too long>".to_owned(),
            });
            let place = usize::try_from(reader.place().unwrap()).unwrap();
            assert!(place == 0 || text.as_bytes()[place - 1] == b'\n');
        }
        lines
    }

    #[test]
    fn reads_lines_of_both_kinds_and_a_last_one_without_line_feed() {
        assert_eq!(lines("abcd\r\n\n\nef\ng", 10), ["abcd", "ef", "g"]);
        assert_eq!(lines("", 10), Vec::<String>::new());
    }

    #[test]
    fn a_line_beyond_the_bound_is_passed_over_and_the_next_one_read() {
        assert_eq!(
            lines("0123456789\nok\n0123456789ab", 10),
            ["0123456789", "ok", "<too long>"]
        );
        assert_eq!(lines("0123456789a\nok", 10), ["<too long>", "ok"]);
    }
}
