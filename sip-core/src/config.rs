//! What an endpoint is told at its start.

use std::time::Duration;

use crate::msg::Method;
use crate::transaction::timers::TimerConfig;
use crate::transport::Transport;

/// Host and port as the peers see us: goes into Via and Contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentBy {
    /// Host name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl SentBy {
    /// `host:port` with brackets around IPv6.
    pub fn to_host_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Configuration of a [`crate::SipEndpoint`].
#[derive(Clone, Debug)]
pub struct SipConfig {
    /// The advertised address (the bound one is the shell's business).
    pub advertised: SentBy,
    /// `User-Agent` and `Server` value; empty sends none.
    pub user_agent: String,
    /// Key of our own token, see [`crate::token`].
    pub token_key: [u8; 32],
    /// T1, T2, T4 and the derived timers.
    pub timers: TimerConfig,
    /// Transactions at once; a request beyond gets 503 with Retry-After.
    pub transactions_max: usize,
    /// Calls (INVITE usages) at once; an INVITE beyond gets 503 with Retry-After.
    pub dialogs_max: usize,
    /// `Retry-After` of those 503, seconds.
    pub retry_after_s: u32,
    /// How long an INVITE, ours or the peer's, may stay without final response.
    pub ringing_max: Duration,
    /// How long an answered call may last; then it is ended with BYE.
    pub call_max: Duration,
    /// Further dialogs of one INVITE that are remembered (forks).
    pub early_dialogs_max: usize,
    /// Transports that the shell can open. A Contact or Route that names another one is not
    /// followed: the request goes the way the peer's own came.
    pub transports: Vec<Transport>,
    /// Which of INFO, REFER, NOTIFY and MESSAGE the user answers in dialogs; the others are
    /// refused with 405 and not in our Allow.
    pub served_methods: Vec<Method>,
    /// How often the last 1xx is sent again while the caller waits (RFC 3261 §13.3.1.1).
    pub provisional_refresh: Duration,
}

impl SipConfig {
    /// The defaults for the given advertised address and key.
    pub fn new(host: impl Into<String>, port: u16, token_key: [u8; 32]) -> Self {
        SipConfig {
            advertised: SentBy { host: host.into(), port },
            user_agent: "Tandem".to_owned(),
            token_key,
            timers: TimerConfig::default(),
            transactions_max: 20_000,
            dialogs_max: 5_000,
            retry_after_s: 5,
            ringing_max: Duration::from_secs(300),
            call_max: Duration::from_secs(24 * 3600),
            early_dialogs_max: 16,
            transports: vec![Transport::Udp],
            served_methods: vec![Method::Info, Method::Refer, Method::Notify, Method::Message],
            provisional_refresh: Duration::from_secs(60),
        }
    }
}
