//! The media trunk: RTP of many calls packed into the datagrams of one QUIC connection per peer
//! edge. Owns its thread, its endpoint and its connections; knows channels, not calls.
//!
//! ```text
//! media thread ══ byte ring ══▶ pack ──▶ QUIC datagram ──▶ peer
//! media thread ◀═ byte ring ══ unpack ◀── QUIC datagram ◀── peer
//! ```
//!
//! A datagram is a sequence of records: channel (8 bytes), length (2 bytes), RTP packet. Whatever
//! waits when the trunk wakes goes out together, so packing grows with load and costs no delay.
//! Of two nodes the one that is not of a core region dials, else the one with the smaller name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use edge_uring::Doorbell;
use link_daemon::quic;
use link_daemon::tls::peer_identity;
use link_proto::table::NodeEntry;
use link_proto::{ChannelId, NodeId};
use quinn::{Connection, Endpoint};
use tokio::sync::{Notify, mpsc};

use crate::trunk_ring::{Address, PACKET_BYTES_MAX, PacketReceiver, PacketSender};

/// Bytes in front of each packet inside a datagram.
const RECORD_HEAD_BYTES: usize = 10;
/// Records read from one ring before the others get their turn.
const PACKETS_PER_TURN_MAX: usize = 256;
/// First and longest pause between two attempts to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// What signalling tells the trunk.
#[derive(Debug)]
pub enum TrunkCommand {
    /// Keep a connection to this node, which media threads name by `peer`.
    Peer {
        /// Number.
        peer: u32,
        /// Node.
        node: NodeEntry,
    },
    /// Packets of this channel go to that worker.
    Open {
        /// Channel.
        address: Address,
        /// Worker.
        worker: u16,
    },
    /// Forget a channel.
    Close {
        /// Channel.
        address: Address,
    },
}

/// What the trunk tells signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrunkState {
    /// Number of the peer.
    pub peer: u32,
    /// A connection is there.
    pub up: bool,
}

/// Totals since the start.
#[derive(Debug, Default)]
pub struct TrunkCounters {
    /// RTP packets sent.
    pub packets_sent: AtomicU64,
    /// Datagrams sent.
    pub datagrams_sent: AtomicU64,
    /// RTP packets received.
    pub packets_received: AtomicU64,
    /// RTP packets dropped because the peer is not connected.
    pub dropped_no_connection: AtomicU64,
    /// RTP packets dropped because QUIC refused the datagram.
    pub dropped_refused: AtomicU64,
    /// RTP packets for a channel that is not open here.
    pub dropped_unknown_channel: AtomicU64,
    /// RTP packets dropped because the ring to the media thread is full.
    pub dropped_ring_full: AtomicU64,
    /// Datagrams that could not be taken apart.
    pub malformed: AtomicU64,
    /// Round-trip time to the peer that was measured last, in µs.
    pub round_trip_us: AtomicU64,
}

/// The ends of one media thread's rings, and its doorbell.
pub struct WorkerRings {
    /// Packets from the media thread.
    pub outgoing: PacketReceiver,
    /// Packets to the media thread.
    pub incoming: PacketSender,
    /// Wakes the media thread.
    pub doorbell: Arc<Doorbell>,
}

/// What the trunk thread is made of.
pub struct TrunkSetup {
    /// Our name; decides who dials.
    pub node: NodeId,
    /// We are a media node of a core region.
    pub core: bool,
    /// Makes the endpoint inside the thread's runtime.
    pub endpoint: Box<dyn FnOnce() -> anyhow::Result<Endpoint> + Send>,
    /// One entry per media worker.
    pub workers: Vec<WorkerRings>,
    /// Rung by media threads when they have put packets into their rings.
    pub wake: Arc<Notify>,
    /// From signalling; the thread ends when it is closed.
    pub commands: mpsc::UnboundedReceiver<TrunkCommand>,
    /// To signalling.
    pub states: mpsc::UnboundedSender<TrunkState>,
    /// Totals.
    pub counters: Arc<TrunkCounters>,
}

struct Peer {
    entry: NodeEntry,
    connection: Option<Connection>,
}

struct Trunk {
    node: NodeId,
    core: bool,
    endpoint: Endpoint,
    peers: BTreeMap<u32, Peer>,
    /// Accepted before signalling named the node.
    unclaimed: BTreeMap<NodeId, Connection>,
    channels: BTreeMap<Address, u16>,
    outgoing: Vec<PacketReceiver>,
    incoming: Vec<(PacketSender, Arc<Doorbell>)>,
    states: mpsc::UnboundedSender<TrunkState>,
    counters: Arc<TrunkCounters>,
}

type Shared = Rc<RefCell<Trunk>>;

/// Starts the thread and returns when its endpoint is bound.
///
/// # Errors
/// If the endpoint cannot be made or no thread be had.
pub fn spawn(setup: TrunkSetup) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let (report, reported) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = report.send(Err(error.into()));
                return;
            }
        };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let endpoint = match (setup.endpoint)() {
                Ok(endpoint) => {
                    let _ = report.send(Ok(()));
                    endpoint
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let (outgoing, incoming) = setup
                .workers
                .into_iter()
                .map(|rings| (rings.outgoing, (rings.incoming, rings.doorbell)))
                .unzip();
            let trunk = Rc::new(RefCell::new(Trunk {
                node: setup.node,
                core: setup.core,
                endpoint,
                peers: BTreeMap::new(),
                unclaimed: BTreeMap::new(),
                channels: BTreeMap::new(),
                outgoing,
                incoming,
                states: setup.states,
                counters: setup.counters,
            }));
            run(trunk, setup.commands, setup.wake).await;
        });
    };
    let handle = std::thread::Builder::new().name("trunk".to_owned()).spawn(body)?;
    reported.recv().context("trunk thread")??;
    Ok(handle)
}

async fn run(
    trunk: Shared,
    mut commands: mpsc::UnboundedReceiver<TrunkCommand>,
    wake: Arc<Notify>,
) {
    tokio::task::spawn_local(accept(trunk.clone()));
    let mut buffer = Box::new([0u8; PACKET_BYTES_MAX]);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(command) => carry_out(&trunk, command),
                None => break,
            },
            () = wake.notified() => {}
        }
        while trunk.borrow_mut().send_waiting(&mut buffer) {
            // Others get the thread between two bounded rounds.
            tokio::task::yield_now().await;
        }
    }
    let endpoint = trunk.borrow().endpoint.clone();
    endpoint.close(0u32.into(), b"shutdown");
}

fn carry_out(trunk: &Shared, command: TrunkCommand) {
    match command {
        TrunkCommand::Peer { peer, node } => add_peer(trunk, peer, node),
        TrunkCommand::Open { address, worker } => {
            trunk.borrow_mut().channels.insert(address, worker);
        }
        TrunkCommand::Close { address } => {
            trunk.borrow_mut().channels.remove(&address);
        }
    }
}

fn add_peer(trunk: &Shared, peer: u32, entry: NodeEntry) {
    let mut this = trunk.borrow_mut();
    if let Some(known) = this.peers.get_mut(&peer) {
        known.entry = entry;
        return;
    }
    let dials = match (this.core, entry.core) {
        (false, true) => true,
        (true, false) => false,
        _ => this.node < entry.node,
    };
    let claimed = this.unclaimed.remove(&entry.node);
    this.peers.insert(peer, Peer { entry, connection: None });
    drop(this);
    if let Some(connection) = claimed {
        adopt(trunk, peer, connection);
    }
    if dials {
        tokio::task::spawn_local(dial(trunk.clone(), peer));
    }
}

/// Connects again and again for as long as the peer is known.
async fn dial(trunk: Shared, peer: u32) {
    let mut pause = BACKOFF[0];
    loop {
        let (endpoint, entry) = {
            let this = trunk.borrow();
            let Some(known) = this.peers.get(&peer) else { return };
            (this.endpoint.clone(), known.entry.clone())
        };
        match reach(&endpoint, &entry).await {
            Ok(connection) => {
                pause = BACKOFF[0];
                adopt(&trunk, peer, connection.clone());
                connection.closed().await;
            }
            Err(error) => {
                tracing::debug!(node = %entry.node, error = format!("{error:#}"), "trunk not reachable");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF[1]);
    }
}

async fn reach(endpoint: &Endpoint, entry: &NodeEntry) -> anyhow::Result<Connection> {
    let mut addresses = tokio::net::lookup_host(entry.trunk_address.as_str())
        .await
        .with_context(|| format!("trunk address {:?}", entry.trunk_address))?;
    let address = addresses.next().context("trunk address has no IP address")?;
    let connection = quic::connect(endpoint, address, entry.node.as_str()).await?;
    peer_identity(&connection)?.require(entry.region.as_str(), entry.node.as_str())?;
    Ok(connection)
}

async fn accept(trunk: Shared) {
    let endpoint = trunk.borrow().endpoint.clone();
    while let Some(incoming) = endpoint.accept().await {
        let trunk = trunk.clone();
        tokio::task::spawn_local(async move {
            let connection = match incoming.await {
                Ok(connection) => connection,
                Err(error) => return tracing::debug!(%error, "trunk handshake failed"),
            };
            match peer_identity(&connection) {
                Ok(identity) => accepted(&trunk, &NodeId(identity.node), connection),
                Err(error) => {
                    tracing::warn!(%error, "trunk refused");
                    connection.close(1u32.into(), b"identity");
                }
            }
        });
    }
}

fn accepted(trunk: &Shared, node: &NodeId, connection: Connection) {
    let peer = {
        let mut this = trunk.borrow_mut();
        let found = this.peers.iter().find(|(_, peer)| peer.entry.node == *node).map(|(n, _)| *n);
        if found.is_none() {
            this.unclaimed.insert(node.clone(), connection.clone());
        }
        found
    };
    if let Some(peer) = peer {
        adopt(trunk, peer, connection);
    }
}

/// The connection carries the peer's channels from now on.
fn adopt(trunk: &Shared, peer: u32, connection: Connection) {
    {
        let mut this = trunk.borrow_mut();
        let Some(known) = this.peers.get_mut(&peer) else { return };
        known.connection = Some(connection.clone());
        tracing::info!(node = %known.entry.node, "media trunk up");
        let _ = this.states.send(TrunkState { peer, up: true });
    }
    tokio::task::spawn_local(read(trunk.clone(), peer, connection));
}

async fn read(trunk: Shared, peer: u32, connection: Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        trunk.borrow_mut().unpack(peer, &datagram);
    }
    let mut this = trunk.borrow_mut();
    let Some(known) = this.peers.get_mut(&peer) else { return };
    let current = known.connection.as_ref().map(Connection::stable_id);
    if current == Some(connection.stable_id()) {
        known.connection = None;
        tracing::info!(node = %known.entry.node, "media trunk down");
        let _ = this.states.send(TrunkState { peer, up: false });
    }
}

impl Trunk {
    /// Sends what waits in the rings, one bounded round. True if more may wait.
    fn send_waiting(&mut self, buffer: &mut [u8; PACKET_BYTES_MAX]) -> bool {
        let mut packed: BTreeMap<u32, Packing> = BTreeMap::new();
        let mut more = false;
        for index in 0..self.outgoing.len() {
            let mut count = 0;
            while count < PACKETS_PER_TURN_MAX {
                let Some(ring) = self.outgoing.get_mut(index) else { break };
                let Some((address, length)) = ring.receive(buffer) else { break };
                let packet = buffer.get(..length).unwrap_or_default();
                let connection =
                    self.peers.get(&address.peer).and_then(|peer| peer.connection.as_ref());
                let Some(connection) = connection else {
                    self.counters.dropped_no_connection.fetch_add(1, Ordering::Relaxed);
                    count += 1;
                    continue;
                };
                let packing =
                    packed.entry(address.peer).or_insert_with(|| Packing::new(connection));
                packing.push(address.channel, packet, &self.counters);
                count += 1;
            }
            more |= count == PACKETS_PER_TURN_MAX;
        }
        for packing in packed.into_values() {
            packing.finish(&self.counters);
        }
        more
    }

    fn unpack(&mut self, peer: u32, datagram: &[u8]) {
        let mut rest = datagram;
        let mut woken = 0u64;
        while !rest.is_empty() {
            let Some((head, body)) = rest.split_first_chunk::<RECORD_HEAD_BYTES>() else {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                break;
            };
            let [c0, c1, c2, c3, c4, c5, c6, c7, l0, l1] = *head;
            let channel = ChannelId(u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]));
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let Some((packet, tail)) = body.split_at_checked(length) else {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                break;
            };
            rest = tail;
            let address = Address { peer, channel };
            let worker = self.channels.get(&address).copied();
            let Some(worker) = worker else {
                self.counters.dropped_unknown_channel.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let Some((ring, _)) = self.incoming.get_mut(usize::from(worker)) else { continue };
            if ring.send(address, packet) {
                self.counters.packets_received.fetch_add(1, Ordering::Relaxed);
                woken |= 1 << (worker & 63);
            } else {
                self.counters.dropped_ring_full.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (index, (_, doorbell)) in self.incoming.iter().enumerate() {
            if woken & (1 << (index & 63)) != 0 {
                doorbell.ring();
            }
        }
    }
}

/// Datagrams on their way to one peer.
struct Packing {
    connection: Connection,
    size_max: usize,
    bytes: BytesMut,
    packets: u64,
}

impl Packing {
    fn new(connection: &Connection) -> Self {
        let size_max = connection.max_datagram_size().unwrap_or(0);
        let connection = connection.clone();
        Self { connection, size_max, bytes: BytesMut::with_capacity(size_max), packets: 0 }
    }

    fn push(&mut self, channel: ChannelId, packet: &[u8], counters: &TrunkCounters) {
        let size = RECORD_HEAD_BYTES + packet.len();
        if size > self.size_max {
            counters.dropped_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.bytes.len() + size > self.size_max {
            self.flush(counters);
        }
        self.bytes.put_u64(channel.0);
        // At most PACKET_BYTES_MAX, which fits.
        self.bytes.put_u16(packet.len() as u16);
        self.bytes.put_slice(packet);
        self.packets += 1;
    }

    fn flush(&mut self, counters: &TrunkCounters) {
        if self.packets == 0 {
            return;
        }
        let datagram: Bytes = self.bytes.split().freeze();
        // Drops the oldest datagram when the buffer is full: stale audio is never sent.
        let counter = match self.connection.send_datagram(datagram) {
            Ok(()) => &counters.packets_sent,
            Err(_) => &counters.dropped_refused,
        };
        counter.fetch_add(self.packets, Ordering::Relaxed);
        counters.datagrams_sent.fetch_add(1, Ordering::Relaxed);
        self.packets = 0;
    }

    fn finish(mut self, counters: &TrunkCounters) {
        self.flush(counters);
        let round_trip = u64::try_from(self.connection.rtt().as_micros()).unwrap_or(u64::MAX);
        counters.round_trip_us.store(round_trip, Ordering::Relaxed);
    }
}
