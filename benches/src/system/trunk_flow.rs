//! RTP of many streams between two media threads: through trunks, or by one UDP socket a stream.
//! Sources and sinks are drivers of the edge's own ring loop, so that crossing a ring, waking and
//! sending cost what they cost there.

use std::net::UdpSocket;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge::trunk::TrunkWake;
use edge::trunk_ring::{Address, Epoch, PACKET_BYTES_MAX, PacketReceiver, PacketSender};
use edge_uring::{Datagram, Doorbell, Driver, Io, SocketId};
use hdrhistogram::Histogram;
use link_proto::ChannelId;

use super::SAMPLE_EVERY;
use super::generator::PACKET_BYTES;

/// The only peer of each edge.
pub const PEER: u32 = 1;
/// As fast as it goes.
pub const FLAT_OUT: u64 = u64::MAX;
/// Packets come in bursts, as they do after a turn of the ring.
const BURST_EVERY: Duration = Duration::from_millis(1);
/// Flat out, a burst is sent as soon as so few packets are under way …
const UNDER_WAY_MAX: u64 = 16_384;
const FLAT_OUT_BURST: u64 = 256;
/// … which is looked at so often,
const FULL_FOR: Duration = Duration::from_micros(250);
/// and what has not arrived after so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(50);
const PACKETS_PER_DOORBELL_MAX: usize = 1_024;
const RTP_HEADER_BYTES: usize = 12;

/// What goes one way and what comes the other, at one edge.
#[derive(Debug)]
pub struct Flow {
    /// Packets per second to be sent; 0 = none.
    pub rate: AtomicU64,
    /// Packets sent.
    pub sent: AtomicU64,
    /// Packets that found the ring or the queue full.
    pub refused: AtomicU64,
    /// Packets received.
    pub received: AtomicU64,
    /// Of sampled streams, from being made to being received.
    pub delay_ns: Mutex<Histogram<u64>>,
}

impl Flow {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Never, with these bounds.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            rate: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            received: AtomicU64::new(0),
            delay_ns: Mutex::new(Histogram::new_with_max(10_000_000_000, 3)?),
        }))
    }

    fn on_packet(&self, packet: &[u8], base: Instant, now: Instant) {
        let stream = packet.get(8..12).and_then(|bytes| bytes.try_into().ok());
        let stream = stream.map_or(1, u32::from_be_bytes) as usize;
        let at = packet.get(RTP_HEADER_BYTES..RTP_HEADER_BYTES + 8);
        if stream.is_multiple_of(SAMPLE_EVERY)
            && let Some(at) = at.and_then(|bytes| bytes.try_into().ok())
        {
            let sent = Duration::from_nanos(u64::from_be_bytes(at));
            let delay = now.saturating_duration_since(base + sent);
            let mut delays = self.delay_ns.lock().unwrap_or_else(PoisonError::into_inner);
            delays.saturating_record(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// The channel of a stream: numbers like those that control makes.
pub fn channel(stream: usize) -> ChannelId {
    ChannelId((stream as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Makes packets at the wanted rate, streams in turn.
pub struct Source {
    flow: Arc<Flow>,
    far: Arc<Flow>,
    lost: u64,
    sent_at: Instant,
    base: Instant,
    packet: [u8; PACKET_BYTES],
    sequences: Vec<u16>,
    stream: usize,
    /// Since when at which rate, and how many were made since.
    running: Option<(Instant, u64, u64)>,
    next: Instant,
}

impl Source {
    /// `flows`: our own and that of the far end.
    pub fn new(flows: [Arc<Flow>; 2], streams: usize, base: Instant) -> Self {
        let [flow, far] = flows;
        let mut packet = [0x55; PACKET_BYTES];
        packet[..2].copy_from_slice(&[0x80, 0]);
        Self {
            flow,
            far,
            lost: 0,
            sent_at: base,
            base,
            packet,
            sequences: vec![0; streams],
            stream: 0,
            running: None,
            next: base,
        }
    }

    /// A burst if there is room on the way.
    fn flat_out(&mut self, now: Instant) -> u64 {
        let under_way = (self.flow.sent.load(Relaxed))
            .saturating_sub(self.far.received.load(Relaxed) + self.lost);
        if under_way + FLAT_OUT_BURST <= UNDER_WAY_MAX {
            self.sent_at = now;
            self.next = now;
            return FLAT_OUT_BURST;
        }
        if now.saturating_duration_since(self.sent_at) > LOST_AFTER {
            self.lost += under_way;
        }
        self.next = now + FULL_FOR;
        0
    }

    /// How many packets are due.
    fn due(&mut self, now: Instant) -> u64 {
        let rate = self.flow.rate.load(Relaxed);
        self.next = now + BURST_EVERY;
        if rate == 0 {
            self.running = None;
            return 0;
        }
        if rate == FLAT_OUT {
            return self.flat_out(now);
        }
        if self.running.is_none_or(|(_, running, _)| running != rate) {
            self.running = Some((now, rate, 0));
        }
        let Some((since, _, made)) = &mut self.running else { return 0 };
        let wanted = now.saturating_duration_since(*since).as_secs_f64() * rate as f64;
        let due = (wanted as u64).saturating_sub(*made);
        *made += due;
        due
    }

    fn make(&mut self, now: Instant) -> (usize, &[u8]) {
        let stream = self.stream;
        self.stream = (stream + 1) % self.sequences.len();
        let sequence = &mut self.sequences[stream];
        *sequence = sequence.wrapping_add(1);
        self.packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        self.packet[4..8].copy_from_slice(&(u32::from(*sequence) * 160).to_be_bytes());
        self.packet[8..12].copy_from_slice(&(stream as u32).to_be_bytes());
        let at = now.saturating_duration_since(self.base).as_nanos() as u64;
        self.packet[12..20].copy_from_slice(&at.to_be_bytes());
        (stream, &self.packet)
    }

    fn count(&self, sent: u64, refused: u64) {
        self.flow.sent.fetch_add(sent, Relaxed);
        self.flow.refused.fetch_add(refused, Relaxed);
    }
}

/// The rings of a trunk at a media thread.
pub struct TrunkEnds {
    /// To the trunk.
    pub out: PacketSender,
    /// From the trunk.
    pub back: PacketReceiver,
    /// Wakes the trunk.
    pub wake: Arc<TrunkWake>,
    /// Of the times in the rings.
    pub epoch: Epoch,
    /// Ours.
    pub doorbell: Arc<Doorbell>,
}

/// Source and sink at a trunk.
pub struct TrunkMedia {
    source: Source,
    ends: TrunkEnds,
    pushed: bool,
    buffer: Box<[u8; PACKET_BYTES_MAX]>,
}

impl TrunkMedia {
    /// Between a source and a trunk.
    pub fn new(source: Source, ends: TrunkEnds) -> Self {
        Self { source, ends, pushed: false, buffer: Box::new([0; PACKET_BYTES_MAX]) }
    }
}

impl Driver for TrunkMedia {
    fn on_datagram(&mut self, _: Instant, _: Datagram<'_>, _: &mut Io) {}

    fn on_doorbell(&mut self, now: Instant, _: &mut Io) {
        let mut count = 0;
        while count < PACKETS_PER_DOORBELL_MAX {
            let Some((_, length)) = self.ends.back.receive(&mut self.buffer) else { break };
            self.source.flow.on_packet(&self.buffer[..length], self.source.base, now);
            count += 1;
        }
        self.source.flow.received.fetch_add(count as u64, Relaxed);
        if count == PACKETS_PER_DOORBELL_MAX {
            self.ends.doorbell.ring();
        }
    }

    fn on_deadline(&mut self, now: Instant, _: &mut Io) {
        let due = self.source.due(now);
        let at_us = self.ends.epoch.us(now);
        let mut sent = 0;
        for _ in 0..due {
            let (stream, packet) = self.source.make(now);
            let address = Address { peer: PEER, channel: channel(stream) };
            sent += u64::from(self.ends.out.send(address, at_us, packet));
        }
        self.source.count(sent, due - sent);
        self.pushed |= sent > 0;
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.source.next)
    }

    fn on_batch_end(&mut self, _: Instant, _: &mut Io) {
        if std::mem::take(&mut self.pushed) {
            self.ends.wake.ring();
        }
    }
}

/// A source whose packets go nowhere: what making them costs.
pub struct SourceAlone(Source);

impl SourceAlone {
    /// With this source.
    pub fn new(source: Source) -> Self {
        Self(source)
    }
}

impl Driver for SourceAlone {
    fn on_datagram(&mut self, _: Instant, _: Datagram<'_>, _: &mut Io) {}

    fn on_doorbell(&mut self, _: Instant, _: &mut Io) {}

    fn on_deadline(&mut self, now: Instant, _: &mut Io) {
        let due = self.0.due(now);
        for _ in 0..due {
            std::hint::black_box(self.0.make(now));
        }
        self.0.count(due, 0);
        // As if they had arrived.
        self.0.far.received.fetch_add(due, Relaxed);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.0.next)
    }
}

/// Source and sink at sockets, one for each stream, as media goes without a trunk.
pub struct UdpMedia {
    source: Source,
    sockets: Vec<SocketId>,
    received: u64,
}

impl UdpMedia {
    /// Sockets that are tied to their peers.
    pub fn new(source: Source, sockets: Vec<UdpSocket>, io: &mut Io) -> Self {
        let add = |udp: UdpSocket| {
            let peer = udp.peer_addr().ok();
            let id = io.add_socket(udp, 0).ok()?;
            io.connect(id, peer).ok()?;
            Some(id)
        };
        let sockets: Vec<_> = sockets.into_iter().filter_map(add).collect();
        assert_eq!(sockets.len(), source.sequences.len(), "the ring has room for all sockets");
        Self { source, sockets, received: 0 }
    }
}

impl Driver for UdpMedia {
    fn on_datagram(&mut self, now: Instant, datagram: Datagram<'_>, _: &mut Io) {
        self.source.flow.on_packet(datagram.data, self.source.base, now);
        self.received += 1;
    }

    fn on_doorbell(&mut self, _: Instant, _: &mut Io) {}

    fn on_deadline(&mut self, now: Instant, io: &mut Io) {
        let due = self.source.due(now);
        let mut sent = 0;
        for _ in 0..due {
            let (stream, packet) = self.source.make(now);
            let Some(socket) = self.sockets.get(stream) else { continue };
            sent += u64::from(io.send_copy(*socket, None, packet));
        }
        self.source.count(sent, due - sent);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.source.next)
    }

    fn on_batch_end(&mut self, _: Instant, _: &mut Io) {
        let received = std::mem::take(&mut self.received);
        if received > 0 {
            self.source.flow.received.fetch_add(received, Relaxed);
        }
    }
}
