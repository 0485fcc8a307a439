//! From a stream of bytes to frames.

use super::{PREFIX_LEN, WireError};

/// The first allocation for a frame; it doubles as bytes really arrive, so that a length alone costs a peer's box nothing.
const FIRST_CAPACITY: usize = 256;

/// Collects the bytes of one frame at a time, and never holds more than one.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    frame: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream whose frames' lengths say at most `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            prefix: [0; PREFIX_LEN],
            prefix_len: 0,
            frame: Vec::new(),
        }
    }

    /// Raises or lowers the limit for the frames to come.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes bytes up to the end of the current frame, and cuts them off `input`. Gives the frame (without its length)
    /// when it is complete; then `input` may hold the start of the next one: call again until it is empty.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        if self.prefix_len < PREFIX_LEN {
            let taken = take(input, PREFIX_LEN - self.prefix_len);
            self.prefix[self.prefix_len..self.prefix_len + taken.len()].copy_from_slice(taken);
            self.prefix_len += taken.len();
            if self.prefix_len < PREFIX_LEN {
                return Ok(None);
            }
        }
        let length = self.length();
        if length > self.limit {
            return Err(WireError::Oversized {
                length,
                limit: self.limit,
            });
        }
        let taken = take(input, length - self.frame.len());
        self.reserve(taken.len(), length);
        self.frame.extend_from_slice(taken);
        if self.frame.len() < length {
            return Ok(None);
        }
        self.prefix_len = 0;
        Ok(Some(std::mem::take(&mut self.frame)))
    }

    /// The stream has ended: fine between two frames, an error inside one.
    pub fn finish(&self) -> Result<(), WireError> {
        let missing = match self.prefix_len {
            0 => return Ok(()),
            PREFIX_LEN => self.length() - self.frame.len(),
            some => PREFIX_LEN - some,
        };
        Err(WireError::Cut { missing })
    }

    fn length(&self) -> usize {
        usize::try_from(u32::from_be_bytes(self.prefix)).unwrap_or(usize::MAX)
    }

    fn reserve(&mut self, additional: usize, length: usize) {
        let need = self.frame.len() + additional;
        if need > self.frame.capacity() {
            let grown = (self.frame.capacity() * 2)
                .max(FIRST_CAPACITY)
                .max(need)
                .min(length);
            self.frame.reserve_exact(grown - self.frame.len());
        }
    }
}

fn take<'a>(input: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(at_most.min(input.len()));
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::wire::FRAME_LIMIT;

    fn framed(content: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(content.len())
            .expect("short")
            .to_be_bytes()
            .to_vec();
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn frames_come_out_the_same_however_the_bytes_arrive() {
        let stream = [
            framed(b"one"),
            framed(&[7; 5000]),
            framed(b""),
            framed(b"z"),
        ]
        .concat();
        for step in [1, 2, 3, 5, 7, 4096, stream.len()] {
            let mut decoder = FrameDecoder::new(FRAME_LIMIT);
            let mut frames = Vec::new();
            for chunk in stream.chunks(step) {
                let mut input = chunk;
                while !input.is_empty() {
                    if let Some(frame) = decoder.push(&mut input).expect("good frames") {
                        frames.push(frame);
                    }
                }
            }
            decoder.finish().expect("ends between two frames");
            assert_eq!(
                frames,
                [b"one".to_vec(), vec![7; 5000], vec![], b"z".to_vec()]
            );
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_at_its_length_before_anything_is_allocated() {
        let mut decoder = FrameDecoder::new(FRAME_LIMIT);
        let mut input: &[u8] = &[0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            decoder.push(&mut input),
            Err(WireError::Oversized {
                length: 0xffff_ffff,
                limit: FRAME_LIMIT
            })
        );
        assert_eq!(decoder.frame.capacity(), 0);
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_not() {
        let mut decoder = FrameDecoder::new(10);
        assert_eq!(
            decoder.push(&mut framed(&[1; 10]).as_slice()),
            Ok(Some(vec![1; 10]))
        );
        assert_eq!(
            decoder.push(&mut framed(&[1; 11]).as_slice()),
            Err(WireError::Oversized {
                length: 11,
                limit: 10
            })
        );
    }

    #[test]
    fn a_length_without_its_bytes_costs_little_memory() {
        let mut decoder = FrameDecoder::new(FRAME_LIMIT);
        let mut bytes = u32::try_from(FRAME_LIMIT)
            .expect("fits")
            .to_be_bytes()
            .to_vec();
        bytes.extend_from_slice(&[0; 10]);
        assert_eq!(decoder.push(&mut bytes.as_slice()), Ok(None));
        assert!(decoder.frame.capacity() <= FIRST_CAPACITY);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_cut() {
        let bytes = framed(b"hello");
        for end in 1..bytes.len() {
            let mut decoder = FrameDecoder::new(FRAME_LIMIT);
            assert_eq!(decoder.push(&mut &bytes[..end]), Ok(None));
            let missing = if end < 4 { 4 - end } else { bytes.len() - end };
            assert_eq!(decoder.finish(), Err(WireError::Cut { missing }));
        }
    }
}
