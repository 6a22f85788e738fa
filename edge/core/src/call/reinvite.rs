//! Re-INVITE and UPDATE by the endpoint: answered by the edge alone with the codec in use; the
//! other leg hears nothing of it.

use std::time::Instant;

use bytes::Bytes;
use link_proto::CallSid;
use sip_core::{Body, DialogHandle};

use super::leg::LegState;
use crate::core::EdgeCore;

impl EdgeCore {
    /// A new offer, or the wish for one of ours.
    pub(crate) fn on_reinvite(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        sid: Option<CallSid>,
        sdp: Option<Bytes>,
    ) {
        let leg = sid.and_then(|sid| self.legs.get_mut(&sid));
        let Some(leg) = leg.filter(|leg| leg.state == LegState::Answered) else {
            let _ = self.sip.respond_reinvite(now, dialog, 481, "", Vec::new(), None);
            return;
        };
        let sid = leg.sid;
        let body = match sdp {
            Some(offer) => leg.media.answer_again(&offer),
            None => leg.media.offer(),
        };
        match body {
            Ok(body) => {
                let body = Some(Body::sdp(body));
                let _ = self.sip.respond_reinvite(now, dialog, 200, "", Vec::new(), body);
                self.update_worker_leg(sid);
                self.review_endpoint_hold(now, sid);
            }
            Err(_) => {
                // RFC 3261 §14.2: the session stays as it was.
                let _ = self.sip.respond_reinvite(now, dialog, 488, "", Vec::new(), None);
            }
        }
    }
}
