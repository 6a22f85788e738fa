use super::*;
use proptest::prelude::*;

fn feed(stats: &mut ReceiverStats, seqs: &[u16]) -> Vec<Arrival> {
    let start = stats.totals().packets;
    seqs.iter()
        .enumerate()
        .map(|(i, &seq)| {
            let n = start + i as u64;
            stats.on_packet(Ssrc(1), seq, RtpTime(u32::from(seq) * 160), 160, n * 20_000)
        })
        .collect()
}

#[test]
fn loss_reordering_duplicates_and_wrap() {
    let mut stats = ReceiverStats::new(8000);
    let got = feed(&mut stats, &[65_533, 65_534, 0, 65_535, 0, 4]);
    use Arrival::*;
    assert_eq!(got, [Probation, InOrder, InOrder, Reordered, Duplicate, InOrder]);
    let totals = stats.totals();
    assert_eq!((totals.packets, totals.duplicate_packets, totals.reordered_packets), (6, 1, 1));
    let report = stats.take_report().unwrap();
    assert_eq!(totals.lost_packets, 3);
    // Numbers 65533…65536+4 are 8; 6 came, one of them twice.
    assert_eq!(report.cumulative_lost_packets, 2);
    assert_eq!(report.extended_highest_seq, 65_536 + 4);
    assert_eq!(report.fraction_lost, (2 * 256 / 8) as u8);
    assert_eq!(stats.take_report().unwrap().fraction_lost, 0);
}

#[test]
fn one_stray_packet_is_not_a_restart() {
    let mut stats = ReceiverStats::new(8000);
    feed(&mut stats, &[10, 11, 12]);
    assert_eq!(feed(&mut stats, &[30_000, 13]), [Arrival::Jump, Arrival::InOrder]);
    assert_eq!(feed(&mut stats, &[40_000, 40_001]), [Arrival::Jump, Arrival::Restarted]);
    assert_eq!(stats.totals().sources, 2);
    assert_eq!(stats.totals().lost_packets, 0);
}

#[test]
fn a_new_ssrc_keeps_totals() {
    let mut stats = ReceiverStats::new(8000);
    feed(&mut stats, &[1, 2, 5]);
    let got = stats.on_packet(Ssrc(2), 900, RtpTime(0), 160, 80_000);
    assert_eq!((got, stats.ssrc()), (Arrival::Restarted, Some(Ssrc(2))));
    assert_eq!(stats.totals().lost_packets, 2);
    assert_eq!(stats.totals().packets, 4);
    assert_eq!(stats.take_report(), None, "new source is on probation");
}

#[test]
fn steady_arrival_has_no_jitter_and_pauses_are_gaps() {
    let mut stats = ReceiverStats::new(8000);
    for i in 0..100u16 {
        let at = u64::from(i) * 20_000 + if i >= 50 { 200_000 } else { 0 };
        let ts = u32::from(i) * 160 + if i >= 50 { 1600 } else { 0 };
        stats.on_packet(Ssrc(1), i, RtpTime(ts), 160, at);
    }
    assert_eq!(stats.jitter_units(), 0);
    assert_eq!(stats.take_gap_us_max(), 220_000);
    assert_eq!(stats.take_gap_us_max(), 0);
    assert_eq!(stats.totals().gap_us_max, 220_000);
}

#[test]
fn alternating_delay_converges_to_its_mean_step() {
    let mut stats = ReceiverStats::new(8000);
    for i in 0..500u16 {
        let shake = if i % 2 == 0 { 0 } else { 5_000 };
        stats.on_packet(
            Ssrc(1),
            i,
            RtpTime(u32::from(i) * 160),
            160,
            u64::from(i) * 20_000 + shake,
        );
    }
    assert!((38..=40).contains(&stats.jitter_units()), "{}", stats.jitter_units());
    assert!((4_700..=5_000).contains(&stats.jitter_us()));
}

#[test]
fn sender_counts() {
    let mut stats = SenderStats::default();
    stats.on_packet(RtpTime(u32::MAX), 160, 1_000);
    stats.on_packet(RtpTime(159), 160, 41_000);
    assert_eq!((stats.packets, stats.payload_bytes, stats.gap_us_max), (2, 320, 40_000));
    assert_eq!(stats.timestamp_at(51_000, 8000), RtpTime(159 + 80));
}

proptest! {
    #[test]
    fn lost_is_what_did_not_come(start: u16, keep in prop::collection::vec(prop::bool::weighted(0.9), 2..400)) {
        let mut stats = ReceiverStats::new(8000);
        let mut came = 0;
        let mut highest = 0;
        for (i, keep) in keep.iter().enumerate() {
            // The first two end probation; the last makes the loss before it visible.
            if i < 2 || *keep {
                stats.on_packet(Ssrc(1), start.wrapping_add(i as u16), RtpTime(0), 1, 0);
                came += 1;
                highest = i + 1;
            }
        }
        prop_assert_eq!(stats.totals().lost_packets as usize, highest - came);
    }

    #[test]
    fn any_input_is_counted(packets in prop::collection::vec((0u32..3, any::<u16>(), any::<u32>(), any::<u64>()), 0..200)) {
        let mut stats = ReceiverStats::new(8000);
        for (ssrc, seq, ts, at) in &packets {
            stats.on_packet(Ssrc(*ssrc), *seq, RtpTime(*ts), 1, *at);
            let _ = stats.take_report();
        }
        prop_assert_eq!(stats.totals().packets, packets.len() as u64);
    }
}
