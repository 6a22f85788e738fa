//! A media thread: the ring of `edge-uring` around one `edge_media::Worker`. Decides nothing,
//! logs nothing, waits for nobody.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use edge_media::command::PortKey;
use edge_media::event::WorkerEvent;
use edge_media::offload::{Offload, OffloadId, Progress};
use edge_media::recording::RecorderMessage;
use edge_media::{Component, Returned, Tx, Worker, WorkerConfig, WorkerLimits};
use edge_uring::{
    Datagram, Driver, Foresight, Io, Limits, MediaThread, SocketId, SpawnError, ThreadConfig,
    WaitConfig, prefetch,
};
use edge_xdp::StreamTable;
use link_daemon::clock;
use link_daemon::metrics::Metrics;
use link_proto::ChannelId;

use crate::fast_path::Lane;
use crate::media_counters::{MediaCounters, OwnStats};
use crate::media_handle::{MediaQueues, ToMedia};
use crate::trunk::TrunkWake;
use crate::trunk_ring::{Address, Epoch, PACKET_BYTES_MAX, PacketReceiver, PacketSender};

/// Messages of signalling handled before packets get their turn.
const COMMANDS_PER_TURN_MAX: usize = 256;
/// Trunk packets handled before sockets get their turn.
const TRUNK_PACKETS_PER_TURN_MAX: usize = 256;
/// How often counters are copied for others.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// When a full event queue is tried again.
const EVENTS_RETRY: Duration = Duration::from_millis(2);
/// Pieces of memory on their way to be freed.
const RETURNED_MAX: usize = 1_024;

/// What a media thread is made of.
pub struct MediaThreadConfig {
    /// Number of the thread.
    pub index: u16,
    /// To and from signalling.
    pub queues: MediaQueues,
    /// To the trunk.
    pub trunk_out: PacketSender,
    /// Wakes the trunk.
    pub trunk_wake: Arc<TrunkWake>,
    /// Of the times in its rings.
    pub epoch: Epoch,
    /// From the trunk, which rings the doorbell of `queues`.
    pub trunk_in: PacketReceiver,
    /// To the recorder.
    pub recorder: Arc<ArrayQueue<RecorderMessage>>,
    /// Legs and trunk channels of the whole edge.
    pub ports_max: u32,
    /// Capacities of the ring.
    pub limits: Limits,
    /// Waiting.
    pub wait: WaitConfig,
    /// Core to pin to.
    pub core: Option<usize>,
    /// SCHED_FIFO priority.
    pub fifo_priority: Option<u8>,
    /// Share of the kernel fast path.
    pub fast_path: Option<StreamTable>,
}

/// Starts a media thread and registers its counters; it runs when this returns.
///
/// # Errors
/// See [`SpawnError`]; no thread is left behind.
pub fn spawn(config: MediaThreadConfig, metrics: &Metrics) -> Result<MediaThread, SpawnError> {
    let name = format!("media-{}", config.index);
    let thread = ThreadConfig {
        name: name.clone(),
        limits: config.limits.clone(),
        wait: config.wait.clone(),
        core: config.core,
        fifo_priority: config.fifo_priority,
    };
    let counters = Arc::new(MediaCounters::default());
    counters.register(metrics, config.index);
    let freed = spawn_free(config.index).map_err(|error| SpawnError::Thread { name, error })?;
    let doorbell = Arc::clone(&config.queues.doorbell);
    let make = move |_: &mut Io| Media::new(config, counters, freed);
    edge_uring::spawn(thread, doorbell, clock::now, make)
}

/// Frees what came with commands, prompts above all. Ends with the media thread.
fn spawn_free(index: u16) -> std::io::Result<SyncSender<Returned>> {
    let (sender, receiver) = sync_channel(RETURNED_MAX);
    std::thread::Builder::new().name(format!("media-free-{index}")).spawn(move || {
        while let Ok(returned) = receiver.recv() {
            drop(returned);
        }
    })?;
    Ok(sender)
}

/// One socket of a leg.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Socket {
    id: SocketId,
    /// The peer was changed: the kernel may still have the old one, so sends carry the address.
    changed: bool,
    peer: Option<SocketAddr>,
}

/// What an RTP packet needs to be sent lies in one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Sockets {
    generation: u32,
    rtp: Socket,
    rtcp: Socket,
}

/// Of that line.
const SOCKETS_HOT_BYTES: usize = 64;
const _: () = assert!(std::mem::offset_of!(Sockets, rtcp) <= SOCKETS_HOT_BYTES);

/// Everything around the worker.
struct Outside {
    /// By index of the port.
    sockets: Vec<Option<Sockets>>,
    queues: MediaQueues,
    trunk_out: PacketSender,
    trunk_wake: Arc<TrunkWake>,
    trunk_pushed: bool,
    epoch: Epoch,
    recorder: Arc<ArrayQueue<RecorderMessage>>,
    stats: OwnStats,
    fast_path: Option<Lane>,
}

impl Outside {
    fn socket(&mut self, port: PortKey, component: Component) -> Option<&mut Socket> {
        let sockets = self.sockets.get_mut(port.index as usize)?.as_mut()?;
        if sockets.generation != port.generation {
            return None;
        }
        Some(match component {
            Component::Rtp => &mut sockets.rtp,
            Component::Rtcp => &mut sockets.rtcp,
        })
    }

    /// The socket, and the address if the socket is not tied to it.
    fn target(
        &mut self,
        port: PortKey,
        component: Component,
        to: SocketAddr,
    ) -> Option<(SocketId, Option<SocketAddr>)> {
        let socket = self.socket(port, component)?;
        let tied = socket.peer == Some(to) && !socket.changed;
        Some((socket.id, (!tied).then_some(to)))
    }
}

struct RingTx<'a> {
    now: Instant,
    io: &'a mut Io,
    outside: &'a mut Outside,
}

impl Tx for RingTx<'_> {
    fn forward(
        &mut self,
        to: PortKey,
        component: Component,
        destination: SocketAddr,
        packet: &[u8],
    ) {
        if let Some((id, address)) = self.outside.target(to, component, destination) {
            self.io.forward_to(id, address, 0..packet.len());
        }
    }

    fn send(&mut self, to: PortKey, component: Component, destination: SocketAddr, bytes: &[u8]) {
        if let Some((id, address)) = self.outside.target(to, component, destination) {
            self.io.send_copy(id, address, bytes);
        }
    }

    fn trunk(&mut self, peer: u32, channel: ChannelId, packet: &[u8]) {
        let at_us = self.outside.epoch.us(self.now);
        let sent = self.outside.trunk_out.send(Address { peer, channel }, at_us, packet);
        self.outside.trunk_pushed |= sent;
        self.outside.stats.trunk_ring_full += u64::from(!sent);
    }

    fn set_peer(&mut self, port: PortKey, component: Component, peer: Option<SocketAddr>) {
        let Some(socket) = self.outside.socket(port, component) else { return };
        match self.io.connect(socket.id, peer) {
            Ok(()) => {
                socket.changed |= socket.peer.is_some() && socket.peer != peer;
                socket.peer = peer;
            }
            Err(_) => self.outside.stats.connects_failed += 1,
        }
    }

    fn behind_us(&self) -> u64 {
        u64::try_from(self.io.behind(self.now).as_micros()).unwrap_or(u64::MAX)
    }

    fn offloads(&self) -> bool {
        self.outside.fast_path.is_some()
    }

    fn offload(&mut self, stream: &Offload) -> Option<OffloadId> {
        self.outside.fast_path.as_ref()?;
        let from = self.outside.socket(stream.from, Component::Rtp)?.id;
        let to = self.outside.socket(stream.to, Component::Rtp)?.id;
        let local = self.io.local_addr(from).ok()?;
        let out_local = self.io.local_addr(to).ok()?;
        let lane = self.outside.fast_path.as_mut()?;
        match lane.offload(stream, local, out_local) {
            Ok(id) => Some(id),
            Err(refused) => {
                self.outside.stats.count_refused(refused);
                None
            }
        }
    }

    fn offloaded(&mut self, id: OffloadId) -> Option<Progress> {
        self.outside.fast_path.as_ref()?.progress(id)
    }

    fn withdraw(&mut self, id: OffloadId) -> Option<Progress> {
        self.outside.fast_path.as_mut()?.withdraw(id)
    }

    fn record(&mut self, message: RecorderMessage) {
        if self.outside.recorder.push(message).is_err() {
            self.outside.stats.recorder_full += 1;
        }
    }
}

struct Media {
    worker: Worker,
    outside: Outside,
    trunk_in: PacketReceiver,
    trunk_packet: Box<[u8; PACKET_BYTES_MAX]>,
    /// Events that found the queue full.
    waiting: VecDeque<WorkerEvent>,
    retry_at: Option<Instant>,
    freed: SyncSender<Returned>,
    counters: Arc<MediaCounters>,
    copy_at: Instant,
}

fn token(port: PortKey, component: Component) -> u64 {
    let low = port.index << 1 | u32::from(component == Component::Rtcp);
    u64::from(port.generation) << 32 | u64::from(low)
}

fn of_token(token: u64) -> (PortKey, Component) {
    let (generation, low) = ((token >> 32) as u32, token as u32);
    let component = if low & 1 == 0 { Component::Rtp } else { Component::Rtcp };
    (PortKey { index: low >> 1, generation }, component)
}

impl Media {
    fn new(
        config: MediaThreadConfig,
        counters: Arc<MediaCounters>,
        freed: SyncSender<Returned>,
    ) -> Self {
        let now = clock::now();
        let limits = WorkerLimits::for_ports(config.ports_max);
        // Only first numbers of streams and times of reports come from it.
        let seed = RandomState::new().build_hasher().finish();
        Self {
            worker: Worker::new(WorkerConfig { limits, seed }, now),
            outside: Outside {
                sockets: vec![None; limits.ports_edge_max as usize],
                queues: config.queues,
                trunk_out: config.trunk_out,
                trunk_wake: config.trunk_wake,
                trunk_pushed: false,
                epoch: config.epoch,
                recorder: config.recorder,
                stats: OwnStats::default(),
                fast_path: config.fast_path.map(Lane::new),
            },
            trunk_in: config.trunk_in,
            trunk_packet: Box::new([0; PACKET_BYTES_MAX]),
            waiting: VecDeque::with_capacity((limits.ports_max + limits.ops_max) as usize * 2),
            retry_at: None,
            freed,
            counters,
            copy_at: now,
        }
    }

    fn on_message(&mut self, now: Instant, message: ToMedia, io: &mut Io) {
        match message {
            ToMedia::Sockets { port, rtp, rtcp } => self.add_sockets(port, rtp, rtcp, io),
            ToMedia::Release { port } => self.release(port, io),
            ToMedia::Command(command) => {
                let mut tx = RingTx { now, io, outside: &mut self.outside };
                self.worker.handle_command(now, command, &mut tx);
            }
        }
    }

    fn add_sockets(&mut self, port: PortKey, rtp: UdpSocket, rtcp: UdpSocket, io: &mut Io) {
        let mut add = |udp, component| {
            let id = io.add_socket(udp, token(port, component)).ok()?;
            Some(Socket { id, peer: None, changed: false })
        };
        let added = (add(rtp, Component::Rtp), add(rtcp, Component::Rtcp));
        let place = self.outside.sockets.get_mut(port.index as usize);
        match (added, place) {
            ((Some(rtp), Some(rtcp)), Some(place)) => {
                let sockets = Sockets { generation: port.generation, rtp, rtcp };
                if let Some(old) = place.replace(sockets) {
                    io.remove(old.rtp.id);
                    io.remove(old.rtcp.id);
                }
            }
            ((rtp, rtcp), _) => {
                self.outside.stats.sockets_refused += 1;
                for socket in [rtp, rtcp].into_iter().flatten() {
                    io.remove(socket.id);
                }
            }
        }
    }

    fn release(&mut self, port: PortKey, io: &mut Io) {
        let Some(place) = self.outside.sockets.get_mut(port.index as usize) else { return };
        if let Some(sockets) = place.take_if(|sockets| sockets.generation == port.generation) {
            io.remove(sockets.rtp.id);
            io.remove(sockets.rtcp.id);
        }
    }

    /// Packets from the trunk, a bounded number. True if there may be more.
    fn read_trunk(&mut self, now: Instant, io: &mut Io) -> bool {
        for _ in 0..TRUNK_PACKETS_PER_TURN_MAX {
            let Some((address, length)) = self.trunk_in.receive(&mut self.trunk_packet) else {
                return false;
            };
            let Some(packet) = self.trunk_packet.get_mut(..length) else { continue };
            let Address { peer, channel } = address;
            let mut tx = RingTx { now, io: &mut *io, outside: &mut self.outside };
            self.worker.handle_trunk_packet(now, peer, channel, packet, &mut tx);
        }
        true
    }

    /// Hands events over in order; what finds no room is kept.
    fn hand_over_events(&mut self, now: Instant) {
        let events = &self.outside.queues.events;
        let mut pushed = false;
        loop {
            let event = match self.waiting.pop_front() {
                Some(event) => event,
                None => match self.worker.poll_event() {
                    Some(event) => event,
                    None => break,
                },
            };
            if let Err(event) = events.push(event) {
                self.waiting.push_front(event);
                break;
            }
            pushed = true;
        }
        self.retry_at = None;
        if !self.waiting.is_empty() {
            self.outside.stats.events_delayed += 1;
            self.retry_at = Some(now + EVENTS_RETRY);
        }
        if pushed {
            self.outside.queues.wake.notify_one();
        }
    }
}

impl Driver for Media {
    fn on_datagram(&mut self, now: Instant, datagram: Datagram<'_>, io: &mut Io) {
        let (port, component) = of_token(datagram.token);
        let mut tx = RingTx { now, io, outside: &mut self.outside };
        let Datagram { source, data, .. } = datagram;
        self.worker.handle_packet(now, port, component, source, data, &mut tx);
    }

    fn foresee(&self, token: u64, step: Foresight) -> Option<SocketId> {
        let (port, Component::Rtp) = of_token(token) else { return None };
        match step {
            Foresight::Own => {
                let sockets =
                    self.outside.sockets.get(self.worker.foresee(port, prefetch)? as usize)?;
                prefetch((&raw const *sockets).cast(), SOCKETS_HOT_BYTES);
            }
            Foresight::Next => self.worker.foresee_sink(port, prefetch),
            Foresight::Last => {
                let sink = self.worker.foreseen_sink(port)?;
                let sockets = self.outside.sockets.get(sink as usize)?.as_ref()?;
                return Some(sockets.rtp.id);
            }
        }
        None
    }

    fn on_doorbell(&mut self, now: Instant, io: &mut Io) {
        let mut more = true;
        for _ in 0..COMMANDS_PER_TURN_MAX {
            let Some(message) = self.outside.queues.commands.pop() else {
                more = false;
                break;
            };
            self.on_message(now, message, io);
        }
        more |= self.read_trunk(now, io);
        if more {
            self.outside.queues.doorbell.ring();
        }
    }

    fn on_deadline(&mut self, now: Instant, io: &mut Io) {
        let mut tx = RingTx { now, io: &mut *io, outside: &mut self.outside };
        self.worker.handle_tick(now, &mut tx);
        if now >= self.copy_at {
            self.copy_at = now + COUNTERS_EVERY;
            self.counters.store(&self.worker.stats(), io.stats(), &self.outside.stats);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        [Some(self.copy_at), self.retry_at, self.worker.next_deadline()].into_iter().flatten().min()
    }

    fn on_batch_end(&mut self, now: Instant, _io: &mut Io) {
        self.hand_over_events(now);
        if std::mem::take(&mut self.outside.trunk_pushed) {
            self.outside.trunk_wake.ring();
        }
        while let Some(returned) = self.worker.poll_returned() {
            // With no room it is freed here: late, but not lost.
            if let Err(TrySendError::Full(returned) | TrySendError::Disconnected(returned)) =
                self.freed.try_send(returned)
            {
                drop(returned);
            }
        }
    }

    fn on_connect_error(&mut self, _: Instant, _: SocketId, _: &std::io::Error) {
        self.outside.stats.connects_failed += 1;
    }
}
