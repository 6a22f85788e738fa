//! Sets up the phones of a run, watches them, gives the verdict.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::pairing::pair;
use super::verdict::{Limits, SideVerdict, Verdict};
use crate::bank::{BankConfig, BankError, PhoneBank, PhoneHandle};
use crate::codec::Codec;
use crate::engine::Totals;
use crate::phone::{Detail, Phone, Step, Traffic};

/// First tone of the callers, hertz; each call takes the next one.
const CALLER_HZ: f64 = 400.0;
/// First tone of the answerers, hertz: between those of the callers.
const ANSWERER_HZ: f64 = 440.0;
/// From one call's tone to the next one's.
const TONE_STEP_HZ: f64 = 80.0;
/// Different tones; the highest is below 3200 Hz.
const TONES: u64 = 35;
/// Both sides stop their media so long before the BYE, so that none is under way then.
const QUIET_END_MS: u64 = 400;
/// Both sides start their media so long after the answer, so that the path is open then.
const QUIET_START_MS: u64 = 300;
/// Shorter calls have too few bursts to tell for sure who hears whom among hundreds.
pub const HEARING_MS_MIN: u64 = 4_000;
/// Descriptors for everything but RTP.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Time for the last calls to end, beside their duration.
const END_MS: u64 = 5_000;

/// What the calling side does.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// SIP URI to call.
    pub target: String,
    /// First hop, if not the host in the target.
    pub via: Option<SocketAddr>,
    /// Own SIP address.
    pub listen: SocketAddr,
    /// User part of From.
    pub user: String,
    /// Calls in all.
    pub calls: u64,
    /// New calls per second.
    pub rate_per_s: f64,
    /// Calls at once.
    pub at_once_max: usize,
    /// From answer to hang-up, milliseconds.
    pub duration_ms: u64,
    /// Longest wait for the answer, milliseconds.
    pub answer_within_ms: u64,
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// One call of so many is listened to in full.
    pub sample_every: u64,
    /// Keys to press after the answer.
    pub digits: String,
}

/// What the answering side does.
#[derive(Clone, Debug)]
pub struct AnswerPlan {
    /// Own SIP address.
    pub listen: SocketAddr,
    /// From 180 to 200, milliseconds.
    pub ring_ms: u64,
    /// Calls at once; further ones get 486.
    pub at_once_max: usize,
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Stop sending so long after the answer, milliseconds; `None` sends until the end.
    pub send_for_ms: Option<u64>,
}

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A value of the plan is out of range.
    #[error("{0}")]
    Plan(String),
    /// The phones could not start.
    #[error(transparent)]
    Bank(#[from] BankError),
}

/// How a run stands, once a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Seconds since the start.
    pub at_s: f64,
    /// Calls begun.
    pub attempted: u64,
    /// Calls up.
    pub up: u64,
    /// Calls ended well.
    pub ok: u64,
    /// Calls failed.
    pub failed: u64,
    /// RTP packets sent per second, both sides.
    pub sent_per_s: f64,
    /// RTP packets received per second, both sides.
    pub received_per_s: f64,
    /// RTP packets missing in the sequence so far, both sides.
    pub lost: u64,
}

/// A run that goes on.
pub struct LoadRun {
    /// Dropped last: the handles speak to its thread.
    bank: PhoneBank,
    caller: Option<(PhoneHandle, CallPlan)>,
    answerer: Option<(PhoneHandle, AnswerPlan)>,
    began: Instant,
    up_max: u64,
    before: (Instant, u64, u64),
}

impl LoadRun {
    /// Starts the phones, all on one thread.
    ///
    /// # Errors
    /// A value out of range, an address that cannot be bound.
    pub fn start(
        bank: BankConfig,
        call: Option<CallPlan>,
        answer: Option<AnswerPlan>,
    ) -> Result<Self, LoadError> {
        if let Some(plan) = &call {
            check_call(plan).map_err(LoadError::Plan)?;
        }
        let at_once = call.as_ref().map_or(0, |plan| plan.at_once_max)
            + answer.as_ref().map_or(0, |plan| plan.at_once_max);
        raise_descriptor_limit(at_once, call.is_none()).map_err(LoadError::Plan)?;
        let bank = PhoneBank::start(bank)?;
        // The answerer first, so that it is there when the first call comes.
        let answerer = match answer {
            Some(plan) => Some((bank.add(answerer_of(&plan))?, plan)),
            None => None,
        };
        let caller = match call {
            Some(plan) => Some((bank.add(caller_of(&plan))?, plan)),
            None => None,
        };
        let began = Instant::now();
        Ok(Self { bank, caller, answerer, began, up_max: 0, before: (began, 0, 0) })
    }

    /// The answerer's SIP address.
    pub fn answer_addr(&self) -> Option<SocketAddr> {
        self.answerer.as_ref().map(|(phone, _)| phone.addr())
    }

    /// How it stands; rates are since the last time it was asked.
    ///
    /// # Errors
    /// The phones are gone.
    pub fn progress(&mut self) -> Result<Progress, LoadError> {
        let (caller, answerer) = self.totals()?;
        let main = caller.as_ref().or(answerer.as_ref()).cloned().unwrap_or_default();
        let both: Vec<&Totals> = caller.iter().chain(&answerer).collect();
        let sum = |part: fn(&Totals) -> u64| both.iter().map(|totals| part(totals)).sum::<u64>();
        let (sent, received) = (sum(|totals| totals.sent), sum(|totals| totals.received));
        let now = Instant::now();
        let (then, sent_then, received_then) = self.before;
        let passed_s = now.duration_since(then).as_secs_f64().max(1e-3);
        self.before = (now, sent, received);
        self.up_max = self.up_max.max(main.up);
        Ok(Progress {
            at_s: now.duration_since(self.began).as_secs_f64(),
            attempted: main.attempted,
            up: main.up,
            ok: main.ok,
            failed: main.failed_count(),
            sent_per_s: sent.saturating_sub(sent_then) as f64 / passed_s,
            received_per_s: received.saturating_sub(received_then) as f64 / passed_s,
            lost: sum(|totals| totals.lost),
        })
    }

    /// Whether all calls of the caller have been made and are over and closed, on both sides.
    ///
    /// # Errors
    /// The phones are gone.
    pub fn is_over(&self) -> Result<bool, LoadError> {
        let (caller, answerer) = self.totals()?;
        let closed = |totals: &Totals| {
            totals.live == 0 && totals.ok + totals.failed_count() >= totals.attempted
        };
        let Some(caller) = caller else { return Ok(false) };
        let made = caller.attempted >= caller.wanted;
        Ok(made && closed(&caller) && answerer.is_none_or(|answerer| closed(&answerer)))
    }

    /// Sleeps until something happens in a call, or `timeout` is over.
    pub fn wait(&self, timeout: Duration) {
        self.bank.wait(timeout);
    }

    /// The longest the caller's calls may take, set-up and end included.
    pub fn takes_at_most(&self) -> Option<Duration> {
        let (_, plan) = self.caller.as_ref()?;
        let call_ms = plan.answer_within_ms + plan.duration_ms + END_MS;
        let start_s = plan.calls as f64 / plan.rate_per_s;
        let rounds = plan.calls.div_ceil(plan.at_once_max as u64);
        let whole_ms = call_ms.saturating_mul(rounds);
        Some(Duration::from_secs_f64(start_s) + Duration::from_millis(whole_ms))
    }

    /// Hangs everything up and waits a moment for the ends.
    ///
    /// # Errors
    /// The phones are gone.
    pub fn hang_up(&self) -> Result<(), LoadError> {
        // The caller's BYE ends the answerer's calls as well.
        let phone = self.caller.as_ref().map(|(phone, _)| phone);
        let phone = phone.or(self.answerer.as_ref().map(|(phone, _)| phone));
        let Some(phone) = phone else { return Ok(()) };
        phone.hang_up()?;
        let deadline = Instant::now() + Duration::from_millis(END_MS);
        while Instant::now() < deadline {
            let totals = phone.totals()?;
            if totals.ok + totals.failed_count() >= totals.attempted {
                break;
            }
            phone.wait(Duration::from_millis(100), |_| false)?;
        }
        Ok(())
    }

    /// Judges what was measured and ends the run.
    ///
    /// # Errors
    /// The phones are gone.
    pub fn finish(self, limits: &Limits) -> Result<Verdict, LoadError> {
        let (caller, answerer) = self.totals()?;
        let pairing = match (&self.caller, &self.answerer) {
            (Some((caller, plan)), Some((answerer, _))) if plan.sample_every > 0 => {
                Some(pair(&caller.reports()?, &answerer.reports()?))
            }
            _ => None,
        };
        let took_s = self.began.elapsed().as_secs_f64();
        let caller = caller.as_ref().map(SideVerdict::new);
        let answerer = answerer.as_ref().map(SideVerdict::new);
        drop(self.bank);
        Ok(Verdict::new(took_s, self.up_max, caller, answerer, pairing, limits))
    }

    fn totals(&self) -> Result<(Option<Totals>, Option<Totals>), LoadError> {
        let of = |phone: Option<&PhoneHandle>| phone.map(PhoneHandle::totals).transpose();
        let caller = of(self.caller.as_ref().map(|(phone, _)| phone))?;
        let answerer = of(self.answerer.as_ref().map(|(phone, _)| phone))?;
        Ok((caller, answerer))
    }
}

/// Raises the soft limit of descriptors to the hard one and compares it with the plan: one RTP
/// socket a call. An answerer alone does not know how many calls will come.
fn raise_descriptor_limit(calls_at_once: usize, answers_only: bool) -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| errno.to_string())?;
    // Refused only if the limit sank meanwhile; a call that finds no descriptor is counted.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let needed = calls_at_once as u64 + DESCRIPTORS_BESIDE;
    if needed > hard && !answers_only {
        return Err(format!(
            "{calls_at_once} calls at once (both sides) need {needed} descriptors, allowed are \
             {hard}: take fewer calls at once, or raise 'ulimit -Hn'"
        ));
    }
    Ok(())
}

fn check_call(plan: &CallPlan) -> Result<(), String> {
    if plan.calls == 0 {
        return Err("calls 0: allowed is 1 or more".to_owned());
    }
    if plan.at_once_max == 0 {
        return Err("calls at once 0: allowed is 1 or more".to_owned());
    }
    let least_ms = QUIET_START_MS + QUIET_END_MS + 200;
    if plan.duration_ms < least_ms {
        return Err(format!(
            "duration {} ms: allowed is {least_ms} ms or more, because media starts \
             {QUIET_START_MS} ms after the answer and stops {QUIET_END_MS} ms before the end",
            plan.duration_ms
        ));
    }
    Ok(())
}

fn caller_of(plan: &CallPlan) -> Phone {
    let mut script = vec![Step::WaitAnswer(plan.answer_within_ms)];
    if !plan.digits.is_empty() {
        script.push(Step::digits(&plan.digits));
    }
    script.extend([
        Step::Wait(plan.duration_ms - QUIET_END_MS),
        Step::StopMedia,
        Step::Wait(QUIET_END_MS),
        Step::Hangup,
    ]);
    let mut phone = Phone::caller("caller", &plan.target)
        .user(&plan.user)
        .listen(plan.listen)
        .tones(CALLER_HZ, TONE_STEP_HZ, TONES)
        .codecs(&plan.codecs)
        .media_after_ms(QUIET_START_MS)
        .script(script)
        .detail(Detail::Counters)
        .full_every(plan.sample_every)
        .keep_reports(false)
        .call_max_ms(plan.answer_within_ms + plan.duration_ms + END_MS + 60_000)
        .traffic(Traffic {
            calls: plan.calls,
            rate_per_s: plan.rate_per_s,
            at_once_max: plan.at_once_max,
        });
    if let Some(via) = plan.via {
        phone = phone.via(via);
    }
    phone
}

fn answerer_of(plan: &AnswerPlan) -> Phone {
    let mut script = vec![Step::Ring(plan.ring_ms), Step::Answer];
    if let Some(send_for_ms) = plan.send_for_ms {
        script.extend([Step::Wait(send_for_ms.saturating_sub(QUIET_END_MS)), Step::StopMedia]);
    }
    Phone::callee("answerer")
        .listen(plan.listen)
        .tones(ANSWERER_HZ, TONE_STEP_HZ, TONES)
        .codecs(&plan.codecs)
        .media_after_ms(QUIET_START_MS)
        .script(script)
        .calls_at_once_max(plan.at_once_max)
        .detail(Detail::Sounds)
        .call_max_ms(24 * 3_600_000)
}
