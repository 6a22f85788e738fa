//! Packets between rings and connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use edge_uring::Doorbell;
use link_daemon::quic::rate::Budget;
use link_proto::{ChannelId, NodeId};
use quinn::Connection;

use super::inbox::Inbox;
use super::outbox::{Dropped, Outbox};
use super::route::RouteMeter;
use super::wire::{self, Record};
use super::{RouteView, TrunkCounters, WorkerRings};
use crate::trunk_ring::{Address, Epoch, PacketReceiver, PacketSender};

/// Packets read from one ring before they are sent and others get the thread.
const PACKETS_PER_TURN_MAX: usize = 1_024;
/// What QUIC counts for a datagram beside its bytes, generously.
const DATAGRAM_EXTRA_BYTES: usize = 64;

/// A connection and how much may leave through it.
struct Link {
    connection: Connection,
    budget: Budget,
}

/// Everything of one peer.
#[derive(Default)]
struct Line {
    link: Option<Link>,
    outbox: Outbox,
    inbox: Inbox,
    meter: RouteMeter,
    /// Longest datagram of this round; 0 without a connection.
    size_max: usize,
}

/// What a round did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Round {
    /// RTP packets taken from rings.
    pub(super) packets: usize,
    /// Others have to get the thread before the rest can be sent.
    pub(super) more: bool,
}

/// Rings, channels, and what waits.
pub(super) struct Traffic {
    lines: BTreeMap<u32, Line>,
    outgoing: Vec<PacketReceiver>,
    incoming: Vec<(PacketSender, Arc<Doorbell>)>,
    /// Workers that got packets, by bit; of more than 64 some are woken for nothing.
    woken: u64,
    epoch: Epoch,
    counters: Arc<TrunkCounters>,
}

fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Relaxed);
    }
}

impl Traffic {
    pub(super) fn new(
        workers: Vec<WorkerRings>,
        epoch: Epoch,
        counters: Arc<TrunkCounters>,
    ) -> Self {
        let (outgoing, incoming) = workers
            .into_iter()
            .map(|rings| (rings.outgoing, (rings.incoming, rings.doorbell)))
            .unzip();
        Self { lines: BTreeMap::new(), outgoing, incoming, woken: 0, epoch, counters }
    }

    pub(super) fn counters(&self) -> &TrunkCounters {
        &self.counters
    }

    pub(super) fn open(&mut self, address: Address, worker: u16) {
        self.lines.entry(address.peer).or_default().inbox.open(address.channel, worker);
    }

    pub(super) fn close(&mut self, address: Address) {
        if let Some(line) = self.lines.get_mut(&address.peer) {
            line.inbox.close(address.channel);
            line.outbox.forget(address.channel);
        }
    }

    /// The connection carries the peer's channels from now on. False if it has no provisioned rate.
    pub(super) fn connect(&mut self, peer: u32, connection: Connection, now: Instant) -> bool {
        let Some(budget) = Budget::of(&connection, now) else { return false };
        let line = self.lines.entry(peer).or_default();
        line.link = Some(Link { connection, budget });
        line.outbox.reset();
        line.inbox.announce_all();
        line.meter = RouteMeter::default();
        true
    }

    /// The connection has ended. False if another one has taken its place.
    pub(super) fn disconnect(&mut self, peer: u32, connection: &Connection) -> bool {
        let Some(line) = self.lines.get_mut(&peer) else { return false };
        let ended = |link: &mut Link| link.connection.stable_id() == connection.stable_id();
        line.link.take_if(ended).is_some()
    }

    /// Nothing waits in a ring.
    pub(super) fn rings_are_empty(&self) -> bool {
        self.outgoing.iter().all(PacketReceiver::is_empty)
    }

    /// Something is held back.
    pub(super) fn is_waiting(&self) -> bool {
        self.lines.values().any(|line| line.link.is_some() && line.outbox.is_waiting())
    }

    /// Sends what waits in the rings, a bounded number of packets.
    pub(super) fn flush(&mut self, now: Instant) -> Round {
        let now_us = self.epoch.us(now);
        let Self { lines, outgoing, counters, .. } = self;
        for line in lines.values_mut() {
            let size = line.link.as_ref().and_then(|link| link.connection.max_datagram_size());
            line.size_max = size.unwrap_or(0);
        }
        let mut round = Round::default();
        let mut unconnected = 0;
        for ring in outgoing {
            let count = ring.drain(PACKETS_PER_TURN_MAX, |crossing| {
                let Address { peer, channel } = crossing.address;
                match lines.get_mut(&peer) {
                    Some(Line { link: Some(_), outbox, size_max, .. }) => {
                        outbox.push(channel, crossing.packet, crossing.at_us, now_us, *size_max);
                    }
                    _ => unconnected += 1,
                }
            });
            round.packets += count;
            round.more |= count == PACKETS_PER_TURN_MAX;
        }
        add(&counters.dropped_no_connection, unconnected);
        for line in lines.values_mut() {
            round.more |= line.send(now, now_us, counters);
        }
        round
    }

    /// Takes a datagram apart. True if the peer has to be told something.
    pub(super) fn unpack(&mut self, peer: u32, datagram: &[u8], now: Instant) -> bool {
        let now_us = self.epoch.us(now);
        let Some(line) = self.lines.get_mut(&peer) else { return false };
        let Some((head, records)) = wire::parse(datagram) else {
            add(&self.counters.malformed, 1);
            return false;
        };
        line.meter.on_datagram(head, now_us);
        let (mut received, mut full, mut unknown) = (0, 0, 0);
        let mut deliver = |found: Option<(ChannelId, u16)>, packet: &[u8]| {
            let Some((channel, worker)) = found else { return unknown += 1 };
            let Some((ring, _)) = self.incoming.get_mut(usize::from(worker)) else { return };
            if ring.send(Address { peer, channel }, now_us, packet) {
                received += 1;
                self.woken |= 1 << (worker & 63);
            } else {
                full += 1;
            }
        };
        for record in records {
            match record {
                Ok(Record::Short { alias, packet }) => {
                    deliver(line.inbox.by_alias(alias), packet);
                }
                Ok(Record::Long { channel, packet }) => {
                    let worker = line.inbox.by_channel(channel);
                    deliver(worker.map(|worker| (channel, worker)), packet);
                }
                // Both ends open a channel under the same number; ours comes with a call.
                Ok(Record::Announcement { channel, alias }) => {
                    if line.inbox.is_open(channel) {
                        line.outbox.set_alias(channel, alias);
                    }
                }
                Err(wire::Malformed) => add(&self.counters.malformed, 1),
            }
        }
        add(&self.counters.packets_received, received);
        add(&self.counters.dropped_ring_full, full);
        add(&self.counters.dropped_unknown_channel, unknown);
        line.inbox.announces()
    }

    /// Wakes the workers that got packets.
    pub(super) fn ring_doorbells(&mut self) {
        let woken = std::mem::take(&mut self.woken);
        for (index, (_, doorbell)) in self.incoming.iter().enumerate() {
            if woken & (1 << (index & 63)) != 0 {
                doorbell.ring();
            }
        }
    }

    /// What is known of the way to a peer. `None` if there never was a connection.
    pub(super) fn route(&self, peer: u32, node: NodeId) -> Option<RouteView> {
        let line = self.lines.get(&peer)?;
        let stats = line.link.as_ref()?.connection.stats();
        Some(RouteView {
            node,
            up: true,
            round_trip_us: u64::try_from(stats.path.rtt.as_micros()).unwrap_or(u64::MAX),
            jitter_us: line.meter.jitter_us().into(),
            datagrams_received: line.meter.received,
            datagrams_lost: line.meter.lost(),
            sent_lost: stats.path.lost_packets,
            sent: stats.path.sent_packets,
            sends: stats.udp_tx.ios,
            datagram_bytes_max: stats.path.current_mtu.into(),
        })
    }
}

impl Line {
    /// Sends what may leave. True if QUIC has to work before the rest fits.
    fn send(&mut self, now: Instant, now_us: u32, counters: &TrunkCounters) -> bool {
        let Some(link) = &mut self.link else { return false };
        if self.size_max >= wire::HEAD_BYTES + wire::ANNOUNCEMENT_BYTES {
            while let Some((channel, alias)) = self.inbox.next_announcement() {
                self.outbox.announce(channel, alias, now_us, self.size_max);
            }
        }
        self.outbox.finish(self.size_max);
        let mut space = link.connection.datagram_send_buffer_space();
        let (mut packets, mut datagrams, mut refused) = (0, 0, 0);
        let mut lacks_space = false;
        while self.outbox.is_waiting() {
            let budget = usize::try_from(link.budget.bytes(now)).unwrap_or(usize::MAX);
            let Some(ready) = self.outbox.take(now_us, budget.min(space)) else {
                lacks_space = budget > space;
                break;
            };
            space = space.saturating_sub(ready.bytes.len() + DATAGRAM_EXTRA_BYTES);
            link.budget.spend(ready.bytes.len() as u64);
            match link.connection.send_datagram(ready.bytes) {
                Ok(()) => packets += u64::from(ready.packets),
                Err(_) => refused += u64::from(ready.packets),
            }
            datagrams += 1;
        }
        let Dropped { stale, too_long } = self.outbox.take_dropped();
        add(&counters.packets_sent, packets);
        add(&counters.datagrams_sent, datagrams);
        add(&counters.dropped_refused, refused + too_long);
        add(&counters.dropped_stale, stale);
        // Without progress the next beat is soon enough.
        lacks_space && datagrams > 0 && self.outbox.is_waiting()
    }
}
