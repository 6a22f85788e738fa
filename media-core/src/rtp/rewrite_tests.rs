use super::*;
use proptest::prelude::*;

const FRAME: u32 = 160;
const OUT: Ssrc = Ssrc(0xabcd);

fn rewriter() -> StreamRewriter {
    StreamRewriter::new(OUT, 65_530, RtpTime(u32::MAX - 1000), FRAME)
}

fn packet(seq: u16, timestamp: u32) -> Incoming {
    Incoming { seq, timestamp: RtpTime(timestamp), ssrc: Ssrc(1), marker: false }
}

#[test]
fn relay_player_relay_is_contiguous() {
    let mut out = rewriter();
    let mut now = 5000u32;
    let mut sent: Vec<Outgoing> = Vec::new();
    for i in 0..20u16 {
        let p = packet(100 + i, 7 + u32::from(i) * FRAME);
        sent.push(out.map(p, SourceId(1), RtpTime(now)).unwrap());
        now += FRAME;
    }
    for _ in 0..20 {
        sent.push(out.generate(SourceId(2), FRAME, RtpTime(now)).unwrap());
        now += FRAME;
    }
    for i in 0..20u16 {
        let ts = 0u32.wrapping_sub(300).wrapping_add(u32::from(i) * FRAME);
        let p = packet((u16::MAX - 5).wrapping_add(i), ts);
        sent.push(out.map(p, SourceId(3), RtpTime(now)).unwrap());
        now += FRAME;
    }
    for (i, pair) in sent.windows(2).enumerate() {
        assert_eq!(pair[1].seq, pair[0].seq.wrapping_add(1), "{i}");
        assert_eq!(pair[1].timestamp.since(pair[0].timestamp), FRAME as i32, "{i}");
    }
    let marked: Vec<usize> = (0..60).filter(|&i| sent[i].marker).collect();
    assert_eq!(marked, [0, 20, 40]);
    assert_eq!(sent[0].seq, 65_530);
    assert!(sent.iter().all(|p| p.ssrc == OUT));
    assert_eq!(out.counters().switches, 3);
}

#[test]
fn loss_reordering_and_duplicates_stay_visible() {
    let mut out = rewriter();
    let first = out.map(packet(10, 1600), SourceId(1), RtpTime(0)).unwrap();
    let input = [(13u16, true), (12, true), (12, true), (10, true), (9, false), (15, true)];
    let mut now = 0;
    for (seq, sent) in input {
        now += FRAME;
        let got = out.map(packet(seq, u32::from(seq) * FRAME), SourceId(1), RtpTime(now));
        if !sent {
            assert_eq!(got, Err(SkipReason::BeforeSwitch));
            continue;
        }
        let got = got.unwrap();
        assert_eq!(got.seq, first.seq.wrapping_add(seq - 10));
        assert_eq!(got.timestamp, first.timestamp.add(u32::from(seq - 10) * FRAME));
        assert_eq!(got.marker, seq == 10);
    }
    assert_eq!(out.counters().skipped_late_packets, 1);
    // The next source goes on behind the highest, not behind the last.
    let next = out.generate(SourceId(2), FRAME, RtpTime(now + FRAME)).unwrap();
    assert_eq!(next.seq, first.seq.wrapping_add(6));
}

#[test]
fn pause_between_sources_moves_the_timestamp_only() {
    let mut out = rewriter();
    let a = out.map(packet(1, 0), SourceId(1), RtpTime(0)).unwrap();
    let b = out.generate(SourceId(2), FRAME, RtpTime(16_000)).unwrap();
    assert_eq!(b.seq, a.seq.wrapping_add(1));
    assert_eq!(b.timestamp.since(a.timestamp), 16_000);
    assert!(b.marker);
}

#[test]
fn a_restarted_source_is_a_switch() {
    let mut out = rewriter();
    let mut last = out.map(packet(1, 0), SourceId(1), RtpTime(0)).unwrap();
    let strange = [
        Incoming { ssrc: Ssrc(2), ..packet(2, FRAME) },
        Incoming { ssrc: Ssrc(2), ..packet(9000, 2 * FRAME) },
        Incoming { ssrc: Ssrc(2), ..packet(4000, 3 * FRAME) },
        Incoming { ssrc: Ssrc(2), ..packet(4001, 0x7000_0000) },
    ];
    let mut now = 0;
    for p in strange {
        now += FRAME;
        let got = out.map(p, SourceId(1), RtpTime(now)).unwrap();
        assert_eq!(got.seq, last.seq.wrapping_add(1));
        assert_eq!(got.timestamp.since(last.timestamp), FRAME as i32);
        assert!(got.marker);
        last = got;
    }
    assert_eq!(out.counters().breaks, 4);
}

#[test]
fn overlapping_sources_do_not_run_ahead_for_ever() {
    // Player ticks and relayed packets have different phases; each change of source sends one
    // frame more than time has passed, unless the lead is bounded.
    let mut out = rewriter();
    let (mut now, mut seq, mut source) = (0u32, 0u16, 0u32);
    let first = out.generate(SourceId(source), FRAME, RtpTime(now)).unwrap();
    let mut last = first;
    let mut longest_gap = 0;
    let mut last_at = now;
    for round in 0..500u32 {
        source += 1;
        for _ in 0..3 {
            now += FRAME;
            let at = now + 20;
            seq += 1;
            if let Ok(p) = out.map(
                packet(seq, round * 1000 + u32::from(seq) * FRAME),
                SourceId(source),
                RtpTime(at),
            ) {
                assert_eq!(p.seq, last.seq.wrapping_add(1));
                longest_gap = longest_gap.max(at - last_at);
                (last, last_at) = (p, at);
            }
        }
        source += 1;
        for i in 0..3 {
            let at = now + 100 + i * FRAME;
            if let Ok(p) = out.generate(SourceId(source), FRAME, RtpTime(at)) {
                assert_eq!(p.seq, last.seq.wrapping_add(1));
                longest_gap = longest_gap.max(at - last_at);
                (last, last_at) = (p, at);
            }
        }
        now += 2 * FRAME;
    }
    let lead = last.timestamp.since(first.timestamp) - (now as i32);
    assert!(lead.abs() <= 3 * FRAME as i32, "lead {lead}");
    assert!(longest_gap <= 480, "no spacing above 60 ms: {longest_gap}");
    assert!(out.counters().skipped_lead_packets > 100);
}

#[test]
fn event_packets_share_a_timestamp_and_audio_goes_on_behind() {
    let mut out = rewriter();
    let mut now = 0;
    let mut last = out.generate(SourceId(1), FRAME, RtpTime(now)).unwrap();
    for _ in 0..9 {
        now += FRAME;
        last = out.generate(SourceId(1), FRAME, RtpTime(now)).unwrap();
    }
    now += FRAME;
    let start = out.event_timestamp(RtpTime(now));
    assert_eq!(start.since(last.timestamp), FRAME as i32);
    for i in 0..5u16 {
        let p = out.generate_event(SourceId(2), start, i == 0, RtpTime(now));
        assert_eq!((p.seq, p.timestamp), (last.seq.wrapping_add(1 + i), start));
        now += FRAME;
    }
    let audio = out.generate(SourceId(3), FRAME, RtpTime(now)).unwrap();
    assert_eq!(audio.seq, last.seq.wrapping_add(6));
    assert_eq!(audio.timestamp.since(start), 5 * FRAME as i32);
}

#[test]
fn in_place_rewriting_changes_four_fields() {
    let mut bytes = [0u8; 32];
    let fields = RtpFields {
        marker: false,
        payload_type: PayloadType::PCMA,
        seq: 7,
        timestamp: RtpTime(8),
        ssrc: Ssrc(9),
    };
    let _ = super::super::write_header(&mut bytes, &fields);
    let mut out = rewriter();
    let mut view = RtpViewMut::parse(&mut bytes).unwrap();
    out.rewrite(&mut view, SourceId(1), RtpTime(0)).unwrap();
    let header = *view.header();
    assert_eq!((header.seq, header.ssrc, header.marker), (65_530, OUT, true));
    assert_eq!(header.timestamp, RtpTime(u32::MAX - 1000));
    assert_eq!(header.payload_type, PayloadType::PCMA);
}

/// One phase of a call: who feeds the stream and what the network does to it.
#[derive(Debug, Clone)]
enum Phase {
    Relay { first_seq: u16, first_ts: u32, delivered: Vec<(u16, bool)>, jitter: Vec<u8> },
    Player { frames: u8 },
    Pause { units: u16 },
}

fn phase() -> impl Strategy<Value = Phase> {
    let relay = (any::<u16>(), any::<u32>(), prop::collection::vec((0u8..10, any::<u8>()), 1..40))
        .prop_map(|(first_seq, first_ts, script)| {
            let mut delivered = Vec::new();
            let mut jitter = Vec::new();
            let mut offset = 0u16;
            for (kind, shake) in script {
                match kind {
                    0 => offset += 2,                                       // one lost
                    1 if offset > 0 => delivered.push((offset - 1, false)), // late or repeated
                    2 => delivered.push((offset, false)),                   // duplicate
                    _ => offset += 1,
                }
                delivered.push((offset, true));
                jitter.push(shake);
                jitter.push(shake / 2);
            }
            Phase::Relay { first_seq, first_ts, delivered, jitter }
        });
    prop_oneof![
        4 => relay,
        2 => (1u8..30).prop_map(|frames| Phase::Player { frames }),
        1 => any::<u16>().prop_map(|units| Phase::Pause { units }),
    ]
}

struct Receiver {
    highest: Option<(u16, RtpTime)>,
}

impl Receiver {
    /// First packet of a source: no hole, time goes on, marker.
    fn switched(&mut self, p: &Outgoing, frame: u32) {
        if let Some((seq, ts)) = self.highest {
            assert_eq!(p.seq, seq.wrapping_add(1));
            assert!(p.timestamp.since(ts) >= frame as i32);
        }
        assert!(p.marker);
        self.highest = Some((p.seq, p.timestamp));
    }

    fn followed(&mut self, p: &Outgoing) {
        let (seq, ts) = self.highest.unwrap();
        let ahead = p.seq.wrapping_sub(seq) as i16 > 0;
        assert_eq!(ahead, p.timestamp.since(ts) > 0, "order of time is order of numbers");
        if ahead {
            self.highest = Some((p.seq, p.timestamp));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_sequence_of_sources(first_seq: u16, first_ts: u32, start: u32,
                               phases in prop::collection::vec(phase(), 1..12)) {
        let mut out = StreamRewriter::new(OUT, first_seq, RtpTime(first_ts), FRAME);
        let mut receiver = Receiver { highest: None };
        let mut now = start;
        for (index, phase) in phases.iter().enumerate() {
            let source = SourceId(index as u32);
            match phase {
                Phase::Pause { units } => now = now.wrapping_add(u32::from(*units)),
                Phase::Player { frames } => {
                    let mut started = false;
                    for _ in 0..*frames {
                        now = now.wrapping_add(FRAME);
                        let Ok(p) = out.generate(source, FRAME, RtpTime(now)) else { continue };
                        if started { receiver.followed(&p) } else { receiver.switched(&p, FRAME) }
                        prop_assert_eq!(p.marker, !started);
                        started = true;
                    }
                }
                Phase::Relay { first_seq, first_ts, delivered, jitter } => {
                    let mut anchor: Option<(u16, Outgoing)> = None;
                    for (i, (offset, new)) in delivered.iter().enumerate() {
                        if *new { now = now.wrapping_add(FRAME); }
                        let shaken = now.wrapping_add(u32::from(jitter[i % jitter.len()]));
                        let p = Incoming {
                            seq: first_seq.wrapping_add(*offset),
                            timestamp: RtpTime(first_ts.wrapping_add(u32::from(*offset) * FRAME)),
                            ssrc: Ssrc(index as u32),
                            marker: false,
                        };
                        match (out.map(p, source, RtpTime(shaken)), anchor) {
                            (Ok(got), None) => {
                                receiver.switched(&got, 1);
                                anchor = Some((*offset, got));
                            }
                            (Ok(got), Some((base, first))) => {
                                prop_assert!(*offset >= base);
                                let distance = offset - base;
                                prop_assert_eq!(got.seq, first.seq.wrapping_add(distance));
                                let ts = first.timestamp.add(u32::from(distance) * FRAME);
                                prop_assert_eq!(got.timestamp, ts);
                                prop_assert_eq!(got.marker, distance == 0);
                                receiver.followed(&got);
                            }
                            (Err(SkipReason::BeforeSwitch), Some((base, _))) => prop_assert!(*offset < base),
                            (Err(SkipReason::Lead), None) => {}
                            (Err(reason), _) => prop_assert!(false, "{reason:?}"),
                        }
                    }
                }
            }
        }
        prop_assert_eq!(out.counters().breaks, 0);
    }

    #[test]
    fn garbage_never_panics(script in prop::collection::vec((any::<u16>(), any::<u32>(), any::<u32>(), 0u32..4, any::<u32>()), 0..60)) {
        let mut out = rewriter();
        for (seq, ts, ssrc, source, now) in script {
            let p = Incoming { seq, timestamp: RtpTime(ts), ssrc: Ssrc(ssrc % 3), marker: false };
            if source == 3 {
                let _ = out.generate(SourceId(3), ssrc, RtpTime(now));
            } else if let Ok(o) = out.map(p, SourceId(source), RtpTime(now)) {
                prop_assert_eq!(o.ssrc, OUT);
            }
        }
    }
}
