//! Events of the SIP endpoint, sorted to the legs they are about.

use std::time::Instant;

use bytes::Bytes;
use edge_media::command::WorkerCommand;
use link_proto::CallSid;
use link_proto::call::{Blame, EndReason};
use sip_core::{DialogHandle, Event, Header, HeaderName, RequestId};

use crate::call::leg::LegEnd;
use crate::core::EdgeCore;

/// Length of a digit when an INFO does not say it, in ms.
const DIGIT_MS: u32 = 160;

impl EdgeCore {
    pub(crate) fn on_sip_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Incoming { handle, call } => self.on_incoming(now, handle, &call),
            Event::Canceled { handle, .. } => {
                if let Some(sid) = self.leg_of(handle) {
                    let end = LegEnd::new(EndReason::RemoteCancel, Blame::Caller);
                    self.on_dialog_over(now, sid, end.with_status(487));
                }
            }
            Event::Provisional { handle, early_dialog, status, sdp, .. } => {
                if let Some(sid) = self.leg_of(handle) {
                    self.on_provisional(now, sid, status, &early_dialog.unwrap_or_default(), sdp);
                }
            }
            Event::Answered { handle, remote_tag, sdp, response, .. } => {
                if let Some(sid) = self.leg_of(handle) {
                    self.keep_answer_headers(sid, &response);
                    self.on_answered(now, sid, &remote_tag.unwrap_or_default(), sdp);
                }
            }
            Event::Failed { handle, status, cause, .. } => {
                if let Some(sid) = self.leg_of(handle) {
                    self.on_sip_failed(now, sid, status, cause);
                }
            }
            Event::AckReceived { handle, sdp } => {
                if let Some(sid) = self.leg_of(handle) {
                    self.on_ack(now, sid, sdp);
                }
            }
            Event::Ended { handle, reason, .. } => {
                if let Some(sid) = self.leg_of(handle) {
                    self.on_sip_end(now, sid, &reason);
                }
            }
            Event::ReInvite { handle, sdp, .. } => {
                let sid = self.leg_of(handle);
                self.on_reinvite(now, handle, sid, sdp);
            }
            Event::Info { handle, id, content_type, body, .. } => {
                self.on_info(now, handle, id, &content_type, &body);
            }
            // The endpoint is told to refuse both by itself.
            Event::Refer { id, .. } | Event::Request { id, .. } => self.respond(now, id, 501),
            // We send no re-INVITE and no other request in dialogs.
            Event::ReInviteAnswered { .. }
            | Event::ReInviteFailed { .. }
            | Event::RequestDone { .. } => {}
        }
    }

    fn leg_of(&self, dialog: DialogHandle) -> Option<CallSid> {
        self.by_dialog.get(&dialog).copied()
    }

    fn respond(&mut self, now: Instant, id: RequestId, status: u16) {
        // Refused only if the transaction is over; then nobody waits for the response.
        let _ = self.sip.respond(now, id, status, "", Vec::new(), None);
    }

    /// A digit by signalling goes the way of one by RTP.
    fn on_info(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        id: RequestId,
        content_type: &str,
        body: &Bytes,
    ) {
        let Some(sid) = self.leg_of(dialog) else { return self.respond(now, id, 481) };
        let digit = match content_type {
            "application/dtmf-relay" => dtmf_relay(body),
            "application/dtmf" => single_digit(body).map(|digit| (digit, DIGIT_MS)),
            "" => return self.respond(now, id, 200),
            _ => {
                // RFC 3261 §8.2.3: what would be understood.
                let accept = "application/dtmf-relay, application/dtmf";
                let headers = vec![Header::new(HeaderName::Accept, accept)];
                let _ = self.sip.respond(now, id, 415, "", headers, None);
                return;
            }
        };
        let Some((digit, duration_ms)) = digit else { return self.respond(now, id, 400) };
        self.respond(now, id, 200);
        if let Some(leg) = self.legs.get(&sid).filter(|leg| leg.is_live())
            && let Some(port) = self.ports.get(leg.port)
        {
            let command = WorkerCommand::InjectDigit { port: leg.port, digit, duration_ms };
            self.worker(port.worker, command);
        }
    }
}

fn digit_of(text: &str) -> Option<char> {
    let digit = match text.trim() {
        "10" => '*',
        "11" => '#',
        other => {
            let mut chars = other.chars();
            let digit = chars.next()?.to_ascii_uppercase();
            chars.next().is_none().then_some(digit)?
        }
    };
    "0123456789ABCD*#".contains(digit).then_some(digit)
}

fn single_digit(body: &[u8]) -> Option<char> {
    digit_of(std::str::from_utf8(body).ok()?)
}

/// `Signal=5` and `Duration=160` on lines of their own, in any order and case.
fn dtmf_relay(body: &[u8]) -> Option<(char, u32)> {
    let text = std::str::from_utf8(body).ok()?;
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let duration = field("duration").and_then(|value| value.parse().ok()).unwrap_or(DIGIT_MS);
    Some((digit_of(field("signal")?)?, duration.clamp(40, 5_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_info() {
        for (body, expect) in [
            ("Signal=5\r\nDuration=250\r\n", Some(('5', 250))),
            ("duration = 1\nsignal = *\n", Some(('*', 40))),
            ("Signal=11", Some(('#', 160))),
            ("Signal=12", None),
            ("Signal=x", None),
            ("Signal=", None),
            ("", None),
        ] {
            assert_eq!(dtmf_relay(body.as_bytes()), expect, "{body:?}");
        }
        assert_eq!(single_digit(b"d\r\n"), Some('D'));
        assert_eq!(single_digit(&[0xff]), None);
    }
}
