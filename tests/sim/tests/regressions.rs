//! Seeds that found defects, with what it was. They run as they were found, so that a change of
//! the workload may turn one into an ordinary seed; the defect's own test lives with its crate.
#![allow(missing_docs)]

use sim::run::{Options, run};

/// Seed, model of the media worker, what went wrong.
const FOUND: [(u64, bool, &str); 7] = [
    (10, true, "channels were left open when a session ended before they were closed"),
    (128, true, "the same, the caller gone before the prompt began"),
    (50, true, "the far end of a channel to a killed edge was forgotten"),
    (465, true, "the same, two sessions"),
    (561, true, "the same, after two restarts of control"),
    (59, false, "digits did not pass a channel that was opened before the answer"),
    (193, false, "the same"),
];

#[test]
fn seeds_that_found_defects_stay_green() {
    for (seed, model_media, what) in FOUND {
        let verdict = run(seed, Options { model_media, ..Options::default() });
        assert!(verdict.wrong.is_empty(), "seed {seed} ({what}): {:#?}", verdict.wrong);
    }
}
