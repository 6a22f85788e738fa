//! Who hears whom: the sampled calls of the caller are paired with calls of the answerer by the
//! rhythm of their bursts, which a system between them cannot know and does not change.

use serde::Serialize;

use crate::report::{PhoneReport, RhythmMatch, mouth_to_ear, rhythm_match};

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
    let others: Vec<&PhoneReport> =
        answerers.iter().copied().filter(|other| overlap(other)).collect();
    let hears = best(&others, |other| rhythm_match(other, caller));
    let heard_by = best(&others, |other| rhythm_match(caller, other));
    let (hears_call, heard_by_call) = (hears.map(|one| one.call), heard_by.map(|one| one.call));
    let delay = |from: Option<&PhoneReport>, there: bool| {
        let other = from?;
        let (speaker, ear) = if there { (caller, other) } else { (other, caller) };
        mouth_to_ear(speaker, ear, 0, u64::MAX).map(|delay| delay.median_ms)
    };
    SampledCall {
        caller_call: caller.call,
        hears_call,
        heard_by_call,
        ok: hears_call.is_some() && hears_call == heard_by_call,
        there_ms: delay(heard_by, true),
        back_ms: delay(hears, false),
    }
}

/// The one call that fits best; `None` if there is none, or more than one.
fn best<'a>(
    others: &[&'a PhoneReport],
    fit: impl Fn(&PhoneReport) -> RhythmMatch,
) -> Option<&'a PhoneReport> {
    let fits: Vec<_> = others.iter().map(|other| (fit(other), *other)).collect();
    let top = fits.iter().map(|(fit, _)| *fit).max()?;
    let mut found = fits.iter().filter(|(fit, _)| *fit == top && *fit > RhythmMatch::No);
    match (found.next(), found.next()) {
        (Some((_, one)), None) => Some(one),
        _ => None,
    }
}
