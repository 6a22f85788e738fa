//! `tandem-control`: log, whole configuration, build, run, drain.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use control::config;
use link_daemon::{drain, log, signal};

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
    link_daemon::install_crypto_provider();
    let arguments = Arguments::parse();
    if arguments.sample {
        print!("{}", config::sample());
        return ExitCode::SUCCESS;
    }
    let config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if arguments.check {
        println!("{}: good", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: control::Config) -> anyhow::Result<()> {
    let level = log::init(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, shutdown) = drain::switch();
        tokio::spawn(async move {
            match signal::termination().await {
                Ok(name) => tracing::info!(signal = name, "shutting down"),
                Err(error) => tracing::error!(%error, "no signals; shutting down"),
            }
            trigger.shut_down();
        });
        control::run(config, level, shutdown).await
    })
}
