//! Two legs of this edge that belong together: what happens to one when the other ends is decided
//! here, whether or not a control node is there.

use std::time::Instant;

use link_proto::CallSid;
use link_proto::call::{EndReason, OnPeerEnd};

use super::leg::{Coupling, LegEnd};
use crate::core::EdgeCore;

impl EdgeCore {
    /// [`link_proto::call::CallCommand::Couple`].
    pub(crate) fn couple(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        peer: CallSid,
        on_peer_end: OnPeerEnd,
        peer_on_end: OnPeerEnd,
    ) -> Result<(), String> {
        let usable = self
            .legs
            .get(&peer)
            .is_some_and(|peer| peer.session == session && peer.is_live() && peer.sid != leg);
        if !usable {
            return Err(format!("{peer} is not alive in this session"));
        }
        self.uncouple(leg);
        self.uncouple(peer);
        for (this, other, on_peer_end) in [(leg, peer, on_peer_end), (peer, leg, peer_on_end)] {
            if let Some(this) = self.legs.get_mut(&this) {
                this.coupling = Some(Coupling { peer: other, on_peer_end });
            }
            self.review_hold(now, this);
        }
        Ok(())
    }

    /// [`link_proto::call::CallCommand::Uncouple`].
    pub(crate) fn uncouple(&mut self, leg: CallSid) {
        let coupling = self.legs.get_mut(&leg).and_then(|leg| leg.coupling.take());
        let peer = coupling.and_then(|coupling| self.legs.get_mut(&coupling.peer));
        if let Some(peer) = peer.filter(|peer| peer.coupling.is_some_and(|c| c.peer == leg)) {
            peer.coupling = None;
        }
    }

    /// Uncouples a leg that ends: who was coupled with it, and what is to become of that leg.
    pub(crate) fn take_peer(&mut self, leg: CallSid) -> Option<(CallSid, OnPeerEnd)> {
        let peer = self.legs.get(&leg)?.coupling?.peer;
        let on_peer_end = self.legs.get(&peer)?.coupling.map(|of_peer| of_peer.on_peer_end);
        self.uncouple(leg);
        Some((peer, on_peer_end?))
    }

    /// A leg has ended: its peer ends too, or stays for control to go on with.
    pub(crate) fn end_peer(
        &mut self,
        now: Instant,
        (peer, on_peer_end): (CallSid, OnPeerEnd),
        end: LegEnd,
    ) {
        match on_peer_end {
            OnPeerEnd::End => {
                self.end_leg(now, peer, LegEnd { reason: EndReason::PeerEnded, ..end });
            }
            OnPeerEnd::Hold => self.review_hold(now, peer),
        }
    }
}
