//! Gather: prompts and keys at once.

use link_proto::OpId;
use link_proto::media::{CollectEnd, CollectRules, PlayItem, StartWhen};
use link_proto::plan::Need;
use serde::{Deserialize, Serialize};

use super::runner::Activity;
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::error_code;
use crate::verb::Gather;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Gathering {
    pub collect: OpId,
}

impl Session {
    pub(crate) fn start_gather(
        &mut self,
        turn: &mut Turn<'_>,
        gather: &Gather,
        items: Vec<PlayItem>,
        speech: bool,
    ) {
        let leg = self.subject();
        let play = (!items.is_empty()).then(|| self.new_op());
        let collect = self.new_op();
        let rules = CollectRules {
            digits_max: gather.digits_max,
            finish_on: gather.finish_on.clone(),
            timeout_ms: gather.timeout_ms,
            timer: play.map_or(StartWhen::Now, StartWhen::AfterPlay),
            stops_play: play.filter(|_| gather.barge_in),
        };
        let mut needs = Vec::new();
        needs.extend(play.map(|op| Need::Play { op, leg, items, speech }));
        needs.push(Need::Collect { op: collect, leg, rules });
        self.run.activity = Activity::Gathering(Gathering { collect });
        if let Err(error) = self.set_needs(turn, needs) {
            self.fail(turn, error_code::INTERNAL, &error.to_string(), None);
        }
    }

    pub(crate) fn run_collect_done(
        &mut self,
        turn: &mut Turn<'_>,
        op: OpId,
        digits: String,
        end: CollectEnd,
    ) {
        let current = matches!(&self.run.activity, Activity::Gathering(g) if g.collect == op);
        let Some(gather) = self.gather_here().filter(|_| current) else { return };
        if end == CollectEnd::LegEnded {
            return;
        }
        if self.facts.verification.is_some() {
            return self.verification_digits(turn, &digits);
        }
        if digits.is_empty() && !gather.action_on_empty {
            return self.next_verb(turn);
        }
        let mut params = vec![("Digits".to_owned(), digits)];
        if let CollectEnd::FinishKey(key) = end {
            params.push(("FinishedOnKey".to_owned(), key.to_string()));
        }
        params.push(("msg".to_owned(), "Gather End".to_owned()));
        // Templates in the action URL see the digits.
        self.run.last_params = params.clone();
        self.ask(turn, gather.action.as_deref(), gather.method, params);
    }
}
