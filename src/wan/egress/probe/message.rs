//! HTTP/1.1 by hand: a probe wants to see what a proxy or a stranger really says, head and first words.

use std::io::{self, Read, Write};

use jiff::Timestamp;

use super::super::evidence::host_of_location;
use super::super::http_date;

/// The longest head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// Of a body, what is looked at.
const MAX_BODY: usize = 8 * 1024;

/// An answer's head and the beginning of its body.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) status: u16,
    pub(super) reason: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Sends `request` and reads the answer.
    pub(super) fn exchange(
        stream: &mut (impl Read + Write + ?Sized),
        request: &[u8],
    ) -> io::Result<Self> {
        stream.write_all(request)?;
        stream.flush()?;
        let mut message = Self::read_head(stream)?;
        message.read_body(stream);
        Ok(message)
    }

    /// Byte by byte, so that nothing behind the head is taken.
    fn read_head(stream: &mut (impl Read + ?Sized)) -> io::Result<Self> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
            if head.len() >= MAX_HEAD {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no end of the head",
                ));
            }
            match stream.read(&mut byte)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => head.push(byte[0]),
            }
        }
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let status_line = lines.next().unwrap_or_default();
        let mut parts = status_line.splitn(3, ' ');
        let protocol = parts.next().unwrap_or_default();
        let status = parts.next().and_then(|status| status.parse().ok());
        let (true, Some(status)) = (protocol.starts_with("HTTP/"), status) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"));
        };
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            status,
            reason: parts.next().unwrap_or_default().trim().to_owned(),
            headers: headers
                .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
        })
    }

    /// As far as it comes: what is missing of a body decides nothing.
    fn read_body(&mut self, stream: &mut (impl Read + ?Sized)) {
        let length = self
            .header("content-length")
            .and_then(|text| text.parse().ok());
        let is_chunked = self.header("transfer-encoding").is_some();
        let limit = match length {
            Some(length) => MAX_BODY.min(length),
            None => MAX_BODY,
        };
        let mut chunk = [0; 1024];
        while self.body.len() < limit {
            let room = chunk.len().min(limit - self.body.len());
            match stream.read(&mut chunk[..room]) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.body.extend_from_slice(&chunk[..count]),
            }
            // The last chunk is empty (RFC 9112 section 7.1).
            if is_chunked && self.body.ends_with(b"0\r\n\r\n") {
                break;
            }
        }
    }

    /// The first header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have == name)?;
        Some(&found.1)
    }

    /// Whether the body is of that media type.
    pub(super) fn is_of_type(&self, expected: &str) -> bool {
        self.header("content-type").is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case(expected)
        })
    }

    /// Whether the body's beginning holds `words`, spaces aside.
    pub(super) fn says(&self, words: &str) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        dense.contains(words)
    }

    /// The host a redirect leads to; a login page of a network shows its owner by it.
    pub(super) fn leads_to(&self) -> Option<String> {
        host_of_location(self.header("location")?)
    }

    /// When it was said, by the other side's clock.
    pub(super) fn date(&self) -> Option<Timestamp> {
        http_date::parse(self.header("date")?)
    }

    /// What whoever made this page says of it: its own error code, its title, its status line.
    pub(super) fn own_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let mut words = vec![format!("{} {}", self.status, self.reason)];
        words.extend(self.header("x-squid-error").map(str::to_owned));
        words.extend(title(&text).map(str::to_owned));
        words.join(" · ")
    }
}

fn title(page: &str) -> Option<&str> {
    // ASCII, so that places in both texts are the same.
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let start = start + lower[start..].find('>')? + 1;
    let end = start + lower[start..].find("</title")?;
    let title = page[start..end].trim();
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pipe<'b>(&'b [u8]);

    impl Read for Pipe<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Pipe<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_page_is_read_as_far_as_it_matters() {
        let mut pipe = Pipe(
            b"HTTP/1.1 302 Moved\r\nLocation: http://login.hotel.example:8080/?u=1\r\n\
              Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 34\r\n\r\n\
              <HTML><TITLE> Sign in </TITLE>\n</a>rest",
        );
        let message = Message::exchange(&mut pipe, b"").unwrap();
        assert_eq!(message.status, 302);
        assert_eq!(
            message.leads_to().as_deref(),
            Some("login.hotel.example:8080")
        );
        assert_eq!(message.own_words(), "302 Moved · Sign in");
        assert_eq!(message.date().unwrap().as_second(), 784_111_777);
        assert_eq!(message.body.len(), 34);
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for bytes in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1",
            b"HTTP/1.1 abc\r\n\r\n",
        ] {
            assert!(Message::exchange(&mut Pipe(bytes), b"").is_err());
        }
    }
}
