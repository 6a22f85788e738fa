//! `tandem-edge`: the regional daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The regional edge: SIP back-to-back user agent with its own media plane.
///
/// Reads one configuration file, checks all of it before a port is bound, and runs until SIGTERM
/// or SIGINT; then it takes no new calls, waits for the others, and ends.
#[derive(Parser)]
#[command(
    name = "tandem-edge",
    version,
    after_help = "\
Examples:
  tandem-edge --sample > edge.toml      a configuration with every key explained
  tandem-edge --config edge.toml --check
  tandem-edge --config edge.toml"
)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "sample")]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    /// Print a configuration with every key and its default.
    #[arg(long)]
    sample: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.sample {
        print!("{}", edge::config::sample());
        return ExitCode::SUCCESS;
    }
    let Some(path) = arguments.config else { return ExitCode::from(2) };
    match edge::run_file(&path, arguments.check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            // As in sysexits.h: EX_CONFIG for the configuration, EX_SOFTWARE for the rest.
            ExitCode::from(if error.is::<link_daemon::config::Problems>() { 78 } else { 70 })
        }
    }
}
