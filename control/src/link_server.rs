//! The edges' connections: hello and welcome, tables, events to the core, commands and
//! acknowledgements to the edges, prompts and recordings on streams of their own.
//!
//! Decides nothing about calls. Of two connections with the same node name the newer one wins.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use control_core::io::Input;
use link_daemon::drain::Shutdown;
use link_daemon::quic::frame::{FrameReader, FrameWriter};
use link_daemon::quic::stream::{FetchRequest, Incoming, UploadRequest, open_incoming};
use link_daemon::tls::peer_identity;
use link_proto::codec::{DecodeError, decode, encode};
use link_proto::envelope::PROTOCOL_VERSION;
use link_proto::media::PromptKey;
use link_proto::message::{Hello, Load, Message, RecordingHeader, Refused, Welcome};
use link_proto::table::{NodeEntry, Tables};
use link_proto::{NodeId, RegionId};
use quinn::{Connection, Endpoint, VarInt};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::core_task::{CoreHandle, MediaLayer};
use crate::metrics::{Direction, LinkMetrics, PeerRegion, Reason};
use crate::rows::recording_path;

/// Messages that may wait for one edge; an edge that is further behind is disconnected, and what
/// is not acknowledged is sent again when it returns.
const MESSAGES_WAITING_MAX: usize = 8_192;
/// Messages written with one flush.
const MESSAGES_PER_FLUSH_MAX: usize = 64;
/// An edge has this long to say hello, and then to reconcile.
const OPENING_MAX: Duration = Duration::from_secs(5);
/// Largest recording: two channels of 8 kHz 16-bit for six hours, and its header.
const RECORDING_BYTES_MAX: u64 = 6 * 3_600 * 8_000 * 2 * 2 + 4_096;

/// Reasons for which we close a connection.
const CLOSE_END: VarInt = VarInt::from_u32(0);
const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
const CLOSE_REPLACED: VarInt = VarInt::from_u32(2);
const CLOSE_BEHIND: VarInt = VarInt::from_u32(3);

/// An edge that is connected.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectedEdge {
    /// What it said of itself.
    pub entry: NodeEntry,
    /// Its process.
    pub boot: u64,
    /// Its last load, once it has told one.
    pub load: Option<Load>,
}

struct Edge {
    info: ConnectedEdge,
    connection: Connection,
    messages: mpsc::Sender<Message>,
}

/// The way to the edges. Clones share it.
#[derive(Clone)]
pub struct LinkHandle {
    edges: Arc<Mutex<BTreeMap<NodeId, Edge>>>,
    metrics: LinkMetrics,
}

impl LinkHandle {
    /// Without any edge yet.
    pub fn new(metrics: LinkMetrics) -> Self {
        Self { edges: Arc::default(), metrics }
    }

    /// Queues a message. An edge that is not connected or behind does not get it; whoever sends
    /// repeats it when the edge has reconciled.
    pub fn send(&self, node: &NodeId, message: Message) {
        let edges = self.lock();
        let Some(edge) = edges.get(node) else {
            return self.dropped("not-connected");
        };
        if edge.messages.try_send(message).is_err() {
            self.dropped("edge-behind");
            edge.connection.close(CLOSE_BEHIND, b"too many messages wait");
        }
    }

    /// Every connected edge by name.
    pub fn connected(&self) -> Vec<ConnectedEdge> {
        self.lock().values().map(|edge| edge.info.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Edge>> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self, reason: &'static str) {
        self.metrics.dropped.get_or_create(&Reason { reason }).inc();
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.refused.get_or_create(&Reason { reason }).inc();
    }

    fn connected_gauge(&self, region: &RegionId) -> i64 {
        let edges = self.lock();
        let count = edges.values().filter(|edge| edge.info.entry.region == *region).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Enters the edge; an older connection of that name is closed.
    fn enter(&self, edge: Edge) {
        let region = edge.info.entry.region.clone();
        let node = edge.info.entry.node.clone();
        let old = self.lock().insert(node.clone(), edge);
        if let Some(old) = old {
            tracing::warn!(%node, "a newer connection of this edge replaces the older one");
            self.refused("replaced");
            old.connection.close(CLOSE_REPLACED, b"replaced by a newer connection");
        }
        self.show(&region);
    }

    /// Takes the edge out, if it is still this connection. False if a newer one has replaced it.
    fn leave(&self, entry: &NodeEntry, connection: &Connection) -> bool {
        let mut edges = self.lock();
        let current = edges.get(&entry.node).is_some_and(|edge| is_same(edge, connection));
        if current {
            edges.remove(&entry.node);
        }
        drop(edges);
        self.show(&entry.region);
        current
    }

    fn show(&self, region: &RegionId) {
        let label = PeerRegion { peer_region: region.to_string() };
        self.metrics.connected.get_or_create(&label).set(self.connected_gauge(region));
    }

    fn set_entry(&self, connection: &Connection, entry: &NodeEntry) {
        if let Some(edge) = self.lock().get_mut(&entry.node)
            && is_same(edge, connection)
        {
            edge.info.entry = entry.clone();
        }
    }

    fn set_load(&self, node: &NodeId, connection: &Connection, load: Load) {
        if let Some(edge) = self.lock().get_mut(node)
            && is_same(edge, connection)
        {
            edge.info.load = Some(load);
        }
    }
}

fn is_same(edge: &Edge, connection: &Connection) -> bool {
    edge.connection.stable_id() == connection.stable_id()
}

/// What the server is made of.
#[derive(Clone)]
pub struct LinkServer {
    /// This node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Where connected edges are entered.
    pub link: LinkHandle,
    /// Events go here.
    pub core: CoreHandle,
    /// Prompts come from here.
    pub media: Arc<dyn MediaLayer>,
    /// Tables for the edges.
    pub tables: watch::Receiver<Arc<Tables>>,
    /// Folder of recordings.
    pub recordings: PathBuf,
    /// Connections at once.
    pub edges_max: usize,
    /// Streams that are being served, per connection.
    pub streams_max: u32,
}

impl LinkServer {
    /// Accepts connections until shutdown, then closes all.
    pub async fn serve(self, endpoint: Endpoint, mut shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(self.edges_max));
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                () = shutdown.requested() => break,
            };
            let Some(incoming) = incoming else { break };
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.link.refused("edges-max");
                incoming.refuse();
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                let address = incoming.remote_address();
                if let Err(error) = server.connection(incoming).await {
                    tracing::debug!(%address, error = format!("{error:#}"), "connection ended");
                }
                drop(place);
            });
        }
        endpoint.close(CLOSE_END, b"control is shutting down");
        endpoint.wait_idle().await;
    }

    async fn connection(self, incoming: quinn::Incoming) -> anyhow::Result<()> {
        let connection = match incoming.await {
            Ok(connection) => connection,
            Err(error) => {
                self.link.refused("handshake");
                tracing::warn!(%error, "an edge could not connect");
                return Err(error.into());
            }
        };
        let streams = self.clone().streams(connection.clone());
        let end = streams.await;
        connection.close(CLOSE_END, b"");
        end
    }

    /// Serves what the edge opens. The control stream decides about the connection's life.
    async fn streams(self, connection: Connection) -> anyhow::Result<()> {
        let places = usize::try_from(self.streams_max).unwrap_or(usize::MAX);
        let places = Arc::new(Semaphore::new(places.max(1)));
        let controlled = Arc::new(std::sync::atomic::AtomicBool::new(false));
        loop {
            let (send, receive) = connection.accept_bi().await?;
            // Bounded by the transport, too; the peer waits for credit.
            let place = places.clone().acquire_owned().await?;
            let (server, connection) = (self.clone(), connection.clone());
            let controlled = controlled.clone();
            tokio::spawn(async move {
                let result = match open_incoming(send, receive).await {
                    Ok(Incoming::Control(reader, writer)) => {
                        if controlled.swap(true, std::sync::atomic::Ordering::AcqRel) {
                            server.link.refused("second-control-stream");
                            return;
                        }
                        server.control(connection, reader, writer).await
                    }
                    Ok(Incoming::Fetch(request)) => server.prompt(request).await,
                    Ok(Incoming::Upload(request)) => server.recording(request).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = result {
                    tracing::debug!(error = format!("{error:#}"), "stream ended");
                }
                drop(place);
            });
        }
    }

    /// The control stream from hello to its end, which is the end of the connection.
    async fn control(
        self,
        connection: Connection,
        mut reader: FrameReader,
        mut writer: FrameWriter,
    ) -> anyhow::Result<()> {
        let opening = tokio::time::timeout(OPENING_MAX, self.hello(&connection, &mut reader));
        let hello = match opening.await.context("no hello in time").flatten() {
            Ok(hello) => hello,
            Err(error) => return self.refuse(&connection, writer, error).await,
        };
        let Hello { node: entry, boot, .. } = hello;
        let (messages, waiting) = mpsc::channel(MESSAGES_WAITING_MAX);
        let welcome = Message::Welcome(Welcome {
            node: self.node.clone(),
            region: self.region.clone(),
            version: PROTOCOL_VERSION,
        });
        writer.push(&encode(&self.region, &welcome)?)?;
        writer.flush().await?;
        let info = ConnectedEdge { entry: entry.clone(), boot, load: None };
        self.link.enter(Edge { info, connection: connection.clone(), messages });
        tracing::info!(node = %entry.node, region = %entry.region, boot, "edge connected");
        let result = tokio::select! {
            result = self.read(&connection, &entry, boot, &mut reader) => result,
            result = self.write(&mut writer, waiting) => result,
            end = connection.closed() => Err(end.into()),
        };
        if self.link.leave(&entry, &connection) {
            let why = result.as_ref().err().map(|error| format!("{error:#}"));
            tracing::info!(node = %entry.node, region = %entry.region, why, "edge lost");
            let _ = self.core.input(Input::EdgeDown { node: entry.node }).await;
        }
        connection.close(CLOSE_END, b"control stream ended");
        result
    }

    /// The first message, held against the certificate.
    async fn hello(
        &self,
        connection: &Connection,
        reader: &mut FrameReader,
    ) -> anyhow::Result<Hello> {
        let identity = peer_identity(connection)?;
        let frame = reader.next().await?.context("closed before hello")?;
        let (region, message) = decode(&frame)?;
        let Message::Hello(hello) = message else { bail!("the first message is not hello") };
        identity.require(hello.node.region.as_str(), hello.node.node.as_str())?;
        ensure!(region == hello.node.region, "envelope and hello name different regions");
        ensure!(
            hello.version_min <= PROTOCOL_VERSION,
            "the edge needs protocol version {}, this node speaks {PROTOCOL_VERSION}",
            hello.version_min
        );
        Ok(hello)
    }

    async fn refuse(
        &self,
        connection: &Connection,
        mut writer: FrameWriter,
        error: anyhow::Error,
    ) -> anyhow::Result<()> {
        self.link.refused("hello");
        let why = format!("{error:#}");
        let address = connection.remote_address();
        tracing::warn!(%address, why, "an edge was refused");
        let unmet = match error.downcast_ref() {
            Some(DecodeError::Unusable { unmet, .. }) => unmet.clone(),
            _ => Vec::new(),
        };
        let refused = Refused { action: "hello".into(), about: None, unmet, why };
        writer.push(&encode(&self.region, &Message::Refused(refused))?)?;
        writer.flush().await?;
        writer.finish();
        // The edge closes when it has read why; if not, we do.
        let _ = tokio::time::timeout(OPENING_MAX, connection.closed()).await;
        connection.close(CLOSE_REFUSED, b"hello was refused");
        Err(error)
    }

    async fn read(
        &self,
        connection: &Connection,
        entry: &NodeEntry,
        boot: u64,
        reader: &mut FrameReader,
    ) -> anyhow::Result<()> {
        let node = &entry.node;
        let incoming = Direction { direction: "in" };
        let received = self.link.metrics.messages.get_or_create_owned(&incoming);
        while let Some(frame) = reader.next().await? {
            received.inc();
            let message = match decode(&frame) {
                Ok((region, message)) if region == entry.region => message,
                Ok((region, _)) => bail!("a message of region {region} from {node}"),
                Err(error) => match self.unusable(node, &error) {
                    Some(input) => {
                        self.core.input(input).await?;
                        continue;
                    }
                    None => continue,
                },
            };
            let input = match message {
                Message::Event(message) => Input::LinkEvent { node: node.clone(), message },
                Message::CommandAck(ack) => Input::CommandAck { node: node.clone(), ack },
                Message::Reconcile(reconcile) => {
                    tracing::info!(%node, legs = reconcile.legs.len(), "edge reconciled");
                    Input::EdgeUp { entry: entry.clone(), boot, legs: reconcile.legs }
                }
                Message::Load(load) => {
                    self.link.set_load(node, connection, load.clone());
                    Input::Load { node: node.clone(), load }
                }
                // It says again what it can do; who it is stays what its certificate says.
                Message::Hello(hello)
                    if hello.node.node == *node && hello.node.region == entry.region =>
                {
                    self.link.set_entry(connection, &hello.node);
                    Input::EdgeChanged { entry: hello.node }
                }
                Message::Refused(refused) => {
                    self.link.dropped("refused-by-edge");
                    tracing::warn!(%node, action = refused.action, why = refused.why, "refused");
                    continue;
                }
                other => {
                    self.link.dropped("not-for-control");
                    tracing::warn!(%node, ?other, "not a message for control");
                    continue;
                }
            };
            self.core.input(input).await?;
        }
        bail!("the edge closed its control stream")
    }

    /// Tells the sender, and the session that will not hear of an event.
    fn unusable(&self, node: &NodeId, error: &DecodeError) -> Option<Input> {
        self.link.dropped("unusable");
        tracing::warn!(%node, %error, "unusable link message");
        if let Some(refusal) = error.refusal() {
            self.link.send(node, refusal);
        }
        let DecodeError::Unusable { action, about: Some(about), why, .. } = error else {
            return None;
        };
        let (node, about, why) = (node.clone(), *about, why.clone());
        (action == "event").then_some(Input::EventUnusable { node, about, why })
    }

    /// Tables first and whenever they change, between them whatever the core has to say.
    async fn write(
        &self,
        writer: &mut FrameWriter,
        mut waiting: mpsc::Receiver<Message>,
    ) -> anyhow::Result<()> {
        let outgoing = Direction { direction: "out" };
        let sent = self.link.metrics.messages.get_or_create_owned(&outgoing);
        let mut tables = self.tables.clone();
        tables.mark_changed();
        loop {
            let mut next = tokio::select! {
                biased;
                changed = tables.changed() => {
                    changed.context("the core has ended")?;
                    Some(Message::Tables((**tables.borrow_and_update()).clone()))
                }
                message = waiting.recv() => Some(message.context("replaced")?),
            };
            let mut count = 0_usize;
            while let Some(message) = next {
                match encode(&self.region, &message) {
                    Ok(frame) => writer.push(&frame)?,
                    Err(error) => {
                        self.link.dropped("too-large");
                        tracing::error!(%error, "a message is left out");
                    }
                }
                count += 1;
                let more = count < MESSAGES_PER_FLUSH_MAX;
                next = if more { waiting.try_recv().ok() } else { None };
            }
            writer.flush().await?;
            sent.inc_by(count as u64);
        }
    }

    async fn prompt(&self, request: FetchRequest) -> anyhow::Result<()> {
        let key = PromptKey(request.key().to_owned());
        match self.media.bytes(key).await {
            Some(bytes) => {
                self.link.metrics.prompt_bytes.inc_by(bytes.len() as u64);
                request.answer(&bytes).await
            }
            None => request.refuse("no such prompt").await,
        }
    }

    /// Answered after the file is synced and the core has committed that it is there. If the disk
    /// fails the stream breaks off, and the edge tries again later.
    async fn recording(&self, mut request: UploadRequest) -> anyhow::Result<()> {
        let header = match RecordingHeader::from_bytes(request.header()) {
            Ok(header) => header,
            Err(why) => return request.refuse(&why).await,
        };
        let path = recording_path(&self.recordings, header.recording);
        let bytes = request.save(&path, RECORDING_BYTES_MAX).await.inspect_err(|error| {
            let error = format!("{error:#}");
            tracing::error!(recording = %header.recording, error, "recording could not be stored");
        })?;
        self.link.metrics.recording_bytes.inc_by(bytes);
        self.core
            .committed(Input::RecordingStored {
                recording: header.recording,
                duration_ms: header.duration_ms,
                channels: u32::from(header.channels),
            })
            .await?;
        request.confirm().await
    }
}
