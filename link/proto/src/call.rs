//! Events and commands about legs.

use serde::{Deserialize, Serialize};

use crate::ids::CallSid;
use crate::media::{AudioCodec, MediaCommand, MediaEvent};

/// Who caused the end of a leg or an error. Set where it arises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The party that called.
    Caller,
    /// The party that was called.
    Callee,
    /// The trunk or the network beyond it.
    Carrier,
    /// The customer's application server, instructions or API request.
    Customer,
    /// Tandem.
    Us,
}

/// Why a leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The endpoint sent BYE.
    RemoteBye,
    /// The endpoint sent CANCEL.
    RemoteCancel,
    /// Control ended it (instruction, API, hang-up on star, other leg gone).
    Hangup,
    /// The leg it was coupled to ended.
    PeerEnded,
    /// Control refused it before answer.
    Rejected,
    /// The called endpoint is busy (486, 600).
    Busy,
    /// Nobody answered in time (408, 480, our own timer).
    NoAnswer,
    /// Another leg of the same dial was answered first, or the dial was given up.
    Canceled,
    /// The called endpoint refused (other 4xx–6xx).
    Refused,
    /// No route, no trunk, unreachable address.
    Unreachable,
    /// A transaction got no answer at all (RFC 3261 timers B, F).
    Timeout,
    /// No ACK for our 2xx (RFC 3261 §13.3.1.4).
    AckTimeout,
    /// No RTP for the configured time (LAT-11).
    MediaTimeout,
    /// The permitted length of the call was reached.
    TimeLimit,
    /// No control node for longer than the hold time.
    ControlLost,
    /// Nothing in common in offer and answer.
    NotAcceptable,
    /// Refused for lack of capacity.
    Overload,
    /// The edge that owned it was restarted.
    NodeLost,
    /// The edge is shutting down.
    Drain,
    /// A defect of ours.
    Internal,
}

/// Counters of one leg at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegStats {
    /// RTP packets from the endpoint.
    pub packets_received: u64,
    /// RTP packets to the endpoint.
    pub packets_sent: u64,
    /// Lost on the way from the endpoint (RFC 3550 A.3).
    pub packets_lost: u64,
    /// Packets that were dropped on purpose (foreign source, wrong payload type, …).
    pub packets_dropped: u64,
    /// Interarrival jitter in µs (RFC 3550 A.8).
    pub jitter_us: u64,
    /// Largest spacing of packets towards the endpoint in µs.
    pub longest_gap_out_us: u64,
    /// Round-trip time from RTCP in µs; 0 = unknown.
    pub round_trip_us: u64,
}

/// An INVITE that reached an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// Calling party: E.164 or SIP URI, as control shall show it.
    pub from: String,
    /// Called party.
    pub to: String,
    /// Display name of the calling party.
    #[serde(default)]
    pub caller_name: Option<String>,
    /// Number that the call was forwarded from (Diversion, History-Info).
    #[serde(default)]
    pub forwarded_from: Option<String>,
    /// Name of the configured provider that it came from.
    pub provider: String,
    /// SIP Call-ID.
    pub sip_call_id: String,
    /// Address that it came from.
    pub source: String,
    /// Host part of the request URI.
    pub sip_domain: String,
    /// `X-` headers in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Audio codecs that both sides could use, best first.
    pub codecs: Vec<AudioCodec>,
}

/// What happens on a leg.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallEvent {
    /// A new inbound leg. First event of its session.
    Offered(Offered),
    /// An outbound leg got a provisional response.
    Ringing {
        /// 180–199.
        status: u16,
        /// The answer carried SDP, and RTP may flow before the call is answered.
        early_media: bool,
    },
    /// The leg is established: 200 received (outbound) or sent (inbound).
    Answered {
        /// Codec that was negotiated.
        codec: AudioCodec,
        /// Payload type of telephone-event that the endpoint sends.
        telephone_event: Option<u8>,
        /// SIP Call-ID.
        sip_call_id: String,
        /// `X-` headers of the answer of a called endpoint.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// The endpoint holds or resumes.
    Hold {
        /// True = held.
        on: bool,
    },
    /// The leg ended. Exactly one per leg, the last event of the leg.
    Ended {
        /// Why.
        reason: EndReason,
        /// Whose doing.
        whose: Blame,
        /// SIP status for a leg that was never answered.
        sip_status: Option<u16>,
        /// Counters.
        stats: LegStats,
        /// ms from answer to end; 0 if never answered.
        answered_ms: u64,
    },
    /// Something about media.
    Media(MediaEvent),
}

/// An outbound leg to be set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DialParams {
    /// SIP URI, or a number that the edge's route table turns into one.
    pub to: String,
    /// Calling party to show: number or SIP URI.
    pub from: String,
    /// Codecs to offer, best first.
    pub codecs: Vec<AudioCodec>,
    /// ms until the leg is given up unanswered.
    pub timeout_ms: u64,
    /// Extra headers (`X-…`, `User-to-User`, …).
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Digest credentials for the far end.
    #[serde(default)]
    pub username: Option<String>,
    /// Digest credentials for the far end.
    #[serde(default)]
    pub password: Option<String>,
    /// Leg whose Call-ID decides the signalling shard, when it lives on the same edge.
    #[serde(default)]
    pub near_leg: Option<CallSid>,
}

/// What a coupled leg does when the other one ends, decided at the edge without control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPeerEnd {
    /// End as well.
    End,
    /// Stay, filled with silence, until control says how to go on.
    Hold,
}

/// What control tells the edge that owns a leg.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallCommand {
    /// 180 Ringing, or 183 with SDP when `early_media`.
    Progress {
        /// Send media before the answer.
        early_media: bool,
    },
    /// 200 OK to an inbound leg. Repeating it on an answered leg is no error.
    Accept {
        /// Codec to choose if offered; otherwise the best common one.
        #[serde(default)]
        codec: Option<AudioCodec>,
    },
    /// Refuse an inbound leg.
    Reject {
        /// 400–699.
        status: u16,
        /// Reason phrase.
        reason: String,
    },
    /// Make an outbound leg; the message's `leg` is its new identifier.
    Dial(DialParams),
    /// End the leg, whatever its state (BYE, CANCEL or final response).
    Hangup {
        /// What the leg's `Ended` shall carry.
        reason: EndReason,
        /// Whose doing.
        whose: Blame,
    },
    /// Couple this leg (the caller) with `peer` on the same edge.
    Couple {
        /// The other leg.
        peer: CallSid,
        /// What happens to this leg when the peer ends.
        on_peer_end: OnPeerEnd,
        /// What happens to the peer when this leg ends.
        peer_on_end: OnPeerEnd,
    },
    /// Undo [`CallCommand::Couple`].
    Uncouple,
    /// End this leg that many ms after its answer.
    TimeLimit {
        /// ms.
        limit_ms: u64,
    },
    /// Something about media.
    Media(MediaCommand),
}
