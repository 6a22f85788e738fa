//! `tandem-control`: the command line of the control daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use control::config;
use link_daemon::config::Problems;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control node of Tandem.
#[derive(Parser)]
#[command(name = "tandem-control", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "control.toml")]
    config: PathBuf,
    /// Only check the configuration.
    #[arg(long)]
    check: bool,
    /// Print a sample configuration with every key.
    #[arg(long)]
    sample: bool,
}

/// Exit code of wrong usage or configuration (`EX_CONFIG` of sysexits).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.sample {
        print!("{}", config::sample());
        return ExitCode::SUCCESS;
    }
    match control::run_file(&arguments.config, arguments.check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(if error.is::<Problems>() { EXIT_CONFIG } else { 1 })
        }
    }
}
