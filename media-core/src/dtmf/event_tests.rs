use super::*;
use proptest::prelude::*;

const SSRC: Ssrc = Ssrc(5);

fn digit(c: char) -> Digit {
    Digit::from_char(c).unwrap()
}

fn end(c: char, duration_ms: u32) -> DigitEvent {
    DigitEvent::End { digit: digit(c), duration_ms }
}

/// All packets of one press: (timestamp, payload), updates each 20 ms and three ends.
fn press(c: char, timestamp: u32, ticks: u16) -> Vec<(u32, [u8; 4])> {
    let payload = |n: u16, end| {
        EventPayload { event: digit(c).event(), end, volume: 10, duration_units: n * 160 }
            .to_bytes()
    };
    let mut packets: Vec<_> = (1..ticks).map(|n| (timestamp, payload(n, false))).collect();
    packets.extend([(timestamp, payload(ticks, true)); 3]);
    packets
}

fn feed(
    receiver: &mut EventReceiver,
    packets: &[(u32, [u8; 4])],
    now_us: &mut u64,
) -> Vec<DigitEvent> {
    let mut got = Vec::new();
    for (ts, payload) in packets {
        *now_us += 20_000;
        got.extend(receiver.on_time(*now_us));
        got.extend(receiver.on_packet(SSRC, RtpTime(*ts), payload, *now_us).into_iter().flatten());
    }
    got
}

#[test]
fn a_press_is_one_start_and_one_end() {
    let mut receiver = EventReceiver::new(8000);
    let mut now = 0;
    let got = feed(&mut receiver, &press('7', 1000, 5), &mut now);
    assert_eq!(got, [DigitEvent::Start(digit('7')), end('7', 100)]);
    // The same key again is a new event by its timestamp.
    let got = feed(&mut receiver, &press('7', 3000, 3), &mut now);
    assert_eq!(got, [DigitEvent::Start(digit('7')), end('7', 60)]);
    assert_eq!(receiver.counters().repeated_packets, 4);
}

#[test]
fn any_single_packet_is_enough() {
    let packets = press('#', 77, 6);
    for keep in 0..packets.len() {
        let mut receiver = EventReceiver::new(8000);
        let mut now = 0;
        let mut got = feed(&mut receiver, &packets[keep..=keep], &mut now);
        got.extend(receiver.on_time(now + 149_999));
        got.extend(receiver.on_time(now + 150_000));
        let ticks = (keep as u32 + 1).min(6);
        assert_eq!(got, [DigitEvent::Start(digit('#')), end('#', ticks * 20)], "{keep}");
    }
}

#[test]
fn the_next_event_ends_one_whose_ends_were_lost() {
    let mut receiver = EventReceiver::new(8000);
    let mut packets = press('1', 1000, 5);
    packets.truncate(4);
    packets.extend(press('1', 3000, 5));
    let got = feed(&mut receiver, &packets, &mut 0);
    use DigitEvent::Start;
    assert_eq!(got, [Start(digit('1')), end('1', 80), Start(digit('1')), end('1', 100)]);
    assert_eq!(receiver.counters().ends_inferred, 1);
}

#[test]
fn overtaken_packets_do_not_press_again() {
    let mut receiver = EventReceiver::new(8000);
    let (a, b) = (press('1', 1000, 5), press('2', 3000, 5));
    let mut packets = a.clone();
    packets.extend(&b[..2]);
    packets.push(a[2]); // overtaken by the second event
    packets.extend(&b[2..]);
    packets.push(a[6]);
    packets.push(b[0]);
    let got = feed(&mut receiver, &packets, &mut 0);
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(receiver.counters().digits, 2);
}

#[test]
fn the_same_recorded_packets_press_again_after_a_pause() {
    let mut receiver = EventReceiver::new(8000);
    let mut now = 0;
    let recorded = press('4', 1000, 5);
    assert_eq!(feed(&mut receiver, &recorded, &mut now).len(), 2);
    now += 500_000;
    assert_eq!(feed(&mut receiver, &recorded, &mut now).len(), 2);
    now += 500_000;
    // Another recording whose timestamps lie before.
    assert_eq!(feed(&mut receiver, &press('5', 200, 5), &mut now).len(), 2);
}

#[test]
fn a_stall_in_a_long_press_does_not_press_again() {
    let mut receiver = EventReceiver::new(8000);
    let packets = press('8', 1000, 100);
    let mut now = 0;
    let mut got = feed(&mut receiver, &packets[..10], &mut now);
    now += 300_000;
    got.extend(feed(&mut receiver, &packets[10..], &mut now));
    assert_eq!(got, [DigitEvent::Start(digit('8')), end('8', 200)]);
}

#[test]
fn long_events_in_segments_are_one_press() {
    let mut receiver = EventReceiver::new(8000);
    let payload =
        |end, duration_units| EventPayload { event: 0, end, volume: 10, duration_units }.to_bytes();
    let packets = [
        (100, payload(false, 65_440)),
        (100, payload(false, 65_535)),
        (100 + 65_535, payload(false, 160)),
        (100 + 65_535, payload(true, 8_000)),
        (100 + 65_535, payload(true, 8_000)),
    ];
    let got = feed(&mut receiver, &packets, &mut 0);
    assert_eq!(got, [DigitEvent::Start(digit('0')), end('0', (65_535 + 8_000) / 8)]);
}

#[test]
fn what_is_no_digit_is_counted() {
    let mut receiver = EventReceiver::new(8000);
    assert_eq!(receiver.on_packet(SSRC, RtpTime(0), &[36, 0, 0, 1], 0), [None; 3]);
    assert_eq!(receiver.on_packet(SSRC, RtpTime(0), &[1, 0, 0], 0), [None; 3]);
    assert_eq!(receiver.on_packet(SSRC, RtpTime(0), &[], 0), [None; 3]);
    let counters = receiver.counters();
    assert_eq!((counters.ignored_events, counters.malformed_packets, counters.digits), (1, 2, 0));
    assert_eq!(receiver.deadline_us(), None);
}

#[test]
fn sent_events_are_received_and_the_stream_goes_on() {
    let mut stream = StreamRewriter::new(SSRC, 65_534, RtpTime(u32::MAX - 200), 160);
    let mut receiver = EventReceiver::new(8000);
    let mut now = 0u32;
    let mut got = Vec::new();
    let mut seqs = Vec::new();
    for (index, c) in ['1', '2', '2'].into_iter().enumerate() {
        let audio = SourceId(10 + index as u32);
        for _ in 0..3 {
            seqs.push(stream.generate(audio, 160, RtpTime(now)).unwrap().seq);
            now += 160;
        }
        let mut sender = EventSender::new(digit(c), SourceId(20 + index as u32), 790, 160, 10);
        let mut packets = 0;
        while !sender.is_done() {
            while let Some((out, payload)) = sender.poll(&mut stream, RtpTime(now)) {
                assert_eq!(out.marker, packets == 0);
                packets += 1;
                seqs.push(out.seq);
                let us = u64::from(now) * 125;
                got.extend(
                    receiver.on_packet(out.ssrc, out.timestamp, &payload, us).into_iter().flatten(),
                );
                if !sender.is_ending() {
                    break;
                }
            }
            now += 160;
        }
        assert_eq!(packets, 7, "four updates and three ends");
    }
    assert!(seqs.windows(2).all(|w| w[1] == w[0].wrapping_add(1)), "{seqs:?}");
    let pressed: Vec<_> = got.iter().filter(|e| matches!(e, DigitEvent::Start(_))).collect();
    assert_eq!(pressed.len(), 3);
    assert_eq!(got[1], end('1', 100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_digit_once_whatever_is_lost_or_repeated(
        script in prop::collection::vec((0u8..16, 2u16..20, any::<u32>(), any::<u32>()), 1..8),
        start: u32,
    ) {
        let mut receiver = EventReceiver::new(8000);
        let (mut ts, mut now) = (start, 0u64);
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for (code, ticks, lose, repeat) in script {
            let c = Digit::from_event(code).unwrap();
            let mut packets = Vec::new();
            for (i, packet) in press(c.as_char(), ts, ticks).into_iter().enumerate() {
                if lose >> (i % 32) & 1 == 0 || i == 1 {
                    packets.push(packet);
                    if repeat >> (i % 32) & 1 == 1 { packets.push(packet); }
                }
            }
            expected.push(c);
            got.extend(feed(&mut receiver, &packets, &mut now));
            ts = ts.wrapping_add(u32::from(ticks) * 160 + 800);
            now += 100_000;
        }
        got.extend(receiver.on_time(now + 1_000_000));
        let starts: Vec<Digit> = got.iter().filter_map(|e| match e { DigitEvent::Start(d) => Some(*d), _ => None }).collect();
        let ends: Vec<Digit> = got.iter().filter_map(|e| match e { DigitEvent::End { digit, .. } => Some(*digit), _ => None }).collect();
        prop_assert_eq!(&starts, &expected);
        prop_assert_eq!(&ends, &expected);
    }

    #[test]
    fn any_packets_pair_up(packets in prop::collection::vec((0u32..4, any::<u32>(), prop::collection::vec(any::<u8>(), 0..6), any::<u32>()), 0..100)) {
        let mut receiver = EventReceiver::new(8000);
        let mut down = None;
        for (ssrc, ts, payload, now) in packets {
            for event in receiver.on_packet(Ssrc(ssrc), RtpTime(ts), &payload, u64::from(now)).into_iter().flatten() {
                match event {
                    DigitEvent::Start(d) => { prop_assert_eq!(down, None); down = Some(d); }
                    DigitEvent::End { digit, .. } => { prop_assert_eq!(down.take(), Some(digit)); }
                }
            }
        }
    }
}
