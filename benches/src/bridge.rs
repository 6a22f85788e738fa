//! A media worker with bridged legs and no sockets: what a packet costs between being received and
//! being sent.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use edge_media::command::{
    Direction, Latching, LegConfig, LinkPath, PayloadMapping, PortKey, SessionKey, WorkerCommand,
};
use edge_media::recording::RecorderMessage;
use edge_media::{Component, Tx, Worker, WorkerConfig, WorkerLimits};
use link_proto::ChannelId;
use link_proto::media::AudioCodec;
use media_core::rtp::packet::{RtpFields, write_header};
use media_core::units::{PayloadType, RtpTime, Ssrc};

/// RTP header and 20 ms of G.711.
pub const PACKET_BYTES: usize = 172;

/// What a worker wanted sent: a count, and optionally the bytes.
#[derive(Debug, Default)]
pub struct Sent {
    /// Bytes of all packets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Address changes that the worker asked for.
    pub peers_set: u64,
    /// Where the packets are kept, if they are.
    pub kept: Option<Vec<Vec<u8>>>,
}

impl Sent {
    fn take(&mut self, packet: &[u8]) {
        self.bytes += black_box(packet).len() as u64;
        self.packets += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(packet.to_vec());
        }
    }
}

impl Tx for Sent {
    fn forward(&mut self, _: PortKey, _: Component, _: SocketAddr, packet: &[u8]) {
        self.take(packet);
    }
    fn send(&mut self, _: PortKey, _: Component, _: SocketAddr, bytes: &[u8]) {
        self.take(bytes);
    }
    fn trunk(&mut self, _: u32, _: ChannelId, packet: &[u8]) {
        self.take(packet);
    }
    fn set_peer(&mut self, _: PortKey, _: Component, _: Option<SocketAddr>) {
        self.peers_set += 1;
    }
    fn record(&mut self, _: RecorderMessage) {}
}

const PCMU: PayloadMapping = PayloadMapping { payload_type: 0, codec: AudioCodec::Pcmu };

/// A PCMU leg whose endpoint has an address of its own.
#[must_use]
pub fn leg(index: u32) -> LegConfig {
    let at = |port: u32| SocketAddr::from(([127, 0, 0, 1], port as u16));
    LegConfig {
        receive: vec![PCMU],
        send: PCMU,
        telephone_event_receive: Some(101),
        telephone_event_send: Some(101),
        ptime_ms: 20,
        remote_rtp: Some(at(10_000 + index * 2)),
        remote_rtcp: Some(at(10_001 + index * 2)),
        rtcp_mux: false,
        latching: Latching::SdpNetwork,
        latch_epoch: 0,
        local_ssrc: 0xa000 + index,
        cname: "leg@bench".to_owned(),
        media_timeout_ms: Some(60_000),
        answered: true,
        direction: Direction::SendRecv,
    }
}

/// The key of a leg.
#[must_use]
pub const fn key(index: u32) -> PortKey {
    PortKey { index, generation: 1 }
}

/// A packet of a talker.
#[must_use]
pub fn packet(seq: u16, ssrc: u32) -> [u8; PACKET_BYTES] {
    let mut packet = [0x55; PACKET_BYTES];
    let fields = RtpFields {
        marker: false,
        payload_type: PayloadType::new_truncated(0),
        seq,
        timestamp: RtpTime(u32::from(seq) * 160),
        ssrc: Ssrc(ssrc),
    };
    // The buffer holds a header.
    let _ = write_header(&mut packet, &fields);
    packet
}

/// A worker with bridged legs (0 with 1, 2 with 3 …), each of which has spoken once.
#[must_use]
pub fn worker(legs: u32, now: Instant) -> (Worker, Sent) {
    let mut worker =
        Worker::new(WorkerConfig { limits: WorkerLimits::for_ports(legs), seed: 1 }, now);
    let mut sent = Sent::default();
    for index in 0..legs {
        let session = SessionKey { index: index / 2, generation: 1 };
        let config = leg(index);
        let add = WorkerCommand::AddLeg { port: key(index), session, config };
        worker.handle_command(now, add, &mut sent);
    }
    for index in 0..legs {
        let (from, to) = (key(index), key(index ^ 1));
        let connect = WorkerCommand::Connect { from, to, path: LinkPath::Relay };
        worker.handle_command(now, connect, &mut sent);
    }
    for index in 0..legs {
        // The first packet carries its source; from then on the socket is tied to it.
        let source = leg(index).remote_rtp;
        let mut first = packet(1, index);
        worker.handle_packet(now, key(index), Component::Rtp, source, &mut first, &mut sent);
    }
    while worker.poll_event().is_some() {}
    (worker, sent)
}
