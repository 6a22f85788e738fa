//! Sender information and report blocks of SR and RR (RFC 3550 §6.4).

use super::ntp::NtpTime;
use crate::rtp::stats::ReceptionReport;
use crate::units::{RtpTime, Ssrc};

/// Bytes of one report block.
pub const BLOCK_BYTES: usize = 24;

/// Sender information of an SR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// Wall time at which the report was sent.
    pub ntp: NtpTime,
    /// The same moment on the RTP clock.
    pub timestamp: RtpTime,
    /// Packets sent, modulo 2³².
    pub packets: u32,
    /// Payload bytes sent, modulo 2³².
    pub payload_bytes: u32,
}

impl SenderInfo {
    pub(super) fn read(bytes: &[u8; 20]) -> Self {
        let word = |at: usize| {
            bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |c| u32::from_be_bytes(*c))
        };
        Self {
            ntp: NtpTime((u64::from(word(0)) << 32) | u64::from(word(4))),
            timestamp: RtpTime(word(8)),
            packets: word(12),
            payload_bytes: word(16),
        }
    }
}

/// One report block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that is reported on.
    pub ssrc: Ssrc,
    /// Reception figures.
    pub reception: ReceptionReport,
    /// Middle 32 bits of the last SR's NTP time, 0 for none.
    pub lsr: u32,
    /// Delay since the last SR, unit 1/65536 s.
    pub dlsr: u32,
}

impl ReportBlock {
    pub(super) fn read(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let word = |at: usize| {
            bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |c| u32::from_be_bytes(*c))
        };
        let loss = word(4);
        Self {
            ssrc: Ssrc(word(0)),
            reception: ReceptionReport {
                fraction_lost: (loss >> 24) as u8,
                // Sign extension of 24 bits.
                cumulative_lost_packets: ((loss << 8) as i32) >> 8,
                extended_highest_seq: word(8),
                jitter_units: word(12),
            },
            lsr: word(16),
            dlsr: word(20),
        }
    }

    pub(super) fn write(&self) -> [u8; BLOCK_BYTES] {
        let lost = self.reception.cumulative_lost_packets.clamp(-0x80_0000, 0x7f_ffff) as u32;
        let words = [
            self.ssrc.0,
            (u32::from(self.reception.fraction_lost) << 24) | (lost & 0x00ff_ffff),
            self.reception.extended_highest_seq,
            self.reception.jitter_units,
            self.lsr,
            self.dlsr,
        ];
        let mut out = [0; BLOCK_BYTES];
        for (chunk, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *chunk = word.to_be_bytes();
        }
        out
    }
}

/// Iterates the report blocks of an SR or RR, at most 31.
#[derive(Debug, Clone)]
pub struct ReportBlocks<'a> {
    pub(super) rest: &'a [u8],
    pub(super) left: u8,
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        self.left = self.left.checked_sub(1)?;
        let (block, rest) = self.rest.split_first_chunk::<BLOCK_BYTES>()?;
        self.rest = rest;
        Some(ReportBlock::read(block))
    }
}
