//! Whose number is it, which URLs belong to it, where do calls go.

use std::collections::{BTreeMap, BTreeSet};

use link_proto::table::Tables;
use link_proto::{AccountSid, ApplicationSid, NodeId, PhoneNumberSid};
use serde::{Deserialize, Serialize};

use crate::error_code;
use crate::io::Method;

/// Everything the core must know about customers and places. Small enough to be pushed whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Directory {
    /// Accounts.
    pub accounts: BTreeMap<AccountSid, Account>,
    /// Numbers by address: E.164 with plus, or a SIP user or `user@host`.
    pub numbers: BTreeMap<String, Number>,
    /// Applications.
    pub applications: BTreeMap<ApplicationSid, Application>,
    /// Verified caller ids, E.164.
    pub caller_ids: BTreeMap<AccountSid, BTreeSet<String>>,
    /// Nodes and routes as pushed to the edges. Nodes that said hello are added by the core.
    pub tables: Tables,
    /// Edge for outbound API calls without a route; otherwise the first connected edge by name.
    pub default_edge: Option<NodeId>,
}

impl Directory {
    /// The number for a called address: as it is, `user@host` of a SIP URI with and without the
    /// port, its user part, with and without the plus.
    pub fn number(&self, to: &str) -> Option<&Number> {
        let bare = without_scheme(to);
        let user = bare.split('@').next().unwrap_or(bare);
        let plus = format!("+{user}");
        let address = sip_address(to);
        let portless = address.as_deref().map(without_port);
        [Some(to), address.as_deref(), portless, Some(user), Some(user.trim_start_matches('+'))]
            .into_iter()
            .flatten()
            .chain([plus.as_str()])
            .find_map(|key| self.numbers.get(key))
    }

    /// Whether the account has shown that it can take calls at this number.
    pub fn is_verified(&self, account: AccountSid, number: &str) -> bool {
        let ids = self.caller_ids.get(&account);
        ids.is_some_and(|ids| ids.iter().any(|id| is_same_number(id, number)))
    }

    /// Whether calls of the account may show this caller id whoever the parties are: a number of its
    /// own, a verified one, a SIP address without a phone number, or none at all.
    pub fn may_show(&self, account: AccountSid, caller_id: &str) -> bool {
        let own = self.number(caller_id).is_some_and(|number| number.account == account);
        let no_number = phone_digits(caller_id).is_none()
            && (caller_id == "anonymous" || sip_address(caller_id).is_some());
        own || no_number || self.is_verified(account, caller_id)
    }

    /// The URLs that a number uses: those of its application if it has one, else its own.
    pub fn voice_of<'a>(&'a self, number: &'a Number) -> &'a VoiceUrls {
        number
            .application
            .and_then(|sid| self.applications.get(&sid))
            .filter(|application| application.account == number.account)
            .map_or(&number.voice, |application| &application.voice)
    }
}

/// A SIP URI without scheme, parameters and headers.
fn without_scheme(uri: &str) -> &str {
    let bare = uri.strip_prefix("sips:").or_else(|| uri.strip_prefix("sip:")).unwrap_or(uri);
    bare.split([';', '?']).next().unwrap_or(bare)
}

/// `user@host` or `user@host:port` out of a SIP URI or such an address; host names in lower case
/// (RFC 3261 §19.1.4). `None` if it has no host.
pub fn sip_address(text: &str) -> Option<String> {
    let (user, host) = without_scheme(text).split_once('@')?;
    Some(format!("{user}@{}", host.to_ascii_lowercase()))
}

/// The digits of a phone number, also of one that is the user part of a SIP URI.
fn phone_digits(text: &str) -> Option<&str> {
    let user = without_scheme(text).split(['@', ';']).next()?;
    let digits = user.strip_prefix('+').unwrap_or(user);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

/// Whether two addresses are the same phone number, with or without plus or a SIP URI around it.
pub fn is_same_number(one: &str, other: &str) -> bool {
    phone_digits(one).is_some_and(|digits| phone_digits(other) == Some(digits))
}

/// `user@host` of an address that may have a port.
fn without_port(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((rest, port)) if port.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => address,
    }
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Secret for API and signatures.
    pub auth_token: String,
    /// False = suspended or closed: its calls are refused.
    pub active: bool,
    /// Parameters that leave encrypted (TEL-03).
    #[serde(default)]
    pub encrypted_parameters: BTreeSet<String>,
}

/// An incoming phone number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// Its name.
    pub sid: PhoneNumberSid,
    /// Whose.
    pub account: AccountSid,
    /// Application that wins over the URLs here.
    pub application: Option<ApplicationSid>,
    /// URLs.
    pub voice: VoiceUrls,
}

/// An application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Application {
    /// Whose.
    pub account: AccountSid,
    /// URLs.
    pub voice: VoiceUrls,
}

/// URLs of a number, an application or an API call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoiceUrls {
    /// Instructions.
    pub voice: Option<UrlMethod>,
    /// In order (FBK-01).
    pub fallbacks: Vec<Fallback>,
    /// Status callbacks.
    pub status: Vec<StatusTarget>,
}

/// A URL and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlMethod {
    /// As configured, with fragment.
    pub url: String,
    /// Method.
    pub method: Method,
}

/// A fallback URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Where.
    pub target: UrlMethod,
    /// Only for these classes of errors; empty = all.
    #[serde(default)]
    pub classes: Vec<ErrorClass>,
}

/// What went wrong, as far as the choice of a fallback goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Error code.
    pub code: u32,
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
}

/// Classes of errors that a fallback can be limited to. As text: the name, or an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ErrorClass {
    /// `communication`: no usable response was had: name, connection, TLS, time, HTTP status.
    Communication,
    /// `customer`: the response is wrong: document, verb, type, size, redirects.
    Customer,
    /// `dns`.
    Dns,
    /// `connect`: refused, lost or not in time.
    Connect,
    /// `tls`: handshake or certificate.
    Tls,
    /// `timeout`: of the connection or of the answer.
    Timeout,
    /// `http-4xx`.
    Http4xx,
    /// `http-5xx`.
    Http5xx,
    /// One error code.
    Code(u32),
}

const CLASSES: [(&str, ErrorClass); 8] = [
    ("communication", ErrorClass::Communication),
    ("customer", ErrorClass::Customer),
    ("dns", ErrorClass::Dns),
    ("connect", ErrorClass::Connect),
    ("tls", ErrorClass::Tls),
    ("timeout", ErrorClass::Timeout),
    ("http-4xx", ErrorClass::Http4xx),
    ("http-5xx", ErrorClass::Http5xx),
];

impl ErrorClass {
    /// Whether a failure is of this class.
    pub fn matches(self, failure: Failure) -> bool {
        let Failure { code, status } = failure;
        let answered = |hundreds| status.is_some_and(|status| status / 100 == hundreds);
        match self {
            Self::Communication => error_code::is_communication(code),
            Self::Customer => !error_code::is_communication(code) && code != error_code::INTERNAL,
            Self::Dns => code == error_code::BAD_HOST,
            Self::Connect => (11_201..=11_205).contains(&code) && code != error_code::TOTAL_TIMEOUT,
            Self::Tls => (11_220..=11_237).contains(&code),
            Self::Timeout => {
                matches!(code, error_code::CONNECT_TIMEOUT | error_code::TOTAL_TIMEOUT)
            }
            Self::Http4xx => code == error_code::RETRIEVAL_FAILURE && answered(4),
            Self::Http5xx => code == error_code::RETRIEVAL_FAILURE && answered(5),
            Self::Code(wanted) => code == wanted,
        }
    }
}

impl From<ErrorClass> for String {
    fn from(class: ErrorClass) -> Self {
        let name = CLASSES.iter().find(|(_, known)| *known == class);
        match (name, class) {
            (Some((name, _)), _) => (*name).to_owned(),
            (None, ErrorClass::Code(code)) => code.to_string(),
            (None, _) => Self::new(),
        }
    }
}

impl TryFrom<String> for ErrorClass {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = CLASSES.iter().find(|(name, _)| *name == text).map(|(_, class)| *class);
        let code = || text.parse().ok().filter(|c| (10_000..100_000).contains(c)).map(Self::Code);
        named.or_else(code).ok_or_else(|| format!("{text:?} is no class of errors"))
    }
}

/// A status callback URL and what it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusTarget {
    /// Where.
    pub target: UrlMethod,
    /// `initiated`, `ringing`, `answered`, `completed`.
    pub events: Vec<String>,
}
