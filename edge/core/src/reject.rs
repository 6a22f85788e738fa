//! The one table from the end of a leg to SIP: status for a leg that was never answered, Reason
//! header (RFC 3326) for a BYE or CANCEL. And back: from a status to the end of an outbound leg.

use link_proto::call::{Blame, EndReason};
use sip_core::{FailCause, Header, HeaderName, Reason};

/// Final response to an inbound leg that ends before its answer.
pub fn status_of(reason: EndReason) -> u16 {
    match reason {
        EndReason::Busy => 486,
        EndReason::NoAnswer | EndReason::Timeout => 480,
        EndReason::RemoteCancel | EndReason::Canceled => 487,
        EndReason::Refused | EndReason::Rejected | EndReason::Hangup => 603,
        EndReason::PeerEnded => 480,
        EndReason::Unreachable => 404,
        EndReason::NotAcceptable => 488,
        EndReason::Overload | EndReason::ControlLost | EndReason::Drain => 503,
        EndReason::RemoteBye
        | EndReason::AckTimeout
        | EndReason::MediaTimeout
        | EndReason::TimeLimit
        | EndReason::NodeLost
        | EndReason::Internal => 500,
    }
}

/// Reason header value for a BYE or CANCEL.
pub fn reason_of(reason: EndReason) -> Reason {
    let (cause, text) = match reason {
        EndReason::MediaTimeout => return Reason::sip(408, "Media timeout"),
        EndReason::ControlLost => return Reason::sip(503, "Call control lost"),
        EndReason::Drain => return Reason::sip(503, "Shutting down"),
        EndReason::NotAcceptable => return Reason::sip(488, "Not Acceptable Here"),
        EndReason::TimeLimit => (31, "Permitted call length reached"),
        EndReason::Busy => (17, "User busy"),
        EndReason::NoAnswer | EndReason::Timeout => (19, "No answer"),
        EndReason::Refused | EndReason::Rejected => (21, "Call rejected"),
        EndReason::Unreachable => (3, "No route to destination"),
        EndReason::Overload => (42, "Congestion"),
        EndReason::AckTimeout => (102, "Recovery on timer expiry"),
        EndReason::NodeLost | EndReason::Internal => (41, "Temporary failure"),
        EndReason::RemoteBye
        | EndReason::RemoteCancel
        | EndReason::Hangup
        | EndReason::PeerEnded
        | EndReason::Canceled => (16, "Normal call clearing"),
    };
    Reason { protocol: "Q.850".to_owned(), cause: Some(cause), text: Some(text.to_owned()) }
}

/// The same as a header.
pub(crate) fn reason_header(reason: EndReason) -> Header {
    Header::new(HeaderName::Reason, reason_of(reason).to_string())
}

/// How an outbound leg ended that was refused with `status`, and whose doing that is.
pub fn end_of(status: u16, cause: FailCause) -> (EndReason, Blame) {
    match (cause, status) {
        (FailCause::Timeout, _) => (EndReason::Timeout, Blame::Carrier),
        (FailCause::Transport, _) => (EndReason::Unreachable, Blame::Carrier),
        (FailCause::Canceled, _) => (EndReason::Canceled, Blame::Us),
        (FailCause::Response, 486 | 600) => (EndReason::Busy, Blame::Callee),
        (FailCause::Response, 408 | 480) => (EndReason::NoAnswer, Blame::Callee),
        (FailCause::Response, 404 | 410 | 484 | 502 | 604) => {
            (EndReason::Unreachable, Blame::Carrier)
        }
        (FailCause::Response, 488 | 606 | 415) => (EndReason::NotAcceptable, Blame::Callee),
        (FailCause::Response, 500..=599) => (EndReason::Refused, Blame::Carrier),
        (FailCause::Response, _) => (EndReason::Refused, Blame::Callee),
    }
}

/// Whose doing a refusal by control is, judged by its status.
pub(crate) fn blame_of_rejection(status: u16) -> Blame {
    match status {
        404 | 484 => Blame::Caller,
        500..=599 => Blame::Us,
        _ => Blame::Customer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_ends() {
        use Blame::{Callee, Carrier, Us};
        for (status, cause, expect) in [
            (486, FailCause::Response, (EndReason::Busy, Callee)),
            (600, FailCause::Response, (EndReason::Busy, Callee)),
            (480, FailCause::Response, (EndReason::NoAnswer, Callee)),
            (404, FailCause::Response, (EndReason::Unreachable, Carrier)),
            (603, FailCause::Response, (EndReason::Refused, Callee)),
            (503, FailCause::Response, (EndReason::Refused, Carrier)),
            (408, FailCause::Timeout, (EndReason::Timeout, Carrier)),
            (503, FailCause::Transport, (EndReason::Unreachable, Carrier)),
            (487, FailCause::Canceled, (EndReason::Canceled, Us)),
        ] {
            assert_eq!(end_of(status, cause), expect, "{status} {cause:?}");
        }
    }

    #[test]
    fn reasons_are_headers() {
        assert_eq!(
            reason_of(EndReason::Hangup).to_string(),
            "Q.850;cause=16;text=\"Normal call clearing\""
        );
        assert_eq!(
            reason_of(EndReason::MediaTimeout).to_string(),
            "SIP;cause=408;text=\"Media timeout\""
        );
    }
}
