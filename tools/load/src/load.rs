//! Load runs: many calls at a rate, watched, judged and reported.

mod pairing;
mod run;
mod table;
mod verdict;

pub use pairing::{Pairing, SampledCall, pair};
pub use run::{AnswerPlan, CallPlan, HEARING_MS_MIN, LoadError, LoadRun, Progress};
pub use table::table;
pub use verdict::{Check, Limits, SideVerdict, Verdict};
