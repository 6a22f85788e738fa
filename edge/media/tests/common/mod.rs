//! A worker with a clock and a network of its own.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "test code; clippy knows only of `#[test]` functions")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_media::command::*;
use edge_media::event::WorkerEvent;
use edge_media::recording::RecorderMessage;
use edge_media::{Component, Tx, Worker, WorkerConfig, WorkerLimits};
use link_proto::{ChannelId, OpId};
use media_core::rtp::packet::{RtpFields, RtpView, write_header};
use media_core::units::{PayloadType, RtpTime, Ssrc};

pub const SESSION: SessionKey = SessionKey { index: 0, generation: 0 };
pub const PCMU: PayloadMapping = PayloadMapping { payload_type: 0, codec: AudioCodec::Pcmu };
pub const PCMA: PayloadMapping = PayloadMapping { payload_type: 8, codec: AudioCodec::Pcma };

pub fn key(index: u32) -> PortKey {
    PortKey { index, generation: 0 }
}

pub fn op(number: u32) -> OpKey {
    OpKey { session: SESSION, op: OpId(number) }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Endpoint of leg `index`.
pub fn endpoint(index: u32) -> SocketAddr {
    format!("192.0.2.{}:{}", 10 + index, 20_000 + index * 2).parse().unwrap()
}

/// A packet that left, and when in µs.
#[derive(Debug, Clone)]
pub struct Sent {
    pub us: u64,
    pub port: Option<PortKey>,
    pub component: Component,
    pub to: Option<SocketAddr>,
    pub trunk: Option<(u32, ChannelId)>,
    pub forwarded: bool,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn rtp(&self) -> RtpView<'_> {
        RtpView::parse(&self.bytes).unwrap()
    }
}

#[derive(Debug, Default)]
pub struct Net {
    pub us: u64,
    pub sent: Vec<Sent>,
    pub peers: Vec<(PortKey, Component, Option<SocketAddr>)>,
    pub behind_us: u64,
    pub recorded: Vec<RecorderMessage>,
}

impl Net {
    fn push(
        &mut self,
        port: PortKey,
        component: Component,
        to: SocketAddr,
        bytes: &[u8],
        forwarded: bool,
    ) {
        let (us, bytes) = (self.us, bytes.to_vec());
        let (port, to) = (Some(port), Some(to));
        self.sent.push(Sent { us, port, component, to, trunk: None, forwarded, bytes });
    }
}

impl Tx for Net {
    fn behind_us(&self) -> u64 {
        self.behind_us
    }

    fn forward(&mut self, port: PortKey, component: Component, to: SocketAddr, packet: &[u8]) {
        self.push(port, component, to, packet, true);
    }
    fn send(&mut self, port: PortKey, component: Component, to: SocketAddr, bytes: &[u8]) {
        self.push(port, component, to, bytes, false);
    }
    fn trunk(&mut self, peer: u32, channel: ChannelId, packet: &[u8]) {
        let (us, bytes, trunk) = (self.us, packet.to_vec(), Some((peer, channel)));
        let component = Component::Rtp;
        self.sent.push(Sent {
            us,
            port: None,
            component,
            to: None,
            trunk,
            forwarded: false,
            bytes,
        });
    }
    fn set_peer(&mut self, port: PortKey, component: Component, peer: Option<SocketAddr>) {
        self.peers.push((port, component, peer));
    }
    fn record(&mut self, message: RecorderMessage) {
        self.recorded.push(message);
    }
}

pub fn limits() -> WorkerLimits {
    WorkerLimits {
        ports_edge_max: 16,
        ports_max: 8,
        ops_max: 8,
        recordings_max: 2,
        detectors_max: 2,
    }
}

pub struct Rig {
    pub worker: Worker,
    start: Instant,
    pub net: Net,
    pub events: Vec<WorkerEvent>,
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    pub fn new() -> Self {
        let start = Instant::now();
        let worker = Worker::new(WorkerConfig { limits: limits(), seed: 7 }, start);
        Self { worker, start, net: Net::default(), events: Vec::new() }
    }

    pub fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.net.us)
    }

    pub fn us(&self) -> u64 {
        self.net.us
    }

    fn take_events(&mut self) {
        while let Some(event) = self.worker.poll_event() {
            self.events.push(event);
        }
    }

    pub fn command(&mut self, command: WorkerCommand) {
        self.worker.handle_command(self.now(), command, &mut self.net);
        self.take_events();
    }

    pub fn packet(&mut self, port: PortKey, source: Option<SocketAddr>, bytes: &[u8]) {
        self.packet_on(port, Component::Rtp, source, bytes);
    }

    pub fn packet_on(
        &mut self,
        port: PortKey,
        component: Component,
        source: Option<SocketAddr>,
        bytes: &[u8],
    ) {
        let mut data = bytes.to_vec();
        self.worker.handle_packet(self.now(), port, component, source, &mut data, &mut self.net);
        self.take_events();
    }

    pub fn trunk_packet(&mut self, peer: u32, channel: u64, bytes: &[u8]) {
        let mut data = bytes.to_vec();
        let channel = ChannelId(channel);
        self.worker.handle_trunk_packet(self.now(), peer, channel, &mut data, &mut self.net);
        self.take_events();
    }

    /// Lets time go on to `us`, handling every deadline at its time.
    pub fn run_to(&mut self, us: u64) {
        let end = self.start + Duration::from_micros(us);
        while let Some(due) = self.worker.next_deadline().filter(|due| *due <= end) {
            let due_us = due.saturating_duration_since(self.start).as_micros() as u64;
            self.net.us = self.net.us.max(due_us);
            self.worker.handle_tick(self.now(), &mut self.net);
            self.take_events();
        }
        self.net.us = us;
    }

    pub fn run(&mut self, ms: u64) {
        self.run_to(self.net.us + ms * 1_000);
    }

    pub fn add_leg(&mut self, index: u32, change: impl FnOnce(&mut LegConfig)) -> PortKey {
        let mut config = leg(index);
        change(&mut config);
        self.command(WorkerCommand::AddLeg { port: key(index), session: SESSION, config });
        key(index)
    }

    pub fn add_channel(&mut self, index: u32, channel: u64) -> PortKey {
        let config = ChannelConfig {
            peer: 1,
            channel: ChannelId(channel),
            codec: AudioCodec::Pcmu,
            telephone_event: Some(101),
            local_ssrc: 0xc000 + index,
        };
        self.command(WorkerCommand::AddChannel { port: key(index), session: SESSION, config });
        key(index)
    }

    pub fn connect(&mut self, from: PortKey, to: PortKey) {
        self.command(WorkerCommand::Connect { from, to, path: LinkPath::Relay });
    }

    pub fn play(&mut self, number: u32, port: PortKey, items: Vec<ProgramItem>) {
        self.command(WorkerCommand::StartPlay { op: op(number), port, items });
    }

    /// RTP that was sent to the endpoint of a port.
    pub fn rtp_to(&self, port: PortKey) -> Vec<&Sent> {
        let to_port = |sent: &&Sent| {
            sent.port == Some(port)
                && sent.component == Component::Rtp
                && !(200..=207).contains(&sent.bytes[1])
        };
        self.net.sent.iter().filter(to_port).collect()
    }

    pub fn dropped(&self, cause: edge_media::DropCause) -> u64 {
        self.worker.stats().dropped_for(cause)
    }
}

pub fn leg(index: u32) -> LegConfig {
    LegConfig {
        receive: vec![PCMU, PCMA],
        send: PCMU,
        telephone_event_receive: Some(101),
        telephone_event_send: Some(101),
        ptime_ms: 20,
        remote_rtp: Some(endpoint(index)),
        remote_rtcp: Some(SocketAddr::new(endpoint(index).ip(), endpoint(index).port() + 1)),
        rtcp_mux: false,
        latching: Latching::SdpNetwork,
        latch_epoch: 0,
        local_ssrc: 0xa000 + index,
        cname: "leg@edge".to_owned(),
        media_timeout_ms: None,
        answered: true,
        direction: Direction::SendRecv,
    }
}

/// An endpoint that talks.
#[derive(Debug, Clone)]
pub struct Talker {
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload_type: u8,
    pub marker: bool,
}

impl Talker {
    pub fn new(ssrc: u32) -> Self {
        Self { seq: 65_530, timestamp: u32::MAX - 500, ssrc, payload_type: 0, marker: false }
    }

    /// The next packet of 20 ms with this payload.
    pub fn next(&mut self, payload: &[u8]) -> Vec<u8> {
        let packet = self.build(self.payload_type, self.timestamp, payload);
        self.timestamp = self.timestamp.wrapping_add(160);
        packet
    }

    pub fn frame(&mut self, value: u8) -> Vec<u8> {
        self.next(&[value; 160])
    }

    fn build(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 12 + payload.len()];
        let fields = RtpFields {
            marker: self.marker,
            payload_type: PayloadType::new(payload_type).unwrap(),
            seq: self.seq,
            timestamp: RtpTime(timestamp),
            ssrc: Ssrc(self.ssrc),
        };
        write_header(&mut packet, &fields).unwrap();
        packet[12..].copy_from_slice(payload);
        self.seq = self.seq.wrapping_add(1);
        packet
    }

    /// The packets of one key: 100 ms and three ends.
    pub fn digit(&mut self, event: u8) -> Vec<Vec<u8>> {
        let timestamp = self.timestamp;
        let mut packets = Vec::new();
        for n in 1..=8u16 {
            let end = if n >= 6 { 0x80 | 10 } else { 10 };
            let [d0, d1] = (n.min(6) * 160).to_be_bytes();
            packets.push(self.build(101, timestamp, &[event, end, d0, d1]));
        }
        self.timestamp = self.timestamp.wrapping_add(8 * 160);
        packets
    }
}

/// What an endpoint may ask of its stream: one SSRC, no hole in the sequence, timestamps that do
/// not step back, at most 60 ms between packets.
pub fn assert_continuous(sent: &[&Sent], spacing_max_us: u64) {
    for pair in sent.windows(2) {
        let (a, b) = (pair[0].rtp(), pair[1].rtp());
        let at = pair[1].us;
        assert_eq!(a.ssrc(), b.ssrc(), "at {at}");
        assert_eq!(b.seq(), a.seq().wrapping_add(1), "at {at}");
        assert!(b.timestamp().since(a.timestamp()) >= 0, "at {at}");
        assert!(
            pair[1].us - pair[0].us <= spacing_max_us,
            "{} us at {at}",
            pair[1].us - pair[0].us
        );
    }
    let (Some(first), Some(last)) = (sent.first(), sent.last()) else { panic!("nothing was sent") };
    let media_us = i64::from(last.rtp().timestamp().since(first.rtp().timestamp())) * 125;
    let real_us = (last.us - first.us) as i64;
    assert!((media_us - real_us).abs() <= 60_000, "media {media_us} us in {real_us} us");
}
