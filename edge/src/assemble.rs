//! Builds threads, queues and sockets from the configuration, and takes them down again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam::queue::ArrayQueue;
use edge_core::{ControlIndex, EdgeConfig, EdgeCore, Settings};
use edge_uring::Limits;
use edge_xdp::FastPath;
use link_daemon::admin::{self, Admin};
use link_daemon::drain::Shutdown;
use link_daemon::log::LogLevel;
use link_daemon::metrics::Metrics;
use link_daemon::quic::{self, DATAGRAM_BYTES_USUAL, EndpointPlan, LinkSettings, TrunkSettings};
use link_daemon::reload::{self, Fixed, Reload, Requests};
use link_daemon::tls::Tls;
use link_daemon::{clock, entropy};
use link_proto::message::{Hello, Load};
use link_proto::table::{NodeEntry, Tables};
use quinn::Endpoint;
use rand::RngExt as _;
use sip_core::SipConfig;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::link_client::{Connections, LinkClient};
use crate::media_handle::{MediaHandle, MediaQueues};
use crate::media_ports::MediaPorts;
use crate::media_thread::{self, MediaThreadConfig};
use crate::prompt_cache::PromptCache;
use crate::recorder::{self, Recorder};
use crate::signalling::{Aside, LinkQueue, Signalling};
use crate::snapshot::Snapshot;
use crate::sparing::Sparing;
use crate::tables::TablesFile;
use crate::trunk::{self, RouteView, TrunkCounters, TrunkSetup, TrunkWake, WorkerRings};
use crate::trunk_ring::Epoch;
use crate::{awake, capacity, fast_path, metrics, sip_errors, tables, trunk_ring, upload};

/// Commands, events and asides that may wait at once.
const QUEUE_ENTRIES_MAX: usize = 8_192;
/// Bytes of RTP that may wait between a media thread and the trunk, each way.
const TRUNK_RING_BYTES: usize = 4 << 20;
/// Blocks of 20 ms that may wait for the recorder: a second of 200 recordings.
const RECORDER_BLOCKS_MAX: usize = 10_000;
/// A port pair rests so long after use.
const PORT_DRAIN: Duration = Duration::from_secs(3);
/// Samples of prompts kept in memory: about 64 MiB.
const PROMPT_SAMPLES_MAX: usize = 32 << 20;

/// Addresses that were bound.
#[derive(Debug, Clone)]
pub struct Bound {
    /// SIP over UDP.
    pub sip: SocketAddr,
    /// Media trunk.
    pub trunk: SocketAddr,
    /// Admin HTTP.
    pub admin: SocketAddr,
}

/// A running edge.
pub struct Running {
    /// Its addresses.
    pub bound: Bound,
    signalling: Option<JoinHandle<()>>,
    media: Vec<edge_uring::MediaThread>,
    asides: mpsc::Sender<Aside>,
    recorder: Option<JoinHandle<()>>,
    trunk: Option<JoinHandle<()>>,
    drain_max: Duration,
    hello: watch::Sender<Hello>,
    /// Asks for a new configuration.
    pub reload: Reload,
    /// Who asks; to be answered by whoever has the file.
    pub reloads: Option<Requests>,
    /// What everything was made for.
    legs_max: usize,
    /// Leaves the interfaces with its owner.
    _fast_path: Option<FastPath>,
}

/// What only one part of the assembly needs, kept together so that the parts read in order.
struct Parts {
    config: Config,
    tls: Arc<Tls>,
    sip: tokio::net::UdpSocket,
    sip_address: SocketAddr,
    snapshot: Arc<Snapshot>,
}

/// Binds everything and starts every thread. Must be called inside a multi-thread tokio runtime.
///
/// # Errors
/// Names the address, file or thread that cannot be had. Nothing is left behind.
pub async fn start(config: Config, log: LogLevel, shutdown: Shutdown) -> anyhow::Result<Running> {
    capacity::check(&config, &ring_limits(&config), ports_max(&config), PORT_DRAIN)?;
    let tls = Arc::new(Tls::load(&config.link.tls)?);
    tls.identity()
        .require(config.region.as_str(), config.node.as_str())
        .context("node and region of the configuration")?;
    let listen = config.sip.listen;
    let sip = tokio::net::UdpSocket::bind(listen).await;
    let sip = sip.map_err(|e| anyhow::anyhow!("`sip.listen` = {listen}: cannot listen (UDP): {e}"));
    // Everything that is taken is told at once.
    let (sip, admin_listener) = match (sip, admin::bind(config.admin, "admin.listen").await) {
        (Ok(sip), Ok(admin)) => (sip, admin),
        (Err(one), Err(other)) => anyhow::bail!("{one:#}\n{other:#}"),
        (Err(one), _) | (_, Err(one)) => return Err(one),
    };
    let sip_address = sip.local_addr()?;
    sip_errors::enable(&sip, sip_address).context("SIP: IP_RECVERR")?;
    let admin_address = admin_listener.local_addr()?;
    let snapshot = Arc::new(Snapshot::default());
    let trunk_counters = Arc::new(TrunkCounters::default());
    let metrics = Metrics::new("edge");
    metrics::register(&metrics, snapshot.clone(), trunk_counters.clone());

    let names: Vec<String> =
        config.link.controls.iter().map(|control| control.node.clone()).collect();
    let keep_awake = config.media.keep_awake;
    let parts = Parts { config, tls, sip, sip_address, snapshot: snapshot.clone() };
    let (running, link_up) =
        start_threads(parts, trunk_counters, &metrics, admin_address, shutdown.clone()).await?;
    awake::start(keep_awake, snapshot.clone(), &metrics);
    let calls = snapshot.clone();
    let admin = Admin::new(metrics, log)
        .reload(running.reload.clone())
        .ready(move || readiness(snapshot.view().draining, &names, &link_up.borrow()))
        .calls(move || {
            let calls = calls.clone();
            async move { calls.calls().await }
        });
    tokio::spawn(async move {
        if let Err(error) = admin.serve(admin_listener, shutdown).await {
            tracing::error!(%error, "admin port");
        }
    });
    Ok(running)
}

async fn start_threads(
    parts: Parts,
    trunk_counters: Arc<TrunkCounters>,
    metrics: &Metrics,
    admin_address: SocketAddr,
    shutdown: Shutdown,
) -> anyhow::Result<(Running, watch::Receiver<Connections>)> {
    let Parts { config, tls, sip, sip_address, snapshot } = parts;
    let media_wake = Arc::new(Notify::new());
    let trunk_wake = Arc::new(TrunkWake::default());
    let epoch = Epoch::new(clock::now());
    let recordings = config.data_folder.join("recordings");
    let recovered = recorder::recover(&recordings)?;
    if recovered > 0 {
        tracing::warn!(recovered, "recordings of an earlier run were closed");
    }

    let mut fast_path = fast_path::start(&config.media, streams_max(&config), metrics);
    let mut media = Vec::new();
    let mut handles = Vec::new();
    let mut rings = Vec::new();
    let mut audio = Vec::new();
    for index in 0..config.media.workers {
        let queues = MediaQueues::new(QUEUE_ENTRIES_MAX, media_wake.clone())?;
        let (trunk_out, outgoing) = trunk_ring::ring(TRUNK_RING_BYTES);
        let (incoming, trunk_in) = trunk_ring::ring(TRUNK_RING_BYTES);
        rings.push(WorkerRings { outgoing, incoming, doorbell: queues.doorbell.clone() });
        let recorder = Arc::new(ArrayQueue::new(RECORDER_BLOCKS_MAX));
        audio.push(recorder.clone());
        let thread = MediaThreadConfig {
            index,
            queues: queues.clone(),
            trunk_out,
            trunk_wake: trunk_wake.clone(),
            epoch,
            trunk_in,
            recorder,
            ports_max: ports_max(&config),
            limits: ring_limits(&config),
            wait: edge_uring::WaitConfig {
                busy_poll: config.media.busy_poll,
                batch_completions: config.media.batch_packets,
                batch_wait: config.media.batch_wait,
                ..edge_uring::WaitConfig::default()
            },
            core: core_of(&config, index),
            fifo_priority: Some(config.media.fifo_priority).filter(|priority| *priority > 0),
            fast_path: fast_path.as_mut().and_then(FastPath::take_table),
        };
        media.push(media_thread::spawn(thread, metrics)?);
        handles.push(MediaHandle::new(queues));
    }

    let (recorder_commands, commands) = mpsc::unbounded_channel();
    let ready = Arc::new(Notify::new());
    let folder = recordings.clone();
    let recorder = Recorder { folder, commands, audio, ready: ready.clone() };
    let recorder = recorder::spawn(recorder).context("recorder")?;

    let (trunk_commands, commands) = mpsc::unbounded_channel();
    let (states, trunk_states) = mpsc::unbounded_channel();
    let (bound_sender, bound) = std::sync::mpsc::sync_channel(1);
    let setup = TrunkSetup {
        node: config.node.clone(),
        core: config.core,
        endpoint: Box::new(trunk_endpoint(&config, tls.clone(), bound_sender)),
        workers: rings,
        wake: trunk_wake,
        epoch,
        beat: config.trunk.beat,
        commands,
        states,
        counters: trunk_counters.clone(),
    };
    let trunk = trunk::spawn(setup).context("media trunk")?;
    let trunk_address = bound.recv().context("media trunk")?;

    let (connections, connected) = watch::channel(Connections::new());
    let prompts = PromptCache::new(
        &config.data_folder.join("prompts"),
        PROMPT_SAMPLES_MAX,
        connected.clone(),
    )?;
    tokio::spawn(upload::run(recordings, ready, connected.clone(), shutdown.clone()));

    let (to_core, from_link) = mpsc::channel(QUEUE_ENTRIES_MAX);
    let link_parts = LinkParts {
        trunk_counters: trunk_counters.clone(),
        to_core,
        snapshot: snapshot.clone(),
        connections,
    };
    let (links, hello) = start_links(&config, &tls, trunk_address, link_parts, &shutdown)?;

    let (aside_sender, asides) = mpsc::channel(QUEUE_ENTRIES_MAX);
    let core = edge_core_of(&config, sip_address)?;
    let (first, last) = config.media.ports;
    let advertise = config.media.advertise.unwrap_or_else(|| advertised(&config, sip_address));
    let listen = if config.media.listen.is_unspecified() && !sip_address.ip().is_unspecified() {
        sip_address.ip()
    } else {
        config.media.listen
    };
    let signalling = Signalling {
        core,
        socket: sip,
        local: sip_address,
        media: handles,
        media_wake,
        ports: MediaPorts::new(listen, advertise, first, last, PORT_DRAIN),
        from_link,
        links,
        recorder: recorder_commands,
        trunk: trunk_commands,
        trunk_states,
        prompts,
        runtime: tokio::runtime::Handle::current(),
        asides,
        aside_sender: aside_sender.clone(),
        snapshot,
        tables: Arc::new(TablesFile::new(config.data_folder.join("tables.json"))),
        recorder_next: AtomicU32::new(1),
        channels: BTreeMap::new(),
        refusals: Sparing::default(),
    };
    let signalling = start_signalling(signalling)?;
    let (reload, reloads) = reload::channel();
    let bound = Bound { sip: sip_address, trunk: trunk_address, admin: admin_address };
    let running = Running {
        bound,
        signalling: Some(signalling),
        media,
        asides: aside_sender,
        recorder: Some(recorder),
        trunk: Some(trunk),
        drain_max: config.drain_max,
        hello,
        reload: reload.clone(),
        reloads: Some(reloads),
        legs_max: config.sip.legs_max,
        _fast_path: fast_path,
    };
    Ok((running, connected))
}

fn ports_max(config: &Config) -> u32 {
    // Every leg may be extended to another node.
    u32::try_from(config.sip.legs_max * 2).unwrap_or(u32::MAX)
}

/// Of one worker: what arrives at its legs.
fn streams_max(config: &Config) -> u32 {
    u32::try_from(config.sip.legs_max).unwrap_or(u32::MAX)
}

fn ring_limits(config: &Config) -> Limits {
    let sockets = u32::try_from(config.sip.legs_max * 2 + 64).unwrap_or(u32::MAX);
    Limits { sockets_max: sockets.min(65_536), ..Limits::default() }
}

/// One core of the affinity mask per worker, from the last one down.
fn core_of(config: &Config, index: u16) -> Option<usize> {
    let cores = edge_uring::cores_allowed();
    if !config.media.pin || cores.is_empty() {
        return None;
    }
    cores.get((cores.len() - 1).wrapping_sub(usize::from(index)) % cores.len()).copied()
}

fn trunk_endpoint(
    config: &Config,
    tls: Arc<Tls>,
    bound: std::sync::mpsc::SyncSender<SocketAddr>,
) -> impl FnOnce() -> anyhow::Result<Endpoint> + Send + use<> {
    let settings = TrunkSettings {
        datagram_bytes_max: config.trunk.datagram_bytes_max,
        ..TrunkSettings::for_calls(config.trunk.calls_max, config.trunk.round_trip_max)
    };
    let bind = config.trunk.listen;
    move || {
        let plan = EndpointPlan {
            key: "trunk.listen",
            bind,
            alpn: quic::TRUNK_ALPN,
            accept: true,
            socket_buffer_bytes: settings.receive_buffer_bytes.min(8 << 20),
            datagram_bytes_max: settings.datagram_bytes_max,
            transport: settings.transport(),
        };
        let endpoint = quic::endpoint(&tls, &plan)?;
        let _ = bound.send(endpoint.local_addr()?);
        Ok(endpoint)
    }
}

/// What `/ready` says: whether calls are taken, and which control nodes are reachable.
fn readiness(draining: bool, nodes: &[String], up: &Connections) -> Result<String, String> {
    let state = |node: &String| {
        let state = if up.contains_key(node) { "up" } else { "down" };
        format!("control {node}: {state}\n")
    };
    let states: String = nodes.iter().map(state).collect();
    match (draining, up.is_empty()) {
        (true, _) => Err(format!("draining\n{states}")),
        (_, true) => Err(format!("no control node\n{states}")),
        _ => Ok(states),
    }
}

struct LinkParts {
    trunk_counters: Arc<TrunkCounters>,
    to_core: mpsc::Sender<(ControlIndex, edge_core::LinkInput)>,
    snapshot: Arc<Snapshot>,
    connections: watch::Sender<Connections>,
}

/// One client per control node.
fn start_links(
    config: &Config,
    tls: &Arc<Tls>,
    trunk: SocketAddr,
    parts: LinkParts,
    shutdown: &Shutdown,
) -> anyhow::Result<(Vec<LinkQueue>, watch::Sender<Hello>)> {
    let any: IpAddr =
        if config.sip.listen.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
    let plan = EndpointPlan {
        key: "link",
        bind: SocketAddr::new(any, 0),
        alpn: quic::LINK_ALPN,
        accept: false,
        socket_buffer_bytes: 0,
        datagram_bytes_max: DATAGRAM_BYTES_USUAL,
        transport: LinkSettings::default().transport(),
    };
    let node = NodeEntry {
        node: config.node.clone(),
        region: config.region.clone(),
        trunk_address: config.trunk.advertise.clone().unwrap_or_else(|| trunk.to_string()),
        resources: config.resources,
        limits: config.limits,
        core: config.core,
        available: true,
    };
    let LinkParts { trunk_counters, to_core, snapshot, connections } = parts;
    let endpoint = quic::endpoint(tls, &plan)?;
    let hello = Hello { node, boot: entropy::boot_id()?, version_min: 1 };
    let (say, hello) = watch::channel(hello);
    let connections = Arc::new(connections);
    let mut links = Vec::new();
    for (index, control) in config.link.controls.iter().enumerate() {
        let (messages, from_core) = mpsc::channel(QUEUE_ENTRIES_MAX);
        let (reset, snapshot) = (Arc::new(Notify::new()), snapshot.clone());
        let trunk_counters = trunk_counters.clone();
        links.push(LinkQueue { node: control.node.clone(), messages, reset: reset.clone() });
        let client = LinkClient {
            endpoint: endpoint.clone(),
            index: ControlIndex(u16::try_from(index)?),
            control: control.clone(),
            hello: hello.clone(),
            to_core: to_core.clone(),
            from_core,
            load: Arc::new(move || {
                let routes = trunk_counters.routes();
                Load { routes: routes.iter().map(RouteView::report).collect(), ..snapshot.load() }
            }),
            reset,
            connections: connections.clone(),
        };
        tokio::spawn(client.run(shutdown.clone()));
    }
    if links.is_empty() {
        tracing::info!("no control node is configured: this edge works alone");
        // The end of the channels would be the end of signalling.
        let mut shutdown = shutdown.clone();
        tokio::spawn(async move {
            shutdown.requested().await;
            drop((to_core, connections));
        });
    }
    Ok((links, say))
}

fn advertised(config: &Config, sip: SocketAddr) -> IpAddr {
    config.sip.advertise.unwrap_or_else(|| sip.ip())
}

/// A call takes about six transactions, and each stays for 32 s after its end to absorb repeats
/// (RFC 3261 timers H, J, K): as many as the permitted rate makes, beside those of live legs.
fn transactions_max(config: &Config) -> usize {
    const PER_CALL: usize = 6;
    const LINGER_S: usize = 40;
    const RATE_MAX: usize = 2_000;
    let rate: usize = config.providers.iter().map(|p| p.calls_per_s_max as usize).sum();
    config.sip.legs_max * 8 + rate.min(RATE_MAX) * PER_CALL * LINGER_S
}

fn edge_core_of(config: &Config, sip: SocketAddr) -> anyhow::Result<EdgeCore> {
    let mut rng = entropy::seeded_rng()?;
    let token_key: [u8; 32] = rng.random();
    let host = advertised(config, sip).to_string();
    let sip_config = SipConfig {
        dialogs_max: config.sip.legs_max,
        transactions_max: transactions_max(config),
        ..SipConfig::new(host, sip.port(), token_key)
    };
    let edge = EdgeConfig {
        workers: config.media.workers,
        controls: config.link.controls.iter().map(|control| control.choice).collect(),
        providers: config.providers.clone(),
        legs_max: config.sip.legs_max,
        ports_max: ports_max(config),
        media_address: config.media.advertise.unwrap_or_else(|| advertised(config, sip)),
        media_timeout: Some(config.media.timeout).filter(|timeout| !timeout.is_zero()),
        control_lost_hold: config.sip.control_lost_hold,
        limits: config.limits,
        ..EdgeConfig::new(config.node.clone(), sip_config)
    };
    let kept = tables::load(&config.data_folder.join("tables.json"))?;
    let first = || Tables { version: 0, nodes: Vec::new(), routes: config.routes.clone() };
    Ok(EdgeCore::new(edge, kept.unwrap_or_else(first), rng, clock::now()))
}

fn start_signalling(signalling: Signalling) -> anyhow::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("sig-0".to_owned());
    // The socket was registered with the outer runtime; it moves to the thread's own.
    let socket = signalling.socket.into_std()?;
    let rest = move |socket| Signalling { socket, ..signalling };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(thread.spawn(move || {
        runtime.block_on(async move {
            match tokio::net::UdpSocket::from_std(socket) {
                Ok(socket) => rest(socket).run().await,
                Err(error) => tracing::error!(%error, "SIP socket"),
            }
        });
    })?)
}

/// What sockets, threads and memory were made from.
fn keep_fixed(fixed: &mut Fixed, old: &Config, new: &mut Config) {
    fixed.keep("node", &old.node, &mut new.node);
    fixed.keep("region", &old.region, &mut new.region);
    fixed.keep("core", &old.core, &mut new.core);
    fixed.keep("data_folder", &old.data_folder, &mut new.data_folder);
    fixed.keep("admin.listen", &old.admin, &mut new.admin);
    fixed.keep("log.format", &old.log_format, &mut new.log_format);
    fixed.keep("sip.listen", &old.sip.listen, &mut new.sip.listen);
    fixed.keep("sip.advertise", &old.sip.advertise, &mut new.sip.advertise);
    fixed.keep("media.listen", &old.media.listen, &mut new.media.listen);
    fixed.keep("media.advertise", &old.media.advertise, &mut new.media.advertise);
    fixed.keep("media.ports", &old.media.ports, &mut new.media.ports);
    fixed.keep("media.workers", &old.media.workers, &mut new.media.workers);
    fixed.keep("media.pin", &old.media.pin, &mut new.media.pin);
    fixed.keep("media.fifo_priority", &old.media.fifo_priority, &mut new.media.fifo_priority);
    fixed.keep("media.busy_poll_ms", &old.media.busy_poll, &mut new.media.busy_poll);
    fixed.keep("media.keep_awake", &old.media.keep_awake, &mut new.media.keep_awake);
    fixed.keep("media.batch_packets", &old.media.batch_packets, &mut new.media.batch_packets);
    fixed.keep("media.batch_wait_us", &old.media.batch_wait, &mut new.media.batch_wait);
    fixed.keep("media.xdp", &old.media.xdp, &mut new.media.xdp);
    fixed.keep("media.xdp_interfaces", &old.media.xdp_interfaces, &mut new.media.xdp_interfaces);
    fixed.keep("media.xdp_coalesce_us", &old.media.xdp_coalesce, &mut new.media.xdp_coalesce);
    fixed.keep("link.control", &old.link.controls, &mut new.link.controls);
    fixed.keep("link.*_file", &old.link.tls, &mut new.link.tls);
    fixed.keep("trunk.listen", &old.trunk.listen, &mut new.trunk.listen);
    fixed.keep("trunk.advertise", &old.trunk.advertise, &mut new.trunk.advertise);
    fixed.keep("trunk.calls_max", &old.trunk.calls_max, &mut new.trunk.calls_max);
    fixed.keep("trunk.beat_ms", &old.trunk.beat, &mut new.trunk.beat);
    fixed.keep("trunk.datagram_bytes_max", &old.trunk.datagram_bytes_max, {
        &mut new.trunk.datagram_bytes_max
    });
    fixed.keep("trunk.round_trip_max_ms", &old.trunk.round_trip_max, &mut new.trunk.round_trip_max);
}

impl Running {
    /// Takes over what can change while calls are up; the keys that cannot are named, and have
    /// their old values in `new` afterwards.
    pub async fn change(&mut self, old: &Config, new: &mut Config) -> Fixed {
        let mut fixed = Fixed::default();
        keep_fixed(&mut fixed, old, new);
        if new.sip.legs_max > self.legs_max {
            fixed.keep("sip.legs_max (above that of the start)", &old.sip.legs_max, {
                &mut new.sip.legs_max
            });
        }
        self.drain_max = new.drain_max;
        let settings = Settings {
            providers: new.providers.clone(),
            routes: new.routes.clone(),
            resources: new.resources,
            limits: new.limits,
            legs_max: new.sip.legs_max,
            media_timeout: Some(new.media.timeout).filter(|timeout| !timeout.is_zero()),
            control_lost_hold: new.sip.control_lost_hold,
        };
        let _ = self.asides.send(Aside::Settings(Box::new(settings))).await;
        self.hello.send_if_modified(|hello| {
            let entry = &mut hello.node;
            let changed = (entry.resources, entry.limits) != (new.resources, new.limits);
            (entry.resources, entry.limits) = (new.resources, new.limits);
            changed
        });
        fixed
    }

    /// Takes no new calls, waits for the others at most `drain_max`, then ends every thread. A
    /// second signal ends the wait.
    pub async fn drain(mut self) {
        let _ = self.asides.send(Aside::Drain(self.drain_max)).await;
        let asides = self.asides.clone();
        let hurry = tokio::spawn(async move {
            if let Ok(signal) = link_daemon::signal::termination().await {
                tracing::warn!(signal, "asked again: the calls that are left end now");
                let _ = asides.send(Aside::Drain(Duration::ZERO)).await;
            }
        });
        let threads = (self.signalling.take(), self.recorder.take(), self.trunk.take());
        let media = std::mem::take(&mut self.media);
        let ended = tokio::task::spawn_blocking(move || {
            let (signalling, recorder, trunk) = threads;
            join(signalling);
            for thread in media {
                if let Err(error) = thread.stop() {
                    tracing::error!(%error, "media thread");
                }
            }
            // Both end because signalling, which held their command channels, has ended.
            join(recorder);
            join(trunk);
        });
        if ended.await.is_err() {
            tracing::error!("a thread could not be joined");
        }
        hurry.abort();
    }

    /// Whether a thread has ended by itself: the process cannot serve calls any more.
    pub fn is_broken(&self) -> bool {
        let dead =
            |thread: &Option<JoinHandle<()>>| thread.as_ref().is_none_or(JoinHandle::is_finished);
        dead(&self.signalling)
            || dead(&self.recorder)
            || dead(&self.trunk)
            || self.media.iter().any(edge_uring::MediaThread::is_finished)
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(Err(_)) = thread.map(JoinHandle::join) {
        tracing::error!("a thread panicked");
    }
}
