//! The REST actions: create, redirect, hang up.

use link_proto::call::{Blame, CallCommand, DialParams, EndReason};
use link_proto::media::{AudioCodec, RecordTrack};
use link_proto::{AccountSid, ApplicationSid, CallSid, RecordingSid};

use super::runner::Activity;
use crate::api::ApiError;
use crate::call::legs::NewLeg;
use crate::call::recording::{Change, RecordOptions};
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::directory::{Fallback, StatusTarget, UrlMethod, VoiceUrls};
use crate::doc::Document;
use crate::error_code as code;
use crate::io::Method;
use crate::record::Direction;
use crate::webhook::fallback::{self, Fallbacks};

const TWIML_CHARACTERS_MAX: usize = 4_000;
pub(crate) const TIMEOUT_BUFFER_MS: u64 = 5_000;

pub(crate) fn error(status: u16, code: u32, detail: &str) -> ApiError {
    let text = code::text(code);
    let message = if detail.is_empty() { text.to_owned() } else { format!("{text}: {detail}") };
    ApiError { status, code, message }
}

/// Parameters by name.
pub(crate) struct Form<'a>(pub &'a [(String, String)]);

impl Form<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(known, _)| known == name);
        let words = values.flat_map(|(_, value)| value.split([' ', ',']));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn method(&self, name: &str) -> Result<Method, ApiError> {
        let Some(value) = self.get(name) else { return Ok(Method::Post) };
        Method::parse(value).ok_or_else(|| error(400, code::API_PARAMETER, name))
    }

    pub(crate) fn number(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.parse().ok().filter(|n| (low..=high).contains(n));
        number.map(Some).ok_or_else(|| error(400, code::API_PARAMETER, name))
    }

    pub(crate) fn url(
        &self,
        url: &str,
        method: &str,
        bad: u32,
    ) -> Result<Option<UrlMethod>, ApiError> {
        let Some(value) = self.get(url) else { return Ok(None) };
        let absolute = crate::webhook::request::resolve(None, value);
        let url = absolute.ok_or_else(|| error(400, bad, value))?;
        Ok(Some(UrlMethod { url, method: self.method(method)? }))
    }

    /// URLs of the call: those of the application, else the form's own.
    fn voice(&self, turn: &Turn<'_>, account: AccountSid) -> Result<VoiceUrls, ApiError> {
        if let Some(application) = self.application(turn, account)? {
            let found = turn.directory.applications.get(&application);
            return Ok(found.map(|found| found.voice.clone()).unwrap_or_default());
        }
        let status =
            self.url("StatusCallback", "StatusCallbackMethod", code::API_STATUS_CALLBACK_INVALID)?;
        let mut events = self.all("StatusCallbackEvent");
        if events.is_empty() {
            events.push("completed".to_owned());
        }
        Ok(VoiceUrls {
            voice: self.url("Url", "Method", code::API_URL_INVALID)?,
            fallbacks: self.fallbacks()?,
            status: status.map(|target| StatusTarget { target, events }).into_iter().collect(),
        })
    }

    /// `FallbackUrl`, which takes every error, and after it those of `FallbackUrls`.
    fn fallbacks(&self) -> Result<Vec<Fallback>, ApiError> {
        let first = self.url("FallbackUrl", "FallbackMethod", code::API_URL_INVALID)?;
        let more = fallback::parse_list(self.get("FallbackUrls").unwrap_or_default())
            .map_err(|why| error(400, code::API_PARAMETER, &format!("FallbackUrls: {why}")))?;
        let first = first.map(|target| Fallback { target, classes: Vec::new() });
        Ok(first.into_iter().chain(more).collect())
    }

    /// `RecordingChannels`, `RecordingTrack`, `Trim` and the callback of a recording.
    fn record_options(&self) -> Result<RecordOptions, ApiError> {
        let wrong = |name| error(400, code::API_PARAMETER, name);
        let word = |name| self.get(name).map(str::to_ascii_lowercase);
        let mut events = self.all("RecordingStatusCallbackEvent");
        if events.is_empty() {
            events.push("completed".to_owned());
        }
        let callback = self.url(
            "RecordingStatusCallback",
            "RecordingStatusCallbackMethod",
            code::API_STATUS_CALLBACK_INVALID,
        )?;
        Ok(RecordOptions {
            track: match word("RecordingTrack").as_deref() {
                None | Some("both") => RecordTrack::Both,
                Some("inbound") => RecordTrack::Received,
                Some("outbound") => RecordTrack::Sent,
                Some(_) => return Err(wrong("RecordingTrack")),
            },
            dual: match word("RecordingChannels").as_deref() {
                None | Some("mono") => false,
                Some("dual") => true,
                Some(_) => return Err(wrong("RecordingChannels")),
            },
            trim: match word("Trim").as_deref() {
                Some("trim-silence") => true,
                None | Some("do-not-trim") => false,
                Some(_) => return Err(wrong("Trim")),
            },
            callback,
            events,
        })
    }

    fn application(
        &self,
        turn: &Turn<'_>,
        account: AccountSid,
    ) -> Result<Option<ApplicationSid>, ApiError> {
        let Some(text) = self.get("ApplicationSid") else { return Ok(None) };
        let sid: Option<ApplicationSid> = text.parse().ok();
        let owned = |sid: &ApplicationSid| {
            turn.directory.applications.get(sid).is_some_and(|found| found.account == account)
        };
        let known = sid.filter(owned);
        known.map(Some).ok_or_else(|| error(400, code::API_APPLICATION_UNKNOWN, text))
    }

    fn document(&self, turn: &Turn<'_>) -> Result<Option<Document>, ApiError> {
        let Some(text) = self.get("Twiml") else { return Ok(None) };
        if text.chars().count() > TWIML_CHARACTERS_MAX {
            return Err(error(400, code::API_PARAMETER, "Twiml is too long"));
        }
        crate::doc::parse::parse(text.as_bytes(), Some("utf-8"), turn.config.document_bytes_max)
            .map(Some)
            .map_err(|e| error(400, e.code, &e.message))
    }
}

/// A phone number or SIP URI.
fn address(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix("sips:").or_else(|| text.strip_prefix("sip:")) {
        let fine = !rest.is_empty() && text.len() < 255;
        return (fine && !rest.chars().any(|c| " <>\"\r\n".contains(c))).then(|| text.to_owned());
    }
    let number: String = text.chars().filter(|c| !" -().".contains(*c)).collect();
    let digits = number.strip_prefix('+').unwrap_or(&number);
    let fine = (2..=32).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
    fine.then_some(number)
}

/// `POST Calls`: a session whose first leg is called.
pub(crate) fn create_call(
    turn: &mut Turn<'_>,
    account: AccountSid,
    form: &[(String, String)],
) -> Result<Session, ApiError> {
    let form = Form(form);
    if !turn.directory.accounts.get(&account).is_some_and(|account| account.active) {
        return Err(error(403, code::API_FORBIDDEN, ""));
    }
    let to = form.get("To").ok_or_else(|| error(400, code::API_TO_MISSING, ""))?;
    let to = address(to).ok_or_else(|| error(400, code::API_TO_INVALID, to))?;
    let from = form.get("From").ok_or_else(|| error(400, code::API_FROM_MISSING, ""))?;
    let from = address(from).ok_or_else(|| error(400, code::API_FROM_INVALID, from))?;
    let caller_id = form.get("CallerId").map_or_else(|| from.clone(), str::to_owned);
    for shown in [&from, &caller_id] {
        if !turn.directory.may_show(account, shown) {
            return Err(error(400, code::API_FROM_UNVERIFIED, shown));
        }
    }
    let voice = form.voice(turn, account)?;
    let document = if voice.voice.is_some() { None } else { form.document(turn)? };
    if voice.voice.is_none() && document.is_none() {
        return Err(error(400, code::API_URL_INVALID, "Url, Twiml or ApplicationSid is required"));
    }
    let timeout_s = form.number("Timeout", 1, 600)?.unwrap_or(60);
    let time_limit_s = form.number("TimeLimit", 1, 86_400)?;
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
        username: form.get("SipAuthUsername").map(str::to_owned),
        password: form.get("SipAuthPassword").map(str::to_owned),
        near_leg: None,
    };
    if form.get("Record").is_some_and(|word| word.eq_ignore_ascii_case("true")) {
        session.facts.record = Some(form.record_options()?);
    }
    session.dial(turn, new, params);
    if let Some(limit_s) = time_limit_s {
        session.command(turn, sid, CallCommand::TimeLimit { limit_ms: limit_s * 1_000 });
    }
    session.facts.first_digits = form.get("SendDigits").and_then(send_digits);
    Ok(session)
}

/// Digits to be played after the answer.
pub(crate) fn send_digits(digits: &str) -> Option<crate::verb::Play> {
    let fine = digits.len() <= 32 && digits.chars().all(|c| "0123456789*#wW".contains(c));
    let content = crate::verb::PlayContent::Digits(digits.to_owned());
    fine.then_some(crate::verb::Play { content, times: 1 })
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
        let limit_s = form.number("TimeLimit", 1, 86_400)?;
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
        let options = Form(form).record_options()?;
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
