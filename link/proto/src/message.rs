//! The messages on the link's control stream.

use serde::{Deserialize, Serialize};

use crate::call::{CallCommand, CallEvent};
use crate::ids::{CallSid, NodeId, RecordingSid, RegionId};
use crate::table::{NodeEntry, ResourceUse, Tables};

/// An event about one leg. `(edge, session, sequence)` names it for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventMessage {
    /// First leg of the session.
    pub session: CallSid,
    /// From 1, without holes, per session and edge.
    pub sequence: u64,
    /// The leg that it is about.
    pub leg: CallSid,
    /// Wall clock of the edge in ms since 1970, for people to read.
    pub at_unix_ms: u64,
    /// What happened.
    pub event: CallEvent,
}

/// A command about one leg. `(session, edge, id)` names it for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandMessage {
    /// First leg of the session.
    pub session: CallSid,
    /// From 1, without holes, per session and edge. A repeat is answered with the stored result.
    pub id: u64,
    /// Takeover epoch of the owner. An older one than the edge has seen is refused.
    pub epoch: u64,
    /// The leg that it is about.
    pub leg: CallSid,
    /// What to do.
    pub command: CallCommand,
}

/// How a command was taken. The work itself reports by events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandResult {
    /// Carried out or begun.
    Done,
    /// Not carried out.
    Refused {
        /// In words, for the alert.
        why: String,
    },
}

/// A leg that is alive at an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveLeg {
    /// First leg of its session.
    pub session: CallSid,
    /// The leg.
    pub leg: CallSid,
    /// Established.
    pub answered: bool,
}

/// A message in either direction. The variant's name is the envelope's `action`.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Edge → control, first message of a connection.
    Hello(Hello),
    /// Control → edge, answer to hello.
    Welcome(Welcome),
    /// Edge → control: what is alive here. Sent after [`Message::Welcome`], before any event.
    Reconcile(Reconcile),
    /// Control → edge: these sessions are unknown here; end their legs.
    Orphans(Orphans),
    /// Edge → control.
    Event(EventMessage),
    /// Control → edge: committed up to and including `sequence`.
    EventAck(EventAck),
    /// Control → edge.
    Command(CommandMessage),
    /// Edge → control.
    CommandAck(CommandAck),
    /// Control → edge.
    Tables(Tables),
    /// Edge → control, once a second.
    Load(Load),
    /// Either way: a message could not be used.
    Refused(Refused),
}

/// First message of an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The edge as others shall know it. Its region must be the one in its certificate.
    pub node: NodeEntry,
    /// Random per process: tells a restart from a reconnect.
    pub boot: u64,
    /// Oldest protocol version it can speak.
    pub version_min: u16,
}

/// Answer to hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The control node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Version that both will use.
    pub version: u16,
}

/// What is alive at an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconcile {
    /// Every live leg.
    pub legs: Vec<LiveLeg>,
}

/// Sessions that control does not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Orphans {
    /// Their first legs.
    pub sessions: Vec<CallSid>,
}

/// Acknowledgement of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    /// Session.
    pub session: CallSid,
    /// Committed up to and including.
    pub sequence: u64,
}

/// Result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAck {
    /// Session.
    pub session: CallSid,
    /// Command.
    pub id: u64,
    /// How it was taken.
    pub result: CommandResult,
}

/// Load of an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Live legs.
    pub legs: u64,
    /// Configured maximum.
    pub legs_max: u64,
    /// Drains: gets no new calls.
    pub draining: bool,
    /// Media resources in use, whoever commanded it.
    #[serde(default)]
    pub used: ResourceUse,
    /// Media trunks to other nodes.
    #[serde(default)]
    pub routes: Vec<RouteReport>,
}

/// How the media trunk from another node is, measured all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The other node.
    pub node: NodeId,
    /// The trunk is connected; if not, the values are the last ones.
    pub up: bool,
    /// Smoothed round-trip time, µs.
    pub round_trip_us: u64,
    /// Interarrival jitter of its datagrams, µs (RFC 3550 §6.4.1).
    pub jitter_us: u64,
    /// Its datagrams that arrived since the trunk came up.
    pub datagrams_received: u64,
    /// Its datagrams that did not.
    pub datagrams_lost: u64,
}

/// Which event or command a message carried, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// First leg of the session.
    pub session: CallSid,
    /// Sequence number of the event, or id of the command.
    pub number: u64,
    /// Epoch of the command's owner; 0 for an event.
    #[serde(default)]
    pub epoch: u64,
}

/// A message that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its action.
    pub action: String,
    /// What it was about.
    #[serde(default)]
    pub about: Option<About>,
    /// Unmet entries of `required`.
    #[serde(default)]
    pub unmet: Vec<String>,
    /// In words.
    pub why: String,
}

/// In front of the bytes of a recording that an edge uploads. WAV follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingHeader {
    /// Which recording.
    pub recording: RecordingSid,
    /// First leg of the session.
    pub session: CallSid,
    /// Leg that was recorded.
    pub leg: CallSid,
    /// Length in ms.
    pub duration_ms: u64,
    /// 1 or 2.
    pub channels: u16,
    /// Control node that ordered it; `None` = any.
    #[serde(default)]
    pub control: Option<NodeId>,
}

impl RecordingHeader {
    /// As CBOR.
    ///
    /// # Errors
    /// Never in practice: the header is small and has no foreign types.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(160);
        ciborium::into_writer(self, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    /// From CBOR; unknown fields are ignored.
    ///
    /// # Errors
    /// In words.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        ciborium::from_reader(bytes).map_err(|error: ciborium::de::Error<_>| error.to_string())
    }
}
