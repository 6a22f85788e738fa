//! Screening: a called party goes through a document of its own after it has answered, and before
//! it is connected. The caller hears ringback meanwhile. At the end of the document the two are
//! connected; Hangup in it, or the end of the leg, counts as not answered.
//!
//! Several may be screened at once: the first that comes through wins, so that a mailbox which
//! answers first does not take the call.

use link_proto::{CallSid, OpId};

use super::runner::{Activity, Run};
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::directory::{self, UrlMethod};
use crate::error_code;
use crate::io::FetchId;
use crate::verb::{Play, PlayContent, Redirect, Verb};

impl Session {
    /// Lets a document have its turn: that of a leg that is screened, or of the first leg. Nothing
    /// happens if that leg is not screened any more.
    pub(crate) fn in_run(
        &mut self,
        turn: &mut Turn<'_>,
        screened: Option<CallSid>,
        act: impl FnOnce(&mut Self, &mut Turn<'_>),
    ) {
        let Some(leg) = screened else { return act(self, turn) };
        let Some(run) = self.screenings.remove(&leg) else {
            turn.metrics.results_stale += 1;
            return;
        };
        let first = std::mem::replace(&mut self.run, run);
        self.screenings.insert(self.sid, first);
        act(self, turn);
        let first = self.screenings.remove(&self.sid).unwrap_or_default();
        let run = std::mem::replace(&mut self.run, first);
        match run.accepted {
            None => {
                self.screenings.insert(leg, run);
            }
            Some(accepted) => self.dial_screened(turn, leg, accepted),
        }
    }

    /// The screened leg whose document waits for a fetch; `None` = the first leg, or nobody.
    pub(crate) fn run_that_fetches(&self, id: FetchId) -> Option<CallSid> {
        let waits = |run: &Run| matches!(&run.activity, Activity::Fetching(fetch) if fetch.is(id));
        self.screenings.iter().find(|(_, run)| waits(run)).map(|(leg, _)| *leg)
    }

    /// The screened leg whose document runs a program.
    pub(crate) fn run_with_op(&self, op: OpId) -> Option<CallSid> {
        let runs = |run: &Run| match &run.activity {
            Activity::Playing { op: playing, .. } => *playing == op,
            Activity::Gathering(gathering) => gathering.collect == op,
            _ => false,
        };
        self.screenings.iter().find(|(_, run)| runs(run)).map(|(leg, _)| *leg)
    }

    /// A called party has answered: digits for it, then its document.
    pub(crate) fn start_screening(
        &mut self,
        turn: &mut Turn<'_>,
        leg: CallSid,
        target: UrlMethod,
        digits: Option<String>,
    ) {
        self.screenings.insert(leg, Run { leg: Some(leg), ..Run::default() });
        self.in_run(turn, Some(leg), |session, turn| {
            let Some(digits) = digits else { return session.fetch(turn, target, Vec::new()) };
            let play = Verb::Play(Play { content: PlayContent::Digits(digits), times: 1 });
            let next = Verb::Redirect(Redirect { url: target.url, method: target.method });
            let verbs = vec![play, next];
            session.run_document(turn, crate::doc::Document { verbs, warnings: Vec::new() }, None);
        });
    }

    /// What a request about a screened leg says beside what every request says.
    pub(crate) fn screening_params(&self) -> Vec<(String, String)> {
        let Some(leg) = self.run.leg.and_then(|leg| self.legs.get(&leg)) else { return Vec::new() };
        let Some(address) = directory::sip_address(&leg.record.to) else { return Vec::new() };
        let host = address.rsplit('@').next().unwrap_or_default();
        let domain = match host.rsplit_once(':') {
            Some((domain, port)) if port.bytes().all(|b| b.is_ascii_digit()) => domain,
            _ => host,
        };
        let mut params = vec![("SipDomain".to_owned(), domain.to_owned())];
        params.extend(leg.record.sip_call_id.clone().map(|id| ("SipCallId".to_owned(), id)));
        let headers = leg.sip_headers.iter();
        params.extend(headers.map(|(name, value)| (format!("SipHeader_{name}"), value.clone())));
        params
    }

    /// The next verb of a screening, or its end.
    pub(crate) fn advance_screening(&mut self, turn: &mut Turn<'_>, verb: Option<Verb>) {
        match verb {
            None => self.run.accepted = Some(true),
            Some(Verb::Hangup) => self.hang_up_caller(turn),
            Some(Verb::Say(_) | Verb::Play(_) | Verb::Pause(_)) => self.prepare_group(turn),
            Some(Verb::Gather(gather)) => self.prepare_gather(turn, &gather),
            Some(Verb::Redirect(redirect)) => {
                self.ask(turn, Some(&redirect.url), redirect.method, Vec::new());
            }
            Some(verb @ (Verb::Record(_) | Verb::Dial(_) | Verb::Reject(_))) => {
                let name = verb.name();
                let message = format!("{name} is not available before the parties are connected");
                self.fail(turn, error_code::VERB_UNKNOWN, &message, None);
            }
        }
    }

    /// The leg has ended, or is not wanted any more.
    pub(crate) fn end_screening(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        if let Some(Run { activity: Activity::Fetching(fetch), .. }) = self.screenings.remove(&leg)
        {
            self.cancel_fetch(turn, &fetch);
        }
    }

    /// Nobody is to be connected any more.
    pub(crate) fn end_screenings(&mut self, turn: &mut Turn<'_>) {
        let legs: Vec<CallSid> = self.screenings.keys().copied().collect();
        for leg in legs {
            self.end_screening(turn, leg);
        }
    }
}
