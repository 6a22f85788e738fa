//! Connections to peers: dialled or accepted, and watched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use link_daemon::tls::peer_identity;
use link_daemon::{clock, quic};
use link_proto::NodeId;
use link_proto::table::NodeEntry;
use quinn::{Connection, Endpoint};
use tokio::sync::mpsc;

use super::traffic::Traffic;
use super::{ROUTES_EVERY, RouteView, TrunkState, TrunkWake};

/// First and longest pause between two attempts to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Who the peers are and how they are reached.
pub(super) struct Peers {
    pub(super) node: NodeId,
    pub(super) core: bool,
    pub(super) endpoint: Endpoint,
    pub(super) states: mpsc::UnboundedSender<TrunkState>,
    pub(super) wake: Arc<TrunkWake>,
    pub(super) known: RefCell<BTreeMap<u32, NodeEntry>>,
    /// Accepted before signalling named the node.
    pub(super) unclaimed: RefCell<BTreeMap<NodeId, Connection>>,
    pub(super) traffic: RefCell<Traffic>,
}

/// Signalling names a node; of one that is known the address may have changed.
pub(super) fn add(peers: &Rc<Peers>, peer: u32, entry: NodeEntry) {
    let dials = match (peers.core, entry.core) {
        (false, true) => true,
        (true, false) => false,
        _ => peers.node < entry.node,
    };
    let claimed = peers.unclaimed.borrow_mut().remove(&entry.node);
    if peers.known.borrow_mut().insert(peer, entry).is_some() {
        return;
    }
    if let Some(connection) = claimed {
        adopt(peers, peer, connection);
    }
    if dials {
        tokio::task::spawn_local(dial(peers.clone(), peer));
    }
}

/// Connects again and again for as long as the peer is known.
async fn dial(peers: Rc<Peers>, peer: u32) {
    let mut pause = BACKOFF[0];
    loop {
        let Some(entry) = peers.known.borrow().get(&peer).cloned() else { return };
        match reach(&peers.endpoint, &entry).await {
            Ok(connection) => {
                pause = BACKOFF[0];
                adopt(&peers, peer, connection.clone());
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

/// Accepts for as long as the endpoint is there.
pub(super) async fn accept(peers: Rc<Peers>) {
    while let Some(incoming) = peers.endpoint.accept().await {
        let peers = peers.clone();
        tokio::task::spawn_local(async move {
            let connection = match incoming.await {
                Ok(connection) => connection,
                Err(error) => return tracing::debug!(%error, "trunk handshake failed"),
            };
            match peer_identity(&connection) {
                Ok(identity) => accepted(&peers, &NodeId(identity.node), connection),
                Err(error) => {
                    tracing::warn!(%error, "trunk refused");
                    connection.close(1u32.into(), b"identity");
                }
            }
        });
    }
}

fn accepted(peers: &Rc<Peers>, node: &NodeId, connection: Connection) {
    let known = peers.known.borrow();
    let found = known.iter().find(|(_, entry)| entry.node == *node).map(|(peer, _)| *peer);
    drop(known);
    match found {
        Some(peer) => adopt(peers, peer, connection),
        None => drop(peers.unclaimed.borrow_mut().insert(node.clone(), connection)),
    }
}

/// The connection carries the peer's channels from now on.
fn adopt(peers: &Rc<Peers>, peer: u32, connection: Connection) {
    let provisioned = peers.traffic.borrow_mut().connect(peer, connection.clone(), clock::now());
    if !provisioned {
        // Our own endpoint makes every connection with a provisioned rate.
        return tracing::error!("trunk without a provisioned rate");
    }
    if let Some(entry) = peers.known.borrow().get(&peer) {
        tracing::info!(node = %entry.node, "media trunk up");
    }
    let _ = peers.states.send(TrunkState { peer, up: true });
    peers.wake.nudge();
    tokio::task::spawn_local(read(peers.clone(), peer, connection));
}

/// A datagram that is there already.
fn next_datagram(connection: &Connection) -> Option<Bytes> {
    let next = pin!(connection.read_datagram());
    match next.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(datagram)) => Some(datagram),
        _ => None,
    }
}

async fn read(peers: Rc<Peers>, peer: u32, connection: Connection) {
    while let Ok(first) = connection.read_datagram().await {
        let now = clock::now();
        let mut traffic = peers.traffic.borrow_mut();
        let mut answers = traffic.unpack(peer, &first, now);
        // All that came with it, so that each worker is woken once.
        while let Some(next) = next_datagram(&connection) {
            answers |= traffic.unpack(peer, &next, now);
        }
        traffic.ring_doorbells();
        drop(traffic);
        if answers {
            peers.wake.nudge();
        }
    }
    if peers.traffic.borrow_mut().disconnect(peer, &connection) {
        if let Some(entry) = peers.known.borrow().get(&peer) {
            tracing::info!(node = %entry.node, "media trunk down");
        }
        let _ = peers.states.send(TrunkState { peer, up: false });
    }
}

/// Copies what is known of the routes for others.
pub(super) async fn watch_routes(peers: Rc<Peers>) {
    let mut every = tokio::time::interval(ROUTES_EVERY);
    let mut last: BTreeMap<u32, RouteView> = BTreeMap::new();
    loop {
        every.tick().await;
        let traffic = peers.traffic.borrow();
        for (peer, entry) in peers.known.borrow().iter() {
            match traffic.route(*peer, entry.node.clone()) {
                Some(view) => drop(last.insert(*peer, view)),
                None => {
                    if let Some(view) = last.get_mut(peer) {
                        view.up = false;
                    }
                }
            }
        }
        let mut views: Vec<_> = last.values().cloned().collect();
        views.sort_by(|a, b| a.node.cmp(&b.node));
        traffic.counters().set_routes(views);
    }
}
