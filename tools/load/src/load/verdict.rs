//! The result of a run: numbers, limits, pass or fail.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::pairing::Pairing;
use crate::engine::Totals;

/// What a run may not exceed. `None` is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Calls that failed.
    pub failed_max: Option<u64>,
    /// Answered calls that received no RTP, each side.
    pub deaf_max: Option<u64>,
    /// Share of RTP packets missing in the sequence, 0 to 1, each side.
    pub loss_max: Option<f64>,
    /// 99th percentile of the set-up time, milliseconds.
    pub set_up_p99_ms_max: Option<f64>,
    /// 99th percentile of the post-dial delay, milliseconds.
    pub post_dial_p99_ms_max: Option<f64>,
    /// Longest gap of any stream, milliseconds.
    pub gap_ms_max: Option<f64>,
    /// Packets sent by one side that the other neither received nor dropped at its socket, both
    /// ways (only with caller and answerer in one run, and nothing between them that plays or
    /// swallows media).
    pub unaccounted_max: Option<u64>,
    /// Every sampled call has to hear the right one (only with caller and answerer in one run).
    pub hears: bool,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: histogram.max() as f64 / 1000.0,
        }
    }
}

/// RTP of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RtpVerdict {
    /// Packets sent.
    pub sent: u64,
    /// Packets that the kernel refused.
    pub send_errors: u64,
    /// Packets received.
    pub received: u64,
    /// Packets missing in the sequence.
    pub lost: u64,
    /// Packets received twice.
    pub duplicates: u64,
    /// Packets received after a later one.
    pub late: u64,
    /// Packets that overflowed a socket.
    pub socket_drops: u64,
    /// Changes of SSRC.
    pub ssrc_changes: u64,
    /// Longest gap of any stream, milliseconds.
    pub max_gap_ms: f64,
    /// Worst lateness of a packet sent, milliseconds.
    pub send_late_max_ms: f64,
}

impl RtpVerdict {
    /// Share of packets missing.
    pub fn loss(&self) -> f64 {
        let expected = self.received + self.lost;
        if expected == 0 { 0.0 } else { self.lost as f64 / expected as f64 }
    }
}

/// What one side (caller or answerer) saw.
#[derive(Clone, Debug, Serialize)]
pub struct SideVerdict {
    /// Calls begun.
    pub attempted: u64,
    /// Calls answered and ended with BYE.
    pub ok: u64,
    /// Failed calls by reason.
    pub failed: BTreeMap<String, u64>,
    /// Answered calls that received no RTP.
    pub deaf: u64,
    /// Calls that were not over when the run ended.
    pub unfinished: u64,
    /// INVITE to 2xx.
    pub set_up: Percentiles,
    /// INVITE to the first 18x.
    pub post_dial: Percentiles,
    /// RTP.
    pub rtp: RtpVerdict,
}

impl SideVerdict {
    /// From the sums of a phone.
    pub fn new(totals: &Totals) -> Self {
        Self {
            attempted: totals.attempted,
            ok: totals.ok,
            failed: totals.failed.clone(),
            deaf: totals.deaf,
            unfinished: totals.live,
            set_up: Percentiles::of(&totals.set_up_us),
            post_dial: Percentiles::of(&totals.post_dial_us),
            rtp: RtpVerdict {
                sent: totals.sent,
                send_errors: totals.send_errors,
                received: totals.received,
                lost: totals.lost,
                duplicates: totals.duplicates,
                late: totals.late,
                socket_drops: totals.socket_drops,
                ssrc_changes: totals.ssrc_changes,
                max_gap_ms: totals.max_gap_ms,
                send_late_max_ms: totals.late_max_us as f64 / 1000.0,
            },
        }
    }

    /// Failed and unfinished calls.
    pub fn failed_count(&self) -> u64 {
        self.failed.values().sum::<u64>() + self.unfinished
    }
}

/// One limit and how it was kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is limited.
    pub what: String,
    /// What was measured.
    pub measured: String,
    /// What was allowed.
    pub limit: String,
    /// Whether it was kept.
    pub ok: bool,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Every check was kept.
    pub ok: bool,
    /// The limits.
    pub checks: Vec<Check>,
    /// How long the run took, seconds.
    pub took_s: f64,
    /// Most calls that were up at once.
    pub up_max: u64,
    /// The calling side, if this run had one.
    pub caller: Option<SideVerdict>,
    /// The answering side, if this run had one.
    pub answerer: Option<SideVerdict>,
    /// Sent by callers − received by answerers − dropped at their sockets; packets.
    pub unaccounted_there: Option<i64>,
    /// Sent by answerers − received by callers − dropped at their sockets; packets.
    pub unaccounted_back: Option<i64>,
    /// Who hears whom.
    pub pairing: Option<Pairing>,
}

impl Verdict {
    /// Judges what was measured.
    pub fn new(
        took_s: f64,
        up_max: u64,
        caller: Option<SideVerdict>,
        answerer: Option<SideVerdict>,
        pairing: Option<Pairing>,
        limits: &Limits,
    ) -> Self {
        let both = caller.as_ref().zip(answerer.as_ref());
        let gone = |from: &RtpVerdict, to: &RtpVerdict| {
            from.sent as i64 - to.received as i64 + to.duplicates as i64 - to.socket_drops as i64
        };
        let mut verdict = Self {
            ok: false,
            checks: Vec::new(),
            took_s,
            up_max,
            unaccounted_there: both.map(|(caller, answerer)| gone(&caller.rtp, &answerer.rtp)),
            unaccounted_back: both.map(|(caller, answerer)| gone(&answerer.rtp, &caller.rtp)),
            caller,
            answerer,
            pairing,
        };
        verdict.checks = verdict.judge(limits);
        verdict.ok = verdict.checks.iter().all(|check| check.ok);
        verdict
    }

    fn judge(&self, limits: &Limits) -> Vec<Check> {
        let mut checks = Vec::new();
        let mut check = |what: &str, measured: String, limit: String, ok: bool| {
            checks.push(Check { what: what.to_owned(), measured, limit, ok });
        };
        let sides = [("caller", &self.caller), ("answerer", &self.answerer)];
        let sides = sides.iter().filter_map(|(name, side)| Some((*name, side.as_ref()?)));
        for (name, side) in sides {
            if let Some(max) = limits.failed_max {
                let failed = side.failed_count();
                let what = format!("{name}: failed calls");
                check(&what, failed.to_string(), format!("≤ {max}"), failed <= max);
            }
            if let Some(max) = limits.deaf_max {
                let what = format!("{name}: calls without RTP");
                check(&what, side.deaf.to_string(), format!("≤ {max}"), side.deaf <= max);
            }
            if let Some(max) = limits.loss_max {
                let loss = side.rtp.loss();
                let what = format!("{name}: RTP lost");
                let (measured, limit) = (percent(loss), format!("≤ {}", percent(max)));
                check(&what, measured, limit, loss <= max);
            }
            if let Some(max) = limits.gap_ms_max {
                let gap = side.rtp.max_gap_ms;
                let what = format!("{name}: longest gap");
                check(&what, format!("{gap:.1} ms"), format!("≤ {max:.1} ms"), gap <= max);
            }
        }
        if let Some(caller) = &self.caller {
            let times = [
                ("set-up time, p99", limits.set_up_p99_ms_max, caller.set_up),
                ("post-dial delay, p99", limits.post_dial_p99_ms_max, caller.post_dial),
            ];
            for (what, max, times) in times {
                if let Some(max) = max {
                    let ok = times.count > 0 && times.p99_ms <= max;
                    check(what, format!("{:.1} ms", times.p99_ms), format!("≤ {max:.1} ms"), ok);
                }
            }
        }
        if let Some(max) = limits.unaccounted_max {
            let ways =
                [("to answerer", self.unaccounted_there), ("to caller", self.unaccounted_back)];
            for (way, gone) in ways {
                let what = format!("RTP unaccounted for, {way}");
                let measured = gone.map_or("not measured".to_owned(), |gone| gone.to_string());
                let ok = gone.is_some_and(|gone| gone.unsigned_abs() <= max);
                check(&what, measured, format!("≤ {max}"), ok);
            }
        }
        if limits.hears {
            let pairing = self.pairing.as_ref();
            let (ok, of) = pairing.map_or((0, 0), |pairing| (pairing.ok, pairing.calls.len()));
            let measured = format!("{ok} of {of}");
            check(
                "sampled calls that hear the right one",
                measured,
                "all".to_owned(),
                ok == of && of > 0,
            );
        }
        checks
    }
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(sent: u64, received: u64, lost: u64) -> SideVerdict {
        let mut side = SideVerdict::new(&Totals::default());
        side.rtp = RtpVerdict { sent, received, lost, ..RtpVerdict::default() };
        side
    }

    #[test]
    fn limits_decide() {
        let limits = Limits {
            failed_max: Some(0),
            loss_max: Some(0.001),
            unaccounted_max: Some(0),
            ..Limits::default()
        };
        let judge =
            |caller, answerer| Verdict::new(1.0, 1, Some(caller), Some(answerer), None, &limits);
        assert!(judge(side(100, 90, 0), side(90, 100, 0)).ok);
        let lossy = judge(side(100, 90, 0), side(90, 99, 1));
        assert!(!lossy.ok);
        assert_eq!(lossy.unaccounted_there, Some(1));
        let mut unfinished = side(100, 90, 0);
        unfinished.unfinished = 1;
        assert!(!judge(unfinished, side(90, 100, 0)).ok);
        let alone = Verdict::new(1.0, 1, Some(side(1, 1, 0)), None, None, &limits);
        assert!(!alone.ok, "accounting needs both sides");
    }
}
