//! How a phone is described: address, codecs, voice, script.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::codec::Codec;
use crate::digits::{DigitMethod, are_keys};
use crate::report::Role;
use crate::source::Source;

/// One step of a script. Steps run one after the other.
///
/// A callee's script starts when the INVITE comes, a caller's when the INVITE is sent. A caller's
/// steps run at once, also before the answer ([`Step::WaitTone`] hears early media,
/// [`Step::Cancel`] gives up); put [`Step::WaitAnswer`] where the answer matters. `Hangup` before
/// the answer is a cancel or a rejection. When the script is through, the phone stays in the call
/// until the other side hangs up.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Callee: send 180 Ringing and wait so many milliseconds.
    Ring(u64),
    /// Callee: send 183 with a session description, send early media for so many milliseconds.
    Progress(u64),
    /// Callee: answer with 200.
    Answer,
    /// Callee: refuse with this status.
    Reject(u16),
    /// Caller: give up if there is no answer after so many milliseconds.
    Cancel(u64),
    /// Caller: wait for the answer at most so many milliseconds.
    WaitAnswer(u64),
    /// Wait so many milliseconds.
    Wait(u64),
    /// Wait until a tone is heard.
    WaitTone {
        /// Its frequency.
        freq_hz: f64,
        /// At most so long, milliseconds.
        within_ms: u64,
    },
    /// Wait until any sound is heard.
    WaitSound {
        /// At most so long, milliseconds.
        within_ms: u64,
    },
    /// Wait until nothing has been heard for a while (no RTP is silence as well).
    WaitSilence {
        /// How long it has to be silent, milliseconds.
        for_ms: u64,
        /// At most so long, milliseconds.
        within_ms: u64,
    },
    /// Wait until RTP has come.
    WaitMedia {
        /// At most so long, milliseconds.
        within_ms: u64,
    },
    /// Wait until these keys have come since the step began.
    WaitDigits {
        /// The keys.
        digits: String,
        /// At most so long, milliseconds.
        within_ms: u64,
    },
    /// Press keys; each takes 200 to 260 ms. The next step starts when all are sent.
    Digits {
        /// The keys.
        digits: String,
        /// How.
        method: DigitMethod,
    },
    /// Say something else from now on.
    Say(Source),
    /// Stop sending RTP, as a phone that was unplugged.
    StopMedia,
    /// Send RTP again.
    ResumeMedia,
    /// Send RTP here from now on, whatever was agreed: as a phone behind a NAT that lost its table,
    /// or through a relay. The next session description of the peer changes it again.
    SendTo(SocketAddr),
    /// Put the peer on hold (re-INVITE with `sendonly`), wait for its answer.
    Hold,
    /// Take the peer back (re-INVITE with `sendrecv`), wait for its answer.
    Unhold,
    /// Hang up.
    Hangup,
}

impl Step {
    /// Press keys as RFC 4733 events.
    pub fn digits(digits: &str) -> Self {
        Self::Digits { digits: digits.to_owned(), method: DigitMethod::Rfc4733 }
    }

    /// Wait for a tone for at most 10 s.
    pub fn wait_tone(freq_hz: f64) -> Self {
        Self::WaitTone { freq_hz, within_ms: 10_000 }
    }
}

/// How much a call's report keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything: timeline, every arrival, every sound.
    Full,
    /// Timeline, counters and sounds, but not each arrival.
    Sounds,
    /// Timeline and counters; audio is not decoded.
    Counters,
}

/// How many calls a caller makes by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Calls in all.
    pub calls: u64,
    /// New calls per second.
    pub rate_per_s: f64,
    /// Calls at once; a call that would be one more waits.
    pub at_once_max: usize,
}

impl Traffic {
    /// One call at once.
    pub const ONE: Self = Self { calls: 1, rate_per_s: 1.0, at_once_max: 1 };
}

/// A phone, before it is plugged in with [`crate::PhoneBank::add`].
///
/// ```
/// use tandem_load::{Codec, Phone, Step};
/// let bob = Phone::callee("bob").tone(620.0).script([Step::Ring(300), Step::Answer]);
/// let alice = Phone::caller("alice", "sip:+15550100@127.0.0.1:5060")
///     .tone(440.0)
///     .codecs(&[Codec::Pcma])
///     .script([Step::WaitAnswer(5000), Step::wait_tone(620.0), Step::Hangup]);
/// # let _ = (alice, bob);
/// ```
#[derive(Clone, Debug)]
pub struct Phone {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) listen: SocketAddr,
    pub(crate) user: String,
    pub(crate) target: Option<String>,
    pub(crate) next_hop: Option<SocketAddr>,
    pub(crate) codecs: Vec<Codec>,
    pub(crate) events: bool,
    pub(crate) source: Source,
    pub(crate) tone_step_hz: f64,
    pub(crate) tone_count: u64,
    pub(crate) media_after_ms: u64,
    pub(crate) early_media: bool,
    pub(crate) script: Vec<Step>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) traffic: Traffic,
    pub(crate) calls_at_once_max: usize,
    pub(crate) call_max_ms: u64,
    pub(crate) detail: Detail,
    pub(crate) full_every: u64,
    pub(crate) keep_reports: bool,
    pub(crate) record: bool,
}

impl Phone {
    fn new(name: &str, role: Role, target: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            role,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            user: name.to_owned(),
            target,
            next_hop: None,
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            events: true,
            source: Source::Silence,
            tone_step_hz: 0.0,
            tone_count: 1,
            media_after_ms: 0,
            early_media: false,
            script: Vec::new(),
            headers: Vec::new(),
            traffic: Traffic::ONE,
            calls_at_once_max: 1,
            call_max_ms: 300_000,
            detail: Detail::Full,
            full_every: 0,
            keep_reports: true,
            record: false,
        }
    }

    /// A phone that calls `target`, a SIP URI, as soon as it is plugged in.
    pub fn caller(name: &str, target: &str) -> Self {
        Self::new(name, Role::Caller, Some(target.to_owned()))
    }

    /// A phone that waits to be called. Without a script it answers at once.
    pub fn callee(name: &str) -> Self {
        Self { script: vec![Step::Answer], ..Self::new(name, Role::Callee, None) }
    }

    /// SIP address to bind; RTP uses the same IP address. Default is any free port of 127.0.0.1.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// User part of its own URI (a caller's From). Default is the name.
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    /// Send the INVITE here instead of to the host in the target.
    pub fn via(mut self, next_hop: SocketAddr) -> Self {
        self.next_hop = Some(next_hop);
        self
    }

    /// Codecs in order of preference. Default is PCMU, PCMA.
    pub fn codecs(mut self, codecs: &[Codec]) -> Self {
        self.codecs = codecs.to_vec();
        self
    }

    /// Whether to offer RFC 4733 events. Default is yes.
    pub fn events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// Say bursts of this tone: who hears whom, and how late. Short for [`Source::Bursts`].
    pub fn tone(self, freq_hz: f64) -> Self {
        self.say(Source::Bursts(freq_hz))
    }

    /// Say bursts, each call in another tone: `first_hz`, `first_hz + step_hz` … and after `count`
    /// of them from the start. Tells many calls apart better than their rhythm alone.
    pub fn tones(mut self, first_hz: f64, step_hz: f64, count: u64) -> Self {
        self.tone_step_hz = step_hz;
        self.tone_count = count.max(1);
        self.tone(first_hz)
    }

    /// What to say. Default is silence.
    pub fn say(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Start sending RTP so many milliseconds after the answer. Default is 0.
    pub fn media_after_ms(mut self, media_after_ms: u64) -> Self {
        self.media_after_ms = media_after_ms;
        self
    }

    /// Caller: send RTP already when a 18x describes a session. Default is no.
    pub fn early_media(mut self, early_media: bool) -> Self {
        self.early_media = early_media;
        self
    }

    /// What to do in each call.
    pub fn script(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.script = steps.into_iter().collect();
        self
    }

    /// A further header in the INVITE.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Caller: make many calls. Default is one; `calls: 0` waits for [`crate::PhoneHandle::dial`].
    pub fn traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = traffic;
        self
    }

    /// Callee: calls at once; further ones get 486. Default is 1.
    pub fn calls_at_once_max(mut self, calls: usize) -> Self {
        self.calls_at_once_max = calls;
        self
    }

    /// Hang up after so many milliseconds whatever the script says. Default is 300 000.
    pub fn call_max_ms(mut self, call_max_ms: u64) -> Self {
        self.call_max_ms = call_max_ms;
        self
    }

    /// What reports keep. Default is [`Detail::Full`].
    pub fn detail(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// One call of so many is kept with [`Detail::Full`], whatever [`Phone::detail`] says for the
    /// others; 0, the default, is none.
    pub fn full_every(mut self, calls: u64) -> Self {
        self.full_every = calls;
        self
    }

    /// Whether reports of ended calls are kept ([`crate::PhoneHandle::reports`]) or only added up
    /// ([`crate::PhoneHandle::totals`]); calls of full detail are always kept. Default is yes.
    pub fn keep_reports(mut self, keep: bool) -> Self {
        self.keep_reports = keep;
        self
    }

    /// Keep the samples heard, ten minutes at most. Default is no.
    pub fn record(mut self, record: bool) -> Self {
        self.record = record;
        self
    }

    /// What one call says.
    pub(crate) fn source_of(&self, call: u64) -> Source {
        match self.source {
            Source::Bursts(first_hz) => {
                Source::Bursts(first_hz + self.tone_step_hz * (call % self.tone_count) as f64)
            }
            ref other => other.clone(),
        }
    }

    /// Finds mistakes before anything is bound.
    pub(crate) fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if self.codecs.is_empty() {
            return Err(format!("phone {name}: no codec given; known are PCMU and PCMA"));
        }
        if self.user.is_empty() || self.user.contains(['@', '<', '>', ' ', '\r', '\n']) {
            return Err(format!("phone {name}: user '{}' is no user part of a URI", self.user));
        }
        if self.traffic.calls > 0
            && !(self.traffic.rate_per_s > 0.0 && self.traffic.rate_per_s <= 100_000.0)
        {
            return Err(format!(
                "phone {name}: rate {} calls/s; allowed is more than 0 to 100000",
                self.traffic.rate_per_s
            ));
        }
        check_script(&self.script).map_err(|error| format!("phone {name}: {error}"))
    }
}

/// Finds mistakes in a script.
pub(crate) fn check_script(script: &[Step]) -> Result<(), String> {
    for step in script {
        match step {
            Step::Digits { digits, .. } | Step::WaitDigits { digits, .. } if !are_keys(digits) => {
                return Err(format!("'{digits}' is no row of keys; known are 0-9 * # A-D"));
            }
            Step::Reject(status) if !(300..=699).contains(status) => {
                return Err(format!("cannot reject with {status}; allowed is 300 to 699"));
            }
            _ => {}
        }
    }
    Ok(())
}
