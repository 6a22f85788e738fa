//! What should become of a call when nothing but the network disturbs it.

use control_core::record::CallStatus;

use crate::phone::Manner;
use crate::workload::{Kind, Plan};

/// Final statuses that a leg may have.
pub type Allowed = Vec<CallStatus>;

/// The first leg.
pub fn caller(plan: &Plan) -> Allowed {
    use CallStatus as S;
    let mut allowed = match plan.kind {
        Kind::Reject => vec![S::Busy],
        Kind::Unknown => return Vec::new(),
        Kind::ApiCall => return called(plan, 1),
        // Hung up before the answer.
        Kind::ApiHangUp => vec![S::Completed, S::Canceled],
        _ => vec![S::Completed],
    };
    let gives_up = plan.caller.give_up_ms.is_some() || plan.caller.hang_up_ms.is_some();
    if gives_up {
        allowed.push(S::Canceled);
    }
    allowed
}

/// The leg of a called party.
pub fn called(plan: &Plan, role: usize) -> Allowed {
    use CallStatus as S;
    let Some(script) = role.checked_sub(1).and_then(|n| plan.called.get(n)) else {
        return Vec::new();
    };
    let mut allowed = match script.manner {
        // The timeout of the dial may be shorter than the phone takes.
        Manner::Answer | Manner::EarlyMedia => vec![S::Completed, S::NoAnswer],
        Manner::Ring => vec![S::NoAnswer],
        Manner::Refuse(486) => vec![S::Busy, S::NoAnswer],
        Manner::Refuse(_) => vec![S::Failed, S::Busy, S::NoAnswer],
    };
    if plan.kind != Kind::ApiCall {
        // The caller leaves, or the other one was faster.
        allowed.push(S::Canceled);
    }
    allowed
}
