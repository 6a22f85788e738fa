//! Whose number is it, which URLs belong to it, where do calls go.

use std::collections::BTreeMap;

use link_proto::table::Tables;
use link_proto::{AccountSid, ApplicationSid, NodeId, PhoneNumberSid};
use serde::{Deserialize, Serialize};

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
    /// Nodes and routes as pushed to the edges. Nodes that said hello are added by the core.
    pub tables: Tables,
    /// Edge for outbound API calls without a route; otherwise the first connected edge by name.
    pub default_edge: Option<NodeId>,
}

impl Directory {
    /// The number for a called address: as it is, the user part of a SIP URI, with and without
    /// the plus.
    pub fn number(&self, to: &str) -> Option<&Number> {
        let bare = to.strip_prefix("sips:").or_else(|| to.strip_prefix("sip:")).unwrap_or(to);
        let bare = bare.split([';', '?']).next().unwrap_or(bare);
        let user = bare.split('@').next().unwrap_or(bare);
        let plus = format!("+{user}");
        [to, bare, user, user.trim_start_matches('+'), plus.as_str()]
            .into_iter()
            .find_map(|key| self.numbers.get(key))
    }

    /// The URLs that a number uses: those of its application if it has one, else its own.
    pub fn voice_of<'a>(&'a self, number: &'a Number) -> &'a VoiceUrls {
        number
            .application
            .and_then(|sid| self.applications.get(&sid))
            .map_or(&number.voice, |application| &application.voice)
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Secret for API and signatures.
    pub auth_token: String,
    /// False = suspended or closed: its calls are refused.
    pub active: bool,
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

/// Classes of errors that a fallback can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// DNS, connect, TLS, timeout, HTTP status.
    Communication,
    /// Document, verb, type.
    Document,
}

/// A status callback URL and what it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusTarget {
    /// Where.
    pub target: UrlMethod,
    /// `initiated`, `ringing`, `answered`, `completed`.
    pub events: Vec<String>,
}
