//! The REST actions: create, redirect, hang up.

use link_proto::call::{Blame, CallCommand, DialParams, EndReason};
use link_proto::media::AudioCodec;
use link_proto::{AccountSid, CallSid, RecordingSid};

use super::form::{self, Form, error};
use super::runner::Activity;
use crate::api::ApiError;
use crate::call::legs::NewLeg;
use crate::call::recording::Change;
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::directory::StatusTarget;
use crate::error_code as code;
use crate::record::Direction;
use crate::webhook::fallback::Fallbacks;

pub(crate) const TIMEOUT_BUFFER_MS: u64 = 5_000;
const TIMEOUT_S_MAX: u64 = 600;
const TIME_LIMIT_S_MAX: u64 = 86_400;

/// `POST Calls`: a session whose first leg is called.
pub(crate) fn create_call(
    turn: &mut Turn<'_>,
    account: AccountSid,
    form: &[(String, String)],
) -> Result<Session, ApiError> {
    let form = Form(form);
    form.refuse(&form::UNAVAILABLE)?;
    if !turn.directory.accounts.get(&account).is_some_and(|account| account.active) {
        return Err(error(403, code::API_FORBIDDEN, ""));
    }
    let to = form.get("To").ok_or_else(|| error(400, code::API_TO_MISSING, ""))?;
    let to = form::address(to).ok_or_else(|| error(400, code::API_TO_INVALID, to))?;
    let from = form.get("From").ok_or_else(|| error(400, code::API_FROM_MISSING, ""))?;
    let from = form::address(from).ok_or_else(|| error(400, code::API_FROM_INVALID, from))?;
    let caller_id = match form.get("CallerId") {
        None => from.clone(),
        Some(text) => {
            form::caller_id(text).ok_or_else(|| error(400, code::API_FROM_INVALID, "CallerId"))?
        }
    };
    for shown in [&from, &caller_id] {
        if !turn.directory.may_show(account, shown) {
            return Err(error(400, code::API_FROM_UNVERIFIED, shown));
        }
    }
    let voice = form.voice(turn, account)?;
    let document = if voice.voice.is_some() { None } else { form.document(turn)? };
    if voice.voice.is_none() && document.is_none() {
        let why = match form.get("ApplicationSid") {
            Some(_) => "the application has no VoiceUrl",
            None => "Url, Twiml or ApplicationSid is required",
        };
        return Err(error(400, code::API_URL_INVALID, why));
    }
    let timeout_s = form
        .number("Timeout", 1, TIMEOUT_S_MAX)
        .map_err(|e| ApiError { code: code::API_TIMEOUT_INVALID, ..e })?
        .unwrap_or(60);
    let time_limit_s = form.number("TimeLimit", 1, TIME_LIMIT_S_MAX)?;
    // All options are looked at, also those of a recording that is not asked for.
    let record = form.record_options(true)?;
    let record = form.boolean("Record")?.then_some(record);
    let first_digits = form.digits("SendDigits")?;
    let (username, password) =
        (form.credential("SipAuthUsername")?, form.credential("SipAuthPassword")?);
    let home = default_edge(turn).ok_or_else(|| error(503, code::API_NO_ROUTE, ""))?;
    let (node, target) = super::dialing::route(turn, &home, &to);
    if !turn.nodes.takes_calls(&node) {
        return Err(error(503, code::API_NO_ROUTE, "the edge is shutting down"));
    }

    let sid = CallSid::mint(turn.rng);
    let mut session = Session::new(sid, account, turn.now);
    session.facts.application = form.application(turn, account)?;
    session.facts.phone_number =
        turn.directory.number(&from).filter(|n| n.account == account).map(|n| n.sid);
    session.fallbacks = Fallbacks { list: voice.fallbacks, taken: None };
    session.run.base = voice.voice;
    session.run.document = document.unwrap_or_default();
    let new = NewLeg {
        sid,
        parent: None,
        direction: Direction::OutboundApi,
        from,
        to,
        node,
        codec: AudioCodec::Pcmu,
        targets: voice.status,
    };
    let params = DialParams {
        to: target,
        from: caller_id,
        codecs: Vec::new(),
        timeout_ms: timeout_s * 1_000 + TIMEOUT_BUFFER_MS,
        headers: Vec::new(),
        username,
        password,
        near_leg: None,
    };
    session.facts.record = record;
    session.dial(turn, new, params);
    if let Some(limit_s) = time_limit_s {
        session.command(turn, sid, CallCommand::TimeLimit { limit_ms: limit_s * 1_000 });
    }
    session.facts.first_digits = first_digits;
    Ok(session)
}

pub(crate) fn default_edge(turn: &Turn<'_>) -> Option<link_proto::NodeId> {
    let takes_calls = |node: &link_proto::NodeId| turn.nodes.takes_calls(node);
    let configured = turn.directory.default_edge.clone().filter(takes_calls);
    let mut up = turn.nodes.up.keys().filter(|node| takes_calls(node));
    let is_edge = |node: &&link_proto::NodeId| {
        turn.nodes.entry(node).is_some_and(|entry| !entry.core && entry.available)
    };
    configured.or_else(|| up.clone().find(is_edge).cloned()).or_else(|| up.next().cloned())
}

impl Session {
    /// The called party of an API call has answered: the instructions begin.
    pub(crate) fn outbound_answered(&mut self, turn: &mut Turn<'_>) {
        self.timeline.phase_over(turn.now);
        if let Some(options) = self.facts.record.take() {
            let (sid, leg) = (RecordingSid::mint(turn.rng), self.sid);
            if self.record_leg(turn, sid, leg, "OutboundAPI", options).is_none() {
                let why = "the call cannot be recorded at its edge";
                let alert = self.alert(turn, 0, code::INTERNAL, why);
                self.put_alert(turn, alert);
            }
        }
        if let Some(play) = self.facts.first_digits.take() {
            let mut verbs = vec![crate::verb::Verb::Play(play)];
            if self.run.document.verbs.is_empty()
                && let Some(base) = &self.run.base
            {
                let redirect = crate::verb::Redirect { url: base.url.clone(), method: base.method };
                verbs.push(crate::verb::Verb::Redirect(redirect));
            }
            verbs.append(&mut self.run.document.verbs);
            self.run.document.verbs = verbs;
        }
        if !self.run.document.verbs.is_empty() || self.run.base.is_none() {
            let document = std::mem::take(&mut self.run.document);
            return self.run_document(turn, document, None);
        }
        if let Some(target) = self.run.base.clone() {
            self.fetch(turn, target, Vec::new());
        }
    }

    /// `POST Calls/{sid}`.
    pub(crate) fn update_call(
        &mut self,
        turn: &mut Turn<'_>,
        leg: CallSid,
        form: &[(String, String)],
    ) -> Result<(), ApiError> {
        let form = Form(form);
        let not_now = |why: &str| error(400, code::API_NOT_IN_STATE, why);
        let state = self.legs.get(&leg).filter(|leg| !leg.ended() && !leg.hanging_up);
        let answered = state.ok_or_else(|| not_now("the call has ended"))?.answered();
        match form.get("Status").map(str::to_ascii_lowercase).as_deref() {
            Some("completed") => {
                self.hang_up_by_api(turn, leg);
                return Ok(());
            }
            Some("canceled") if !answered => {
                self.hang_up_by_api(turn, leg);
                return Ok(());
            }
            Some("canceled") => return Err(not_now("the call is answered")),
            Some(other) => return Err(error(400, code::API_PARAMETER, other)),
            None => {}
        }
        let target = form.url("Url", "Method", code::API_URL_INVALID)?;
        let document = if target.is_some() { None } else { form.document(turn)? };
        let fallbacks = form.fallbacks()?;
        let status =
            form.url("StatusCallback", "StatusCallbackMethod", code::API_STATUS_CALLBACK_INVALID)?;
        let limit_s = form.number("TimeLimit", 1, TIME_LIMIT_S_MAX)?;
        if target.is_some() || document.is_some() {
            if leg != self.sid {
                return Err(not_now("a dialled leg has no instructions of its own"));
            }
            if !answered && !self.caller_answered() {
                return Err(not_now("the call is not in progress"));
            }
        }
        if !fallbacks.is_empty() {
            self.fallbacks = Fallbacks { list: fallbacks, taken: None };
        }
        if let (Some(target), Some(leg)) = (status, self.legs.get_mut(&leg)) {
            leg.targets = vec![StatusTarget { target, events: vec!["completed".to_owned()] }];
        }
        if let Some(limit_s) = limit_s {
            self.command(turn, leg, CallCommand::TimeLimit { limit_ms: limit_s * 1_000 });
        }
        if let Some(target) = target {
            self.cut(turn);
            self.timeline.phase_over(turn.now);
            self.fetch(turn, target, Vec::new());
        } else if let Some(document) = document {
            self.cut(turn);
            self.run.base = None;
            self.run_document(turn, document, None);
        }
        Ok(())
    }

    /// `POST Calls/{sid}/Recordings`.
    pub(crate) fn start_recording(
        &mut self,
        turn: &mut Turn<'_>,
        leg: CallSid,
        recording: RecordingSid,
        form: &[(String, String)],
    ) -> Result<(), ApiError> {
        let form = Form(form);
        form.refuse(&["RecordingConfigurationId"])?;
        let options = form.record_options(false)?;
        let state = self.legs.get(&leg).filter(|leg| !leg.ended() && !leg.hanging_up);
        if !state.is_some_and(|leg| leg.answered()) {
            return Err(error(400, code::API_NOT_IN_STATE, "the call is not in progress"));
        }
        self.record_leg(turn, recording, leg, "StartCallRecordingAPI", options)
            .ok_or_else(|| error(400, code::API_NOT_IN_STATE, "the call cannot be recorded"))
    }

    /// `POST Calls/{sid}/Recordings/{sid}`.
    pub(crate) fn update_recording(
        &mut self,
        turn: &mut Turn<'_>,
        leg: CallSid,
        named: Option<RecordingSid>,
        form: &[(String, String)],
    ) -> Result<(), ApiError> {
        let form = Form(form);
        let silence = match form.get("PauseBehavior").map(str::to_ascii_lowercase).as_deref() {
            None | Some("silence") => true,
            Some("skip") => false,
            Some(_) => return Err(error(400, code::API_PARAMETER, "PauseBehavior")),
        };
        let change = match form.get("Status").map(str::to_ascii_lowercase).as_deref() {
            Some("paused") => Change::Pause { silence },
            Some("in-progress") => Change::Resume,
            Some("stopped") => Change::Stop,
            other => return Err(error(400, code::API_PARAMETER, other.unwrap_or("Status"))),
        };
        let found = self.running_recording(leg, named);
        let (op, sid) = found
            .ok_or_else(|| error(404, code::API_NOT_FOUND, "no such recording is in progress"))?;
        self.change_recording(turn, op, sid, change);
        Ok(())
    }

    fn hang_up_by_api(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        if leg == self.sid {
            let phase = self.timeline.phase + 1;
            self.snapshot(turn, phase);
        }
        self.hang_up(turn, leg, EndReason::Hangup, Blame::Customer);
    }

    /// The running instruction is cut and its result dropped.
    fn cut(&mut self, turn: &mut Turn<'_>) {
        let activity = std::mem::take(&mut self.run.activity);
        self.run.stop();
        self.run.last_resort = false;
        self.run.idle_documents = 0;
        self.run.incident = None;
        match activity {
            Activity::Fetching(fetch) => self.cancel_fetch(turn, &fetch),
            Activity::Dialing(dialing) => self.abandon_dial(turn, &dialing),
            _ => {}
        }
        self.end_screenings(turn);
        self.timers.remove(&crate::call::session::Timer::PickUp);
        if self.set_needs(turn, Vec::new()).is_err() {
            turn.metrics.internal_errors += 1;
        }
    }
}
