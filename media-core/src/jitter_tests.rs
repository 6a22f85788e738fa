use super::*;
use proptest::prelude::*;

const FRAME: u32 = 160;
const FRAME_US: u64 = 20_000;

fn fixed(target_ms: u32) -> JitterBuffer {
    let config = JitterConfig { adaptive: false, target_ms, ..JitterConfig::adaptive(8000) };
    JitterBuffer::new(config)
}

/// Packet `n` of a stream whose payload says `n`.
fn insert(buffer: &mut JitterBuffer, n: u16, at_us: u64) -> Inserted {
    let payload = n.to_be_bytes();
    let packet = JitterPacket {
        ssrc: Ssrc(1),
        seq: n.wrapping_add(65_500),
        timestamp: RtpTime(u32::MAX - 5000).add(u32::from(n) * FRAME),
        units: FRAME,
        payload: &payload,
    };
    buffer.insert(&packet, at_us)
}

fn pop(buffer: &mut JitterBuffer, now_us: u64) -> String {
    match buffer.pop(now_us) {
        Pop::Frame { payload: [a, b], .. } => u16::from_be_bytes([*a, *b]).to_string(),
        Pop::Frame { .. } => "?".into(),
        Pop::Lost => "lost".into(),
        Pop::Silence => "silence".into(),
        Pop::Empty => "empty".into(),
    }
}

#[test]
fn starts_at_the_target_and_puts_in_order() {
    let mut buffer = fixed(60);
    assert_eq!(pop(&mut buffer, 0), "empty");
    insert(&mut buffer, 1, 0);
    insert(&mut buffer, 0, 1_000);
    assert_eq!(pop(&mut buffer, 2_000), "empty");
    assert_eq!(insert(&mut buffer, 2, 40_000), Inserted::Buffered);
    assert_eq!(buffer.buffered_ms(), 60);
    let got: Vec<String> = (0..4).map(|i| pop(&mut buffer, 40_000 + i * FRAME_US)).collect();
    assert_eq!(got, ["0", "1", "2", "empty"]);
    assert_eq!(buffer.counters().underruns, 1);
    assert_eq!(insert(&mut buffer, 1, 200_000), Inserted::Late);
}

#[test]
fn a_single_packet_plays_after_the_target_time() {
    let mut buffer = fixed(60);
    insert(&mut buffer, 0, 0);
    assert_eq!(pop(&mut buffer, 59_999), "empty");
    assert_eq!(pop(&mut buffer, 60_000), "0");
}

#[test]
fn losses_duplicates_and_late_packets() {
    let mut buffer = fixed(40);
    for n in [0, 1, 3, 3, 4] {
        insert(&mut buffer, n, 0);
    }
    assert_eq!([pop(&mut buffer, 0), pop(&mut buffer, 0), pop(&mut buffer, 0)], ["0", "1", "lost"]);
    assert_eq!(insert(&mut buffer, 2, 0), Inserted::Late);
    assert_eq!(
        [pop(&mut buffer, 0), pop(&mut buffer, 0), pop(&mut buffer, 0)],
        ["3", "4", "empty"]
    );
    let counters = buffer.counters();
    assert_eq!((counters.lost, counters.duplicate, counters.late, counters.played), (1, 1, 1, 4));
}

#[test]
fn pauses_and_event_packets_are_not_losses() {
    let mut buffer = fixed(40);
    let mut put = |seq: u16, ts: u32, units: u32| {
        let payload = seq.to_be_bytes();
        let packet =
            JitterPacket { ssrc: Ssrc(1), seq, timestamp: RtpTime(ts), units, payload: &payload };
        buffer.insert(&packet, 0)
    };
    put(1, 0, FRAME);
    put(2, 3 * FRAME, FRAME); // pause of two frames, no number missing
    put(3, 4 * FRAME, 0); // telephone events
    put(4, 4 * FRAME, 0);
    put(5, 5 * FRAME, FRAME);
    let got: Vec<String> = (0..7).map(|_| pop(&mut buffer, 0)).collect();
    assert_eq!(got, ["1", "silence", "silence", "2", "silence", "5", "empty"]);
    assert_eq!(buffer.counters().lost, 0);
}

#[test]
fn a_new_source_or_a_jump_starts_anew() {
    let mut buffer = fixed(20);
    insert(&mut buffer, 0, 0);
    assert_eq!(pop(&mut buffer, 0), "0");
    insert(&mut buffer, 1, 0);
    insert(&mut buffer, 5000, 0);
    assert_eq!(buffer.counters().restarts, 1);
    assert_eq!(pop(&mut buffer, 0), "5000");
    let packet = JitterPacket {
        ssrc: Ssrc(9),
        seq: 0,
        timestamp: RtpTime(0),
        units: FRAME,
        payload: &[0, 7],
    };
    buffer.insert(&packet, 0);
    assert_eq!(pop(&mut buffer, 0), "7");
    assert_eq!(buffer.counters().restarts, 2);
    assert_eq!(buffer.counters().dropped, 1);
}

#[test]
fn too_much_audio_is_worked_off() {
    let mut buffer = fixed(40);
    let mut now = 0;
    for n in 0..20 {
        insert(&mut buffer, n, now);
    }
    assert_eq!(buffer.buffered_ms(), 400);
    for n in 20..600 {
        now += FRAME_US;
        assert_ne!(pop(&mut buffer, now), "empty");
        insert(&mut buffer, n, now);
    }
    assert!(buffer.buffered_ms() <= 100, "{}", buffer.buffered_ms());
    assert!((14..=18).contains(&buffer.counters().dropped), "{:?}", buffer.counters());
    assert_eq!(buffer.counters().lost, 0);
}

#[test]
fn never_holds_more_than_its_slots() {
    let mut buffer = fixed(40);
    for n in 0..500 {
        insert(&mut buffer, n, 0);
    }
    assert!(buffer.buffered_ms() <= 64 * 20);
    assert_eq!(buffer.counters().dropped, 500 - 64);
    let long = [0; 500];
    let packet =
        JitterPacket { ssrc: Ssrc(1), seq: 0, timestamp: RtpTime(0), units: 1, payload: &long };
    assert_eq!(buffer.insert(&packet, 0), Inserted::TooLong);
}

/// Plays `packets` arrivals `(n, at_us)` and returns counters and the final target.
fn simulate(config: JitterConfig, mut arrivals: Vec<(u16, u64)>) -> (JitterCounters, u32) {
    arrivals.sort_by_key(|a| a.1);
    let mut buffer = JitterBuffer::new(config);
    let end = arrivals.last().map_or(0, |a| a.1);
    let mut arrivals = arrivals.into_iter().peekable();
    for tick in 0..end / FRAME_US + 1 {
        let now = tick * FRAME_US;
        while let Some((n, at)) = arrivals.next_if(|a| a.1 <= now) {
            insert(&mut buffer, n, at);
        }
        let _ = buffer.pop(now);
    }
    (buffer.counters(), buffer.target_ms())
}

fn jittered(packets: u16, jitter_us: u64) -> Vec<(u16, u64)> {
    let mut state = 12_345u64;
    (0..packets)
        .map(|n| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (n, u64::from(n) * FRAME_US + (state >> 33) % jitter_us.max(1))
        })
        .collect()
}

#[test]
fn the_target_follows_the_jitter() {
    let config = JitterConfig::adaptive(8000);
    let (calm, calm_target) = simulate(config, jittered(1000, 1));
    assert_eq!((calm.lost, calm.late, calm.underruns, calm_target), (0, 0, 0, 20));
    let (rough, rough_target) = simulate(config, jittered(3000, 80_000));
    assert!((70..=110).contains(&rough_target), "{rough_target}");
    assert!(rough.late + rough.lost <= 30, "{rough:?}");
    let steady = JitterConfig { adaptive: false, target_ms: 20, ..config };
    let (without, _) = simulate(steady, jittered(3000, 80_000));
    assert!(
        without.underruns + without.late > 10 * (rough.underruns + rough.late + 1),
        "{without:?} {rough:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn order_kept_and_every_packet_accounted(script in prop::collection::vec((0u16..300, any::<bool>()), 1..300), adaptive: bool, target in 0u32..100) {
        let config = JitterConfig { adaptive, target_ms: target, ..JitterConfig::adaptive(8000) };
        let mut buffer = JitterBuffer::new(config);
        let (mut inserted, mut played, mut last) = (0u64, 0u64, None);
        for (i, (n, pop)) in script.iter().enumerate() {
            let now = i as u64 * 10_000;
            if insert(&mut buffer, *n, now) == Inserted::Buffered { inserted += 1; }
            if *pop && let Pop::Frame { payload, .. } = buffer.pop(now) {
                let n = u16::from_be_bytes([payload[0], payload[1]]);
                prop_assert!(last.is_none_or(|l| n > l), "{n} after {last:?}");
                last = Some(n);
                played += 1;
            }
        }
        for i in 0..2000u64 {
            if let Pop::Frame { .. } = buffer.pop(10_000_000 + i * FRAME_US) { played += 1; }
        }
        prop_assert_eq!(played + buffer.counters().dropped, inserted);
    }

    #[test]
    fn garbage_never_panics(script in prop::collection::vec((0u32..3, any::<u16>(), any::<u32>(), prop::option::of(any::<u32>()), any::<u64>()), 0..150)) {
        let mut buffer = JitterBuffer::new(JitterConfig::adaptive(8000));
        for (ssrc, seq, ts, units, at) in script {
            let packet = JitterPacket { ssrc: Ssrc(ssrc), seq, timestamp: RtpTime(ts), units: units.unwrap_or(160), payload: &[1] };
            buffer.insert(&packet, at);
            let _ = buffer.pop(at);
        }
    }
}
