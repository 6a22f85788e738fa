//! The other end of a link, by hand: it says what no release of ours says, and reads every frame.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ciborium::Value;
use link_daemon::quic::frame::{FrameReader, FrameWriter};
use link_daemon::quic::stream::{Incoming, open_control, open_incoming};
use link_daemon::quic::{self, DATAGRAM_BYTES_USUAL, EndpointPlan, LINK_ALPN, LinkSettings};
use link_daemon::tls::{Tls, TlsFiles};
use link_proto::RegionId;
use link_proto::codec;
use link_proto::envelope::Envelope;
use link_proto::message::Message;
use quinn::{Connection, Endpoint};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::tools;
use crate::world::{LIMIT, program};

/// Node of the edge that `tandem init` makes a certificate for.
pub const EDGE: &str = "edge-1";
/// Node of its control.
pub const CONTROL: &str = "control-1";

/// Runs `tandem init` in a folder; an authority that is there already signs.
///
/// # Errors
/// With what it wrote.
pub fn init(folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program());
    command.args(["init", "--region", "eu"]).arg(folder);
    tools::run(command, LIMIT)?;
    Ok(())
}

/// One end of a link.
pub struct LinkEnd {
    runtime: Runtime,
    region: RegionId,
    endpoint: Endpoint,
    connection: Option<Connection>,
    writer: Arc<Mutex<Option<FrameWriter>>>,
    frames: Receiver<Vec<u8>>,
    sender: Sender<Vec<u8>>,
}

impl LinkEnd {
    /// The end with a node's certificate from [`init`]. `listen`: edges may connect there; each is
    /// answered with `welcome`.
    ///
    /// # Errors
    /// If a certificate is missing or the address is taken.
    pub fn new(
        folder: &Path,
        region: &str,
        node: &str,
        listen: Option<(SocketAddr, Vec<u8>)>,
    ) -> anyhow::Result<Self> {
        let tls = Tls::load(&TlsFiles::of(&folder.join("pki"), node))?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (sender, frames) = channel();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let plan = EndpointPlan {
            key: "listen",
            bind: listen.as_ref().map_or(any, |(address, _)| *address),
            alpn: LINK_ALPN,
            accept: listen.is_some(),
            socket_buffer_bytes: 0,
            datagram_bytes_max: DATAGRAM_BYTES_USUAL,
            transport: LinkSettings::default().transport(),
        };
        let guard = runtime.enter();
        let endpoint = quic::endpoint(&tls, &plan)?;
        drop(guard);
        let writer = Arc::new(Mutex::new(None));
        if let Some((_, welcome)) = listen {
            let (endpoint, writer, sender) = (endpoint.clone(), writer.clone(), sender.clone());
            runtime.spawn(serve(endpoint, welcome, writer, sender));
        }
        let region = RegionId::from(region);
        Ok(Self { runtime, region, endpoint, connection: None, writer, frames, sender })
    }

    /// Connects to control and opens the control stream. Nothing is said yet.
    ///
    /// # Errors
    /// If the handshake fails.
    pub fn connect(&mut self, to: SocketAddr, node: &str) -> anyhow::Result<()> {
        let (endpoint, sender) = (self.endpoint.clone(), self.sender.clone());
        let (connection, writer) = self.runtime.block_on(async move {
            let connection = quic::connect(&endpoint, to, node).await?;
            let (reader, writer) = open_control(&connection).await?;
            tokio::spawn(read(reader, sender));
            anyhow::Ok((connection, writer))
        })?;
        self.connection = Some(connection);
        *self.writer.blocking_lock() = Some(writer);
        Ok(())
    }

    /// A message as this end would say it.
    ///
    /// # Errors
    /// If it is too long.
    pub fn frame(&self, message: &Message) -> anyhow::Result<Vec<u8>> {
        Ok(codec::encode(&self.region, message)?)
    }

    /// Sends frames, whatever is in them.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&self, frames: &[Vec<u8>]) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut writer = self.writer.lock().await;
            let writer = writer.as_mut().context("no connection")?;
            for frame in frames {
                writer.push(frame)?;
            }
            Ok(writer.flush().await?)
        })
    }

    /// Waits for a message that the closure wants; others are passed over. Also its envelope.
    ///
    /// # Errors
    /// If none comes, or a frame cannot be read.
    pub fn wait<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Message) -> Option<T>,
    ) -> anyhow::Result<(T, Envelope)> {
        let end = Instant::now() + LIMIT;
        let mut passed = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Ok(frame) = self.frames.recv_timeout(left) else { break };
            let (_, message) = codec::decode(&frame)?;
            if let Some(found) = wanted(&message) {
                return Ok((found, ciborium::from_reader(frame.as_slice())?));
            }
            passed.push(format!("{message:?}").chars().take(200).collect::<String>());
        }
        anyhow::bail!("no {what}; instead: {passed:#?}")
    }

    /// Whether the connection that [`Self::connect`] made is closed by the other side in time.
    pub fn is_closed_within(&self, limit: Duration) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            let closed = async { tokio::time::timeout(limit, connection.closed()).await.is_ok() };
            self.runtime.block_on(closed)
        })
    }
}

impl Drop for LinkEnd {
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), b"");
    }
}

async fn serve(
    endpoint: Endpoint,
    welcome: Vec<u8>,
    place: Arc<Mutex<Option<FrameWriter>>>,
    sender: Sender<Vec<u8>>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        while let Ok((send, receive)) = connection.accept_bi().await {
            // An edge asks for prompts as well: there are none.
            let Ok(Incoming::Control(mut reader, mut writer)) = open_incoming(send, receive).await
            else {
                continue;
            };
            let Ok(Some(hello)) = reader.next().await else { continue };
            let _ = sender.send(hello);
            if writer.push(&welcome).is_ok() && writer.flush().await.is_ok() {
                *place.lock().await = Some(writer);
                tokio::spawn(read(reader, sender.clone()));
            }
        }
    }
}

async fn read(mut reader: FrameReader, sender: Sender<Vec<u8>>) {
    while let Ok(Some(frame)) = reader.next().await {
        if sender.send(frame).is_err() {
            return;
        }
    }
}

/// The frame as a later release might write it: with fields, features and entries of `supported`
/// that nobody here knows, in the envelope and in the body.
///
/// # Errors
/// If it is no frame.
pub fn of_a_later_release(frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    change(frame, |envelope| {
        envelope.version += 1;
        envelope.features.push("holography/1".to_owned());
        envelope.supported.extend(["holography/1".to_owned(), "call/9".to_owned()]);
        if let Some(body) = envelope.body.as_map_mut() {
            body.push((Value::from("colour"), Value::from("blue")));
            body.push((Value::from("swatches"), Value::Array(vec![Value::Null, Value::from(7)])));
        }
    })
}

/// The frame with an entry in `required`.
///
/// # Errors
/// If it is no frame.
pub fn requiring(frame: &[u8], feature: &str) -> anyhow::Result<Vec<u8>> {
    change(frame, |envelope| envelope.required.push(feature.to_owned()))
}

/// The frame with another action.
///
/// # Errors
/// If it is no frame.
pub fn of_action(frame: &[u8], action: &str) -> anyhow::Result<Vec<u8>> {
    change(frame, |envelope| action.clone_into(&mut envelope.action))
}

fn change(frame: &[u8], change: impl FnOnce(&mut Envelope)) -> anyhow::Result<Vec<u8>> {
    let mut envelope: Envelope = ciborium::from_reader(frame)?;
    change(&mut envelope);
    let mut outer = Value::serialized(&envelope)?;
    let fields = outer.as_map_mut().context("an envelope is a map")?;
    fields.push((Value::from("mood"), Value::from(3)));
    let mut bytes = Vec::new();
    ciborium::into_writer(&outer, &mut bytes)?;
    Ok(bytes)
}
