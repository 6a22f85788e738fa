use super::*;
use crate::rtp::packet::{RtpFields, RtpView, RtpViewMut, write_header};
use crate::rtp::rewrite::{SourceId, StreamRewriter};
use crate::rtp::stats::{ReceiverStats, SenderStats};
use proptest::prelude::*;

const RATE_HZ: u32 = 8_000;
const SOURCE: SourceId = SourceId(3);
const TYPE_IN: PayloadType = PayloadType::PCMU;
const TYPE_OUT: PayloadType = match PayloadType::new(96) {
    Some(payload_type) => payload_type,
    None => PayloadType::PCMU,
};

/// One packet of a source and the time since the one before.
#[derive(Debug, Clone, Copy)]
struct Step {
    after_us: u64,
    seq: u16,
    timestamp: u32,
    ssrc: u32,
    marker: bool,
    payload_bytes: usize,
    payload_type: u8,
}

impl Step {
    fn packet(&self) -> Vec<u8> {
        let mut packet = vec![0x5a; FIXED_HEADER_BYTES + self.payload_bytes];
        let fields = RtpFields {
            marker: self.marker,
            payload_type: PayloadType::new_truncated(self.payload_type),
            seq: self.seq,
            timestamp: RtpTime(self.timestamp),
            ssrc: Ssrc(self.ssrc),
        };
        write_header(&mut packet, &fields).expect("room");
        packet
    }
}

/// Both halves of a relay as they are kept for any stream.
#[derive(Clone)]
struct Whole {
    stats: ReceiverStats,
    stream: StreamRewriter,
    sent: SenderStats,
}

fn media_time(us: u64) -> RtpTime {
    RtpTime((us * 8 / 1_000) as u32)
}

impl Whole {
    fn new(first_seq: u16, first_timestamp: u32) -> Self {
        Self {
            stats: ReceiverStats::new(RATE_HZ),
            stream: StreamRewriter::new(Ssrc(77), first_seq, RtpTime(first_timestamp), 160),
            sent: SenderStats::default(),
        }
    }

    /// The packet as it is sent, if it is.
    fn relay(&mut self, mut packet: Vec<u8>, us: u64) -> Option<Vec<u8>> {
        let mut view = RtpViewMut::parse(&mut packet).expect("valid");
        let header = *view.header();
        let bytes = header.payload_bytes();
        self.stats.on_packet(header.ssrc, header.seq, header.timestamp, bytes, us);
        self.stream.rewrite(&mut view, SOURCE, media_time(us)).ok()?;
        view.set_payload_type(TYPE_OUT);
        let timestamp = view.header().timestamp;
        self.sent.on_packet(timestamp, bytes, us);
        Some(packet)
    }

    fn settle(&self, us: u64) -> Option<SettledStream> {
        let (reception, relaying) = (self.stats.reception()?, self.stream.relaying(SOURCE)?);
        SettledStream::new(&reception, &relaying, (TYPE_IN, TYPE_OUT), RATE_HZ, us)
    }

    fn resume(&mut self, settled: &SettledStream) {
        let counted = settled.counted();
        if counted.packets > 0 {
            self.stats.resume(&settled.reception(), &counted);
            self.stream.resume(&settled.relaying());
            self.sent.resume(settled.last_out(), &counted);
        }
    }

    fn figures(&mut self) -> impl PartialEq + std::fmt::Debug {
        (
            self.stats.totals(),
            self.stats.take_report(),
            self.stats.jitter_units_max(),
            self.stats.reception(),
            self.stream.relaying(SOURCE),
            self.stream.highest(),
            self.stream.counters(),
            self.sent,
        )
    }
}

/// Mostly a stream as endpoints send it; now and then what breaks one.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let odd = prop_oneof![
        40 => Just((1i32, 160i64)),
        3 => (-3i32..4).prop_map(|by| (by, i64::from(by) * 160)),
        1 => (-120i32..120).prop_map(|by| (by, i64::from(by) * 160)),
        1 => (-4_000i32..4_000).prop_map(|by| (by, 160)),
        1 => (1i32..3, -400_000i64..400_000),
        1 => (1i32..3, any::<i32>().prop_map(i64::from)),
        1 => Just((1, 0)),
        1 => Just((0, 0)),
    ];
    let one = (
        odd,
        prop_oneof![8 => 15_000u64..25_000, 1 => 0u64..300_000, 1 => 0u64..20_000_000],
        prop_oneof![50 => Just(9u32), 1 => 9u32..11],
        any::<bool>(),
        prop_oneof![10 => Just(160usize), 1 => 0usize..300],
        prop_oneof![30 => Just(0u8), 1 => prop_oneof![Just(0u8), Just(8)]],
    );
    let start = (any::<u16>(), any::<u32>());
    (start, prop::collection::vec(one, 1..120)).prop_map(|((seq, timestamp), all)| {
        let (mut seq, mut timestamp) = (seq, timestamp);
        all.into_iter()
            .map(|((packets, units), after_us, ssrc, marker, payload_bytes, payload_type)| {
                seq = seq.wrapping_add(packets as u16);
                timestamp = timestamp.wrapping_add(units as u32);
                Step { after_us, seq, timestamp, ssrc, marker, payload_bytes, payload_type }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whenever a stream goes over and comes back, every packet and every figure is as if it never had.
    #[test]
    fn packets_and_figures_are_those_of_the_whole_relay(
        steps in steps(),
        moves in prop::collection::vec(prop::bool::weighted(0.2), 120),
        start in (any::<u16>(), any::<u32>()),
    ) {
        let mut model = Whole::new(start.0, start.1);
        let mut whole = model.clone();
        let mut settled: Option<SettledStream> = None;
        let mut us = 1_000_000;
        for (step, moves) in steps.iter().zip(moves) {
            us += step.after_us;
            if moves {
                match settled.take() {
                    Some(stream) => whole.resume(&stream),
                    None => settled = whole.settle(us),
                }
            }
            let packet = step.packet();
            let expected = model.relay(packet.clone(), us);
            let mut here = packet.clone();
            let taken = settled.as_mut().is_some_and(|stream| stream.relay(&mut here, us, media_time(us)));
            let sent = if taken {
                Some(here)
            } else {
                prop_assert_eq!(&here, &packet, "what is refused stays as it is");
                if let Some(stream) = settled.take() {
                    whole.resume(&stream);
                }
                whole.relay(packet, us)
            };
            prop_assert_eq!(sent, expected);
        }
        if let Some(stream) = settled.take() {
            whole.resume(&stream);
        }
        prop_assert_eq!(whole.figures(), model.figures());
    }
}

fn settled() -> (Whole, SettledStream) {
    let mut whole = Whole::new(500, 9_000);
    for n in 0..5u16 {
        let packet = plain(n);
        whole.relay(packet, 1_000_000 + u64::from(n) * 20_000).expect("sent");
    }
    let stream = whole.settle(1_080_000).expect("settled");
    (whole, stream)
}

fn plain(n: u16) -> Vec<u8> {
    let timestamp = u32::from(n) * 160;
    let step = Step {
        after_us: 0,
        seq: n,
        timestamp,
        ssrc: 9,
        marker: false,
        payload_bytes: 160,
        payload_type: 0,
    };
    step.packet()
}

#[test]
fn a_stream_stays_settled_through_loss_doubles_and_overtaking() {
    let (_, mut stream) = settled();
    for (us, n) in [(1_100_000, 5), (1_120_000, 7), (1_121_000, 6), (1_122_000, 6), (1_140_000, 8)]
    {
        let mut packet = plain(n);
        assert!(stream.relay(&mut packet, us, media_time(us)), "{n}");
        let view = RtpView::parse(&packet).expect("valid");
        assert_eq!(view.header().payload_type, TYPE_OUT);
        assert_eq!(view.header().seq, 500 + n);
    }
    let counted = stream.counted();
    assert_eq!((counted.packets, counted.reordered, counted.duplicates), (5, 1, 1));
    assert_eq!(counted.payload_bytes, 5 * 160);
}

#[test]
fn whatever_is_not_plain_is_refused_and_changes_nothing() {
    let (_, stream) = settled();
    let us = 1_100_000;
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut case = |name, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = plain(5);
        change(&mut packet);
        cases.push((name, packet));
    };
    case("empty", &|packet| packet.clear());
    case("short", &|packet| packet.truncate(11));
    case("version", &|packet| packet[0] = 0x40);
    case("padding", &|packet| packet[0] = 0xa0);
    case("extension", &|packet| packet[0] = 0x90);
    case("contributing source", &|packet| packet[0] = 0x81);
    case("payload type", &|packet| packet[1] = 101);
    case("RTCP", &|packet| packet[1] = 200);
    case("SSRC", &|packet| packet[11] ^= 1);
    case("sequence", &|packet| packet[2] ^= 0x40);
    case("timestamp", &|packet| packet[4] ^= 0x40);
    for (name, packet) in cases {
        let (mut here, mut there) = (stream, packet.clone());
        assert!(!here.relay(&mut there, us, media_time(us)), "{name}");
        assert_eq!(there, packet, "{name}");
        assert_eq!(format!("{here:?}"), format!("{stream:?}"), "{name}");
    }
}

#[test]
fn packets_of_before_the_source_began_are_refused() {
    let mut whole = Whole::new(500, 9_000);
    for n in 10..15u16 {
        whole.relay(plain(n), 1_000_000 + u64::from(n) * 20_000).expect("sent");
    }
    let mut stream = whole.settle(1_080_000).expect("settled");
    for (n, taken) in [(9, false), (10, false), (11, true)] {
        let us = 1_300_000;
        assert_eq!(stream.relay(&mut plain(n), us, media_time(us)), taken, "{n}");
    }
}
