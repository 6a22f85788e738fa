//! Parameters of the REST actions: what is taken, and what is refused with which code. Nothing that
//! the ecosystem defines is ignored silently: what is not available here is refused.

use link_proto::media::RecordTrack;
use link_proto::{AccountSid, ApplicationSid};

use crate::api::ApiError;
use crate::call::recording::RecordOptions;
use crate::call::turn::Turn;
use crate::directory::{Fallback, StatusTarget, UrlMethod, VoiceUrls};
use crate::doc::Document;
use crate::error_code as code;
use crate::io::Method;
use crate::webhook::fallback;

const TWIML_CHARACTERS_MAX: usize = 4_000;
const ADDRESS_BYTES_MAX: usize = 255;
/// Names and passwords for the called party's server.
const CREDENTIAL_CHARACTERS_MAX: usize = 128;

/// Parameters of `POST Calls` that ask for what is not available.
pub(crate) const UNAVAILABLE: [&str; 7] = [
    "MachineDetection",
    "Byoc",
    "CallReason",
    "CallToken",
    "ClientNotificationUrl",
    "Passports",
    "RecordingConfigurationId",
];

pub(crate) fn error(status: u16, code: u32, detail: &str) -> ApiError {
    let text = code::text(code);
    let message = if detail.is_empty() { text.to_owned() } else { format!("{text}: {detail}") };
    ApiError { status, code, message }
}

fn parameter(detail: &str) -> ApiError {
    error(400, code::API_PARAMETER, detail)
}

/// Parameters by name.
pub(crate) struct Form<'a>(pub &'a [(String, String)]);

impl Form<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Refuses parameters that are not available.
    pub(crate) fn refuse(&self, names: &[&str]) -> Result<(), ApiError> {
        let asked = names.iter().find(|name| self.get(name).is_some());
        asked.map_or(Ok(()), |name| Err(parameter(&format!("{name} is not available"))))
    }

    /// Events to be reported; `completed` if none are named.
    fn events(&self, name: &str, known: &[&str], bad: u32) -> Result<Vec<String>, ApiError> {
        let values = self.0.iter().filter(|(found, _)| found == name);
        let words = values.flat_map(|(_, value)| value.split([' ', ',']));
        let words: Vec<String> =
            words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect();
        if let Some(wrong) = words.iter().find(|word| !known.contains(&word.as_str())) {
            return Err(error(400, bad, &format!("{name}: {wrong} is none of {known:?}")));
        }
        Ok(if words.is_empty() { vec!["completed".to_owned()] } else { words })
    }

    fn method(&self, name: &str) -> Result<Method, ApiError> {
        let Some(value) = self.get(name) else { return Ok(Method::Post) };
        Method::parse(value).ok_or_else(|| error(400, code::API_METHOD_INVALID, name))
    }

    pub(crate) fn number(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.parse().ok().filter(|n| (low..=high).contains(n));
        let wrong = || parameter(&format!("{name} is not a whole number from {low} to {high}"));
        number.map(Some).ok_or_else(wrong)
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(parameter(&format!("{name} is not true or false"))),
        }
    }

    /// One word out of some; `None` if the parameter is absent.
    fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| value.eq_ignore_ascii_case(word));
        let allowed = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let wrong = || parameter(&format!("{name} is none of {}", allowed()));
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(wrong)
    }

    pub(crate) fn url(
        &self,
        url: &str,
        method: &str,
        bad: u32,
    ) -> Result<Option<UrlMethod>, ApiError> {
        // The method is looked at also where no URL is given.
        let method = self.method(method)?;
        let Some(value) = self.get(url) else { return Ok(None) };
        let absolute = crate::webhook::request::resolve(None, value);
        let url = absolute.ok_or_else(|| error(400, bad, value))?;
        Ok(Some(UrlMethod { url, method }))
    }

    /// URLs of the call: those of the application, else the form's own.
    pub(crate) fn voice(
        &self,
        turn: &Turn<'_>,
        account: AccountSid,
    ) -> Result<VoiceUrls, ApiError> {
        if let Some(application) = self.application(turn, account)? {
            let found = turn.directory.applications.get(&application);
            return Ok(found.map(|found| found.voice.clone()).unwrap_or_default());
        }
        let status =
            self.url("StatusCallback", "StatusCallbackMethod", code::API_STATUS_CALLBACK_INVALID)?;
        let known = ["initiated", "ringing", "answered", "completed"];
        let events = self.events("StatusCallbackEvent", &known, code::API_EVENTS_INVALID)?;
        Ok(VoiceUrls {
            voice: self.url("Url", "Method", code::API_URL_INVALID)?,
            fallbacks: self.fallbacks()?,
            status: status.map(|target| StatusTarget { target, events }).into_iter().collect(),
        })
    }

    /// `FallbackUrl`, which takes every error, and after it those of `FallbackUrls`.
    pub(crate) fn fallbacks(&self) -> Result<Vec<Fallback>, ApiError> {
        let first = self.url("FallbackUrl", "FallbackMethod", code::API_URL_INVALID)?;
        let more = fallback::parse_list(self.get("FallbackUrls").unwrap_or_default())
            .map_err(|why| parameter(&format!("FallbackUrls: {why}")))?;
        let first = first.map(|target| Fallback { target, classes: Vec::new() });
        Ok(first.into_iter().chain(more).collect())
    }

    /// `RecordingChannels`, `RecordingTrack`, `Trim` and the callback of a recording. `trim` is
    /// what holds without a word about it.
    pub(crate) fn record_options(&self, trim: bool) -> Result<RecordOptions, ApiError> {
        let callback = self.url(
            "RecordingStatusCallback",
            "RecordingStatusCallbackMethod",
            code::API_STATUS_CALLBACK_INVALID,
        )?;
        let known = ["in-progress", "completed", "absent"];
        let tracks = [
            ("both", RecordTrack::Both),
            ("inbound", RecordTrack::Received),
            ("outbound", RecordTrack::Sent),
        ];
        let trims = [("trim-silence", true), ("do-not-trim", false)];
        Ok(RecordOptions {
            track: self.word("RecordingTrack", &tracks)?.unwrap_or(RecordTrack::Both),
            dual: self
                .word("RecordingChannels", &[("mono", false), ("dual", true)])?
                .unwrap_or(false),
            trim: self.word("Trim", &trims)?.unwrap_or(trim),
            callback,
            events: self.events(
                "RecordingStatusCallbackEvent",
                &known,
                code::API_EVENTS_INVALID,
            )?,
        })
    }

    pub(crate) fn application(
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

    pub(crate) fn document(&self, turn: &Turn<'_>) -> Result<Option<Document>, ApiError> {
        let Some(text) = self.get("Twiml") else { return Ok(None) };
        if text.chars().count() > TWIML_CHARACTERS_MAX {
            let message = format!("Twiml is longer than {TWIML_CHARACTERS_MAX} characters");
            return Err(parameter(&message));
        }
        crate::doc::parse::parse(text.as_bytes(), Some("utf-8"), turn.config.document_bytes_max)
            .map(Some)
            .map_err(|e| error(400, e.code, &e.message))
    }

    /// Digits to be played after the answer.
    pub(crate) fn digits(&self, name: &str) -> Result<Option<crate::verb::Play>, ApiError> {
        let Some(digits) = self.get(name) else { return Ok(None) };
        let good = |c: char| "0123456789ABCD*#wW".contains(c);
        if digits.len() > 32 || !digits.chars().all(good) {
            return Err(error(400, code::API_DIGITS_INVALID, name));
        }
        let content = crate::verb::PlayContent::Digits(digits.to_owned());
        Ok(Some(crate::verb::Play { content, times: 1 }))
    }

    /// A name or password for the called party's server.
    pub(crate) fn credential(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let fine = text.chars().count() <= CREDENTIAL_CHARACTERS_MAX
            && !text.chars().any(char::is_control);
        if fine { Ok(Some(text.to_owned())) } else { Err(parameter(name)) }
    }
}

/// A phone number or SIP URI.
pub(crate) fn address(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix("sips:").or_else(|| text.strip_prefix("sip:")) {
        let bad = |c: char| !c.is_ascii_graphic() || " <>\"".contains(c);
        let fine = !rest.is_empty() && text.len() < ADDRESS_BYTES_MAX && !rest.chars().any(bad);
        return fine.then(|| text.to_owned());
    }
    let number: String = text.chars().filter(|c| !" -().".contains(*c)).collect();
    let digits = number.strip_prefix('+').unwrap_or(&number);
    let fine = (2..=32).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
    fine.then_some(number)
}

/// Who is shown as calling: an address, one without its scheme, or nobody.
pub(crate) fn caller_id(text: &str) -> Option<String> {
    let bare = || {
        let fine = text.contains('@') && address(&format!("sip:{text}")).is_some();
        fine.then(|| text.to_owned())
    };
    let nobody = || (text == "anonymous").then(|| text.to_owned());
    address(text).or_else(bare).or_else(nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_caller_ids() {
        let check = |text: &str, as_address: Option<&str>, as_caller: Option<&str>| {
            assert_eq!(address(text).as_deref(), as_address, "{text}");
            assert_eq!(caller_id(text).as_deref(), as_caller, "{text}");
        };
        let both = |text: &str| check(text, Some(text), Some(text));
        both("+15551230001");
        both("sip:bob@host;transport=tcp?x-a=b");
        check("+1 (555) 123-0001", Some("+15551230001"), Some("+15551230001"));
        check("bob@host", None, Some("bob@host"));
        check("anonymous", None, Some("anonymous"));
        for bad in ["", "1", "sip:", "sip:a b@h", "a\r\nEvil: x@h", "sip:a\r\n@h", "sip:\u{fc}@h"] {
            check(bad, None, None);
        }
    }
}
