//! Writing compound packets into a caller's buffer.

use super::report::{BLOCK_BYTES, ReportBlock, SenderInfo};
use super::sdes::ITEM_CNAME;
use super::{PT_BYE, PT_RR, PT_SDES, PT_SR};
use crate::units::Ssrc;

/// Blocks that fit into the five bits of a report's count.
const BLOCKS_MAX: usize = 31;

/// Appends RTCP packets to a buffer. Each call writes a whole packet or, when it does not fit,
/// nothing and returns `None`.
#[derive(Debug)]
pub struct CompoundWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> CompoundWriter<'a> {
    /// Writes to the front of `out`.
    #[must_use]
    pub const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sender report; `blocks` beyond 31 are refused.
    pub fn sender_report(
        &mut self,
        ssrc: Ssrc,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Option<()> {
        let mut body = self.begin(PT_SR, blocks.len(), 24 + blocks.len() * BLOCK_BYTES)?;
        body.put(&ssrc.0.to_be_bytes());
        body.put(&info.ntp.0.to_be_bytes());
        body.put(&info.timestamp.0.to_be_bytes());
        body.put(&info.packets.to_be_bytes());
        body.put(&info.payload_bytes.to_be_bytes());
        for block in blocks {
            body.put(&block.write());
        }
        Some(())
    }

    /// Receiver report; `blocks` beyond 31 are refused.
    pub fn receiver_report(&mut self, ssrc: Ssrc, blocks: &[ReportBlock]) -> Option<()> {
        let mut body = self.begin(PT_RR, blocks.len(), 4 + blocks.len() * BLOCK_BYTES)?;
        body.put(&ssrc.0.to_be_bytes());
        for block in blocks {
            body.put(&block.write());
        }
        Some(())
    }

    /// Source description with one CNAME of at most 255 bytes.
    pub fn sdes_cname(&mut self, ssrc: Ssrc, cname: &[u8]) -> Option<()> {
        let len = u8::try_from(cname.len()).ok()?;
        // SSRC, item header, text, and at least one zero byte up to the next 32 bits.
        let bytes = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let mut body = self.begin(PT_SDES, 1, bytes)?;
        body.put(&ssrc.0.to_be_bytes());
        body.put(&[ITEM_CNAME, len]);
        body.put(cname);
        body.fill_zero();
        Some(())
    }

    /// BYE of one source, with a reason of at most 255 bytes if it is not empty.
    pub fn bye(&mut self, ssrc: Ssrc, reason: &[u8]) -> Option<()> {
        let len = u8::try_from(reason.len()).ok()?;
        let text = if reason.is_empty() { 0 } else { (1 + reason.len()).next_multiple_of(4) };
        let mut body = self.begin(PT_BYE, 1, 4 + text)?;
        body.put(&ssrc.0.to_be_bytes());
        if !reason.is_empty() {
            body.put(&[len]);
            body.put(reason);
        }
        body.fill_zero();
        Some(())
    }

    fn begin(&mut self, packet_type: u8, count: usize, body_bytes: usize) -> Option<Body<'_>> {
        if count > BLOCKS_MAX {
            return None;
        }
        let words = u16::try_from(body_bytes / 4).ok()?;
        let end = self.len.checked_add(4 + body_bytes)?;
        let packet = self.out.get_mut(self.len..end)?;
        self.len = end;
        let mut body = Body { rest: packet };
        body.put(&[0x80 | count as u8, packet_type]);
        body.put(&words.to_be_bytes());
        Some(body)
    }
}

/// Room of one packet, exactly as long as announced.
struct Body<'a> {
    rest: &'a mut [u8],
}

impl Body<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        if let Some((head, tail)) = rest.split_at_mut_checked(bytes.len()) {
            head.copy_from_slice(bytes);
            self.rest = tail;
        }
    }

    fn fill_zero(&mut self) {
        self.rest.fill(0);
    }
}
