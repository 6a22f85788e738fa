//! Runs the steps of a script.

use std::time::Instant;

use sip_core::Body;

use super::leg::{LegState, Running};
use super::{Engine, Leg};
use crate::clock::now_ns;
use crate::ear::SAME_TONE_HZ;
use crate::phone::Step;
use crate::report::EventKind;
use crate::source::Source;

/// Time for a re-INVITE to be answered.
const REINVITE_MS: u64 = 10_000;
/// Time for keys to be sent, beside 300 ms for each.
const DIGITS_MS: u64 = 30_000;

/// How a step stands.
enum Outcome {
    Done,
    Waiting,
    Failed(String),
}

impl Engine {
    /// Runs a leg's script as far as it goes now. The caller pumps the phone afterwards.
    pub(super) fn advance(&mut self, index: usize) {
        loop {
            let Some(Some(leg)) = self.legs.get_mut(index) else { return };
            if leg.state == LegState::Ended || leg.hung_up_ns.is_some() {
                break;
            }
            if leg.running.is_none() {
                let Some(step) = leg.script.pop_front() else {
                    self.ring |= !leg.report.script_done;
                    leg.report.script_done = true;
                    break;
                };
                let running = begin(leg, step);
                let step = running.step.clone();
                leg.running = Some(running);
                if let Err(why) = self.start(index, &step) {
                    self.fail(index, &step, &why);
                    break;
                }
            }
            let Some(Some(leg)) = self.legs.get_mut(index) else { return };
            let Some(mut running) = leg.running.take() else { continue };
            match stand(leg, &mut running, now_ns()) {
                Outcome::Done => {
                    if let Step::Cancel(_) = running.step {
                        self.hang_up(index);
                    }
                }
                Outcome::Waiting => {
                    leg.running = Some(running);
                    break;
                }
                Outcome::Failed(why) => {
                    self.fail(index, &running.step, &why);
                    break;
                }
            }
        }
        self.schedule(index);
    }

    /// Does what the step says; what it waits for is judged by [`stand`].
    fn start(&mut self, index: usize, step: &Step) -> Result<(), String> {
        match step {
            Step::Ring(_) => self.provisional(index, 180, None),
            Step::Progress(_) => {
                let body = self.session(index)?;
                self.provisional(index, 183, Some(Body::sdp(body)))?;
                self.start_media(index);
                Ok(())
            }
            Step::Answer => self.answer_call(index),
            Step::Reject(status) => self.reject(index, *status),
            Step::Hangup => {
                self.hang_up(index);
                Ok(())
            }
            Step::Hold | Step::Unhold => self.hold(index, *step == Step::Hold),
            Step::Digits { digits, method } => {
                if let Some(Some(leg)) = self.legs.get_mut(index) {
                    leg.media.press(digits, *method);
                }
                Ok(())
            }
            Step::Say(source) => {
                if let Some(Some(leg)) = self.legs.get_mut(index) {
                    leg.report.tone_hz = tone_of(source);
                    leg.source = source.clone();
                    leg.media.say(source.clone(), &mut self.cache);
                }
                Ok(())
            }
            Step::SendTo(addr) => {
                if let Some(Some(leg)) = self.legs.get_mut(index) {
                    leg.media.set_remote(*addr);
                    leg.note_media_started();
                }
                Ok(())
            }
            Step::StopMedia | Step::ResumeMedia => {
                let stop = *step == Step::StopMedia;
                if let Some(Some(leg)) = self.legs.get_mut(index) {
                    leg.media.set_stopped(stop);
                    if stop {
                        leg.note(EventKind::MediaStopped);
                    } else {
                        leg.note_media_started();
                    }
                }
                Ok(())
            }
            Step::Cancel(_)
            | Step::WaitAnswer(_)
            | Step::Wait(_)
            | Step::WaitTone { .. }
            | Step::WaitSound { .. }
            | Step::WaitSilence { .. }
            | Step::WaitMedia { .. }
            | Step::WaitDigits { .. } => Ok(()),
        }
    }

    fn hold(&mut self, index: usize, hold: bool) -> Result<(), String> {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return Ok(()) };
        let Some(state) = self.phones.get_mut(leg.phone) else { return Ok(()) };
        leg.media.set_held(hold);
        leg.reinvite_status = None;
        let codecs: Vec<_> = leg.media.codec().into_iter().collect();
        let body = Body::sdp(leg.media.offer(&codecs, leg.media.events_agreed()));
        state
            .endpoint
            .reinvite(Instant::now(), leg.handle, Vec::new(), Some(body))
            .map_err(|error| format!("re-INVITE: {error}"))?;
        leg.note(EventKind::ReInviteSent);
        Ok(())
    }

    /// A step failed: notes it and hangs up.
    pub(super) fn fail(&mut self, index: usize, step: &Step, why: &str) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        let why = format!("{}: {why}", name_of(step));
        leg.note(EventKind::ScriptFailed { why: why.clone() });
        leg.report.failure.get_or_insert(why);
        leg.report.script_done = true;
        leg.script.clear();
        leg.running = None;
        self.ring = true;
        self.hang_up(index);
    }

    /// The call ended: a step that still waited for something has failed.
    pub(super) fn end_script(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        if let Some(running) = leg.running.take() {
            let passive = matches!(
                running.step,
                Step::Wait(_)
                    | Step::Ring(_)
                    | Step::Progress(_)
                    | Step::WaitSilence { .. }
                    // How the call ended says more.
                    | Step::WaitAnswer(_)
                    | Step::Cancel(_)
            );
            if !passive && leg.hung_up_ns.is_none() {
                let why = format!("{}: the call ended", name_of(&running.step));
                leg.report.failure.get_or_insert(why);
            }
        }
        leg.script.clear();
        leg.report.script_done = true;
    }
}

/// Which tone a source is, for the report.
pub(super) fn tone_of(source: &Source) -> Option<f64> {
    match source {
        Source::Bursts(freq_hz) | Source::Tone(freq_hz) => Some(*freq_hz),
        _ => None,
    }
}

fn begin(leg: &mut Leg, step: Step) -> Running {
    let began_ns = now_ns();
    let within_ms = match &step {
        Step::Ring(ms)
        | Step::Progress(ms)
        | Step::Cancel(ms)
        | Step::WaitAnswer(ms)
        | Step::Wait(ms) => Some(*ms),
        Step::WaitTone { within_ms, .. }
        | Step::WaitSound { within_ms }
        | Step::WaitSilence { within_ms, .. }
        | Step::WaitMedia { within_ms }
        | Step::WaitDigits { within_ms, .. } => Some(*within_ms),
        Step::Digits { digits, .. } => Some(DIGITS_MS + 300 * digits.len() as u64),
        Step::Hold | Step::Unhold => Some(REINVITE_MS),
        Step::Answer
        | Step::Reject(_)
        | Step::Say(_)
        | Step::SendTo(_)
        | Step::StopMedia
        | Step::ResumeMedia
        | Step::Hangup => None,
    };
    leg.note_at(began_ns, EventKind::Step { step: name_of(&step) });
    Running {
        step,
        began_ns,
        deadline_ns: within_ms.map(|ms| began_ns.saturating_add(ms.saturating_mul(1_000_000))),
        look_ns: None,
        digits_before: leg.report.digits.len(),
    }
}

/// How a step stands, judged by what has been observed.
fn stand(leg: &Leg, running: &mut Running, now: u64) -> Outcome {
    let over = running.deadline_ns.is_some_and(|at| at <= now);
    let since = |at: Option<u64>| at.is_some_and(|at| at >= running.began_ns);
    let ear = leg.media.ear();
    let met = match &running.step {
        // A deadline is what these wait for.
        Step::Ring(_) | Step::Progress(_) | Step::Wait(_) => return done_if(over),
        Step::Cancel(_) if leg.state == LegState::Up => {
            return Outcome::Failed("the call was answered before".to_owned());
        }
        Step::Cancel(_) => return done_if(over),
        Step::WaitAnswer(_) => leg.state == LegState::Up,
        Step::WaitTone { freq_hz, .. } => {
            ear.and_then(crate::ear::Ear::now).is_some_and(|(label, at)| {
                label.is_some_and(|hz| (hz - freq_hz).abs() < SAME_TONE_HZ) && since(Some(at))
            })
        }
        Step::WaitSound { .. } => since(ear.and_then(crate::ear::Ear::last_loud_ns)),
        Step::WaitSilence { for_ms, .. } => {
            let last = ear.and_then(crate::ear::Ear::last_loud_ns).unwrap_or(0);
            let quiet_at = last.max(running.began_ns).saturating_add(for_ms * 1_000_000);
            running.look_ns = Some(quiet_at);
            quiet_at <= now
        }
        Step::WaitMedia { .. } => since(leg.media.receiver().stats().last_ns),
        Step::WaitDigits { digits, .. } => leg
            .report
            .digits
            .get(running.digits_before..)
            .is_some_and(|came| came.contains(digits.as_str())),
        Step::Digits { method, .. } => {
            let events = *method == crate::digits::DigitMethod::Rfc4733;
            if events && leg.media.codec().is_some() && !leg.media.events_agreed() {
                return Outcome::Failed("the peer does not take telephone events".to_owned());
            }
            running.look_ns = Some(now + 20_000_000);
            leg.media.digits_idle()
        }
        Step::Hold | Step::Unhold => match leg.reinvite_status {
            Some(status) if status >= 300 => {
                return Outcome::Failed(format!("re-INVITE was answered with {status}"));
            }
            status => status.is_some(),
        },
        Step::Answer
        | Step::Reject(_)
        | Step::Say(_)
        | Step::SendTo(_)
        | Step::StopMedia
        | Step::ResumeMedia
        | Step::Hangup => return Outcome::Done,
    };
    match (met, over) {
        (true, _) => Outcome::Done,
        (false, false) => Outcome::Waiting,
        (false, true) => Outcome::Failed("not in time".to_owned()),
    }
}

fn done_if(over: bool) -> Outcome {
    if over { Outcome::Done } else { Outcome::Waiting }
}

/// The step as text for timeline and failures.
fn name_of(step: &Step) -> String {
    match step {
        Step::Say(source) => match source {
            Source::Once(samples) => format!("say {} samples once", samples.len()),
            Source::Loop(samples) => format!("say {} samples in a loop", samples.len()),
            other => format!("say {other:?}"),
        },
        Step::WaitTone { freq_hz, within_ms } => {
            format!("wait for tone {freq_hz} Hz within {within_ms} ms")
        }
        Step::WaitSound { within_ms } => format!("wait for sound within {within_ms} ms"),
        Step::WaitSilence { for_ms, within_ms } => {
            format!("wait for silence of {for_ms} ms within {within_ms} ms")
        }
        Step::WaitMedia { within_ms } => format!("wait for RTP within {within_ms} ms"),
        Step::WaitDigits { digits, within_ms } => {
            format!("wait for keys {digits} within {within_ms} ms")
        }
        Step::Digits { digits, method } => format!("press {digits} ({method:?})"),
        Step::Ring(ms) => format!("ring for {ms} ms"),
        Step::Progress(ms) => format!("early media for {ms} ms"),
        Step::SendTo(addr) => format!("send RTP to {addr}"),
        Step::Reject(status) => format!("reject with {status}"),
        Step::Cancel(ms) => format!("cancel after {ms} ms"),
        Step::WaitAnswer(ms) => format!("wait for answer within {ms} ms"),
        Step::Wait(ms) => format!("wait {ms} ms"),
        Step::Answer => "answer".to_owned(),
        Step::StopMedia => "stop media".to_owned(),
        Step::ResumeMedia => "resume media".to_owned(),
        Step::Hold => "hold".to_owned(),
        Step::Unhold => "unhold".to_owned(),
        Step::Hangup => "hang up".to_owned(),
    }
}
