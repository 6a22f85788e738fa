//! Hold by the endpoint: answered here, reported, and never a reason for a media timeout.

use std::time::Instant;

use link_proto::CallSid;
use link_proto::call::CallEvent;

use crate::core::EdgeCore;

impl EdgeCore {
    /// Reports a change between held and not held.
    pub(crate) fn review_endpoint_hold(&mut self, now: Instant, sid: CallSid) {
        let Some(leg) = self.legs.get_mut(&sid).filter(|leg| leg.is_live()) else { return };
        let on = leg.media.is_held();
        if leg.held == on {
            return;
        }
        leg.held = on;
        let session = leg.session;
        self.emit(now, session, sid, CallEvent::Hold { on });
    }
}
