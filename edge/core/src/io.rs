//! What goes into [`crate::EdgeCore`] and what comes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge_media::command::{OpKey, PortKey, Prompt, RecorderHandle, WorkerCommand};
use edge_media::event::WorkerEvent;
use link_proto::call::{Blame, EndReason};
use link_proto::media::PromptKey;
use link_proto::message::{
    About, CommandAck, CommandMessage, EventAck, EventMessage, Orphans, Reconcile, Refused,
};
use link_proto::table::{NodeEntry, Tables};
use link_proto::{CallSid, RecordingSid};
use sip_core::{Destination, Transport};

use crate::config::Settings;

/// A question to the name service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolveId(pub u64);

/// A control node, by its place in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlIndex(pub u16);

/// From a control node, by way of its link client.
#[derive(Debug, Clone)]
pub enum LinkInput {
    /// Hello and welcome are done: answered by [`LinkOutput::Reconcile`] and everything that is
    /// not acknowledged.
    Connected,
    /// It is not reachable. The state at the start.
    Disconnected,
    /// A command.
    Command(CommandMessage),
    /// A command that this build cannot read; control has been told so.
    CommandUnusable {
        /// Which.
        about: About,
        /// In words.
        why: String,
    },
    /// Control cannot use a message of ours.
    Refused(Refused),
    /// Events are committed.
    EventAck(EventAck),
    /// Sessions that control does not know.
    Orphans(Orphans),
    /// New tables.
    Tables(Tables),
}

/// To control.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkOutput {
    /// An event, for the first time or again.
    Event(EventMessage),
    /// Result of a command.
    CommandAck(CommandAck),
    /// What is alive. Comes before any event of a connection.
    Reconcile(Reconcile),
}

/// Input of [`crate::EdgeCore::handle_input`].
#[derive(Debug, Clone)]
pub enum Input {
    /// A datagram, or one framed message of a stream.
    Datagram {
        /// Address of the peer.
        source: SocketAddr,
        /// Our socket.
        local: SocketAddr,
        /// Transport.
        transport: Transport,
        /// The message.
        bytes: Bytes,
    },
    /// Bytes of an [`Output::Send`] could not be sent.
    SendFailed {
        /// Its `to`.
        to: Destination,
    },
    /// The network reports that nobody took a datagram of ours.
    Undelivered {
        /// Whom it was for.
        to: SocketAddr,
        /// How it began. A report that does not quote a token of ours is not believed.
        quoted: Bytes,
    },
    /// From a control node.
    Link(ControlIndex, LinkInput),
    /// From a media worker.
    Worker {
        /// Which.
        worker: u16,
        /// What.
        event: WorkerEvent,
    },
    /// Answer to [`Output::AllocateMedia`]: the sockets are bound.
    MediaAllocated {
        /// Port.
        port: PortKey,
        /// Advertised RTP address.
        rtp: SocketAddr,
        /// Advertised RTCP address.
        rtcp: SocketAddr,
    },
    /// Answer to [`Output::AllocateMedia`]: no sockets to be had.
    MediaAllocationFailed {
        /// Port.
        port: PortKey,
        /// In words.
        why: String,
    },
    /// Answer to [`Output::FetchPrompt`].
    PromptReady {
        /// Key.
        key: PromptKey,
        /// Audio.
        prompt: Arc<Prompt>,
    },
    /// Answer to [`Output::FetchPrompt`].
    PromptFailed {
        /// Key.
        key: PromptKey,
        /// In words.
        why: String,
    },
    /// Answer to [`Output::OpenRecording`].
    RecordingReady {
        /// Program.
        op: OpKey,
        /// Where its audio goes.
        recorder: RecorderHandle,
    },
    /// Answer to [`Output::OpenRecording`].
    RecordingFailed {
        /// Program.
        op: OpKey,
        /// In words.
        why: String,
    },
    /// A media trunk came up or went down for good.
    TrunkState {
        /// Number of the peer, from [`Output::TrunkPeer`].
        peer: u32,
        /// Usable.
        up: bool,
    },
    /// Answer to [`Output::Resolve`].
    Resolved {
        /// Question.
        id: ResolveId,
        /// Where to send; `None` if there is no such name.
        address: Option<SocketAddr>,
    },
    /// Wall time, for people to read. Given at start and when the wall clock was set.
    WallClock {
        /// ms since 1970.
        unix_ms: u64,
    },
    /// A new configuration.
    Settings(Box<Settings>),
    /// Take no new calls; end those that are left after `end_after`.
    Drain {
        /// Patience.
        end_after: Duration,
    },
}

/// Output of [`crate::EdgeCore::poll_output`].
#[derive(Debug, Clone)]
pub enum Output {
    /// Send SIP.
    Send {
        /// Whereto.
        to: Destination,
        /// One message.
        bytes: Bytes,
    },
    /// To a control node. Comes only while connected.
    Link(ControlIndex, LinkOutput),
    /// Bind the sockets of a leg and give them to a worker.
    AllocateMedia {
        /// Name of the port.
        port: PortKey,
        /// Worker that will own it.
        worker: u16,
    },
    /// Close the sockets of a leg.
    ReleaseMedia {
        /// Name of the port.
        port: PortKey,
        /// Its worker.
        worker: u16,
    },
    /// To a media worker.
    Worker {
        /// Which.
        worker: u16,
        /// What.
        command: WorkerCommand,
    },
    /// Get a prompt from the cache, or from the media layer.
    FetchPrompt {
        /// Key.
        key: PromptKey,
    },
    /// Open a recording.
    OpenRecording {
        /// Program that will feed it.
        op: OpKey,
        /// Identifier and file name.
        recording: RecordingSid,
        /// Session, for its metadata.
        session: CallSid,
        /// Leg that is recorded.
        leg: CallSid,
        /// 1 or 2.
        channels: u16,
        /// Control node that wants it.
        control: ControlIndex,
    },
    /// A recording is over; its bytes are to be sent to control.
    CloseRecording {
        /// Where its audio went.
        recorder: RecorderHandle,
        /// Identifier.
        recording: RecordingSid,
        /// Length in ms.
        duration_ms: u64,
    },
    /// A recording that nobody wants any more.
    DropRecording {
        /// Where its audio would have gone.
        recorder: RecorderHandle,
    },
    /// Trunk channels name this node by `peer`; keep a media trunk to it.
    TrunkPeer {
        /// Number.
        peer: u32,
        /// Node.
        node: NodeEntry,
    },
    /// Ask the name service (RFC 3263).
    Resolve {
        /// Question.
        id: ResolveId,
        /// Host name.
        host: String,
        /// Port, if the URI names one.
        port: Option<u16>,
        /// Transport.
        transport: Transport,
    },
    /// Keep the tables on disk.
    PersistTables(Tables),
    /// Something for the log.
    Fact(Fact),
}

/// Milestones, one log line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An inbound leg exists.
    Offered {
        /// Leg.
        leg: CallSid,
        /// Provider.
        provider: String,
    },
    /// A leg is established.
    Answered {
        /// Leg.
        leg: CallSid,
    },
    /// A leg is over.
    Ended {
        /// Leg.
        leg: CallSid,
        /// Why.
        reason: EndReason,
        /// Whose doing.
        whose: Blame,
    },
    /// A call was refused before there was a leg.
    Refused {
        /// SIP status.
        status: u16,
        /// In words.
        why: &'static str,
    },
    /// A control node is reachable, or not any more.
    Control {
        /// Which.
        control: ControlIndex,
        /// Reachable.
        connected: bool,
    },
    /// Something of ours went wrong and one call suffers.
    Trouble {
        /// Leg or session.
        call: CallSid,
        /// In words.
        why: String,
    },
}
