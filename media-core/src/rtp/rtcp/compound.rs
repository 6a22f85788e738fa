//! Reading compound packets (RFC 3550 §6.1) and reduced-size ones (RFC 5506).

use super::bye::Bye;
use super::report::{BLOCK_BYTES, ReportBlocks, SenderInfo};
use super::sdes::SdesItems;
use super::{PT_BYE, PT_RR, PT_SDES, PT_SR};
use crate::units::Ssrc;

/// Why bytes are not RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtcpParseError {
    /// Less than a header, or a length that passes the end.
    #[error("packet is cut short")]
    TooShort,
    /// The version is not 2.
    #[error("version is not 2")]
    Version,
    /// The count asks for more than the packet holds.
    #[error("count passes the end of the packet")]
    Count,
    /// Padding on a packet that is not the last, or a wrong padding count.
    #[error("padding is wrong")]
    Padding,
}

/// One packet of a compound.
#[derive(Debug, Clone)]
pub enum Packet<'a> {
    /// Sender report.
    SenderReport {
        /// Who reports.
        ssrc: Ssrc,
        /// What was sent.
        info: SenderInfo,
        /// What was received.
        blocks: ReportBlocks<'a>,
    },
    /// Receiver report.
    ReceiverReport {
        /// Who reports.
        ssrc: Ssrc,
        /// What was received.
        blocks: ReportBlocks<'a>,
    },
    /// Source description.
    Sdes(SdesItems<'a>),
    /// End of participation.
    Bye(Bye<'a>),
    /// Anything else (APP, feedback, XR).
    Other {
        /// Packet type.
        packet_type: u8,
        /// The five bits of the header: count or format.
        count: u8,
        /// Everything after the first four bytes, without padding.
        body: &'a [u8],
    },
}

/// A compound packet whose framing was validated. Iterating yields its packets.
#[derive(Debug, Clone, Copy)]
pub struct Compound<'a> {
    bytes: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Validates framing and counts of all packets.
    ///
    /// # Errors
    /// See [`RtcpParseError`]; no byte sequence panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtcpParseError> {
        if bytes.is_empty() {
            return Err(RtcpParseError::TooShort);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_packet(rest)?.1;
        }
        Ok(Self { bytes })
    }

    /// The packets, in order.
    #[must_use]
    pub const fn packets(&self) -> Packets<'a> {
        Packets { rest: self.bytes }
    }
}

/// Iterates the packets of a compound; each step consumes at least four bytes.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let (packet, rest) = split_packet(self.rest).ok()?;
        self.rest = rest;
        Some(packet)
    }
}

fn split_packet(bytes: &[u8]) -> Result<(Packet<'_>, &[u8]), RtcpParseError> {
    let Some(&[first, packet_type, l0, l1]) = bytes.first_chunk::<4>() else {
        return Err(RtcpParseError::TooShort);
    };
    if first >> 6 != 2 {
        return Err(RtcpParseError::Version);
    }
    let len = (usize::from(u16::from_be_bytes([l0, l1])) + 1) * 4;
    let Some((packet, rest)) = bytes.split_at_checked(len) else {
        return Err(RtcpParseError::TooShort);
    };
    let mut body = packet.get(4..).unwrap_or_default();
    if first & 0x20 != 0 {
        let count = usize::from(body.last().copied().unwrap_or(0));
        if count == 0 || !count.is_multiple_of(4) || !rest.is_empty() {
            return Err(RtcpParseError::Padding);
        }
        let end = body.len().checked_sub(count).ok_or(RtcpParseError::Padding)?;
        body = body.get(..end).unwrap_or_default();
    }
    let count = first & 0x1f;
    Ok((read_packet(packet_type, count, body).ok_or(RtcpParseError::Count)?, rest))
}

fn read_packet(packet_type: u8, count: u8, body: &[u8]) -> Option<Packet<'_>> {
    Some(match packet_type {
        PT_SR => {
            let (ssrc, body) = body.split_first_chunk::<4>()?;
            let (info, body) = body.split_first_chunk::<20>()?;
            Packet::SenderReport {
                ssrc: Ssrc(u32::from_be_bytes(*ssrc)),
                info: SenderInfo::read(info),
                blocks: report_blocks(count, body)?,
            }
        }
        PT_RR => {
            let (ssrc, body) = body.split_first_chunk::<4>()?;
            Packet::ReceiverReport {
                ssrc: Ssrc(u32::from_be_bytes(*ssrc)),
                blocks: report_blocks(count, body)?,
            }
        }
        PT_SDES => Packet::Sdes(SdesItems { rest: body, chunks_left: count, ssrc: None }),
        PT_BYE => Packet::Bye(Bye::read(count, body)?),
        _ => Packet::Other { packet_type, count, body },
    })
}

fn report_blocks(count: u8, body: &[u8]) -> Option<ReportBlocks<'_>> {
    let rest = body.get(..usize::from(count) * BLOCK_BYTES)?;
    Some(ReportBlocks { rest, left: count })
}
