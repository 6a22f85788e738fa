//! Two edges' media and trunk threads in this process, each edge on a core of its own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edge::trunk::{
    self, RouteView, TrunkCommand, TrunkCounters, TrunkSetup, TrunkState, TrunkWake, WorkerRings,
};
use edge::trunk_ring::{Address, Epoch, ring};
use edge_uring::{Doorbell, Limits, MediaThread, ThreadConfig, WaitConfig};
use link_daemon::quic::{self, EndpointPlan, TrunkSettings};
use link_daemon::tls::{NodeNames, Tls, TlsFiles, init_pki};
use link_proto::table::{NodeEntry, Resources};
use link_proto::{NodeId, RegionId};
use tandem_wan::{Mapping, PathConfig, Relay, RelayStats};
use tokio::sync::mpsc;

use super::trunk_flow::{
    Flow, PEER, Source, SourceAlone, TrunkEnds, TrunkMedia, UdpMedia, channel,
};
use crate::machine::{Cores, pause, pin_thread};

/// As the edge has it.
const RING_BYTES: usize = 4 << 20;
const NAMES: [&str; 2] = ["edge-a", "edge-b"];

/// How many calls the trunks are provisioned for, and what lies between them.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Calls in the configuration.
    pub calls_provisioned: u32,
    /// A wide-area network from the first edge to the second.
    pub path: Option<PathConfig>,
}

/// Two edges.
pub struct World {
    /// What goes through them, by edge.
    pub flows: [Arc<Flow>; 2],
    media: Vec<MediaThread>,
    trunks: Vec<Trunk>,
    relay: Option<Relay>,
}

struct Trunk {
    commands: Option<mpsc::UnboundedSender<TrunkCommand>>,
    states: mpsc::UnboundedReceiver<TrunkState>,
    counters: Arc<TrunkCounters>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        for trunk in &mut self.trunks {
            trunk.commands = None;
            if let Some(thread) = trunk.thread.take() {
                let _ = thread.join();
            }
        }
        for media in self.media.drain(..) {
            let _ = media.stop();
        }
    }
}

fn spawn_trunk(
    tls: Tls,
    name: &str,
    settings: TrunkSettings,
    rings: WorkerRings,
    wake: Arc<TrunkWake>,
    epoch: Epoch,
) -> anyhow::Result<Trunk> {
    let (commands, from_us) = mpsc::unbounded_channel();
    let (to_us, states) = mpsc::unbounded_channel();
    let (bound, address) = std::sync::mpsc::sync_channel(1);
    let counters = Arc::new(TrunkCounters::default());
    let setup = TrunkSetup {
        node: NodeId(name.to_owned()),
        core: false,
        endpoint: Box::new(move || {
            let plan = EndpointPlan {
                key: "listen",
                bind: "127.0.0.1:0".parse()?,
                alpn: quic::TRUNK_ALPN,
                accept: true,
                socket_buffer_bytes: settings.receive_buffer_bytes.min(8 << 20),
                datagram_bytes_max: settings.datagram_bytes_max,
                transport: settings.transport(),
            };
            let endpoint = quic::endpoint(&tls, &plan)?;
            let _ = bound.send(endpoint.local_addr()?);
            Ok(endpoint)
        }),
        workers: vec![rings],
        wake,
        epoch,
        beat: trunk::BEAT_USUAL,
        commands: from_us,
        states: to_us,
        counters: counters.clone(),
    };
    let thread = Some(trunk::spawn(setup)?);
    let address = address.recv().context("trunk")?;
    Ok(Trunk { commands: Some(commands), states, counters, address, thread })
}

fn thread_config(side: usize, sockets: usize) -> ThreadConfig {
    let limits = Limits { sockets_max: sockets as u32 + 8, ..Limits::default() };
    // The deadlines are those of the sources: to keep them well is no part of what is measured.
    let wait = WaitConfig { lead_max: Duration::ZERO, ..WaitConfig::default() };
    ThreadConfig { name: format!("media-{side}"), limits, wait, ..ThreadConfig::default() }
}

fn now() -> Instant {
    link_daemon::clock::now()
}

impl World {
    /// Edges whose media goes through trunks.
    ///
    /// # Errors
    /// If a thread does not start or the trunk does not come up.
    pub fn of_trunks(cores: Cores, streams: usize, route: &Route) -> anyhow::Result<Self> {
        let base = now();
        let epoch = Epoch::new(base);
        let folder = tempfile::tempdir()?;
        let names = NAMES.map(|name| NodeNames::new("eu", name));
        init_pki(folder.path(), &names, 30)?;
        let settings =
            TrunkSettings::for_calls(route.calls_provisioned, Duration::from_millis(400));
        let flows = [Flow::new()?, Flow::new()?];
        let mut world = Self { flows, media: Vec::new(), trunks: Vec::new(), relay: None };
        for (side, core) in [cores.load, cores.system].into_iter().enumerate() {
            let doorbell = Arc::new(Doorbell::new()?);
            let wake = Arc::new(TrunkWake::default());
            let (out, outgoing) = ring(RING_BYTES);
            let (incoming, back) = ring(RING_BYTES);
            let tls = Tls::load(&TlsFiles::of(folder.path(), NAMES[side]))?;
            let rings = WorkerRings { outgoing, incoming, doorbell: doorbell.clone() };
            // Threads take the core of who starts them.
            pin_thread(core)?;
            let trunk = spawn_trunk(tls, NAMES[side], settings, rings, wake.clone(), epoch)?;
            world.trunks.push(trunk);
            let ends = TrunkEnds { out, back, wake, epoch, doorbell: doorbell.clone() };
            let [own, far] = [side, 1 - side].map(|side| world.flows[side].clone());
            let media = TrunkMedia::new(Source::new([own, far], streams, base), ends);
            let config = thread_config(side, 0);
            world.media.push(edge_uring::spawn(config, doorbell, now, move |_| media)?);
        }
        pin_thread(cores.load)?;
        world.connect(streams, route)?;
        Ok(world)
    }

    fn connect(&mut self, streams: usize, route: &Route) -> anyhow::Result<()> {
        let mut far = [self.trunks[1].address, self.trunks[0].address];
        if let Some(path) = route.path {
            let mapping = Mapping { listen: "127.0.0.1:0".parse()?, target: far[0] };
            let relay = Relay::start(vec![mapping], path, 1)
                .map_err(|error| anyhow::anyhow!("relay: {error}"))?;
            far[0] = relay.listen_addrs()[0];
            self.relay = Some(relay);
        }
        for (side, trunk) in self.trunks.iter().enumerate() {
            let entry = NodeEntry {
                node: NodeId(NAMES[1 - side].to_owned()),
                region: RegionId("eu".to_owned()),
                trunk_address: far[side].to_string(),
                resources: Resources::default(),
                limits: Default::default(),
                core: false,
                available: true,
            };
            let commands = trunk.commands.as_ref().context("trunk ended")?;
            commands.send(TrunkCommand::Peer { peer: PEER, node: entry })?;
            for stream in 0..streams {
                let address = Address { peer: PEER, channel: channel(stream) };
                commands.send(TrunkCommand::Open { address, worker: 0 })?;
            }
        }
        let end = now() + Duration::from_secs(10);
        for trunk in &mut self.trunks {
            while !matches!(trunk.states.try_recv(), Ok(TrunkState { up: true, .. })) {
                anyhow::ensure!(now() < end, "the trunk does not come up");
                pause(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Edges with one connected socket for each stream.
    ///
    /// # Errors
    /// Of sockets and threads.
    pub fn of_sockets(cores: Cores, streams: usize) -> anyhow::Result<Self> {
        crate::machine::want_descriptors(streams as u64 * 2 + 256)?;
        let base = now();
        let mut sockets: [Vec<UdpSocket>; 2] = Default::default();
        for _ in 0..streams {
            let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            a.connect(b.local_addr()?)?;
            b.connect(a.local_addr()?)?;
            sockets[0].push(a);
            sockets[1].push(b);
        }
        let flows = [Flow::new()?, Flow::new()?];
        let mut media = Vec::new();
        for (side, (core, sockets)) in
            [cores.load, cores.system].into_iter().zip(sockets).enumerate()
        {
            let [own, far] = [side, 1 - side].map(|side| flows[side].clone());
            let source = Source::new([own, far], streams, base);
            let config = thread_config(side, sockets.len());
            let make = move |io: &mut edge_uring::Io| UdpMedia::new(source, sockets, io);
            pin_thread(core)?;
            media.push(edge_uring::spawn(config, Arc::new(Doorbell::new()?), now, make)?);
        }
        pin_thread(cores.load)?;
        Ok(Self { flows, media, trunks: Vec::new(), relay: None })
    }

    /// Sources whose packets go nowhere.
    ///
    /// # Errors
    /// If a thread does not start.
    pub fn of_sources(cores: Cores, streams: usize) -> anyhow::Result<Self> {
        let base = now();
        let flows = [Flow::new()?, Flow::new()?];
        let mut media = Vec::new();
        for (side, core) in [cores.load, cores.system].into_iter().enumerate() {
            let [own, far] = [side, 1 - side].map(|side| flows[side].clone());
            let alone = SourceAlone::new(Source::new([own, far], streams, base));
            pin_thread(core)?;
            let config = thread_config(side, 0);
            media.push(edge_uring::spawn(config, Arc::new(Doorbell::new()?), now, move |_| alone)?);
        }
        pin_thread(cores.load)?;
        Ok(Self { flows, media, trunks: Vec::new(), relay: None })
    }

    /// Sends at so many packets per second from each edge.
    pub fn send(&self, rates: [u64; 2]) {
        for (flow, rate) in self.flows.iter().zip(rates) {
            flow.rate.store(rate, Relaxed);
        }
    }

    /// Packets that an edge's trunk dropped because they had waited too long.
    pub fn stale(&self, side: usize) -> u64 {
        self.trunks.get(side).map_or(0, |trunk| trunk.counters.dropped_stale.load(Relaxed))
    }

    /// What an edge knows of its route.
    pub fn route(&self, side: usize) -> Option<RouteView> {
        self.trunks.get(side)?.counters.routes().first().cloned()
    }

    /// Counters of the network between, if there is one.
    pub fn wire(&self) -> Option<RelayStats> {
        self.relay.as_ref().map(Relay::stats)
    }

    /// Everything that the trunks count, for who looks for a fault.
    pub fn counters(&self) -> String {
        let of = |trunk: &Trunk| format!("{:?}", trunk.counters);
        self.trunks.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}
