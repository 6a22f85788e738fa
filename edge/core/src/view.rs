//! What can be asked of an edge core from outside: for `/calls`, metrics and drain.

use std::time::Instant;

use link_proto::CallSid;
use link_proto::media::AudioCodec;
use link_proto::message::{LiveLeg, Load, Reconcile};

use crate::call::leg::LegState;
use crate::call::session::{Call, Driver};
use crate::core::EdgeCore;
use crate::counters::Counters;
use crate::io::ControlIndex;

/// A leg as `/calls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegView {
    /// Leg.
    pub leg: CallSid,
    /// Session.
    pub session: CallSid,
    /// Inbound or outbound.
    pub inbound: bool,
    /// State.
    pub state: LegState,
    /// Coupled leg.
    pub peer: Option<CallSid>,
    /// Codec in use.
    pub codec: AudioCodec,
    /// On hold by the endpoint.
    pub held: bool,
    /// Worker of its media.
    pub worker: u16,
    /// ms since the answer; 0 before.
    pub answered_ms: u64,
    /// SIP Call-ID.
    pub sip_call_id: String,
}

impl EdgeCore {
    /// Every leg, in the order of their identifiers.
    pub fn legs(&self, now: Instant) -> Vec<LegView> {
        self.legs
            .values()
            .map(|leg| LegView {
                leg: leg.sid,
                session: leg.session,
                inbound: leg.inbound,
                state: leg.state,
                peer: leg.coupling.map(|coupling| coupling.peer),
                codec: leg.media.codec(),
                held: leg.held,
                worker: self.calls.get(&leg.session).map_or(0, |call| call.worker),
                answered_ms: leg.answered_at.map_or(0, |at| {
                    u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(0)
                }),
                sip_call_id: leg.call_id.clone(),
            })
            .collect()
    }

    /// True if commands of this session are for this shard: it is alive here, or was not long ago.
    pub fn knows(&self, session: CallSid) -> bool {
        self.calls.contains_key(&session) || self.deliveries.get(session).is_some()
    }

    /// How many legs are alive.
    pub fn legs_live(&self) -> usize {
        self.legs.len()
    }

    /// Everything that grows with calls: all zero when no call is left and SIP's wait states
    /// (RFC 3261 timers, up to 32 s) are over.
    pub fn residue(&self) -> [(&'static str, usize); 12] {
        [
            ("legs", self.legs.len()),
            ("calls", self.calls.len()),
            ("ports", self.ports.len()),
            ("dialogs", self.by_dialog.len()),
            ("timers", self.timers.len()),
            ("prompts", self.prompts.len()),
            ("resolving", self.resolving.len()),
            ("session keys", self.by_session_key.len()),
            ("Call-IDs", self.inbound_call_ids.len()),
            ("route calls", self.route_calls.len()),
            ("SIP dialogs", self.sip.dialogs_live()),
            ("SIP transactions", self.sip.transactions_live()),
        ]
    }

    /// For the link, once a second.
    pub fn load(&self) -> Load {
        Load {
            legs: self.legs.len() as u64,
            legs_max: self.config.legs_max as u64,
            draining: self.draining,
            used: self.used(),
            routes: Vec::new(),
        }
    }

    /// Totals since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Totals of the SIP endpoint.
    pub fn sip_counters(&self) -> &sip_core::Counters {
        self.sip.counters()
    }

    /// What is alive and driven by a control node. A leg whose end is still to be reported counts as alive:
    /// control must not take it for lost before it reads the true reason.
    pub(crate) fn reconcile(&self, control: ControlIndex) -> Reconcile {
        // Even if control has not yet acknowledged the first event: it may have committed it.
        let by_control = |session: &CallSid| self.control_of(*session) == Some(control);
        let live = self.legs.values().filter(|leg| by_control(&leg.session)).map(|leg| LiveLeg {
            session: leg.session,
            leg: leg.sid,
            answered: leg.answered_at.is_some(),
        });
        let ended = self.deliveries.unreported_ends(control);
        // A session with nothing but trunk channels is named by its first leg, which lives
        // elsewhere: control has to see it to say that nobody needs it any more.
        let driver = Driver::Control(control);
        let driven = |call: &&Call| call.driver == driver && call.legs.is_empty();
        let bare = self.calls.iter().filter(|(_, call)| driven(call)).map(|(session, _)| LiveLeg {
            session: *session,
            leg: *session,
            answered: true,
        });
        Reconcile { legs: live.chain(ended).chain(bare).collect() }
    }
}
