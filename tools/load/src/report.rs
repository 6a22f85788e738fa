//! What one call of one phone observed, all on the clock of [`crate::clock::now_ns`].

use serde::{Deserialize, Serialize};

use crate::clock::ms_between;
use crate::codec::Codec;
use crate::digits::DigitMethod;
use crate::ear::{Burst, Heard, SAME_TONE_HZ};
use crate::receive::RtpReceived;

/// Which side of the call the phone was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It sent the INVITE.
    #[default]
    Caller,
    /// It received the INVITE.
    Callee,
}

/// Who ended the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// This phone.
    Us,
    /// The other side.
    Peer,
    /// Nobody: a timer or the transport.
    Nobody,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at_ns: u64,
    /// Who ended it.
    pub whose: Whose,
    /// `bye`, `cancel`, `rejected`, `timeout`, `transport`, `ack-timeout` or `expired`.
    pub how: String,
    /// Final status of a call that was not answered.
    pub status: Option<u16>,
    /// Reason header of the BYE or CANCEL received (RFC 3326), such as `SIP;cause=200`.
    pub reason: Option<String>,
}

/// One entry of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// When.
    pub at_ns: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The phone called.
    InviteSent {
        /// Request URI.
        uri: String,
    },
    /// The phone is called.
    InviteReceived {
        /// Request URI.
        uri: String,
        /// From URI.
        from: String,
        /// Address it came from.
        source: String,
    },
    /// A response to the phone's INVITE.
    Response {
        /// Status code.
        status: u16,
        /// Reason phrase.
        reason: String,
        /// It carries a session description.
        sdp: bool,
    },
    /// The phone answered the INVITE with this status.
    ResponseSent {
        /// Status code.
        status: u16,
    },
    /// The 2xx was acknowledged by this phone.
    AckSent,
    /// The peer acknowledged the 2xx.
    AckReceived,
    /// The phone hung up.
    ByeSent,
    /// The peer hung up.
    ByeReceived {
        /// Its Reason headers.
        reason: Option<String>,
    },
    /// The phone gave up before an answer.
    CancelSent,
    /// The peer gave up before an answer.
    CancelReceived {
        /// Its Reason headers.
        reason: Option<String>,
    },
    /// The phone changed the session.
    ReInviteSent,
    /// The change was answered with this status.
    ReInviteResponse {
        /// Status code.
        status: u16,
    },
    /// The peer changed the session.
    ReInviteReceived,
    /// The first RTP packet came.
    FirstRtp {
        /// Payload type.
        payload_type: u8,
    },
    /// The SSRC of what comes changed.
    StreamChanged,
    /// The phone began a key.
    DigitSent {
        /// The key.
        digit: char,
        /// How it was sent.
        method: DigitMethod,
    },
    /// A key came.
    DigitReceived {
        /// The key.
        digit: char,
        /// How it came.
        method: DigitMethod,
    },
    /// The phone began to send media.
    MediaStarted {
        /// Where to.
        to: String,
        /// In which codec.
        codec: Codec,
    },
    /// The phone stopped sending media.
    MediaStopped,
    /// A step of the script began.
    Step {
        /// The step, as text.
        step: String,
    },
    /// A step did not succeed; the script ended there and the phone hung up.
    ScriptFailed {
        /// Why.
        why: String,
    },
    /// Something that the peer sent was wrong.
    PeerMistake {
        /// What.
        what: String,
    },
}

impl std::fmt::Display for EventKind {
    /// The entry as a line of a timeline.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let because = |reason: &Option<String>| {
            reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"))
        };
        match self {
            Self::InviteSent { uri } => write!(f, "INVITE {uri} sent"),
            Self::InviteReceived { uri, from, source } => {
                write!(f, "INVITE {uri} received from {from} at {source}")
            }
            Self::Response { status, reason, sdp } => {
                let with = if *sdp { " with SDP" } else { "" };
                write!(f, "{status} {reason} received{with}")
            }
            Self::ResponseSent { status } => write!(f, "{status} sent"),
            Self::AckSent => write!(f, "ACK sent"),
            Self::AckReceived => write!(f, "ACK received"),
            Self::ByeSent => write!(f, "BYE sent"),
            Self::ByeReceived { reason } => write!(f, "BYE received{}", because(reason)),
            Self::CancelSent => write!(f, "CANCEL sent"),
            Self::CancelReceived { reason } => write!(f, "CANCEL received{}", because(reason)),
            Self::ReInviteSent => write!(f, "re-INVITE sent"),
            Self::ReInviteResponse { status } => write!(f, "{status} to re-INVITE received"),
            Self::ReInviteReceived => write!(f, "re-INVITE received"),
            Self::FirstRtp { payload_type } => {
                write!(f, "first RTP received, payload type {payload_type}")
            }
            Self::StreamChanged => write!(f, "SSRC of received RTP changed"),
            Self::DigitSent { digit, method } => write!(f, "key {digit} sent ({method:?})"),
            Self::DigitReceived { digit, method } => {
                write!(f, "key {digit} received ({method:?})")
            }
            Self::MediaStarted { to, codec } => write!(f, "sends {} to {to}", codec.name()),
            Self::MediaStopped => write!(f, "sends no RTP any more"),
            Self::Step { step } => write!(f, "step: {step}"),
            Self::ScriptFailed { why } => write!(f, "script failed: {why}"),
            Self::PeerMistake { what } => write!(f, "mistake of the peer: {what}"),
        }
    }
}

/// Statistics of the RTP that the phone sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RtpSent {
    /// Packets handed to the kernel.
    pub packets: u64,
    /// Packets that the kernel refused.
    pub send_errors: u64,
    /// First packet.
    pub first_ns: Option<u64>,
    /// Latest packet.
    pub last_ns: Option<u64>,
    /// When each tone burst began: send time of the packet whose first sample is its first.
    pub onsets_ns: Vec<u64>,
    /// Keys sent.
    pub digits: String,
    /// Worst lateness of a packet against its 20 ms grid, microseconds.
    pub late_max_us: u64,
}

/// Everything one call of one phone observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhoneReport {
    /// Name of the phone.
    pub phone: String,
    /// Number of this call of the phone, from 0.
    pub call: u64,
    /// Which side.
    pub role: Role,
    /// Call-ID.
    pub call_id: Option<String>,
    /// INVITE sent or received.
    pub began_ns: u64,
    /// 2xx received or sent.
    pub answered_ns: Option<u64>,
    /// First 180–199 received or sent.
    pub ringing_ns: Option<u64>,
    /// How it ended; `None` while it goes on.
    pub end: Option<End>,
    /// The script is through (or failed).
    pub script_done: bool,
    /// Why the script failed.
    pub failure: Option<String>,
    /// The timeline.
    pub events: Vec<TimelineEvent>,
    /// Codec the phone sends.
    pub codec: Option<Codec>,
    /// Tone the phone sends, hertz.
    pub tone_hz: Option<f64>,
    /// RTP sent.
    pub sent: RtpSent,
    /// RTP received.
    pub received: RtpReceived,
    /// Bursts of sound heard, onset by onset.
    pub bursts: Vec<Burst>,
    /// Tones and other sound heard, interval by interval.
    pub heard: Vec<Heard>,
    /// Keys received.
    pub digits: String,
    /// Re-INVITEs received.
    pub reinvites: u64,
    /// Packets that overflowed the RTP socket; known once the call has ended.
    pub socket_drops: u64,
    /// Samples heard, as they came (phones that record only).
    #[serde(skip)]
    pub audio: Vec<i16>,
}

impl PhoneReport {
    /// Whether the call was answered.
    pub fn answered(&self) -> bool {
        self.answered_ns.is_some()
    }

    /// Whether it is over.
    pub fn ended(&self) -> bool {
        self.end.is_some()
    }

    /// INVITE to 2xx, milliseconds.
    pub fn set_up_ms(&self) -> Option<f64> {
        self.answered_ns.map(|at| ms_between(self.began_ns, at))
    }

    /// INVITE to the first sign of ringing, or to the answer, milliseconds.
    pub fn post_dial_delay_ms(&self) -> Option<f64> {
        self.ringing_ns.or(self.answered_ns).map(|at| ms_between(self.began_ns, at))
    }

    /// A copy without what grows with each packet (arrivals, recorded samples), to be written down.
    pub fn brief(&self) -> Self {
        let received = RtpReceived { arrivals: Vec::new(), ..self.received.clone() };
        Self { received, audio: Vec::new(), ..self.clone() }
    }

    /// When the first event that fits happened.
    pub fn when(&self, mut fits: impl FnMut(&EventKind) -> bool) -> Option<u64> {
        self.events.iter().find(|event| fits(&event.kind)).map(|event| event.at_ns)
    }

    /// Whether this tone was heard in any interval.
    pub fn heard_tone(&self, freq_hz: f64) -> bool {
        self.heard.iter().any(|heard| heard.is(freq_hz))
    }

    /// Whether this tone was heard between two instants.
    pub fn heard_tone_between(&self, freq_hz: f64, from_ns: u64, to_ns: u64) -> bool {
        self.bursts.iter().any(|burst| {
            burst.freq_hz.is_some_and(|heard| (heard - freq_hz).abs() < SAME_TONE_HZ)
                && burst.end_ns >= from_ns
                && burst.onset_ns <= to_ns
        })
    }

    /// When this tone was first heard.
    pub fn first_heard_ns(&self, freq_hz: f64) -> Option<u64> {
        self.heard.iter().find(|heard| heard.is(freq_hz)).map(|heard| heard.from_ns)
    }

    /// When this tone was last heard.
    pub fn last_heard_ns(&self, freq_hz: f64) -> Option<u64> {
        self.heard.iter().rev().find(|heard| heard.is(freq_hz)).map(|heard| heard.to_ns)
    }

    /// Writes what was heard as WAV (8 kHz, mono); only phones that record have it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_audio(&self, path: &std::path::Path) -> Result<(), hound::Error> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec)?;
        for sample in &self.audio {
            writer.write_sample(*sample)?;
        }
        writer.finalize()
    }
}

/// Delay from mouth to ear, from bursts that could be matched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MouthToEar {
    /// Median, milliseconds.
    pub median_ms: f64,
    /// Shortest, milliseconds.
    pub min_ms: f64,
    /// Longest, milliseconds.
    pub max_ms: f64,
    /// Bursts that were matched.
    pub matched: usize,
    /// Bursts of the sender's tone that were heard.
    pub heard: usize,
}

impl MouthToEar {
    /// Whether at least three bursts, and most of those heard, fit: then it is this sender who was
    /// heard, even if others use the same tone.
    pub fn is_sure(&self) -> bool {
        self.matched >= 3 && self.matched as f64 >= SURE * self.heard as f64
    }
}

/// Longest delay that is looked for.
const DELAY_MAX_NS: u64 = 3_000_000_000;
/// How far one burst may be off the common delay: less than half a frame tells neighbouring
/// lengths of a pause apart.
const TIGHT_NS: u64 = 8_000_000;
/// The same on a path with jitter, tried when the tight one does not fit.
const LOOSE_NS: u64 = 25_000_000;
/// Share of heard bursts that fit a delay beyond doubt.
const SURE: f64 = 0.8;
/// Received bursts that candidates for the delay are taken from.
const ANCHORS: usize = 12;

/// Median delay from the sender's tone onsets to the receiver's ear, milliseconds. `None` if
/// fewer than two bursts fit the sender's rhythm.
pub fn mouth_to_ear_ms(sender: &PhoneReport, receiver: &PhoneReport) -> Option<f64> {
    mouth_to_ear(sender, receiver, 0, u64::MAX).map(|delay| delay.median_ms)
}

/// The same for bursts whose onset was heard between two instants: one phase of a call. The
/// rhythm of the bursts is matched, so that delays longer than the pause between them are right.
pub fn mouth_to_ear(
    sender: &PhoneReport,
    receiver: &PhoneReport,
    from_ns: u64,
    to_ns: u64,
) -> Option<MouthToEar> {
    let heard = onsets_of(sender, receiver, from_ns, to_ns);
    let tight = delay_of(&sender.sent.onsets_ns, &heard, TIGHT_NS);
    if tight.is_some_and(|found| found.is_sure()) {
        return tight;
    }
    let loose = delay_of(&sender.sent.onsets_ns, &heard, LOOSE_NS);
    if loose.is_some_and(|found| found.is_sure()) { loose } else { tight.or(loose) }
}

/// Onsets of bursts of the sender's tone that the receiver heard between two instants.
fn onsets_of(sender: &PhoneReport, receiver: &PhoneReport, from_ns: u64, to_ns: u64) -> Vec<u64> {
    let Some(tone_hz) = sender.tone_hz else { return Vec::new() };
    let of_sender = |burst: &&Burst| {
        (from_ns..=to_ns).contains(&burst.onset_ns)
            && burst.freq_hz.is_some_and(|hz| (hz - tone_hz).abs() < SAME_TONE_HZ)
    };
    receiver.bursts.iter().filter(of_sender).map(|burst| burst.onset_ns).collect()
}

fn delay_of(sent: &[u64], heard: &[u64], tolerance_ns: u64) -> Option<MouthToEar> {
    let mut best: Option<(usize, u64, Vec<u64>)> = None;
    for anchor in heard.iter().take(ANCHORS) {
        let first = sent.partition_point(|at| at + DELAY_MAX_NS < *anchor);
        for candidate in sent.iter().skip(first).take_while(|at| *at <= anchor) {
            let delay = anchor - candidate;
            let delays = matches(sent, heard, delay, tolerance_ns);
            let spread = delays.iter().map(|found| found.abs_diff(delay)).sum::<u64>();
            let better = best.as_ref().is_none_or(|(count, least, _)| {
                delays.len() > *count || (delays.len() == *count && spread < *least)
            });
            if better {
                best = Some((delays.len(), spread, delays));
            }
        }
    }
    let (count, _, mut delays) = best?;
    // Chance alone fits one burst in ten: two of two, or most of many, are no chance.
    if count < 2 || count * 2 < heard.len() {
        return None;
    }
    delays.sort_unstable();
    let at_ms = |index: usize| delays.get(index).map_or(0.0, |ns| *ns as f64 / 1e6);
    Some(MouthToEar {
        median_ms: at_ms(count / 2),
        min_ms: at_ms(0),
        max_ms: at_ms(count - 1),
        matched: count,
        heard: heard.len(),
    })
}

/// The delays of the bursts that fit a common delay.
fn matches(sent: &[u64], heard: &[u64], delay: u64, tolerance_ns: u64) -> Vec<u64> {
    let fit = |at: &u64| {
        let expected = at.checked_sub(delay)?;
        let after = sent.partition_point(|sent| *sent < expected);
        let near = [after.checked_sub(1), Some(after)];
        let candidates = near.into_iter().flatten().filter_map(|index| sent.get(index));
        let nearest = candidates.min_by_key(|sent| sent.abs_diff(expected))?;
        (nearest.abs_diff(expected) <= tolerance_ns && nearest <= at).then(|| at - nearest)
    };
    heard.iter().filter_map(fit).collect()
}

/// How surely it is `sender` whom `receiver` heard. Tells calls apart that use the same tone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RhythmMatch {
    /// The rhythms differ.
    No,
    /// They fit if the path has jitter; with many calls this may be chance.
    Loose,
    /// They fit to the frame.
    Tight,
}

/// Compares the rhythm in which `sender` spoke with the one that `receiver` heard.
pub fn rhythm_match(sender: &PhoneReport, receiver: &PhoneReport) -> RhythmMatch {
    let heard = onsets_of(sender, receiver, 0, u64::MAX);
    let fits = |tolerance_ns| {
        let found = delay_of(&sender.sent.onsets_ns, &heard, tolerance_ns);
        found.is_some_and(|found| found.is_sure())
    };
    if fits(TIGHT_NS) {
        RhythmMatch::Tight
    } else if fits(LOOSE_NS) {
        RhythmMatch::Loose
    } else {
        RhythmMatch::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rhythm(seed: u64, count: u64) -> Vec<u64> {
        let mut at = 1_000_000_000u64;
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                at += (16 + (state >> 33) % 17) * 20_000_000;
                at
            })
            .collect()
    }

    #[test]
    fn delay_is_found_even_if_longer_than_a_pause() {
        let sent = rhythm(1, 40);
        for delay_ms in [0.3, 20.0, 80.25, 240.0, 700.0, 2500.0] {
            let delay_ns = (delay_ms * 1e6) as u64;
            let heard: Vec<u64> = sent.iter().skip(5).map(|at| at + delay_ns).collect();
            let found = delay_of(&sent, &heard, LOOSE_NS).unwrap();
            assert!((found.median_ms - delay_ms).abs() < 0.001, "{delay_ms}: {found:?}");
            assert_eq!(found.matched, 35);
        }
    }

    #[test]
    fn jitter_and_losses_do_not_disturb() {
        let sent = rhythm(2, 40);
        let heard: Vec<u64> = sent
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 5 != 0)
            .map(|(index, at)| at + 80_000_000 + (index as u64 % 4) * 3_000_000)
            .collect();
        let found = delay_of(&sent, &heard, LOOSE_NS).unwrap();
        assert!((found.median_ms - 84.0).abs() < 3.0, "{found:?}");
        assert!(found.max_ms - found.min_ms < 10.0);
    }

    #[test]
    fn another_rhythm_does_not_match() {
        let mut taken = 0;
        for seed in 10..40 {
            taken += usize::from(delay_of(&rhythm(3, 30), &rhythm(seed, 20), LOOSE_NS).is_some());
        }
        assert_eq!(taken, 0);
        assert!(delay_of(&rhythm(3, 30), &[], TIGHT_NS).is_none());
        assert!(delay_of(&[], &rhythm(3, 30), TIGHT_NS).is_none());
    }
}
