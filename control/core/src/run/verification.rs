//! Verifying a caller id (TEL-09): the platform calls the number and asks for the code that the API
//! has answered with. Whoever can take calls there may show the number.

use link_proto::call::DialParams;
use link_proto::media::AudioCodec;
use link_proto::{AccountSid, CallSid};
use serde::{Deserialize, Serialize};

use super::control::{TIMEOUT_BUFFER_MS, default_edge};
use super::form::{Form, error};
use crate::api::ApiError;
use crate::call::legs::NewLeg;
use crate::call::session::{Session, Timer};
use crate::call::turn::Turn;
use crate::directory::StatusTarget;
use crate::doc::Document;
use crate::error_code as code;
use crate::io::{Effect, Method, StoreOp};
use crate::record::{CallerIdRecord, Direction};
use crate::verb::{Gather, Say, Verb};

/// How often a wrong code may be keyed in, in all.
const ATTEMPTS_MAX: u32 = 3;
/// How long a called party is rung.
const RING_S: u64 = 60;
/// Silence on the keypad that ends an attempt.
const KEYPAD_MS: u64 = 10_000;

/// A verification under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verification {
    code: String,
    number: String,
    friendly_name: String,
    attempts: u32,
    /// Name of the caller id once the code was right.
    pub verified: Option<String>,
    /// The call that is made when `CallDelay` is over.
    pub delayed: Option<DialParams>,
}

/// `POST OutgoingCallerIds`: a session whose first leg is the number to be verified.
pub(crate) fn verify(
    turn: &mut Turn<'_>,
    account: AccountSid,
    secret: &str,
    form: &[(String, String)],
) -> Result<Session, ApiError> {
    let form = Form(form);
    if !turn.directory.accounts.get(&account).is_some_and(|account| account.active) {
        return Err(error(403, code::API_FORBIDDEN, ""));
    }
    let number = form.get("PhoneNumber").unwrap_or_default();
    let digits = number.strip_prefix('+').unwrap_or_default();
    if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error(400, code::API_NUMBER_INVALID, number));
    }
    if turn.directory.is_verified(account, number) {
        return Err(error(400, code::API_NUMBER_VERIFIED, number));
    }
    let extension = form.digits("Extension")?;
    let delay_s = form.number("CallDelay", 0, 60)?.unwrap_or(0);
    let status =
        form.url("StatusCallback", "StatusCallbackMethod", code::API_STATUS_CALLBACK_INVALID)?;
    let home = default_edge(turn).ok_or_else(|| error(503, code::API_NO_ROUTE, ""))?;
    let (node, target) = super::dialing::route(turn, &home, number);
    let own = turn
        .directory
        .numbers
        .iter()
        .find(|(address, number)| number.account == account && address.starts_with('+'));
    let from = own.map_or_else(|| turn.config.verification_from.clone(), |(own, _)| own.clone());

    let sid = CallSid::mint(turn.rng);
    let mut session = Session::new(sid, account, turn.now);
    let friendly_name = form.get("FriendlyName").unwrap_or(number);
    let mut verification = Verification {
        code: secret.to_owned(),
        number: number.to_owned(),
        friendly_name: friendly_name.chars().take(64).collect(),
        attempts: 0,
        verified: None,
        delayed: None,
    };
    let ask = "This number is to be shown to people called from an application. \
               Please key in the code that you were given.";
    session.run.document = question(&verification, ask);
    session.facts.first_digits = extension;
    let events = vec!["completed".to_owned()];
    let new = NewLeg {
        sid,
        parent: None,
        direction: Direction::OutboundApi,
        from: from.clone(),
        to: number.to_owned(),
        node,
        codec: AudioCodec::Pcmu,
        targets: status.map(|target| StatusTarget { target, events }).into_iter().collect(),
    };
    let params = DialParams {
        to: target,
        from,
        codecs: Vec::new(),
        timeout_ms: RING_S * 1_000 + TIMEOUT_BUFFER_MS,
        headers: Vec::new(),
        username: None,
        password: None,
        near_leg: None,
    };
    if delay_s == 0 {
        session.facts.verification = Some(verification);
        session.dial(turn, new, params);
    } else {
        verification.delayed = Some(params);
        session.facts.verification = Some(verification);
        session.add_leg(turn, new);
        session.arm(turn, Timer::CallDelay, delay_s * 1_000);
    }
    Ok(session)
}

fn speech(text: &str) -> Verb {
    Verb::Say(Say { text: text.to_owned(), voice: None, language: None, times: 1 })
}

fn question(verification: &Verification, text: &str) -> Document {
    let gather = Gather {
        action: None,
        method: Method::Post,
        timeout_ms: KEYPAD_MS,
        finish_on: "#".to_owned(),
        digits_max: u32::try_from(verification.code.len()).ok(),
        action_on_empty: true,
        barge_in: true,
        prompts: vec![speech(text)],
    };
    Document { verbs: vec![Verb::Gather(gather)], warnings: Vec::new() }
}

impl Session {
    /// `CallDelay` is over.
    pub(crate) fn call_delay_over(&mut self, turn: &mut Turn<'_>) {
        let delayed = self.facts.verification.as_mut().and_then(|v| v.delayed.take());
        if let Some(params) = delayed {
            self.send_dial(turn, self.sid, params);
        }
    }

    /// The code was keyed in, rightly or not.
    pub(crate) fn verification_digits(&mut self, turn: &mut Turn<'_>, digits: &str) {
        let Some(verification) = &mut self.facts.verification else { return };
        verification.attempts += 1;
        let document = if digits == verification.code {
            let sid = verification.verified.get_or_insert_with(|| format!("PN{}", turn.token()));
            let record = CallerIdRecord {
                sid: sid.clone(),
                account: self.account,
                phone_number: verification.number.clone(),
                friendly_name: verification.friendly_name.clone(),
                at_unix_ms: turn.unix_ms,
            };
            turn.store(StoreOp::PutCallerId(Box::new(record)));
            turn.effect(Effect::DirectoryChanged);
            last_words("Thank you. The number is verified. Goodbye.")
        } else if verification.attempts < ATTEMPTS_MAX {
            question(verification, "That was not the code. Please try again.")
        } else {
            last_words("That was not the code. The number is not verified. Goodbye.")
        };
        self.run_document(turn, document, None);
    }

    /// What the status callback says at the end of a verification.
    pub(crate) fn verification_params(&self) -> Vec<(String, String)> {
        let Some(verification) = &self.facts.verification else { return Vec::new() };
        let status = if verification.verified.is_some() { "success" } else { "failed" };
        let mut params = vec![("VerificationStatus".to_owned(), status.to_owned())];
        let sid = verification.verified.clone();
        params.extend(sid.map(|sid| ("OutgoingCallerIdSid".to_owned(), sid)));
        params
    }
}

fn last_words(text: &str) -> Document {
    Document { verbs: vec![speech(text), Verb::Hangup], warnings: Vec::new() }
}
