//! `make bench`: runs, compares and lists the benches.

use std::process::ExitCode;

use benches::calls::churn::SoakArguments;
use benches::compare::CompareArguments;
use benches::run::RunArguments;
use benches::system::floor::FloorArguments;
use clap::{Parser, Subcommand};

/// That of the daemons: some of their threads run in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  All benches, half an hour or so on a quiet machine
    cargo run --release -p benches -- run

  One of them
    cargo run --release -p benches -- run --only relay_100k

  Does everything still work? (no results)
    cargo run --release -p benches -- run --quick

  An hour of churn
    cargo run --release -p benches -- soak --minutes 60

How to read it: every figure is taken beside those of a peer and of a floor in the same run, in turns;
compare the ratios, not the microseconds of different days. A run during which the machine was
disturbed is called DIRTY and is no result: its entry in benches/results/latest.json has no figures,
and what it saw goes to target/benches-dirty. The load runs on the first core of this process's
affinity mask, the system under test on the second one.
Exit code: 0 all goals kept or dirty, 1 a goal missed or a bench failed, 2 wrong arguments.";

#[derive(Parser)]
#[command(name = "benches", version, about = "What Tandem costs", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run benches, print tables, keep results
    Run(RunArguments),
    /// Show what changed between two kept results
    Compare(CompareArguments),
    /// List the benches
    List,
    /// Churn calls for an hour and see whether anything grows
    Soak(SoakArguments),
    /// The floor's own process
    #[command(hide = true)]
    Floor(FloorArguments),
    /// The process of which the memory is measured
    #[command(hide = true)]
    MediaMemory,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => benches::run::run(&arguments),
        Command::Compare(arguments) => benches::compare::compare(&arguments).map(|()| true),
        Command::List => {
            benches::run::list();
            Ok(true)
        }
        Command::Soak(arguments) => benches::calls::churn::soak(&arguments),
        Command::Floor(arguments) => benches::system::floor::run(&arguments).map(|()| true),
        Command::MediaMemory => benches::system::media_memory::process().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}
