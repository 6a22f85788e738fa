//! From reasons to statuses.

use link_proto::call::EndReason;

use crate::record::CallStatus;

/// The final status of a leg.
pub fn status(reason: EndReason, answered: bool, sip_status: Option<u16>) -> CallStatus {
    use EndReason as R;
    if answered {
        return CallStatus::Completed;
    }
    match reason {
        R::Busy => CallStatus::Busy,
        R::Rejected if matches!(sip_status, Some(486 | 600)) => CallStatus::Busy,
        R::NoAnswer | R::Rejected => CallStatus::NoAnswer,
        R::RemoteCancel | R::RemoteBye | R::Hangup | R::PeerEnded | R::Canceled => {
            CallStatus::Canceled
        }
        R::Refused
        | R::Unreachable
        | R::Timeout
        | R::AckTimeout
        | R::MediaTimeout
        | R::TimeLimit
        | R::ControlLost
        | R::NotAcceptable
        | R::Overload
        | R::NodeLost
        | R::Drain
        | R::Internal => CallStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        use EndReason as R;
        for (reason, answered, sip, expected) in [
            (R::RemoteBye, true, None, "completed"),
            (R::NodeLost, true, None, "completed"),
            (R::Busy, false, Some(486), "busy"),
            (R::Rejected, false, Some(486), "busy"),
            (R::Rejected, false, Some(603), "no-answer"),
            (R::NoAnswer, false, Some(480), "no-answer"),
            (R::RemoteCancel, false, Some(487), "canceled"),
            (R::Canceled, false, None, "canceled"),
            (R::Refused, false, Some(403), "failed"),
            (R::NodeLost, false, None, "failed"),
        ] {
            assert_eq!(status(reason, answered, sip).as_str(), expected, "{reason:?}");
        }
    }
}
