//! Runs seeds and says which of them failed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::faults::Kind;
use sim::run::{Options, Verdict, run};

/// Whole regions on one virtual clock: calls, faults, healing, verdict.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the trace of a single seed.
    #[arg(long)]
    verbose: bool,
    /// Run for that many minutes instead of a number of seeds.
    #[arg(long)]
    minutes: Option<f64>,
    /// Model of the media worker instead of the real one: no RTP, many times faster.
    #[arg(long)]
    model_media: bool,
    /// Calls per seed.
    #[arg(long, default_value_t = 24)]
    calls: usize,
}

/// Lines of the trace that are shown for a failing seed.
const TAIL: usize = 60;

#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    calls: usize,
    virtual_time: Duration,
    runs_hit: BTreeMap<Kind, u64>,
}

#[allow(clippy::disallowed_methods)] // Real time, for the report only.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        model_media: arguments.model_media,
        verbose: arguments.verbose && arguments.seed.is_some(),
        calls: arguments.calls,
    };
    if let Some(seed) = arguments.seed {
        let verdict = run(seed, options);
        for line in &verdict.trace {
            println!("{line}");
        }
        println!("seed {seed}: hash {:016x}, {} events", verdict.hash, verdict.steps);
        for wrong in &verdict.wrong {
            println!("  {wrong}");
        }
        return if verdict.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let start = Instant::now();
    let mut totals = Totals::default();
    let mut seed = arguments.first;
    loop {
        let over = match arguments.minutes {
            Some(minutes) => start.elapsed().as_secs_f64() >= minutes * 60.0,
            None => seed - arguments.first >= arguments.seeds,
        };
        if over {
            break;
        }
        let verdict = run(seed, options);
        totals.add(&verdict);
        if !verdict.wrong.is_empty() {
            report_failure(&verdict, options);
        }
        seed += 1;
        let done = totals.passed + totals.failed;
        if done.is_multiple_of(25) {
            println!(
                "{done} seeds, {} failed, {:.1} s",
                totals.failed,
                start.elapsed().as_secs_f64()
            );
        }
    }
    totals.print(start.elapsed());
    if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report_failure(verdict: &Verdict, options: Options) {
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    println!("seed {} failed at commit {}:", verdict.seed, commit.unwrap_or_default());
    for wrong in &verdict.wrong {
        println!("  {wrong}");
    }
    // The same seed gives the same run: the text is made only now.
    let again = run(verdict.seed, Options { verbose: true, ..options });
    if again.hash != verdict.hash {
        println!("  and a second run went differently");
    }
    for line in again.trace.iter().rev().take(TAIL).rev() {
        println!("    {line}");
    }
    let media = if options.model_media { " --model-media" } else { "" };
    println!("  again: cargo run -p sim -- --seed {} --verbose{media}", verdict.seed);
}

impl Totals {
    fn add(&mut self, verdict: &Verdict) {
        if verdict.wrong.is_empty() {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        self.calls += verdict.calls;
        self.virtual_time += verdict.virtual_time;
        for kind in verdict.hits.keys() {
            *self.runs_hit.entry(*kind).or_default() += 1;
        }
    }

    fn print(&self, real: Duration) {
        let runs = self.passed + self.failed;
        println!("fault kind and runs that it hit:");
        for kind in Kind::ALL {
            let hit = self.runs_hit.get(&kind).copied().unwrap_or(0);
            println!("  {:<24} {hit:>5} of {runs}", format!("{kind:?}"));
        }
        let ratio = self.virtual_time.as_secs_f64() / real.as_secs_f64().max(1e-9);
        println!(
            "{} calls, {:.0} s virtual in {:.1} s real: {ratio:.0} times real time",
            self.calls,
            self.virtual_time.as_secs_f64(),
            real.as_secs_f64()
        );
        println!("{} passed, {} failed", self.passed, self.failed);
    }
}
