//! The media trunk: RTP of many calls packed into the datagrams of one QUIC connection per peer
//! edge. Owns its thread, its endpoint and its connections; knows channels, not calls.
//!
//! ```text
//! media thread ══ byte ring ══▶ outbox ──▶ QUIC datagrams ──▶ peer
//! media thread ◀═ byte ring ══ inbox ◀── QUIC datagrams ◀── peer
//! ```
//!
//! After silence a packet leaves at once; under load the thread works at a steady beat (`wake.rs`),
//! packs what has come meanwhile (`outbox.rs`, format in `wire.rs`) and sends ten datagrams with
//! one system call. What the provisioned rate does not take waits in the outbox, never in QUIC, and
//! nothing older than 40 ms is sent. Of two nodes the one that is not of a core region dials, else
//! the one with the smaller name.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use edge_uring::Doorbell;
use link_daemon::clock;
use link_proto::NodeId;
use link_proto::message::RouteReport;
use link_proto::table::NodeEntry;
use quinn::Endpoint;
use tokio::sync::mpsc;

use crate::trunk_ring::{Address, Epoch, PacketReceiver, PacketSender};

mod inbox;
mod outbox;
mod peers;
mod route;
mod traffic;
mod wake;
mod wire;

use peers::Peers;
use traffic::Traffic;
pub use wake::TrunkWake;
use wake::{Beat, Cadence};

/// How long packets are usually collected under load: a packet waits for half of that on the average,
/// and what waking a thread up and sending cost is shared by all that have come.
pub const BEAT_USUAL: Duration = Duration::from_millis(4);

/// Between two rounds of sending.
const COMMANDS_PER_ROUND_MAX: usize = 256;

/// How often the measurements of routes are copied for others.
const ROUTES_EVERY: Duration = Duration::from_secs(1);

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
    /// RTP packets dropped because they had waited for 40 ms.
    pub dropped_stale: AtomicU64,
    /// RTP packets for a channel that is not open here.
    pub dropped_unknown_channel: AtomicU64,
    /// RTP packets dropped because the ring to the media thread is full.
    pub dropped_ring_full: AtomicU64,
    /// Datagrams that could not be taken apart.
    pub malformed: AtomicU64,
    routes: Mutex<Vec<RouteView>>,
}

impl TrunkCounters {
    /// The ways to all peers as they were within the last second, by name of the node.
    pub fn routes(&self) -> Vec<RouteView> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_routes(&self, routes: Vec<RouteView>) {
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = routes;
    }
}

/// What is known of the way to a peer and back. Counters begin anew with each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// Node.
    pub node: NodeId,
    /// A connection is there; without one the last values stay.
    pub up: bool,
    /// Smoothed round-trip time.
    pub round_trip_us: u64,
    /// Interarrival jitter of its datagrams, RFC 3550 §6.4.1.
    pub jitter_us: u64,
    /// Its datagrams that arrived.
    pub datagrams_received: u64,
    /// Its datagrams that did not arrive.
    pub datagrams_lost: u64,
    /// Our QUIC packets that it did not acknowledge.
    pub sent_lost: u64,
    /// QUIC packets sent.
    pub sent: u64,
    /// System calls that sent them.
    pub sends: u64,
    /// UDP payload that the path carries, in bytes.
    pub datagram_bytes_max: u64,
}

impl RouteView {
    /// For the link.
    pub fn report(&self) -> RouteReport {
        RouteReport {
            node: self.node.clone(),
            up: self.up,
            round_trip_us: self.round_trip_us,
            jitter_us: self.jitter_us,
            datagrams_received: self.datagrams_received,
            datagrams_lost: self.datagrams_lost,
        }
    }
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
    pub wake: Arc<TrunkWake>,
    /// Of the times in the rings.
    pub epoch: Epoch,
    /// Under load packets are collected for so long, then sent together.
    pub beat: Duration,
    /// From signalling; the thread ends when it is closed.
    pub commands: mpsc::UnboundedReceiver<TrunkCommand>,
    /// To signalling.
    pub states: mpsc::UnboundedSender<TrunkState>,
    /// Totals.
    pub counters: Arc<TrunkCounters>,
}

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
            let beat = Beat::new(setup.beat);
            match beat.and_then(|beat| Ok((beat, (setup.endpoint)()?))) {
                Ok((beat, endpoint)) => {
                    let _ = report.send(Ok(()));
                    let peers = Peers {
                        node: setup.node,
                        core: setup.core,
                        endpoint,
                        states: setup.states,
                        wake: setup.wake,
                        known: RefCell::default(),
                        unclaimed: RefCell::default(),
                        traffic: Traffic::new(setup.workers, setup.epoch, setup.counters).into(),
                    };
                    run(Rc::new(peers), setup.commands, &beat, Cadence::new(setup.beat)).await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    };
    let handle = std::thread::Builder::new().name("trunk".to_owned()).spawn(body)?;
    reported.recv().context("trunk thread")??;
    Ok(handle)
}

async fn run(
    peers: Rc<Peers>,
    mut commands: mpsc::UnboundedReceiver<TrunkCommand>,
    beat: &Beat,
    mut cadence: Cadence,
) {
    tokio::task::spawn_local(peers::accept(peers.clone()));
    tokio::task::spawn_local(peers::watch_routes(peers.clone()));
    loop {
        // What came since the last round rang no bell.
        let rings_are_empty = || peers.traffic.borrow().rings_are_empty();
        if cadence.beats() || peers.wake.falls_asleep(rings_are_empty) {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => carry_out_all(&peers, command, &mut commands),
                    None => break,
                },
                () = peers.wake.rung() => {}
                () = beat.tick(), if cadence.beats() => {}
            }
        }
        peers.wake.stays_awake();
        let packets = send_waiting(&peers).await;
        let waiting = peers.traffic.borrow().is_waiting();
        if cadence.after(clock::now(), packets, waiting) {
            let changed = if cadence.beats() { beat.start() } else { beat.stop() };
            if let Err(error) = changed {
                // The kernel takes every time that is not negative.
                tracing::error!(%error, "beat of the trunk");
            }
        }
    }
    peers.endpoint.close(0u32.into(), b"shutdown");
}

/// Empties the rings; returns how many packets were in them.
async fn send_waiting(peers: &Peers) -> usize {
    let mut packets = 0;
    loop {
        let round = peers.traffic.borrow_mut().flush(clock::now());
        packets += round.packets;
        if !round.more {
            return packets;
        }
        // QUIC and the others get the thread between two bounded rounds.
        tokio::task::yield_now().await;
    }
}

/// What signalling says at once, such as all channels of a peer that has come back, is told to the peer
/// at once, and delays no packet by a round each.
fn carry_out_all(
    peers: &Rc<Peers>,
    first: TrunkCommand,
    more: &mut mpsc::UnboundedReceiver<TrunkCommand>,
) {
    carry_out(peers, first);
    for command in std::iter::from_fn(|| more.try_recv().ok()).take(COMMANDS_PER_ROUND_MAX) {
        carry_out(peers, command);
    }
}

fn carry_out(peers: &Rc<Peers>, command: TrunkCommand) {
    match command {
        TrunkCommand::Peer { peer, node } => peers::add(peers, peer, node),
        TrunkCommand::Open { address, worker } => peers.traffic.borrow_mut().open(address, worker),
        TrunkCommand::Close { address } => peers.traffic.borrow_mut().close(address),
    }
}
