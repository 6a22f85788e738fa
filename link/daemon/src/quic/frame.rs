//! Frames on a stream: four bytes of length, big-endian, then so many bytes.

use quinn::{ReadError, RecvStream, SendStream, WriteError};

/// Largest frame without its length, in bytes.
pub const FRAME_BYTES_MAX: usize = 256 << 10;

const PREFIX_BYTES: usize = 4;
const READ_BYTES: usize = 16 << 10;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is above [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The stream or its connection broke.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream or its connection broke.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Cuts bytes into frames, however they arrive.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// What was taken already; moved away only when more bytes are needed.
    taken: usize,
}

impl FrameBuffer {
    /// Adds bytes from the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; the stream cannot be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        // A u32 fits: targets have at least 32 bits.
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.taken += PREFIX_BYTES + length;
        Ok(Some(frame))
    }

    /// True if nothing is left over.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }
}

/// Appends `frame` with its length to `out`.
///
/// # Errors
/// [`FrameError::TooLong`]; nothing was appended.
pub fn encode(frame: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(frame.len()));
    }
    // Below 2^32 by the check above.
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
    Ok(())
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffer: FrameBuffer,
    chunk: Vec<u8>,
}

impl FrameReader {
    /// Takes over the stream.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: FrameBuffer::default(), chunk: vec![0; READ_BYTES] }
    }

    /// The next frame; `None` at the end of the stream. May be dropped while it waits without
    /// losing anything.
    ///
    /// # Errors
    /// See [`FrameError`]; the stream cannot be used any further.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut self.chunk).await? {
                Some(count) => self.buffer.extend(self.chunk.get(..count).unwrap_or_default()),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated),
            }
        }
    }
}

/// Writes frames to a stream. Several frames can be put into one write.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    pending: Vec<u8>,
}

impl FrameWriter {
    /// Takes over the stream.
    pub fn new(stream: SendStream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Adds a frame to the next [`Self::flush`].
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; the frame is left out, the stream stays usable.
    pub fn push(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        encode(frame, &mut self.pending)
    }

    /// Bytes that wait for [`Self::flush`].
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Hands everything to the connection. Waits while the peer reads too slowly. Must not be
    /// dropped half-way.
    ///
    /// # Errors
    /// If the stream or its connection broke.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.stream.write_all(&self.pending).await?;
        self.pending.clear();
        Ok(())
    }

    /// Ends the stream in good order.
    pub fn finish(mut self) {
        // An error means that the connection is gone, and with it the stream.
        let _ = self.stream.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in proptest::collection::vec(
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), 0..8),
            cut in 1_usize..64,
        ) {
            let mut wire = Vec::new();
            for frame in &frames {
                encode(frame, &mut wire).unwrap();
            }
            let mut buffer = FrameBuffer::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend(piece);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            proptest::prop_assert_eq!(seen, frames);
            proptest::prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn too_long_frames_are_refused_both_ways() {
        let mut out = Vec::new();
        assert!(matches!(
            encode(&vec![0; FRAME_BYTES_MAX + 1], &mut out),
            Err(FrameError::TooLong(_))
        ));
        assert!(out.is_empty());
        encode(&vec![7; FRAME_BYTES_MAX], &mut out).unwrap();
        let mut buffer = FrameBuffer::default();
        buffer.extend(&out);
        assert_eq!(buffer.next_frame().unwrap().unwrap().len(), FRAME_BYTES_MAX);
        buffer.extend(&u32::MAX.to_be_bytes());
        assert!(matches!(buffer.next_frame(), Err(FrameError::TooLong(_))));
    }
}
