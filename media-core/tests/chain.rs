//! The whole path of audio through this crate: file, frames, RTP with changing sources, a bad
//! network, jitter buffer, concealment, and what can be heard at the end.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly in its helpers too")]

use media_core::codec::Codec;
use media_core::container::wav;
use media_core::dtmf::detect::{DtmfDetector, ToneEvent};
use media_core::dtmf::event::{DigitEvent, EventReceiver, EventSender};
use media_core::dtmf::{Digit, generate};
use media_core::jitter::{Inserted, JitterBuffer, JitterConfig, JitterPacket, Pop};
use media_core::plc::Concealer;
use media_core::resample::resample;
use media_core::rtp::rewrite::{Outgoing, SourceId, StreamRewriter};
use media_core::rtp::stats::ReceiverStats;
use media_core::rtp::{PacketKind, RtpFields, RtpView, RtpViewMut, classify, write_header};
use media_core::tone::{ToneSpec, render};
use media_core::tone_detect::{OnsetDetector, ToneBank};
use media_core::units::{Dbov, PayloadType, RtpTime, SampleRate, Ssrc};

const RATE: SampleRate = SampleRate::HZ_8000;
const FRAME: usize = 160;
const EVENT_PT: PayloadType = PayloadType::new_truncated(101);

fn packet(out: Outgoing, payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 12 + payload.len()];
    write_header(&mut bytes, &out.with_payload_type(payload_type)).unwrap();
    bytes[12..].copy_from_slice(payload);
    bytes
}

/// Packets of a far party: its own SSRC, numbers and tone, PCMU.
fn party(ssrc: u32, hz: f32, ms: u32, seq: u16, timestamp: u32) -> Vec<Vec<u8>> {
    let audio = render(&ToneSpec::sine(hz, Dbov(15)), RATE, ms);
    let frames = audio.chunks_exact(FRAME).enumerate();
    frames
        .map(|(n, frame)| {
            let mut payload = [0; FRAME];
            Codec::Pcmu.encode(frame, &mut payload);
            let mut bytes = vec![0; 12 + FRAME];
            let fields = RtpFields {
                marker: n == 0,
                payload_type: PayloadType::PCMU,
                seq: seq.wrapping_add(n as u16),
                timestamp: RtpTime(timestamp).add((n * FRAME) as u32),
                ssrc: Ssrc(ssrc),
            };
            write_header(&mut bytes, &fields).unwrap();
            bytes[12..].copy_from_slice(&payload);
            bytes
        })
        .collect()
}

/// The endpoint's ears: decodes the stream in order and reports what it needed to.
struct Ears {
    buffer: JitterBuffer,
    plc: Concealer,
    stats: ReceiverStats,
    events: EventReceiver,
    digits: Vec<DigitEvent>,
    heard: Vec<i16>,
    concealed: usize,
}

impl Ears {
    fn new() -> Self {
        let config =
            JitterConfig { target_ms: 60, target_ms_min: 60, ..JitterConfig::adaptive(8000) };
        Self {
            buffer: JitterBuffer::new(config),
            plc: Concealer::new(RATE),
            stats: ReceiverStats::new(8000),
            events: EventReceiver::new(8000),
            digits: Vec::new(),
            heard: Vec::new(),
            concealed: 0,
        }
    }

    fn receive(&mut self, bytes: &[u8], at_us: u64) {
        assert_eq!(classify(bytes), PacketKind::Rtp);
        let view = RtpView::parse(bytes).unwrap();
        self.stats.on_packet(
            view.ssrc(),
            view.seq(),
            view.timestamp(),
            view.payload().len(),
            at_us,
        );
        let event = view.payload_type() == EVENT_PT;
        if event {
            let events =
                self.events.on_packet(view.ssrc(), view.timestamp(), view.payload(), at_us);
            self.digits.extend(events.into_iter().flatten());
        }
        let packet = JitterPacket {
            ssrc: view.ssrc(),
            seq: view.seq(),
            timestamp: view.timestamp(),
            units: if event { 0 } else { view.payload().len() as u32 },
            payload: if event { &[] } else { view.payload() },
        };
        assert_ne!(self.buffer.insert(&packet, at_us), Inserted::TooLong);
    }

    fn play(&mut self, now_us: u64) {
        let mut frame = [0i16; FRAME];
        match self.buffer.pop(now_us) {
            Pop::Frame { payload, .. } => {
                Codec::Pcmu.decode(payload, &mut frame);
                self.plc.on_frame(&mut frame);
            }
            Pop::Lost => {
                self.concealed += 1;
                self.plc.conceal(&mut frame);
            }
            Pop::Silence | Pop::Empty => {}
        }
        self.heard.extend(frame);
    }
}

#[test]
fn switching_between_parties_and_player_is_seamless_to_the_ear() {
    let mut stream = StreamRewriter::new(Ssrc(42), 65_500, RtpTime(u32::MAX - 20_000), 160);
    let tones = [500.0, 800.0, 1300.0];
    let first = party(1, tones[0], 1000, 1000, 5_000_000);
    let prompt = render(&ToneSpec::sine(tones[1], Dbov(15)), RATE, 1000);
    let second = party(2, tones[2], 1000, 9, 77);
    let mut sent = Vec::new();
    for n in 0..150 {
        let now = RtpTime((n * FRAME) as u32);
        if let 50..100 = n {
            let mut payload = [0; FRAME];
            Codec::Pcmu.encode(&prompt[(n - 50) * FRAME..][..FRAME], &mut payload);
            let out = stream.generate(SourceId(2), 160, now).unwrap();
            sent.push(packet(out, PayloadType::PCMU, &payload));
        } else {
            let (source, from) = if n < 50 { (1, &first[n]) } else { (3, &second[n - 100]) };
            let mut bytes = from.clone();
            let mut view = RtpViewMut::parse(&mut bytes).unwrap();
            stream.rewrite(&mut view, SourceId(source), now).unwrap();
            sent.push(bytes);
        }
    }
    let mut ears = Ears::new();
    for (n, bytes) in sent.iter().enumerate() {
        let now_us = n as u64 * 20_000;
        ears.receive(bytes, now_us);
        ears.play(now_us);
    }
    for n in 150..156 {
        ears.play(n * 20_000);
    }
    let report = ears.stats.take_report().unwrap();
    assert_eq!((report.cumulative_lost_packets, report.jitter_units), (0, 0));
    assert_eq!((ears.concealed, ears.buffer.counters().restarts), (0, 0));
    // Every block has exactly one party in it, in turn; onsets lie a second apart.
    let bank = ToneBank::new(RATE, &tones);
    let start = ears.heard.iter().position(|s| s.abs() > 500).unwrap();
    for (index, hz) in tones.into_iter().enumerate() {
        let middle = start + index * 8000 + 4000;
        assert_eq!(bank.present(&ears.heard[middle..middle + 800], 500.0), [index]);
        let onset = OnsetDetector::new(RATE, hz, 500.0).push(&ears.heard).unwrap();
        assert!(onset.abs_diff((start + index * 8000) as u64) <= 16, "{hz}: {onset} {start}");
    }
}

#[test]
fn digits_and_voice_survive_a_bad_network() {
    let mut stream = StreamRewriter::new(Ssrc(7), 10, RtpTime(0), 160);
    let voice = render(&ToneSpec::sine(600.0, Dbov(15)), RATE, 4000);
    let mut frames = voice.chunks_exact(FRAME).enumerate();
    let mut sent = Vec::new();
    let (mut tick, mut source) = (0u32, 1);
    for c in ['4', '2', '#'] {
        for (_, frame) in frames.by_ref().take(30) {
            let mut payload = [0; FRAME];
            Codec::Pcmu.encode(frame, &mut payload);
            let out = stream.generate(SourceId(source), 160, RtpTime(tick * 160)).unwrap();
            sent.push((tick, packet(out, PayloadType::PCMU, &payload)));
            tick += 1;
        }
        let digit = Digit::from_char(c).unwrap();
        let mut sender = EventSender::new(digit, SourceId(source + 1), 800, 160, 10);
        source += 2;
        while !sender.is_done() {
            while let Some((out, payload)) = sender.poll(&mut stream, RtpTime(tick * 160)) {
                sent.push((tick, packet(out, EVENT_PT, &payload)));
                if !sender.is_ending() {
                    break;
                }
            }
            tick += 1;
        }
    }
    // Every ninth packet is lost, every fifth repeated, delays vary by up to 50 ms.
    let mut arrivals = Vec::new();
    let mut state = 99u32;
    for (n, (tick, bytes)) in sent.iter().enumerate() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = u64::from(*tick) * 20_000 + u64::from(state >> 16) % 50_000;
        if n % 9 != 4 {
            arrivals.push((at, bytes));
            if n % 5 == 0 {
                arrivals.push((at + 15_000, bytes));
            }
        }
    }
    arrivals.sort_by_key(|a| a.0);
    let mut ears = Ears::new();
    let mut arrivals = arrivals.into_iter().peekable();
    for n in 0..u64::from(tick) + 20 {
        while let Some((at, bytes)) = arrivals.next_if(|a| a.0 <= n * 20_000) {
            ears.receive(bytes, at);
        }
        ears.digits.extend(ears.events.on_time(n * 20_000));
        ears.play(n * 20_000);
    }
    let pressed: String = ears
        .digits
        .iter()
        .filter_map(|e| match e {
            DigitEvent::Start(digit) => Some(digit.as_char()),
            DigitEvent::End { .. } => None,
        })
        .collect();
    assert_eq!((pressed.as_str(), ears.digits.len()), ("42#", 6));
    let counters = ears.buffer.counters();
    assert!((5..=14).contains(&ears.concealed), "{counters:?}");
    // The buffer runs empty during each event, which replaces audio, and at the end.
    assert!(counters.late <= 3 && counters.underruns <= 4, "{counters:?}");
    assert_eq!(ears.stats.totals().lost_packets as usize, (sent.len() + 4) / 9);
}

#[test]
fn a_recording_at_another_rate_is_dialled_from_a_file() {
    let dialled = "0123456789*#ABCD";
    let audio = generate::render(dialled, SampleRate(44_100), 70, 70);
    let file = wav::write_pcm16(SampleRate(44_100), &audio);
    let (rate, samples) = wav::read(&file).unwrap();
    let samples = resample(&samples, rate, RATE).unwrap();
    let mut payload = vec![0; samples.len()];
    Codec::Pcma.encode(&samples, &mut payload);
    let mut decoded = vec![0; payload.len()];
    Codec::Pcma.decode(&payload, &mut decoded);
    let mut heard = String::new();
    DtmfDetector::new(RATE).unwrap().process(&decoded, |event| {
        if let ToneEvent::Start(digit) = event {
            heard.push(digit.as_char());
        }
    });
    assert_eq!(heard, dialled);
}
