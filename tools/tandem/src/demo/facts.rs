//! What a demonstration call showed, as it goes into `--json` (documented in `docs/demo.md`).

use serde::Serialize;

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// Every call did what it should.
    pub ok: bool,
    /// One-way delay between the regions, in ms.
    pub wan_delay_ms: f64,
    /// Seconds from the first process to the last call.
    pub seconds: f64,
    /// The calls in the order in which they were made.
    pub calls: Vec<CallFacts>,
}

/// One call.
#[derive(Debug, Default, Serialize)]
pub struct CallFacts {
    /// Letter and title.
    pub name: String,
    /// All checks hold.
    pub ok: bool,
    /// INVITE sent to 200 received, caller, in ms.
    pub set_up_ms: Option<f64>,
    /// Callee: from the caller's key or call until its phone rings, in ms.
    pub post_dial_delay_ms: Option<f64>,
    /// Median of tone onset sent to tone onset received, both directions, in ms.
    pub mouth_to_ear_ms: Option<f64>,
    /// Phases of the instructions.
    pub phases: Vec<PhaseFacts>,
    /// Largest spacing of RTP packets at the caller, in ms.
    pub longest_gap_ms: Option<f64>,
    /// The same at the callee.
    pub longest_gap_callee_ms: Option<f64>,
    /// Datagrams per second between the regions during the conversation.
    pub wan_datagrams_per_s: Option<f64>,
    /// How the caller's leg ended, as control has it.
    pub end: Option<EndFacts>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Lines of the timeline.
    pub timeline: Vec<String>,
}

/// One phase: a verb, or a run of prompts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PhaseFacts {
    /// `Gather`, `Dial`, …
    pub verb: String,
    /// Label of what the caller hears: `local`, `hairpin`, `edge-to-edge`, `backhaul`.
    pub mode: String,
    /// Regions of the processors, or of the edge that hairpins.
    pub media_region: String,
    /// RTP packets handed to a trunk or another region's address by the caller's edge.
    pub packets_out_of_region: Option<u64>,
    /// Waiting for the web server before the phase, in ms.
    pub wait_ms: u64,
    /// Waiting for control (prompts included) before the phase, in ms.
    pub wait_control_ms: u64,
    /// Largest spacing of RTP packets at the caller, in ms.
    pub longest_gap_ms: Option<f64>,
    #[serde(skip)]
    pub from_ns: u64,
    #[serde(skip)]
    pub number: u32,
}

/// How a leg ended.
#[derive(Debug, Clone, Serialize)]
pub struct EndFacts {
    /// Why.
    pub reason: String,
    /// Whose doing.
    pub whose: String,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// In words.
    pub what: String,
    /// Holds.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
}

impl CallFacts {
    /// Adds a check.
    pub fn check(&mut self, what: &str, ok: bool, seen: impl ToString) {
        self.checks.push(Check { what: what.to_owned(), ok, seen: seen.to_string() });
    }

    /// The checks that do not hold.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}
