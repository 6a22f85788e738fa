//! Who hears whom: the sampled calls of the caller are paired with calls of the answerer by the
//! rhythm of their bursts, which a system between them cannot know and does not change.

use serde::Serialize;

use crate::report::{PhoneReport, mouth_to_ear, rhythm_match};

/// Share of heard bursts that has to fit to be sure who speaks.
const SURE: f64 = 0.8;

/// What became of one sampled call.
#[derive(Clone, Debug, Serialize)]
pub struct SampledCall {
    /// Number of the caller's call.
    pub caller_call: u64,
    /// Number of the answerer's call that the caller hears.
    pub hears_call: Option<u64>,
    /// Number of the answerer's call that hears the caller.
    pub heard_by_call: Option<u64>,
    /// The caller hears exactly the call that hears it, and nobody else.
    pub ok: bool,
    /// Delay from the caller's mouth to the answerer's ear, milliseconds.
    pub there_ms: Option<f64>,
    /// Delay from the answerer's mouth to the caller's ear, milliseconds.
    pub back_ms: Option<f64>,
}

/// All sampled calls.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pairing {
    /// Call by call.
    pub calls: Vec<SampledCall>,
    /// Calls that hear the right one, both ways.
    pub ok: usize,
    /// Median delay from caller to answerer, milliseconds.
    pub there_ms: Option<f64>,
    /// Median delay from answerer to caller, milliseconds.
    pub back_ms: Option<f64>,
}

/// Pairs the caller's sampled calls with the answerer's calls.
pub fn pair(callers: &[PhoneReport], answerers: &[PhoneReport]) -> Pairing {
    let answered: Vec<&PhoneReport> = answerers.iter().filter(|call| call.answered()).collect();
    let calls: Vec<SampledCall> = callers
        .iter()
        .filter(|call| call.answered())
        .map(|caller| sampled(caller, &answered))
        .collect();
    let median = |delay: fn(&SampledCall) -> Option<f64>| {
        let mut delays: Vec<f64> = calls.iter().filter_map(delay).collect();
        delays.sort_by(f64::total_cmp);
        delays.get(delays.len() / 2).copied()
    };
    Pairing {
        ok: calls.iter().filter(|call| call.ok).count(),
        there_ms: median(|call| call.there_ms),
        back_ms: median(|call| call.back_ms),
        calls,
    }
}

fn sampled(caller: &PhoneReport, answerers: &[&PhoneReport]) -> SampledCall {
    let overlap = |other: &PhoneReport| {
        let end = |call: &PhoneReport| call.end.as_ref().map_or(u64::MAX, |end| end.at_ns);
        caller.began_ns < end(other) && other.began_ns < end(caller)
    };
    let mut hears = Vec::new();
    let mut heard_by = Vec::new();
    for other in answerers.iter().filter(|other| overlap(other)) {
        if rhythm_match(other, caller) >= SURE {
            hears.push(*other);
        }
        if rhythm_match(caller, other) >= SURE {
            heard_by.push(*other);
        }
    }
    let only = |found: &[&PhoneReport]| match found {
        [one] => Some(one.call),
        _ => None,
    };
    let (hears_call, heard_by_call) = (only(&hears), only(&heard_by));
    let delay = |from: Option<&&PhoneReport>, there: bool| {
        let other = from?;
        let other: &PhoneReport = other;
        let (speaker, ear) = if there { (caller, other) } else { (other, caller) };
        mouth_to_ear(speaker, ear, 0, u64::MAX).map(|delay| delay.median_ms)
    };
    SampledCall {
        caller_call: caller.call,
        hears_call,
        heard_by_call,
        ok: hears_call.is_some() && hears_call == heard_by_call,
        there_ms: delay(heard_by.first(), true),
        back_ms: delay(hears.first(), false),
    }
}
