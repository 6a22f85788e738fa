//! Checked view of an RTP packet and its rewriting in place (RFC 3550 §5.1).
//!
//! [`RtpHeader::parse`] validates once; every accessor after that is infallible. Nothing allocates.

use crate::units::{PayloadType, RtpTime, Ssrc};
use std::ops::Range;

/// Size of the fixed header in bytes.
pub const FIXED_HEADER_BYTES: usize = 12;

/// Why bytes are not an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtpParseError {
    /// Fewer than 12 bytes.
    #[error("shorter than the fixed header")]
    TooShort,
    /// The version is not 2.
    #[error("version is not 2")]
    Version,
    /// The CSRC list passes the end of the packet.
    #[error("CSRC list passes the end")]
    Csrc,
    /// The header extension passes the end of the packet.
    #[error("header extension passes the end")]
    Extension,
    /// The padding count is zero or larger than what follows the header.
    #[error("padding count is wrong")]
    Padding,
}

/// What a validated header says; free of borrows, so that the buffer can be changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: PayloadType,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp in units of the payload's clock.
    pub timestamp: RtpTime,
    /// Synchronisation source.
    pub ssrc: Ssrc,
    /// Number of contributing sources, 0–15.
    pub csrc_count: u8,
    /// Whether the X bit is set.
    pub has_extension: bool,
    payload_start: usize,
    payload_end: usize,
    total: usize,
}

impl RtpHeader {
    /// Validates `packet` and reads its header.
    ///
    /// # Errors
    /// See [`RtpParseError`]; no byte sequence panics.
    pub fn parse(packet: &[u8]) -> Result<Self, RtpParseError> {
        let Some(fixed) = packet.first_chunk::<FIXED_HEADER_BYTES>() else {
            return Err(RtpParseError::TooShort);
        };
        let [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(RtpParseError::Version);
        }
        let csrc_count = b0 & 0x0f;
        let mut start = FIXED_HEADER_BYTES + usize::from(csrc_count) * 4;
        if start > packet.len() {
            return Err(RtpParseError::Csrc);
        }
        let has_extension = b0 & 0x10 != 0;
        if has_extension {
            let Some([_, _, l0, l1]) = packet.get(start..).and_then(|r| r.first_chunk::<4>())
            else {
                return Err(RtpParseError::Extension);
            };
            start += 4 + usize::from(u16::from_be_bytes([*l0, *l1])) * 4;
            if start > packet.len() {
                return Err(RtpParseError::Extension);
            }
        }
        let mut end = packet.len();
        if b0 & 0x20 != 0 {
            let count = usize::from(packet.last().copied().unwrap_or(0));
            if count == 0 || count > end - start {
                return Err(RtpParseError::Padding);
            }
            end -= count;
        }
        Ok(Self {
            marker: b1 & 0x80 != 0,
            payload_type: PayloadType::new_truncated(b1),
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: RtpTime(u32::from_be_bytes([t0, t1, t2, t3])),
            ssrc: Ssrc(u32::from_be_bytes([c0, c1, c2, c3])),
            csrc_count,
            has_extension,
            payload_start: start,
            payload_end: end,
            total: packet.len(),
        })
    }

    /// Length of header, CSRC list and extension in bytes.
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        self.payload_start
    }

    /// Where the payload lies in the packet, without padding.
    #[must_use]
    pub const fn payload_range(&self) -> Range<usize> {
        self.payload_start..self.payload_end
    }

    /// Length of the payload in bytes, without padding.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.payload_end - self.payload_start
    }

    /// Number of padding bytes, the count byte included.
    #[must_use]
    pub const fn padding_bytes(&self) -> usize {
        self.total - self.payload_end
    }
}

/// A validated packet, read-only.
#[derive(Debug, Clone, Copy)]
pub struct RtpView<'a> {
    packet: &'a [u8],
    header: RtpHeader,
}

impl<'a> RtpView<'a> {
    /// Validates `packet`.
    ///
    /// # Errors
    /// See [`RtpParseError`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtpParseError> {
        Ok(Self { packet, header: RtpHeader::parse(packet)? })
    }

    /// The header's values.
    #[must_use]
    pub const fn header(&self) -> &RtpHeader {
        &self.header
    }

    /// Payload type.
    #[must_use]
    pub const fn payload_type(&self) -> PayloadType {
        self.header.payload_type
    }

    /// Marker bit.
    #[must_use]
    pub const fn marker(&self) -> bool {
        self.header.marker
    }

    /// Sequence number.
    #[must_use]
    pub const fn seq(&self) -> u16 {
        self.header.seq
    }

    /// Timestamp.
    #[must_use]
    pub const fn timestamp(&self) -> RtpTime {
        self.header.timestamp
    }

    /// Synchronisation source.
    #[must_use]
    pub const fn ssrc(&self) -> Ssrc {
        self.header.ssrc
    }

    /// Length of header, CSRC list and extension in bytes.
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        self.header.header_bytes()
    }

    /// Where the payload lies in the packet, without padding.
    #[must_use]
    pub const fn payload_range(&self) -> Range<usize> {
        self.header.payload_range()
    }

    /// Payload without padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.packet.get(self.header.payload_range()).unwrap_or_default()
    }

    /// Contributing sources, at most 15.
    pub fn csrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        let list = self
            .packet
            .get(FIXED_HEADER_BYTES..)
            .and_then(|r| r.get(..usize::from(self.header.csrc_count) * 4))
            .unwrap_or_default();
        list.as_chunks::<4>().0.iter().map(|c| Ssrc(u32::from_be_bytes(*c)))
    }

    /// The header extension: profile-defined identifier and its data, if the X bit is set.
    #[must_use]
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        if !self.header.has_extension {
            return None;
        }
        let at = FIXED_HEADER_BYTES + usize::from(self.header.csrc_count) * 4;
        let block = self.packet.get(at..self.header.payload_start)?;
        let ([p0, p1, _, _], data) = block.split_first_chunk::<4>()?;
        Some((u16::from_be_bytes([*p0, *p1]), data))
    }

    /// The whole packet.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.packet
    }
}

/// A validated packet whose header fields can be rewritten in place.
///
/// Only fields that keep the layout can be set, so the validation stays true.
#[derive(Debug)]
pub struct RtpViewMut<'a> {
    fixed: &'a mut [u8; FIXED_HEADER_BYTES],
    rest: &'a mut [u8],
    header: RtpHeader,
}

impl<'a> RtpViewMut<'a> {
    /// Validates `packet`.
    ///
    /// # Errors
    /// See [`RtpParseError`].
    pub fn parse(packet: &'a mut [u8]) -> Result<Self, RtpParseError> {
        let header = RtpHeader::parse(packet)?;
        Self::of_parsed(packet, header).ok_or(RtpParseError::TooShort)
    }

    /// A packet whose header is known already. `None` if it is that of a packet of another length.
    pub fn of_parsed(packet: &'a mut [u8], header: RtpHeader) -> Option<Self> {
        if packet.len() != header.total {
            return None;
        }
        let (fixed, rest) = packet.split_first_chunk_mut::<FIXED_HEADER_BYTES>()?;
        Some(Self { fixed, rest, header })
    }

    /// The header as it stands now.
    #[must_use]
    pub const fn header(&self) -> &RtpHeader {
        &self.header
    }

    /// Sets the marker bit.
    pub const fn set_marker(&mut self, marker: bool) {
        self.fixed[1] = (self.fixed[1] & 0x7f) | ((marker as u8) << 7);
        self.header.marker = marker;
    }

    /// Sets the payload type.
    pub const fn set_payload_type(&mut self, payload_type: PayloadType) {
        self.fixed[1] = (self.fixed[1] & 0x80) | payload_type.get();
        self.header.payload_type = payload_type;
    }

    /// Sets the sequence number.
    pub fn set_seq(&mut self, seq: u16) {
        self.fixed[2..4].copy_from_slice(&seq.to_be_bytes());
        self.header.seq = seq;
    }

    /// Sets the timestamp.
    pub fn set_timestamp(&mut self, timestamp: RtpTime) {
        self.fixed[4..8].copy_from_slice(&timestamp.0.to_be_bytes());
        self.header.timestamp = timestamp;
    }

    /// Sets the synchronisation source.
    pub fn set_ssrc(&mut self, ssrc: Ssrc) {
        self.fixed[8..12].copy_from_slice(&ssrc.0.to_be_bytes());
        self.header.ssrc = ssrc;
    }

    /// Payload without padding.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let range = self.header.payload_range();
        self.rest
            .get(range.start - FIXED_HEADER_BYTES..range.end - FIXED_HEADER_BYTES)
            .unwrap_or_default()
    }

    /// Payload without padding, to be changed without a change of length.
    #[must_use]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = self.header.payload_range();
        self.rest
            .get_mut(range.start - FIXED_HEADER_BYTES..range.end - FIXED_HEADER_BYTES)
            .unwrap_or_default()
    }
}

/// Fields of a header that [`write_header`] puts down: no CSRC, extension or padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpFields {
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: PayloadType,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: RtpTime,
    /// Synchronisation source.
    pub ssrc: Ssrc,
}

/// Writes a fixed header to the front of `out` and returns its length (12), or `None` when `out`
/// is too short (nothing is written then).
#[must_use]
pub fn write_header(out: &mut [u8], fields: &RtpFields) -> Option<usize> {
    let head = out.first_chunk_mut::<FIXED_HEADER_BYTES>()?;
    head[0] = 0x80;
    head[1] = (u8::from(fields.marker) << 7) | fields.payload_type.get();
    head[2..4].copy_from_slice(&fields.seq.to_be_bytes());
    head[4..8].copy_from_slice(&fields.timestamp.0.to_be_bytes());
    head[8..12].copy_from_slice(&fields.ssrc.0.to_be_bytes());
    Some(FIXED_HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Headers that are mostly valid, so that the deep branches are reached.
    fn likely_packet() -> impl Strategy<Value = Vec<u8>> {
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..120), 0usize..120, 0u8..40).prop_map(
            |(first, mut bytes, ext_at, small)| {
                if let Some(b) = bytes.first_mut() {
                    *b = (first & 0x3f) | 0x80;
                }
                if let Some(b) = bytes.get_mut(ext_at) {
                    *b = 0;
                }
                if let Some(b) = bytes.last_mut() {
                    *b = small;
                }
                bytes
            },
        )
    }

    fn agrees_with_oracle(bytes: &[u8]) -> Result<(), TestCaseError> {
        let ours = RtpView::parse(bytes);
        match rtp_rs::RtpReader::new(bytes) {
            Ok(oracle) => {
                let Ok(ours) = ours else {
                    // Stricter than the oracle only in padding of length zero or beyond the payload.
                    prop_assert_eq!(ours.err(), Some(RtpParseError::Padding));
                    return Ok(());
                };
                prop_assert_eq!(ours.seq(), u16::from(oracle.sequence_number()));
                prop_assert_eq!(ours.timestamp().0, oracle.timestamp());
                prop_assert_eq!(ours.ssrc().0, oracle.ssrc());
                prop_assert_eq!(ours.marker(), oracle.mark());
                prop_assert_eq!(ours.payload_type().get(), oracle.payload_type());
                prop_assert_eq!(ours.payload(), oracle.payload());
                let csrcs: Vec<u32> = ours.csrcs().map(|s| s.0).collect();
                prop_assert_eq!(csrcs, oracle.csrc().collect::<Vec<_>>());
                prop_assert_eq!(ours.extension(), oracle.extension());
            }
            Err(error) => {
                // The oracle wants room for a payload after a full header; we accept none.
                if let Ok(view) = ours {
                    prop_assert!(view.payload().is_empty(), "{error:?}");
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn same_as_rtp_rs(bytes in likely_packet()) {
            agrees_with_oracle(&bytes)?;
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            agrees_with_oracle(&bytes)?;
        }

        #[test]
        fn rewriting_touches_nothing_else(
            bytes in likely_packet(), seq: u16, ts: u32, ssrc: u32, pt in 0u8..128, marker: bool,
        ) {
            let mut copy = bytes.clone();
            let Ok(mut view) = RtpViewMut::parse(&mut copy) else { return Ok(()) };
            view.set_seq(seq);
            view.set_timestamp(RtpTime(ts));
            view.set_ssrc(Ssrc(ssrc));
            view.set_payload_type(PayloadType::new_truncated(pt));
            view.set_marker(marker);
            let claimed = *view.header();
            prop_assert_eq!(RtpHeader::parse(&copy), Ok(claimed));
            prop_assert_eq!((claimed.seq, claimed.timestamp.0, claimed.ssrc.0), (seq, ts, ssrc));
            prop_assert_eq!((claimed.payload_type.get(), claimed.marker), (pt, marker));
            prop_assert_eq!(copy[0], bytes[0]);
            prop_assert_eq!(&copy[12..], &bytes[12..]);
        }
    }

    #[test]
    fn written_header_reads_back() {
        let fields = RtpFields {
            marker: true,
            payload_type: PayloadType::PCMA,
            seq: 0xfffe,
            timestamp: RtpTime(0xdead_beef),
            ssrc: Ssrc(0x0102_0304),
        };
        let mut packet = [0u8; 172];
        assert_eq!(write_header(&mut packet, &fields), Some(12));
        let view = RtpView::parse(&packet).unwrap();
        assert_eq!(view.payload_range(), 12..172);
        assert_eq!((view.marker(), view.payload_type()), (true, PayloadType::PCMA));
        assert_eq!((view.seq(), view.timestamp()), (0xfffe, fields.timestamp));
        assert_eq!(view.ssrc(), fields.ssrc);
        assert_eq!(write_header(&mut packet[..11], &fields), None);
    }

    #[test]
    fn each_error_is_found() {
        let mut packet = [0u8; 20];
        packet[0] = 0x80;
        let cases: [(u8, usize, RtpParseError); 5] = [
            (0x80, 11, RtpParseError::TooShort),
            (0x40, 20, RtpParseError::Version),
            (0x83, 20, RtpParseError::Csrc),
            (0x90, 14, RtpParseError::Extension),
            (0xa0, 20, RtpParseError::Padding),
        ];
        for (first, len, error) in cases {
            packet[0] = first;
            assert_eq!(RtpHeader::parse(&packet[..len]), Err(error), "{first:#x} {len}");
        }
        packet[0] = 0xa0;
        packet[19] = 8;
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!((header.payload_bytes(), header.padding_bytes()), (0, 8));
    }
}
