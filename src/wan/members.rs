//! A body that can be taken up again in its middle: where in it, as sent, reading may begin anew.
//!
//! A body without compression may be taken up at any byte. One in gzip may be taken up where a member begins (RFC 1952,
//! section 2.2: a file is a series of members); the contract has the platform begin one every few hundred kilobytes, at a
//! line's start. So nothing is ever decompressed twice but the part of one member.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// Decoded bytes in memory, and bytes as sent.
const BUFFER: usize = 64 * 1024;

/// A reader that knows where reading may begin anew.
pub(super) trait Places: BufRead {
    /// The place of the next byte in the body as sent, if reading may begin anew there; ask after `fill_buf`.
    fn place(&self) -> Option<u64>;

    /// Bytes of the body as sent that were read so far, counted from the body's first one.
    fn taken(&self) -> u64;
}

impl<P: Places + ?Sized> Places for Box<P> {
    fn place(&self) -> Option<u64> {
        (**self).place()
    }

    fn taken(&self) -> u64 {
        (**self).taken()
    }
}

/// Counts what is taken out of a reader.
pub(super) struct Counted<R> {
    inner: BufReader<R>,
    taken: u64,
}

impl<R: Read> Counted<R> {
    /// `at` is the place of the reader's first byte.
    pub(super) fn new(reader: R, at: u64) -> Self {
        Self {
            inner: BufReader::with_capacity(BUFFER, reader),
            taken: at,
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: Read> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.inner.consume(bytes);
    }
}

impl<R: Read> Places for Counted<R> {
    fn place(&self) -> Option<u64> {
        Some(self.taken)
    }

    fn taken(&self) -> u64 {
        self.taken
    }
}

/// The text of a series of gzip members.
pub(super) struct Members<R: Read> {
    /// Always there between two calls.
    decoder: Option<GzDecoder<Counted<R>>>,
    /// Place of the current member's first byte.
    began_at: u64,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    /// Whether bytes of this member were handed out.
    within: bool,
    ended: bool,
}

impl<R: Read> Members<R> {
    /// `at` is the place of the reader's first byte, where a member begins.
    pub(super) fn new(reader: R, at: u64) -> Self {
        Self {
            decoder: Some(GzDecoder::new(Counted::new(reader, at))),
            began_at: at,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            from: 0,
            to: 0,
            within: false,
            ended: false,
        }
    }

    fn decoder(&mut self) -> &mut GzDecoder<Counted<R>> {
        self.decoder.as_mut().expect("it is put back by every call")
    }

    /// Goes on with the next member; false when there is none.
    fn next_member(&mut self) -> io::Result<bool> {
        let decoder = self.decoder.take().expect("it is put back by every call");
        let mut rest = decoder.into_inner();
        let more = rest.fill_buf().map(|bytes| !bytes.is_empty());
        self.began_at = rest.taken;
        self.within = false;
        self.decoder = Some(GzDecoder::new(rest));
        more
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let read = bytes.len().min(out.len());
        out[..read].copy_from_slice(&bytes[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for Members<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.from == self.to && !self.ended {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.decoder().read(&mut buffer);
            self.buffer = buffer;
            match read? {
                0 => self.ended = !self.next_member()?,
                read => (self.from, self.to) = (0, read),
            }
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn consume(&mut self, bytes: usize) {
        self.within |= bytes > 0;
        self.from += bytes;
    }
}

impl<R: Read> Places for Members<R> {
    fn place(&self) -> Option<u64> {
        (!self.within).then_some(self.began_at)
    }

    fn taken(&self) -> u64 {
        self.decoder
            .as_ref()
            .map_or(self.began_at, |decoder| decoder.get_ref().taken)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reading_may_begin_anew_where_a_member_begins_and_nowhere_else() {
        let (first, second) = (member("one\ntwo\n"), member("three\n"));
        let body = [first.clone(), second.clone()].concat();
        let mut members = Members::new(&*body, 0);
        let mut places = Vec::new();
        let mut text = Vec::new();
        while let Some(byte) = members.fill_buf().unwrap().first().copied() {
            places.push(members.place());
            members.consume(1);
            text.push(byte);
        }
        assert_eq!(text, b"one\ntwo\nthree\n");
        let begins = first.len() as u64;
        assert_eq!((places[0], places[1]), (Some(0), None));
        assert_eq!(
            (places[7], places[8], places[9]),
            (None, Some(begins), None)
        );
        assert_eq!(members.taken(), body.len() as u64);
        let mut rest = String::new();
        Members::new(&body[first.len()..], begins)
            .read_to_string(&mut rest)
            .unwrap();
        assert_eq!(rest, "three\n");
    }

    #[test]
    fn a_member_that_is_cut_is_an_error_and_no_end() {
        let body = member("a line that is long enough to be cut\n");
        for cut in 1..body.len() {
            let mut text = Vec::new();
            let read = Members::new(&body[..cut], 0).read_to_end(&mut text);
            assert!(read.is_err(), "cut at {cut}: {text:?}");
        }
    }
}
