//! The edge's connection to a control node: hello, messages both ways, reconnect, byte streams. There
//! is one client for each configured node.
//!
//! Decides nothing about calls. While the node is not reachable the signalling core knows
//! ([`LinkInput::Disconnected`]) and keeps what has to be sent; a new connection starts with its
//! reconciliation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use edge_core::{ControlChoice, ControlIndex, LinkInput, LinkOutput};
use link_daemon::drain::Shutdown;
use link_daemon::quic;
use link_daemon::quic::frame::{FrameReader, FrameWriter};
use link_daemon::quic::stream::open_control;
use link_daemon::tls::peer_identity;
use link_proto::RegionId;
use link_proto::codec::{DecodeError, decode, encode};
use link_proto::envelope::PROTOCOL_VERSION;
use link_proto::message::{Hello, Load, Message};
use quinn::{Connection, Endpoint};
use tokio::sync::{Notify, mpsc, watch};

/// First and longest pause between two attempts.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Control has this long to answer hello.
const WELCOME_WAIT_MAX: Duration = Duration::from_secs(5);
/// Frames written with one flush.
const FRAMES_PER_FLUSH_MAX: usize = 64;
/// Refusals that may wait to be written.
const REFUSALS_WAITING_MAX: usize = 64;
/// How often the load is looked at, and which part of the looks is told.
const LOAD_LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_PER_LOAD: u32 = 4;

/// A control node that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddress {
    /// Its name, as in its certificate.
    pub node: String,
    /// `host:port`.
    pub address: String,
    /// Which new calls it gets.
    pub choice: ControlChoice,
}

/// The present connections by the name of the control node, for prompts and recordings.
pub type Connections = BTreeMap<String, Connection>;

/// What the client is made of.
pub struct LinkClient {
    /// Endpoint with the edge's certificate.
    pub endpoint: Endpoint,
    /// Place of the control node in the configuration.
    pub index: ControlIndex,
    /// The control node.
    pub control: ControlAddress,
    /// Who we are; said with every connection, and again when it has changed.
    pub hello: watch::Receiver<Hello>,
    /// To the signalling core. Full = signalling is behind; the link waits with it.
    pub to_core: mpsc::Sender<(ControlIndex, LinkInput)>,
    /// From the signalling core.
    pub from_core: mpsc::Receiver<LinkOutput>,
    /// The present load, sent once a second.
    pub load: Arc<dyn Fn() -> Load + Send + Sync>,
    /// Rung when the connection has to be made anew.
    pub reset: Arc<Notify>,
    /// Where the present connection is entered.
    pub connections: Arc<watch::Sender<Connections>>,
}

impl LinkClient {
    /// Runs until shutdown.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut pause = BACKOFF[0];
        let control = self.control.clone();
        loop {
            let session = self.session(&control);
            let result = tokio::select! {
                result = session => result,
                () = shutdown.requested() => return,
            };
            let mut was_connected = false;
            self.connections.send_modify(|all| was_connected = all.remove(&control.node).is_some());
            if was_connected {
                pause = BACKOFF[0];
                let _ = self.to_core.send((self.index, LinkInput::Disconnected)).await;
                // What the core said while connected was about that connection; it says it again.
                while self.from_core.try_recv().is_ok() {}
            }
            if let Err(error) = result {
                let error = format!("{error:#}");
                if was_connected {
                    tracing::warn!(control = control.node, error, "link lost");
                } else {
                    tracing::debug!(control = control.node, error, "control not reachable");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => return,
            }
            pause = (pause * 2).min(BACKOFF[1]);
        }
    }

    /// One connection from hello to its end.
    async fn session(&mut self, control: &ControlAddress) -> anyhow::Result<()> {
        let mut addresses = tokio::net::lookup_host(control.address.as_str()).await?;
        let address = addresses.next().context("no IP address")?;
        let connection = quic::connect(&self.endpoint, address, &control.node).await?;
        let identity = peer_identity(&connection)?;
        if identity.node != control.node {
            bail!("expected {}, found {identity}", control.node);
        }
        let hello = self.hello.borrow_and_update().clone();
        let region = hello.node.region.clone();
        let (mut reader, mut writer) = open_control(&connection).await?;
        send(&mut writer, &region, &Message::Hello(hello)).await?;
        let welcome = tokio::time::timeout(WELCOME_WAIT_MAX, reader.next());
        let frame = welcome.await.context("no answer to hello")??.context("closed")?;
        match decode(&frame) {
            Ok((_, Message::Welcome(welcome))) if welcome.version <= PROTOCOL_VERSION => {
                tracing::info!(control = %welcome.node, region = %welcome.region, "link up");
            }
            Ok((_, Message::Refused(refused))) => bail!("refused: {}", refused.why),
            other => bail!("unexpected answer to hello: {other:?}"),
        }
        self.connections.send_modify(|all| drop(all.insert(control.node.clone(), connection)));
        self.to_core
            .send((self.index, LinkInput::Connected))
            .await
            .context("signalling is gone")?;
        let reset = self.reset.clone();
        let (refusals, refused) = mpsc::channel(REFUSALS_WAITING_MAX);
        let reading = read(&mut reader, self.index, &self.to_core, refusals);
        let writing =
            write(&mut writer, &region, &mut self.from_core, refused, &mut self.hello, &self.load);
        tokio::select! {
            result = reading => result,
            result = writing => result,
            () = reset.notified() => bail!("the connection is made anew"),
        }
    }
}

async fn send(
    writer: &mut FrameWriter,
    region: &RegionId,
    message: &Message,
) -> anyhow::Result<()> {
    writer.push(&encode(region, message)?)?;
    writer.flush().await?;
    Ok(())
}

/// Messages from control to the core. What cannot be used is refused by name (LAT-09), and a
/// command among it counts as refused.
async fn read(
    reader: &mut FrameReader,
    index: ControlIndex,
    to_core: &mpsc::Sender<(ControlIndex, LinkInput)>,
    refusals: mpsc::Sender<Message>,
) -> anyhow::Result<()> {
    while let Some(frame) = reader.next().await? {
        let input = match decode(&frame) {
            Ok((_, Message::Command(command))) => LinkInput::Command(command),
            Ok((_, Message::EventAck(ack))) => LinkInput::EventAck(ack),
            Ok((_, Message::Orphans(orphans))) => LinkInput::Orphans(orphans),
            Ok((_, Message::Tables(tables))) => LinkInput::Tables(tables),
            Ok((_, Message::Refused(refused))) => {
                tracing::warn!(action = refused.action, why = refused.why, "control refused");
                LinkInput::Refused(refused)
            }
            Ok((_, other)) => {
                tracing::warn!(?other, "not a message for an edge");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "unusable link frame");
                if let Some(refusal) = error.refusal() {
                    // Refusals beyond those that wait are for a peer that reads none of them.
                    let _ = refusals.try_send(refusal);
                }
                match error {
                    DecodeError::Unusable { action, about: Some(about), why, .. }
                        if action == "command" =>
                    {
                        LinkInput::CommandUnusable { about, why }
                    }
                    _ => continue,
                }
            }
        };
        to_core.send((index, input)).await.context("signalling is gone")?;
    }
    bail!("control closed the stream")
}

async fn write(
    writer: &mut FrameWriter,
    region: &RegionId,
    from_core: &mut mpsc::Receiver<LinkOutput>,
    mut refusals: mpsc::Receiver<Message>,
    hello: &mut watch::Receiver<Hello>,
    load: &Arc<dyn Fn() -> Load + Send + Sync>,
) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(LOAD_LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut looks, mut draining) = (0_u32, false);
    loop {
        let mut next = tokio::select! {
            biased;
            output = from_core.recv() => Some(message_of(output.context("signalling is gone")?)),
            Some(refusal) = refusals.recv() => Some(refusal),
            Ok(()) = hello.changed() => Some(Message::Hello(hello.borrow_and_update().clone())),
            _ = look.tick() => {
                let load = load();
                // The end of service is told at once, the rest once a second.
                let is_due = looks % LOOKS_PER_LOAD == 0 || draining != load.draining;
                looks = looks.wrapping_add(1);
                draining = load.draining;
                is_due.then_some(Message::Load(load))
            }
        };
        let mut frames = 0;
        while let Some(message) = next {
            writer.push(&encode(region, &message)?)?;
            frames += 1;
            let more = frames < FRAMES_PER_FLUSH_MAX;
            next = if more { from_core.try_recv().ok().map(message_of) } else { None };
        }
        writer.flush().await?;
    }
}

fn message_of(output: LinkOutput) -> Message {
    match output {
        LinkOutput::Event(event) => Message::Event(event),
        LinkOutput::CommandAck(ack) => Message::CommandAck(ack),
        LinkOutput::Reconcile(reconcile) => Message::Reconcile(reconcile),
    }
}
