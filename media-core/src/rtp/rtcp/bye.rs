//! BYE (RFC 3550 §6.6).

use crate::units::Ssrc;

/// A validated BYE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bye<'a> {
    pub(super) sources: &'a [[u8; 4]],
    /// Reason for leaving, if given and well formed.
    pub reason: Option<&'a [u8]>,
}

impl<'a> Bye<'a> {
    pub(super) fn read(count: u8, body: &'a [u8]) -> Option<Self> {
        let (sources, rest) = body.split_at_checked(usize::from(count) * 4)?;
        let reason = rest.split_first().and_then(|(&len, text)| text.get(..usize::from(len)));
        Some(Self { sources: sources.as_chunks::<4>().0, reason })
    }

    /// Sources that leave, at most 31.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.sources.iter().map(|s| Ssrc(u32::from_be_bytes(*s)))
    }
}
