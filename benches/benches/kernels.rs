//! The hot pieces by themselves: what a message, a packet, a frame costs.
//!
//! `cargo bench -p benches` prints times; add `-- --save-baseline NAME` and `-- --baseline NAME` to
//! compare two commits. They run on whatever core they get: compare only runs of one sitting.

use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::bridge::{key, packet, worker};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use edge_media::Component;
use media_core::codec::g711;
use media_core::dtmf::detect::DtmfDetector;
use media_core::rtp::packet::{RtpHeader, RtpViewMut};
use media_core::rtp::rewrite::{SourceId, StreamRewriter};
use media_core::units::{RtpTime, SampleRate, Ssrc};
use sip_core::Message;

const INVITE: &[u8] = b"INVITE sip:+15550100@198.51.100.7:5060;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK74bf9a1c;rport\r\n\
Via: SIP/2.0/UDP 192.0.2.20:5060;branch=z9hG4bK87asdks7;received=192.0.2.21\r\n\
Record-Route: <sip:192.0.2.10;lr>\r\n\
Max-Forwards: 69\r\n\
From: \"Alice\" <sip:+15559000@example.com>;tag=1928301774\r\n\
To: <sip:+15550100@example.com>\r\n\
Call-ID: a84b4c76e66710@192.0.2.20\r\n\
CSeq: 314159 INVITE\r\n\
Contact: <sip:+15559000@192.0.2.20:5060>\r\n\
P-Asserted-Identity: <sip:+15559000@example.com>\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE\r\n\
Supported: timer, 100rel\r\n\
Session-Expires: 1800\r\n\
User-Agent: example/1.0\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 222\r\n\r\n\
v=0\r\no=- 2890844526 2890844526 IN IP4 192.0.2.30\r\ns=-\r\nc=IN IP4 192.0.2.30\r\nt=0 0\r\n\
m=audio 49170 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n";

fn sip(c: &mut Criterion) {
    let mut group = c.benchmark_group("sip");
    let bytes = Bytes::from_static(INVITE);
    let invite = Message::parse(&bytes).expect("the example is a SIP message");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse an INVITE", |b| {
        b.iter(|| Message::parse(black_box(&bytes)).is_ok());
    });
    group.bench_function("parse an INVITE, Via, From, To, CSeq, Contact", |b| {
        b.iter(|| {
            let message = Message::parse(black_box(&bytes)).expect("parsed above");
            (message.top_via(), message.from(), message.to(), message.cseq(), message.contact())
        });
    });
    group.bench_function("write a 200", |b| {
        b.iter(|| Message::response_to(black_box(&invite), 200, "OK", Some("t")).to_bytes());
    });
    let body = invite.sdp().expect("the example has a description");
    group.bench_function("parse its session description", |b| {
        b.iter(|| sip_core::sdp::Session::parse(black_box(&body)).is_ok());
    });
    group.finish();
}

fn rtp(c: &mut Criterion) {
    let mut group = c.benchmark_group("rtp");
    group.throughput(Throughput::Elements(1));
    let one = packet(1, 7);
    group
        .bench_function("parse a header", |b| b.iter(|| RtpHeader::parse(black_box(&one)).is_ok()));
    group.bench_function("rewrite a header in place", |b| {
        let mut stream = StreamRewriter::new(Ssrc(9), 1, RtpTime(0), 160);
        let mut seq = 0u16;
        let mut now = RtpTime(0);
        b.iter(|| {
            let mut packet = packet(seq, 7);
            seq = seq.wrapping_add(1);
            now = RtpTime(now.0.wrapping_add(160));
            let mut view = RtpViewMut::parse(&mut packet).expect("a header was written");
            let done = stream.rewrite(&mut view, SourceId(1), now).is_ok();
            black_box(packet);
            done
        });
    });
    group.finish();
}

fn audio(c: &mut Criterion) {
    let samples: Vec<i16> = (0..160i32).map(|n| ((n * 911) % 20_000 - 10_000) as i16).collect();
    let mut codes = [0u8; 160];
    g711::encode_ulaw(&samples, &mut codes);
    let mut group = c.benchmark_group("g711, 20 ms");
    group.throughput(Throughput::Elements(160));
    group.bench_function("encode µ-law", |b| {
        b.iter(|| g711::encode_ulaw(black_box(&samples), black_box(&mut codes)));
    });
    let mut decoded = [0i16; 160];
    group.bench_function("decode µ-law", |b| {
        b.iter(|| g711::decode_ulaw(black_box(&codes), black_box(&mut decoded)));
    });
    group.bench_function("µ-law to A-law in place", |b| {
        b.iter(|| g711::ulaw_to_alaw_in_place(black_box(&mut codes)));
    });
    group.finish();
    let mut group = c.benchmark_group("dtmf, 20 ms");
    group.throughput(Throughput::Elements(1));
    group.bench_function("detect in one stream", |b| {
        let mut detector = DtmfDetector::new(SampleRate::HZ_8000).expect("8 kHz is a rate of it");
        b.iter(|| {
            let mut events = 0;
            detector.process(black_box(&samples), |_| events += 1);
            events
        });
    });
    group.finish();
}

/// A packet of every leg, one leg after the other, then the deadlines of the next 20 ms: statistics,
/// timeouts and reports are on.
fn relay(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker");
    for legs in [2u32, 200, 2_000] {
        group.throughput(Throughput::Elements(u64::from(legs)));
        let mut now = Instant::now();
        let (mut worker, mut sent) = worker(legs, now);
        let mut packets: Vec<_> = (0..legs).map(|leg| packet(1, leg)).collect();
        let mut seq = 1u16;
        let mut frame = move || {
            now += Duration::from_millis(20);
            seq = seq.wrapping_add(1);
            worker.handle_tick(now, &mut sent);
            for (leg, bytes) in (0..legs).zip(&mut packets) {
                // The worker rewrites the buffer, as it does with the one from the ring.
                *bytes = packet(seq, leg);
                worker.handle_packet(now, key(leg), Component::Rtp, None, bytes, &mut sent);
            }
            while worker.poll_event().is_some() {}
            (sent.bytes, worker.stats().packets_relayed)
        };
        let (_, before) = frame();
        let (_, after) = frame();
        assert_eq!(after - before, u64::from(legs), "every packet is relayed");
        group.bench_function(format!("relay a packet, {legs} legs"), |b| {
            b.iter_batched(|| (), |()| frame(), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn documents(c: &mut Criterion) {
    let document = br#"<?xml version="1.0" encoding="UTF-8"?>
<Response>
  <Gather numDigits="1" action="/menu" timeout="5"><Say voice="man">Press one to talk.</Say></Gather>
  <Play loop="2">http://example.com/wait.wav</Play>
  <Dial timeout="20" action="/done"><Number>+15550100</Number></Dial>
</Response>"#;
    c.bench_function("instructions/parse a document", |b| {
        b.iter(|| control_core::doc::parse::parse(black_box(document), None, 64 << 10).is_ok());
    });
}

criterion_group!(kernels, sip, rtp, audio, relay, documents);
criterion_main!(kernels);
