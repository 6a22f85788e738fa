//! `tandem-control`: the command line of the control daemon.

use std::path::{Path, PathBuf};
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
    /// Run parts of the media layer and nothing else; the configuration is a media node's.
    #[arg(long)]
    media: bool,
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
    let (sample, run): (fn() -> String, fn(&Path, bool) -> anyhow::Result<()>) =
        match arguments.media {
            true => (config::MediaNode::sample, control::media_node::run_file),
            false => (config::sample, control::run_file),
        };
    if arguments.sample {
        print!("{}", sample());
        return ExitCode::SUCCESS;
    }
    match run(&arguments.config, arguments.check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(if error.is::<Problems>() { EXIT_CONFIG } else { 1 })
        }
    }
}
