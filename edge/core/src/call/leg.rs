//! One leg: one dialog as the B2BUA sees it.

use std::time::Instant;

use edge_media::command::PortKey;
use link_proto::CallSid;
use link_proto::call::{Blame, DialParams, EndReason, LegStats, Offered, OnPeerEnd};
use link_proto::media::AudioCodec;
use sip_core::{Destination, DialogHandle, Uri};

use crate::io::ResolveId;
use crate::media::offer_answer::LegMedia;

/// Max-Forwards of a call that begins here (RFC 3261 §8.1.1.6).
pub(crate) const HOPS_MAX: u8 = 70;

/// States of a leg, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegState {
    /// Outbound: sockets or the address of the next hop are missing; no INVITE yet.
    Preparing,
    /// No final response yet.
    Ringing,
    /// Established.
    Answered,
    /// SIP is done with; the counters of the worker are awaited.
    Ending,
}

/// What control wants of an inbound leg whose sockets are not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    EarlyMedia,
    Accept(Option<AudioCodec>),
}

/// Outbound part of a leg before its INVITE.
#[derive(Debug, Clone)]
pub(crate) struct Dialling {
    pub(crate) params: DialParams,
    pub(crate) uri: Uri,
    pub(crate) target: Option<Destination>,
    pub(crate) resolve: Option<ResolveId>,
}

/// The other leg of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coupling {
    pub(crate) peer: CallSid,
    /// What this leg does when the peer ends.
    pub(crate) on_peer_end: OnPeerEnd,
}

/// How a leg ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LegEnd {
    pub(crate) reason: EndReason,
    pub(crate) whose: Blame,
    /// Final status of a leg that was never answered, if there is one already.
    pub(crate) sip_status: Option<u16>,
}

impl LegEnd {
    pub(crate) fn new(reason: EndReason, whose: Blame) -> Self {
        Self { reason, whose, sip_status: None }
    }

    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { sip_status: Some(status), ..self }
    }
}

/// A leg.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) sid: CallSid,
    pub(crate) session: CallSid,
    pub(crate) inbound: bool,
    pub(crate) state: LegState,
    pub(crate) dialog: Option<DialogHandle>,
    pub(crate) call_id: String,
    pub(crate) port: PortKey,
    pub(crate) media: LegMedia,
    pub(crate) wanted: Wanted,
    pub(crate) dialling: Option<Box<Dialling>>,
    pub(crate) coupling: Option<Coupling>,
    /// What was offered to control, until it is known who deals with it.
    pub(crate) offered: Option<Box<Offered>>,
    /// How much further the call may go: Max-Forwards of its INVITE.
    pub(crate) hops_left: u8,
    /// Last `Ringing` that was reported.
    pub(crate) ringing: Option<(u16, bool)>,
    /// Headers of the answer of a called endpoint, until it is reported.
    pub(crate) answer_headers: Vec<(String, String)>,
    /// `Answered` was reported.
    pub(crate) reported: bool,
    pub(crate) held: bool,
    pub(crate) answered_at: Option<Instant>,
    pub(crate) ended_at: Option<Instant>,
    pub(crate) time_limit: Option<std::time::Duration>,
    pub(crate) end: Option<LegEnd>,
    pub(crate) stats: LegStats,
}

impl Leg {
    pub(crate) fn new(
        sid: CallSid,
        session: CallSid,
        inbound: bool,
        port: PortKey,
        media: LegMedia,
    ) -> Self {
        Self {
            sid,
            session,
            inbound,
            state: if inbound { LegState::Ringing } else { LegState::Preparing },
            dialog: None,
            call_id: String::new(),
            port,
            media,
            wanted: Wanted::Nothing,
            dialling: None,
            coupling: None,
            offered: None,
            hops_left: HOPS_MAX,
            ringing: None,
            answer_headers: Vec::new(),
            reported: false,
            held: false,
            answered_at: None,
            ended_at: None,
            time_limit: None,
            end: None,
            stats: LegStats::default(),
        }
    }

    /// Whose side of the call this is.
    pub(crate) fn party(&self) -> Blame {
        if self.inbound { Blame::Caller } else { Blame::Callee }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state != LegState::Ending
    }
}
