//! What arrived on one RTP socket: sequence, loss, duplicates, spacing, stream changes (RFC 3550).

use rtp_rs::RtpReader;
use serde::{Deserialize, Serialize};

use crate::clock::ms_between;
use crate::codec::FRAME_SAMPLES;

/// Arrivals that are remembered one by one; about five hours of one stream.
const ARRIVALS_MAX: usize = 1_000_000;
/// A jump of the sequence number beyond this is a new stream (RFC 3550 §A.1, MAX_DROPOUT).
const DROPOUT_MAX: u16 = 3000;
/// Behind the newest packet by up to this many is a late or repeated one.
const HISTORY: u16 = 128;

/// One packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Kernel receive time.
    pub at_ns: u64,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Which stream: counts changes of SSRC, from 0.
    pub stream: u16,
    /// Packets that were skipped just before this one.
    pub hole: u16,
    /// Payload type.
    pub payload_type: u8,
}

/// Statistics of the received RTP of one call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RtpReceived {
    /// RTP packets, late ones and duplicates included.
    pub packets: u64,
    /// Packets skipped in the sequence and not seen later.
    pub lost: u64,
    /// Packets seen twice.
    pub duplicates: u64,
    /// Packets that came after a later one.
    pub late: u64,
    /// Times the sequence skipped forward.
    pub holes: u64,
    /// Times the sequence restarted far away with the same SSRC.
    pub restarts: u64,
    /// Times the SSRC changed.
    pub ssrc_changes: u64,
    /// In-order packets whose timestamp did not step by 160 per packet, marker set or not.
    pub timestamp_jumps: u64,
    /// In-order packets whose timestamp went back.
    pub timestamp_backwards: u64,
    /// Packets of RFC 4733 events.
    pub event_packets: u64,
    /// Packets from an address other than the one that the session description names.
    pub from_elsewhere: u64,
    /// Datagrams that are no RTP (RTCP included).
    pub not_rtp: u64,
    /// Packets whose payload type was not agreed.
    pub wrong_payload_type: u64,
    /// First packet.
    pub first_ns: Option<u64>,
    /// Latest packet.
    pub last_ns: Option<u64>,
    /// Longest time between two packets, milliseconds.
    pub max_gap_ms: f64,
    /// Interarrival jitter (RFC 3550 §6.4.1), milliseconds.
    pub jitter_ms: f64,
    /// The packets one by one, if the phone keeps them.
    pub arrivals: Vec<Arrival>,
}

/// What arrived between two instants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RtpWindow {
    /// Packets.
    pub packets: u64,
    /// Packets that were skipped (and may have come late).
    pub skipped: u64,
    /// Longest time without a packet, milliseconds: a gap counts whole if it ends in the window,
    /// and the time since the latest packet counts at the end of the window.
    pub max_gap_ms: f64,
    /// First packet in the window.
    pub first_ns: Option<u64>,
    /// Latest packet in the window.
    pub last_ns: Option<u64>,
}

impl RtpReceived {
    /// What arrived from `from_ns` to `to_ns`; needs [`RtpReceived::arrivals`], so only for calls
    /// that are kept in full.
    pub fn window(&self, from_ns: u64, to_ns: u64) -> RtpWindow {
        let mut window = RtpWindow::default();
        let mut before = None;
        for arrival in &self.arrivals {
            if arrival.at_ns > to_ns {
                break;
            }
            if arrival.at_ns >= from_ns {
                window.packets += 1;
                window.skipped += u64::from(arrival.hole);
                window.first_ns.get_or_insert(arrival.at_ns);
                window.last_ns = Some(arrival.at_ns);
                let gap_ms = before.map_or(0.0, |before| ms_between(before, arrival.at_ns));
                window.max_gap_ms = window.max_gap_ms.max(gap_ms);
            }
            before = Some(arrival.at_ns);
        }
        if let Some(last) = before {
            window.max_gap_ms = window.max_gap_ms.max(ms_between(last, to_ns));
        }
        window
    }

    /// The longest gap between two packets anywhere, with the instants of both.
    pub fn longest_gap(&self) -> Option<(f64, u64, u64)> {
        let gaps = self.arrivals.windows(2).filter_map(|pair| {
            let [before, after] = pair else { return None };
            Some((ms_between(before.at_ns, after.at_ns), before.at_ns, after.at_ns))
        });
        gaps.max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// A parsed packet that is to be listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Payload type.
    pub payload_type: u8,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Payload without padding.
    pub payload: &'a [u8],
    /// In order and not seen before: may be played.
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    newest_seq: u16,
    newest_timestamp: u32,
    newest_was_event: bool,
    /// Bit n: the packet n before the newest has been seen.
    seen: u128,
    transit_ns: i64,
}

/// Receives one call's RTP.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    stats: RtpReceived,
    stream: Option<Stream>,
    streams: u16,
    keep_arrivals: bool,
}

impl Receiver {
    /// A receiver that has heard nothing; `keep_arrivals` makes [`RtpReceived::window`] work.
    pub fn new(keep_arrivals: bool) -> Self {
        Self { keep_arrivals, ..Self::default() }
    }

    /// The counters so far.
    pub fn stats(&self) -> &RtpReceived {
        &self.stats
    }

    /// The counters, to note what the caller of [`receive`](Self::receive) alone can tell.
    pub fn stats_mut(&mut self) -> &mut RtpReceived {
        &mut self.stats
    }

    /// Takes in one datagram. `is_event` tells a payload type of telephone events.
    pub fn receive<'a>(
        &mut self,
        at_ns: u64,
        datagram: &'a [u8],
        event_payload_type: Option<u8>,
    ) -> Option<Packet<'a>> {
        // RFC 5761 §4: second octets 192–223 are RTCP.
        let is_rtcp = datagram.get(1).is_some_and(|octet| (192..=223).contains(octet));
        let reader = match RtpReader::new(datagram) {
            Ok(reader) if !is_rtcp => reader,
            _ => {
                self.stats.not_rtp += 1;
                return None;
            }
        };
        let seq = u16::from(reader.sequence_number());
        let timestamp = reader.timestamp();
        let payload_type = reader.payload_type();
        let is_event = event_payload_type == Some(payload_type);
        self.stats.packets += 1;
        self.stats.event_packets += u64::from(is_event);
        let gap_ms = self.stats.last_ns.map_or(0.0, |last| ms_between(last, at_ns));
        self.stats.max_gap_ms = self.stats.max_gap_ms.max(gap_ms);
        self.stats.first_ns.get_or_insert(at_ns);
        self.stats.last_ns = Some(at_ns);

        let (fresh, hole) = self.place(reader.ssrc(), seq, timestamp, is_event, at_ns);
        if self.keep_arrivals && self.stats.arrivals.len() < ARRIVALS_MAX {
            let stream = self.streams;
            self.stats.arrivals.push(Arrival { at_ns, seq, timestamp, stream, hole, payload_type });
        }
        Some(Packet { payload_type, timestamp, payload: reader.payload(), fresh })
    }

    /// Sorts a packet into its stream; whether it is new and in order, and the hole before it.
    fn place(
        &mut self,
        ssrc: u32,
        seq: u16,
        timestamp: u32,
        is_event: bool,
        at_ns: u64,
    ) -> (bool, u16) {
        // Transit time in the unit of the clock of arrival (RFC 3550 §A.8).
        let transit_ns = (at_ns as i64).wrapping_sub(i64::from(timestamp) * 125_000);
        let begun = Stream {
            ssrc,
            newest_seq: seq,
            newest_timestamp: timestamp,
            newest_was_event: is_event,
            seen: 1,
            transit_ns,
        };
        let Some(stream) = &mut self.stream else {
            self.stream = Some(begun);
            return (true, 0);
        };
        if stream.ssrc != ssrc {
            *stream = begun;
            self.stats.ssrc_changes += 1;
            self.streams = self.streams.saturating_add(1);
            return (true, 0);
        }
        let ahead = seq.wrapping_sub(stream.newest_seq);
        let behind = stream.newest_seq.wrapping_sub(seq);
        if ahead == 0 || behind < HISTORY {
            let bit = 1u128 << behind;
            if stream.seen & bit != 0 {
                self.stats.duplicates += 1;
            } else {
                stream.seen |= bit;
                self.stats.late += 1;
                self.stats.lost = self.stats.lost.saturating_sub(1);
            }
            return (false, 0);
        }
        if ahead >= DROPOUT_MAX {
            *stream = begun;
            self.stats.restarts += 1;
            return (true, 0);
        }
        let hole = ahead - 1;
        self.stats.lost += u64::from(hole);
        self.stats.holes += u64::from(hole > 0);
        let stepped = timestamp.wrapping_sub(stream.newest_timestamp);
        if !is_event && !stream.newest_was_event {
            self.stats.timestamp_backwards += u64::from(stepped > u32::MAX / 2);
            let expected = u32::from(ahead) * FRAME_SAMPLES as u32;
            self.stats.timestamp_jumps += u64::from(stepped != expected);
            if stepped == expected {
                let change_ms = (transit_ns.wrapping_sub(stream.transit_ns)).abs() as f64 / 1e6;
                self.stats.jitter_ms += (change_ms - self.stats.jitter_ms) / 16.0;
            }
        }
        stream.seen = stream.seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
        stream.newest_seq = seq;
        stream.newest_timestamp = timestamp;
        stream.newest_was_event = is_event;
        stream.transit_ns = transit_ns;
        (true, hole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(seq: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
        let mut out = vec![0x80, 0];
        out.extend(seq.to_be_bytes());
        out.extend(timestamp.to_be_bytes());
        out.extend(ssrc.to_be_bytes());
        out.extend([0xff; 160]);
        out
    }

    /// Packets given as (sequence, arrival in ms), timestamps to match.
    fn run(packets: &[(u16, u64)]) -> RtpReceived {
        let mut receiver = Receiver::new(true);
        for (seq, at_ms) in packets {
            let timestamp = u32::from(*seq).wrapping_mul(160);
            receiver.receive(at_ms * 1_000_000, &packet(*seq, timestamp, 1), None).unwrap();
        }
        receiver.stats().clone()
    }

    #[test]
    fn loss_lateness_and_duplicates_are_told_apart() {
        let stats = run(&[(10, 0), (11, 20), (13, 60), (12, 61), (13, 62), (16, 120), (17, 140)]);
        assert_eq!((stats.packets, stats.lost), (7, 2));
        assert_eq!((stats.late, stats.duplicates, stats.holes), (1, 1, 2));
        assert!((stats.max_gap_ms - 58.0).abs() < 0.001);
        assert_eq!(stats.timestamp_jumps, 0);
    }

    #[test]
    fn the_sequence_may_wrap() {
        let packets: Vec<(u16, u64)> =
            (0..200u16).map(|i| (65_500u16.wrapping_add(i), u64::from(i) * 20)).collect();
        let mut receiver = Receiver::new(false);
        for (index, (seq, at_ms)) in packets.iter().enumerate() {
            let bytes = packet(*seq, index as u32 * 160, 1);
            receiver.receive(at_ms * 1_000_000, &bytes, None).unwrap();
        }
        let stats = receiver.stats();
        assert_eq!((stats.packets, stats.lost, stats.late, stats.restarts), (200, 0, 0, 0));
        assert!(stats.jitter_ms < 0.001 && stats.arrivals.is_empty());
    }

    #[test]
    fn a_window_sees_its_gaps() {
        let stats = run(&[(1, 0), (2, 20), (3, 40), (8, 140), (9, 160)]);
        let at = |ms: u64| ms * 1_000_000;
        let check = |from, to, packets, skipped, gap: f64| {
            let window = stats.window(at(from), at(to));
            assert_eq!((window.packets, window.skipped), (packets, skipped));
            assert!((window.max_gap_ms - gap).abs() < 0.001, "{window:?}");
        };
        check(0, 50, 3, 0, 20.0);
        check(50, 150, 1, 4, 100.0);
        check(150, 400, 1, 0, 240.0);
        check(50, 100, 0, 0, 60.0);
        assert_eq!(stats.longest_gap(), Some((100.0, at(40), at(140))));
    }

    #[test]
    fn a_new_stream_is_no_loss() {
        let mut receiver = Receiver::new(false);
        receiver.receive(0, &packet(1, 0, 1), None).unwrap();
        receiver.receive(1, &packet(30_000, 0, 2), None).unwrap();
        receiver.receive(2, &packet(40_000, 160, 2), None).unwrap();
        receiver.receive(3, &packet(40_001, 100_000, 2), None).unwrap();
        let stats = receiver.stats();
        assert_eq!((stats.ssrc_changes, stats.restarts, stats.lost), (1, 1, 0));
        assert_eq!(stats.timestamp_jumps, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_bytes_are_counted(datagrams in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..64), 1..50)) {
            let mut receiver = Receiver::new(true);
            for datagram in &datagrams {
                receiver.receive(5, datagram, Some(101));
            }
            let stats = receiver.stats();
            prop_assert_eq!(stats.packets + stats.not_rtp, datagrams.len() as u64);
        }
    }
}
