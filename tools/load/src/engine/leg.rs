//! One call of one phone, while it lives.

use std::collections::VecDeque;

use bytes::Bytes;
use sip_core::DialogHandle;

use crate::media::Media;
use crate::phone::Step;
use crate::report::PhoneReport;
use crate::source::Source;

/// Entries of one call's timeline.
pub const EVENTS_MAX: usize = 10_000;

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// Not answered.
    Early,
    /// Answered.
    Up,
    /// Over; RTP that is under way is still counted.
    Ended,
}

/// The step that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// The step.
    pub step: Step,
    /// When it began.
    pub began_ns: u64,
    /// When it is over, or has failed.
    pub deadline_ns: Option<u64>,
    /// When to look at it again although nothing happened.
    pub look_ns: Option<u64>,
    /// Keys received before it began.
    pub digits_before: usize,
}

/// A call.
pub struct Leg {
    /// Its phone.
    pub phone: usize,
    /// Its dialog in the phone's endpoint.
    pub handle: DialogHandle,
    /// Where it is.
    pub state: LegState,
    /// What has been observed, without media.
    pub report: PhoneReport,
    /// Its RTP.
    pub media: Media,
    /// What it says.
    pub source: Source,
    /// Every arrival is kept.
    pub full: bool,
    /// The offer of the INVITE received.
    pub offer: Option<Bytes>,
    /// Our answer to it, once made (183 and 200 carry the same).
    pub answer: Option<String>,
    /// Our 2xx carried the offer: the ACK brings the answer.
    pub awaits_answer: bool,
    /// Steps to come.
    pub script: VecDeque<Step>,
    /// The step that runs.
    pub running: Option<Running>,
    /// When to begin sending RTP.
    pub media_at_ns: Option<u64>,
    /// It is on the wheel.
    pub ticking: bool,
    /// Final status of our latest re-INVITE.
    pub reinvite_status: Option<u16>,
    /// When it is hung up whatever the script says.
    pub expires_ns: u64,
    /// We hung up then.
    pub hung_up_ns: Option<u64>,
    /// It ended then.
    pub ended_ns: Option<u64>,
    /// Its entry in the engine's deadlines.
    pub due_ns: Option<u64>,
}

impl Leg {
    /// The earliest of its deadlines.
    pub fn next_ns(&self) -> Option<u64> {
        if self.state == LegState::Ended {
            return None;
        }
        let running = self.running.as_ref();
        let step = running.and_then(|running| running.deadline_ns);
        let look = running.and_then(|running| running.look_ns);
        let expires = self.hung_up_ns.is_none().then_some(self.expires_ns);
        [step, look, expires, self.media_at_ns].into_iter().flatten().min()
    }

    /// Whether its step waits for something that RTP brings.
    pub fn listens(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            matches!(
                running.step,
                Step::WaitTone { .. }
                    | Step::WaitSound { .. }
                    | Step::WaitMedia { .. }
                    | Step::WaitDigits { .. }
            )
        })
    }

    /// Everything observed so far.
    pub fn snapshot(&self) -> PhoneReport {
        let mut report = self.report.clone();
        self.media.report(&mut report);
        report
    }
}
