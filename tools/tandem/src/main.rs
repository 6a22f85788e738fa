//! `tandem`: one program for everything — first start, both daemons, all in one, demonstration.

mod calls;
mod certificate;
mod demo;
mod init;
mod signature;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use link_daemon::config::Problems;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tandem, an open programmable-voice network.
#[derive(Parser)]
#[command(
    name = "tandem",
    version,
    after_help = "\
First steps:
  tandem demo                     two regions on this machine, real calls, real audio
  tandem init ./my-tandem         certificates and configurations for one machine
  tandem up ./my-tandem           control and one edge in one process
  tandem calls                    live legs of an edge"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make certificates, an account and configurations for a first start.
    Init(init::Arguments),
    /// Make or renew the certificate of a node.
    Certificate(certificate::Arguments),
    /// Run control and one edge in this process, from a folder made by `init`.
    Up(up::Arguments),
    /// Start two regions with 80 ms between them, make real calls, show what was measured.
    Demo(demo::Arguments),
    /// Run the control daemon.
    Control(DaemonArguments),
    /// Run the edge daemon.
    Edge(DaemonArguments),
    /// Run parts of the media layer in a process of their own.
    Media(DaemonArguments),
    /// Print or check configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the live legs of an edge.
    Calls(calls::Arguments),
    /// Show what the signatures of a request are made of.
    Signature(signature::Arguments),
}

#[derive(clap::Args)]
struct DaemonArguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print a configuration with every key, its default and what is allowed.
    Sample {
        /// Of which daemon.
        role: Role,
    },
    /// Check a file; every error is shown at once.
    Check {
        /// Of which daemon.
        role: Role,
        /// The file.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Role {
    /// The edge daemon.
    Edge,
    /// The control daemon.
    Control,
    /// A process of the media layer.
    Media,
}

fn main() -> ExitCode {
    link_daemon::install_crypto_provider();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            // sysexits.h: EX_CONFIG
            if error.is::<Problems>() { ExitCode::from(78) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Certificate(arguments) => certificate::run(&arguments),
        Command::Up(arguments) => up::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Control(DaemonArguments { config, check }) => control::run_file(&config, check),
        Command::Edge(DaemonArguments { config, check }) => edge::run_file(&config, check),
        Command::Media(DaemonArguments { config, check }) => {
            control::media_node::run_file(&config, check)
        }
        Command::Config(ConfigCommand::Sample { role }) => {
            let sample = match role {
                Role::Edge => edge::config::sample(),
                Role::Control => control::config::sample(),
                Role::Media => control::config::MediaNode::sample(),
            };
            print!("{sample}");
            Ok(())
        }
        Command::Config(ConfigCommand::Check { role, file }) => match role {
            Role::Edge => edge::run_file(&file, true),
            Role::Control => control::run_file(&file, true),
            Role::Media => control::media_node::run_file(&file, true),
        },
        Command::Calls(arguments) => calls::run(&arguments),
        Command::Signature(arguments) => signature::run(&arguments),
    }
}
