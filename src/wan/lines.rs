//! Lines of a stream, each of bounded length.

use std::io::{self, BufRead};

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
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(reader: R, max_bytes: usize) -> Self {
        Self {
            reader,
            line: Vec::new(),
            max_bytes,
        }
    }

    /// The next line that is not empty, or `None` at the end. A last line may lack its line feed.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
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
    use std::io::BufReader;

    use super::*;

    fn lines(text: &str, max_bytes: usize) -> Vec<String> {
        // A tiny buffer makes every line span several reads.
        let mut reader = LineReader::new(BufReader::with_capacity(3, text.as_bytes()), max_bytes);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(match line {
                Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Line::TooLong => "<too long>".to_owned(),
            });
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
