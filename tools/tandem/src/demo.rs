//! `tandem demo`: two regions on this machine, real calls with real audio, and what was measured.

mod facts;
mod scenario;
mod show;
mod stage;
mod timeline;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;

use facts::{CallFacts, Facts};
use stage::Stage;

/// Arguments of `tandem demo`.
#[derive(Args)]
pub struct Arguments {
    /// End after the calls, with status 0 only if every call did what it should. The default
    /// without a terminal.
    #[arg(long)]
    oneshot: bool,
    /// Write the facts as JSON (docs/demo.md describes them).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these calls, for example `a,g`.
    #[arg(long, value_name = "LETTERS", value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the daemons' logs in this folder when something fails.
    #[arg(long, value_name = "FOLDER")]
    keep_logs: Option<PathBuf>,
}

/// Runs the demonstration.
///
/// # Errors
/// If something could not be started, or a call did not do what it should.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let known = |only: &&String| !SCENARIOS.iter().any(|(letter, _)| *letter == **only);
    if let Some(unknown) = arguments.only.iter().find(known) {
        let letters: Vec<&str> = SCENARIOS.iter().map(|(letter, _)| *letter).collect();
        anyhow::bail!("there is no call {unknown:?}; there are {}", letters.join(", "));
    }
    let start = Instant::now();
    let program = std::env::current_exe().context("own path")?;
    let mut stage = Stage::new(&program, &mut |line| show::progress(line))?;
    let mut facts =
        Facts { ok: false, wan_delay_ms: stage::WAN_DELAY_MS, seconds: 0.0, calls: Vec::new() };
    calls(&mut stage, arguments, &mut facts);
    facts.ok = !facts.calls.is_empty() && facts.calls.iter().all(|call| call.ok);
    facts.seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&facts)?)
            .with_context(|| path.display().to_string())?;
    }
    show::timelines(&facts);
    show::table(&facts);
    if !facts.ok {
        if let Some(folder) = &arguments.keep_logs {
            keep_logs(&stage, folder)?;
        }
        anyhow::bail!("not every call did what it should");
    }
    if arguments.oneshot || !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return stage.stop();
    }
    serve(stage)
}

type Scenario = fn(&mut Stage, Option<f64>) -> anyhow::Result<CallFacts>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("a", |stage, _| scenario::in_region(stage)),
    ("c", |stage, _| scenario::star(stage)),
    ("d1", |stage, _| scenario::silent_callee(stage)),
    ("d2", |stage, _| scenario::silent_caller(stage)),
    ("e", |stage, _| scenario::fallback(stage)),
    ("g", scenario::abroad),
    // These two restart the region's edge with a resource switched off.
    ("b", |stage, _| scenario::prompts_from_core(stage)),
    ("f", scenario::transcoded_in_core),
];

fn calls(stage: &mut Stage, arguments: &Arguments, facts: &mut Facts) {
    let mut hairpin_ms = None;
    for (letter, scenario) in SCENARIOS {
        let wanted = arguments.only.is_empty() || arguments.only.iter().any(|only| only == letter);
        if !wanted {
            continue;
        }
        show::progress(&format!("call {letter} …"));
        let mut call = match scenario(stage, hairpin_ms) {
            Ok(call) => call,
            Err(error) => {
                let mut call = CallFacts { name: (*letter).to_owned(), ..CallFacts::default() };
                call.check("the call could be made", false, format!("{error:#}"));
                call
            }
        };
        if *letter == "a" {
            hairpin_ms = call.mouth_to_ear_ms;
        }
        let good = call.failed().next().is_none();
        call.ok = good;
        show::verdict(&call);
        facts.calls.push(call);
    }
}

fn keep_logs(stage: &Stage, folder: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for process in [&stage.control.process, &stage.core.process, &stage.eu.process] {
        let log = process.log_path();
        if let Some(name) = log.file_name() {
            std::fs::copy(log, folder.join(name))?;
        }
    }
    show::progress(&format!("logs are in {}", folder.display()));
    Ok(())
}

/// Keeps serving until Ctrl-C.
fn serve(stage: Stage) -> anyhow::Result<()> {
    show::next_steps(&stage);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(link_daemon::signal::termination())?;
    stage.stop()
}
