//! The media worker of a shard: the real one, or the model.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use edge_media::command::{PortKey, WorkerCommand};
use edge_media::event::WorkerEvent;
use edge_media::recording::RecorderMessage;
use edge_media::{Component, Tx, Worker, WorkerConfig, WorkerLimits};
use link_proto::ChannelId;

use crate::model_media::ModelWorker;

/// Something a worker sends.
#[derive(Debug)]
pub enum Sent {
    /// To an endpoint.
    Rtp {
        /// Leg.
        port: PortKey,
        /// Socket.
        component: Component,
        /// Where to.
        to: SocketAddr,
        /// Packet.
        bytes: Bytes,
    },
    /// Into the trunk.
    Trunk {
        /// Peer, as signalling numbers them.
        peer: u32,
        /// Channel.
        channel: ChannelId,
        /// Packet.
        bytes: Bytes,
    },
}

/// Collects what a worker sends.
#[derive(Debug, Default)]
pub struct Outbox {
    /// In order.
    pub sent: Vec<Sent>,
    /// Blocks of recorded audio.
    pub blocks: u64,
}

impl Tx for Outbox {
    fn forward(&mut self, to: PortKey, component: Component, at: SocketAddr, packet: &[u8]) {
        self.send(to, component, at, packet);
    }

    fn send(&mut self, port: PortKey, component: Component, to: SocketAddr, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.sent.push(Sent::Rtp { port, component, to, bytes });
    }

    fn trunk(&mut self, peer: u32, channel: ChannelId, packet: &[u8]) {
        let bytes = Bytes::copy_from_slice(packet);
        self.sent.push(Sent::Trunk { peer, channel, bytes });
    }

    fn set_peer(&mut self, _: PortKey, _: Component, _: Option<SocketAddr>) {}

    fn record(&mut self, _: RecorderMessage) {
        self.blocks += 1;
    }
}

/// A worker.
pub enum Media {
    /// `edge-media`.
    Real(Box<Worker>),
    /// Without packets.
    Model(Box<ModelWorker>),
}

impl Media {
    /// A worker with room for `ports` ports in the range of the whole edge.
    pub fn new(real: bool, ports_edge: u32, seed: u64, now: Instant) -> Self {
        if !real {
            return Self::Model(Box::default());
        }
        let limits = WorkerLimits {
            ports_edge_max: ports_edge,
            ports_max: 128,
            ops_max: 256,
            recordings_max: 8,
            detectors_max: 8,
        };
        Self::Real(Box::new(Worker::new(WorkerConfig { limits, seed }, now)))
    }

    /// A command from signalling.
    pub fn command(&mut self, now: Instant, command: WorkerCommand, tx: &mut Outbox) {
        match self {
            Self::Real(worker) => worker.handle_command(now, command, tx),
            Self::Model(worker) => worker.command(now, command),
        }
    }

    /// Deadlines.
    pub fn tick(&mut self, now: Instant, tx: &mut Outbox) {
        match self {
            Self::Real(worker) => {
                worker.handle_tick(now, tx);
                while worker.poll_returned().is_some() {}
            }
            Self::Model(worker) => worker.tick(now),
        }
    }

    /// When [`Self::tick`] is wanted.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Real(worker) => worker.next_deadline(),
            Self::Model(worker) => worker.next_deadline(),
        }
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<WorkerEvent> {
        match self {
            Self::Real(worker) => worker.poll_event(),
            Self::Model(worker) => worker.poll_event(),
        }
    }

    /// A packet at a leg's socket. To the model only digits mean anything.
    pub fn packet(
        &mut self,
        now: Instant,
        port: PortKey,
        component: Component,
        source: SocketAddr,
        bytes: &[u8],
        tx: &mut Outbox,
    ) {
        match self {
            Self::Real(worker) => {
                let mut data = [0u8; 2_048];
                if let Some(data) = data.get_mut(..bytes.len()) {
                    data.copy_from_slice(bytes);
                    worker.handle_packet(now, port, component, Some(source), data, tx);
                }
            }
            Self::Model(worker) => {
                if let [b'k', key] = bytes {
                    worker.press(now, port, char::from(*key));
                    for (peer, channel) in worker.channels_fed_by(port) {
                        tx.trunk(peer, channel, bytes);
                    }
                }
            }
        }
    }

    /// A packet out of the trunk.
    pub fn trunk_packet(
        &mut self,
        now: Instant,
        peer: u32,
        channel: ChannelId,
        bytes: &[u8],
        tx: &mut Outbox,
    ) {
        match self {
            Self::Real(worker) => {
                let mut data = [0u8; 2_048];
                if let Some(data) = data.get_mut(..bytes.len()) {
                    data.copy_from_slice(bytes);
                    worker.handle_trunk_packet(now, peer, channel, data, tx);
                }
            }
            Self::Model(worker) => {
                if let ([b'k', key], Some(port)) = (bytes, worker.channel(peer, channel)) {
                    worker.press(now, port, char::from(*key));
                }
            }
        }
    }

    /// What is left of calls.
    pub fn residue(&self) -> usize {
        match self {
            Self::Real(worker) => {
                let stats = worker.stats();
                usize::try_from(stats.ports + stats.ops).unwrap_or(usize::MAX)
            }
            Self::Model(worker) => worker.residue(),
        }
    }

    /// Commands that made no sense.
    pub fn violations(&self) -> &[String] {
        match self {
            Self::Real(_) => &[],
            Self::Model(worker) => &worker.violations,
        }
    }
}
