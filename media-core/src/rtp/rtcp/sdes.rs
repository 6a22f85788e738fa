//! Source descriptions (RFC 3550 §6.5).

use crate::units::Ssrc;

/// Item type of the canonical name.
pub const ITEM_CNAME: u8 = 1;

/// One item of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesItem<'a> {
    /// The source described.
    pub ssrc: Ssrc,
    /// Item type, 1 for CNAME.
    pub kind: u8,
    /// UTF-8 by the RFC; not checked.
    pub text: &'a [u8],
}

/// Iterates all items of all chunks; ends at the first malformed one.
#[derive(Debug, Clone)]
pub struct SdesItems<'a> {
    pub(super) rest: &'a [u8],
    pub(super) chunks_left: u8,
    pub(super) ssrc: Option<Ssrc>,
}

impl<'a> SdesItems<'a> {
    fn end_of_chunk(&mut self) {
        self.ssrc = None;
        // Chunks are aligned to 32 bits within the packet, whose body starts aligned and whose
        // length is a multiple of 4: what remains tells the padding.
        let pad = self.rest.len() % 4;
        self.rest = self.rest.get(pad..).unwrap_or_default();
    }

    fn fail(&mut self) -> Option<SdesItem<'a>> {
        self.rest = &[];
        self.chunks_left = 0;
        self.ssrc = None;
        None
    }
}

impl<'a> Iterator for SdesItems<'a> {
    type Item = SdesItem<'a>;

    fn next(&mut self) -> Option<SdesItem<'a>> {
        loop {
            let Some(ssrc) = self.ssrc else {
                self.chunks_left = self.chunks_left.checked_sub(1)?;
                let Some((ssrc, rest)) = self.rest.split_first_chunk::<4>() else {
                    return self.fail();
                };
                self.rest = rest;
                self.ssrc = Some(Ssrc(u32::from_be_bytes(*ssrc)));
                continue;
            };
            match *self.rest {
                [] => return self.fail(),
                [0, ..] => {
                    self.rest = self.rest.get(1..).unwrap_or_default();
                    self.end_of_chunk();
                }
                [kind, len, ref text @ ..] => {
                    let Some((text, rest)) = text.split_at_checked(usize::from(len)) else {
                        return self.fail();
                    };
                    self.rest = rest;
                    return Some(SdesItem { ssrc, kind, text });
                }
                [_] => return self.fail(),
            }
        }
    }
}
