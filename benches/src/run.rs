//! The benches by name, and running them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::machine::{Cores, pin_thread, workspace};
use crate::report::{Outcome, Results};
use crate::system::Place;
use crate::{calls, system};

/// One bench.
pub struct Bench {
    /// For `--only`.
    pub name: &'static str,
    /// What it shows.
    pub what: &'static str,
    /// Seconds on a quiet machine, in full.
    pub takes_s: u64,
    run: fn(&Context) -> anyhow::Result<Outcome>,
}

/// All benches in the order of a full run.
pub const ALL: [Bench; 18] = [
    Bench {
        name: "calls_500",
        what: "500 calls by a route, held 60 s: every packet accounted for, memory",
        takes_s: 100,
        run: |context| calls::five_hundred::by_route(context),
    },
    Bench {
        name: "calls_500_control",
        what: "the same by instructions: web server, control, Dial",
        takes_s: 100,
        run: |context| calls::five_hundred::by_instructions(context),
    },
    Bench {
        name: "setup_overhead",
        what: "INVITE in to first prompt packet out, less the web server's own time",
        takes_s: 60,
        run: |context| calls::set_up::overhead(context),
    },
    Bench {
        name: "relay_100k",
        what: "CPU per packet and delay at 1,000 calls: edge, edge on a core that sleeps, rtpengine, floor",
        takes_s: 185,
        run: |context| system::relay::relay_100k(context),
    },
    Bench {
        name: "relay_saturation",
        what: "highest rate below 0.1 % loss on one core; draws the curves",
        takes_s: 400,
        run: |context| system::relay::relay_saturation(context),
    },
    Bench {
        name: "relay_scale",
        what: "cost per packet at one rate spread over 100 to 4,500 calls",
        takes_s: 300,
        run: |context| system::scale::relay_scale(context),
    },
    Bench {
        name: "relay_choices",
        what: "how the media thread waits and how packets are sent: what else there is",
        takes_s: 290,
        run: |context| system::choices::relay_choices(context),
    },
    Bench {
        name: "hostile",
        what: "28 kinds of hostile packets: no dearer than a valid one, and without effect",
        takes_s: 20,
        run: |context| system::hostile::hostile(context),
    },
    Bench {
        name: "trunk_100k",
        what: "CPU per packet and delay of 1,000 calls between two edges: media trunk, plain UDP",
        takes_s: 60,
        run: |context| system::trunk::trunk_100k(context),
    },
    Bench {
        name: "trunk_saturation",
        what: "CPU per packet between two edges as fast as it goes: media trunk, plain UDP",
        takes_s: 60,
        run: |context| system::trunk::trunk_saturation(context),
    },
    Bench {
        name: "trunk_wan",
        what: "a media trunk over 80 ms and 1 % loss: nothing else is lost, nothing stale is sent",
        takes_s: 40,
        run: |context| system::trunk::trunk_wan(context),
    },
    Bench {
        name: "xdp_100k",
        what: "the kernel fast path between two links, packet by packet; rtpengine on loopback",
        takes_s: 65,
        run: |context| system::xdp::xdp_100k(context),
    },
    Bench {
        name: "xdp_1m",
        what: "the same at 1,000,000 packets a second in bursts of 32; rtpengine at its best rate",
        takes_s: 100,
        run: |context| system::xdp::xdp_1m(context),
    },
    Bench {
        name: "media_memory",
        what: "memory of a process with one media thread and 1,000 bridged calls",
        takes_s: 10,
        run: |context| system::media_memory::media_memory(context),
    },
    Bench {
        name: "tick_20ms",
        what: "punctuality of generated frames, against a timerfd and a spinning thread",
        takes_s: 110,
        run: |context| system::tick::tick_20ms(context),
    },
    Bench {
        name: "tick_loop",
        what: "punctuality of the media loop at 1 ms and 20 ms, and with SCHED_FIFO beside a busy core",
        takes_s: 155,
        run: |context| system::loops::tick_loop(context),
    },
    Bench {
        name: "tick_flood",
        what: "punctuality of frames while INVITEs flood the other core",
        takes_s: 85,
        run: |context| system::flood::tick_flood(context),
    },
    Bench {
        name: "churn",
        what: "three minutes of 100 set-ups a second: memory, descriptors and ports do not grow",
        takes_s: 210,
        run: |context| calls::churn::short(context),
    },
];

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArguments {
    /// Only these benches (see `benches list`)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Fewer and shorter rounds, no long wait for a quiet machine: shows that it works, not a result
    #[arg(long)]
    quick: bool,
    /// Take the tandem program as it is instead of building it first
    #[arg(long)]
    no_build: bool,
    /// The tandem program, instead of the one beside this program
    #[arg(long, value_name = "FILE")]
    tandem: Option<PathBuf>,
    /// Where results go
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
}

/// What a bench runs in.
pub struct Context {
    /// Cores.
    pub cores: Cores,
    /// Shorter.
    pub quick: bool,
    /// Where results go.
    pub results: Results,
    tandem: PathBuf,
}

impl Context {
    /// For a bench outside of `run`.
    pub fn new(cores: Cores, quick: bool, results: Results, tandem: PathBuf) -> Self {
        Self { cores, quick, results, tandem }
    }

    /// Cores and program for a system.
    ///
    /// # Errors
    /// If the generator's thread cannot be pinned.
    pub fn place(&self) -> anyhow::Result<Place> {
        pin_thread(self.cores.load)?;
        Ok(Place { cores: self.cores, tandem: self.tandem.clone() })
    }

    /// The tandem program.
    pub fn tandem(&self) -> &Path {
        &self.tandem
    }

    /// A line of progress.
    #[allow(clippy::unused_self, reason = "may become quiet")]
    pub fn note(&self, text: &str) {
        eprintln!("  {text}");
    }

    /// Rounds of an alternation.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Rounds of an alternation whose single ratios differ by a tenth from one round to the next.
    pub fn many_rounds(&self) -> usize {
        if self.quick { 1 } else { 11 }
    }

    /// Climbs to saturation of each system.
    pub fn climbs(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Measured time of one sample.
    pub fn window(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 2_000 })
    }

    /// How long a quiet machine is waited for.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 90 })
    }

    /// How often a disturbed sample is taken in all.
    pub fn tries(&self, full: usize) -> usize {
        if self.quick { 1 } else { full }
    }
}

/// The program to test, built in the profile of this one.
///
/// # Errors
/// If it cannot be built.
pub fn tandem_program(given: Option<&Path>, build: bool) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program has no folder")?;
    if build {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--package", "tandem"]).current_dir(workspace());
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        // Beside this program, whatever the environment of the caller says now.
        command.env("CARGO_TARGET_DIR", folder.parent().unwrap_or(folder));
        anyhow::ensure!(command.status()?.success(), "tandem cannot be built");
    }
    let tandem = folder.join("tandem");
    anyhow::ensure!(tandem.is_file(), "{} is not built", tandem.display());
    Ok(tandem)
}

/// Prints what there is.
pub fn list() {
    for bench in &ALL {
        println!("{:18} {:4} s  {}", bench.name, bench.takes_s, bench.what);
    }
}

/// Runs the benches. True if every clean one reached its goals.
///
/// # Errors
/// For unknown names, or if something cannot be built.
pub fn run(arguments: &RunArguments) -> anyhow::Result<bool> {
    for name in &arguments.only {
        let known = ALL.iter().any(|bench| bench.name == name);
        let names: Vec<&str> = ALL.iter().map(|bench| bench.name).collect();
        anyhow::ensure!(known, "--only {name}: allowed are {}", names.join(", "));
    }
    let results = match &arguments.results {
        Some(folder) => Results::new(folder.clone(), folder.join("dirty")),
        None => Results::of_workspace(),
    };
    let context = Context {
        cores: Cores::of_process()?,
        quick: arguments.quick,
        tandem: tandem_program(arguments.tandem.as_deref(), !arguments.no_build)?,
        results,
    };
    describe(&context);
    let (mut passed, mut failed, mut dirty) = (0, 0, 0);
    for bench in &ALL {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == bench.name) {
            continue;
        }
        eprintln!("\n{}: {}", bench.name, bench.what);
        match on_own_thread(bench, &context) {
            Ok(mut outcome) => {
                if context.quick && outcome.is_clean {
                    outcome.clean(false, "--quick: too short to be a result".to_owned());
                }
                outcome.print();
                println!("  kept in {}", context.results.keep(&outcome)?.display());
                match (outcome.is_clean, outcome.passed()) {
                    (false, _) => dirty += 1,
                    (true, true) => passed += 1,
                    (true, false) => failed += 1,
                }
            }
            Err(error) => {
                println!("\n{}\n  FAILED: {error:#}", bench.name);
                failed += 1;
            }
        }
    }
    println!("\n{passed} passed, {failed} failed, {dirty} dirty");
    Ok(failed == 0)
}

/// A bench may pin its thread; the next one begins with all cores again.
fn on_own_thread(bench: &Bench, context: &Context) -> anyhow::Result<Outcome> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(bench.name.to_owned());
        let handle = thread.spawn_scoped(scope, || (bench.run)(context))?;
        handle.join().map_err(|_| anyhow::anyhow!("ended by panic"))?
    })
}

fn describe(context: &Context) {
    let machine = context.results.machine();
    println!(
        "{}, {} cores, Linux {}, commit {}, {} build",
        machine.cpu, machine.cores, machine.kernel, machine.commit, machine.profile
    );
    match system::rtpengine::version() {
        Some(version) => println!("peer: {version}"),
        None => println!("peer: rtpengine is not installed; the floors alone are compared with"),
    }
    if cfg!(debug_assertions) {
        println!("this is a debug build: figures mean nothing; use `make bench`");
    }
}
