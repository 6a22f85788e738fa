//! Repository automation: rules that are executed, not remembered.

mod layers;
mod requirements;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Checks and reports about the repository itself.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
enum Command {
    /// File length, line length, forbidden words, tests that never run.
    Tidy,
    /// Which crate may depend on which, from `cargo metadata`.
    Layers,
    /// Requirement rows against the last end-to-end run (target/e2e.log).
    Requirements,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().nth(2).unwrap_or(root);
    match Command::parse() {
        Command::Tidy => tidy::run(root),
        Command::Layers => layers::run(root),
        Command::Requirements => requirements::run(root),
    }
}
