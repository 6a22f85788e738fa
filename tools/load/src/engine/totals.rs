//! Sums over all calls of a phone.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::receive::RtpReceived;
use crate::report::{PhoneReport, RtpSent, Whose};

/// Longest time a histogram tells apart: one hour in microseconds.
const TIME_MAX_US: u64 = 3_600_000_000;

/// Sums over the calls of one phone. RTP of calls that go on is included.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Calls that are to be made (callers).
    pub wanted: u64,
    /// Calls begun: INVITE sent or received.
    pub attempted: u64,
    /// Calls that go on, answered or not.
    pub live: u64,
    /// Calls that go on and are answered.
    pub up: u64,
    /// Calls that were answered and have ended with BYE, their script through without failure.
    pub ok: u64,
    /// Calls that ended otherwise, by reason.
    pub failed: BTreeMap<String, u64>,
    /// INVITE to 2xx, microseconds.
    pub set_up_us: Histogram<u64>,
    /// INVITE to the first 18x (or the 2xx), microseconds.
    pub post_dial_us: Histogram<u64>,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets that the kernel refused.
    pub send_errors: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP packets missing in the sequence.
    pub lost: u64,
    /// RTP packets received twice.
    pub duplicates: u64,
    /// RTP packets received after a later one.
    pub late: u64,
    /// RTP packets that overflowed a socket (of ended calls).
    pub socket_drops: u64,
    /// Changes of SSRC.
    pub ssrc_changes: u64,
    /// Longest gap of any stream, milliseconds.
    pub max_gap_ms: f64,
    /// Worst lateness of a packet sent, microseconds: above some milliseconds the load itself is
    /// short of CPU.
    pub late_max_us: u64,
    /// Answered calls that received no RTP.
    pub deaf: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            wanted: 0,
            attempted: 0,
            live: 0,
            up: 0,
            ok: 0,
            failed: BTreeMap::new(),
            set_up_us: histogram(),
            post_dial_us: histogram(),
            sent: 0,
            send_errors: 0,
            received: 0,
            lost: 0,
            duplicates: 0,
            late: 0,
            socket_drops: 0,
            ssrc_changes: 0,
            max_gap_ms: 0.0,
            late_max_us: 0,
            deaf: 0,
        }
    }
}

fn histogram() -> Histogram<u64> {
    // The constants are inside what the crate accepts.
    Histogram::new_with_max(TIME_MAX_US, 3).unwrap_or_else(|_| unreachable!("valid bounds"))
}

impl Totals {
    /// Failed calls.
    pub fn failed_count(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Counts a failure that has no report.
    pub(super) fn fail(&mut self, reason: &str) {
        *self.failed.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds an ended call.
    pub(super) fn add(&mut self, report: &PhoneReport) {
        match failure(report) {
            Some(reason) => self.fail(&reason),
            None => self.ok += 1,
        }
        let record = |histogram: &mut Histogram<u64>, ms: Option<f64>| {
            if let Some(ms) = ms {
                histogram.saturating_record((ms * 1000.0) as u64);
            }
        };
        record(&mut self.set_up_us, report.set_up_ms());
        record(&mut self.post_dial_us, report.post_dial_delay_ms());
        self.add_rtp(&report.sent, &report.received);
        self.socket_drops += report.socket_drops;
        self.deaf += u64::from(report.answered() && report.received.packets == 0);
    }

    /// Adds the RTP of a call that goes on.
    pub(super) fn add_live(&mut self, up: bool, sent: &RtpSent, received: &RtpReceived) {
        self.up += u64::from(up);
        self.add_rtp(sent, received);
    }

    fn add_rtp(&mut self, sent: &RtpSent, received: &RtpReceived) {
        self.sent += sent.packets;
        self.send_errors += sent.send_errors;
        self.late_max_us = self.late_max_us.max(sent.late_max_us);
        self.received += received.packets;
        self.lost += received.lost;
        self.duplicates += received.duplicates;
        self.late += received.late;
        self.ssrc_changes += received.ssrc_changes;
        self.max_gap_ms = self.max_gap_ms.max(received.max_gap_ms);
    }
}

/// Why a call does not count as good; `None` if it does.
fn failure(report: &PhoneReport) -> Option<String> {
    if let Some(why) = &report.failure {
        return Some(why.clone());
    }
    let end = report.end.as_ref()?;
    match (end.how.as_str(), end.status) {
        ("bye", _) => None,
        (how, Some(status)) => Some(format!("{how} {status}")),
        (how, None) => {
            let whose = if end.whose == Whose::Peer { " by the peer" } else { "" };
            Some(format!("{how}{whose}"))
        }
    }
}
