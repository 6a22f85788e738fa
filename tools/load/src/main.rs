//! `tandem-load`: places and answers SIP calls with real audio, and judges them.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tandem_load::load::{AnswerPlan, CallPlan, HEARING_MS_MIN, Limits, LoadRun, Progress, table};
use tandem_load::{BankConfig, Codec};

const EXAMPLES: &str = "\
Examples:
  One call to a number behind a SIP server, answered by nobody here
    tandem-load call --target sip:+15550100@127.0.0.1:5060

  500 calls through a system under test that sends them to 127.0.0.1:5080; held for 60 s
    tandem-load run --target sip:+15550100@127.0.0.1:5060 --calls 500 --rate 50 --duration 60 \\
                    --listen 127.0.0.1:5070 --answer-on 127.0.0.1:5080 --json verdict.json

  Only answer, until Ctrl-C
    tandem-load answer --listen 127.0.0.1:5080

  Against itself: what this machine can do
    tandem-load run --target sip:x@127.0.0.1:5080 --calls 200 --rate 100 --duration 5

Each call sends bursts of a tone (callers 400, 480 … Hz, answerers 440, 520 … Hz) in a rhythm of its
own: with both in one run the sampled calls are checked for who hears whom and for the delay from
mouth to ear.
Exit code: 0 all limits kept, 1 a limit was crossed, 2 wrong arguments or no start.";

#[derive(Parser)]
#[command(
    name = "tandem-load",
    version,
    about = "SIP calls with real audio, by the one or by the thousand",
    after_help = EXAMPLES
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Place calls (and answer them, with --answer-on)
    Call(Call),
    /// Answer calls until SIGINT or SIGTERM
    Answer(Answer),
    /// Place and answer calls: call with --answer-on 127.0.0.1:5080 as default
    Run(Call),
}

#[derive(Args)]
struct Call {
    /// SIP URI to call, such as sip:+15550100@127.0.0.1:5060
    #[arg(long)]
    target: String,
    /// Send INVITEs here instead of to the host in the target
    #[arg(long, value_name = "IP:PORT")]
    via: Option<SocketAddr>,
    /// Own SIP address; RTP uses the same IP address
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// User part of From
    #[arg(long, default_value = "+15550000")]
    from: String,
    /// Calls in all
    #[arg(long, default_value_t = 1)]
    calls: u64,
    /// New calls per second
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Calls at once [default: as many as --calls]
    #[arg(long)]
    at_once: Option<usize>,
    /// From answer to hang-up, seconds
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Longest wait for an answer, seconds
    #[arg(long, default_value_t = 30.0)]
    answer_within: f64,
    /// Keys to press after the answer (RFC 4733)
    #[arg(long, default_value = "", hide_default_value = true)]
    digits: String,
    /// Listen to one call of so many in full (0: none)
    #[arg(long, default_value_t = 20)]
    sample_every: u64,
    /// Answer calls here, in the same thread
    #[arg(long, value_name = "IP:PORT")]
    answer_on: Option<SocketAddr>,
    /// Ring so long before answering, seconds
    #[arg(long, default_value_t = 0.1)]
    ring: f64,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    limits: LimitArguments,
}

#[derive(Args)]
struct Answer {
    /// Own SIP address; RTP uses the same IP address
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5080")]
    listen: SocketAddr,
    /// Ring so long before answering, seconds
    #[arg(long, default_value_t = 0.1)]
    ring: f64,
    /// Calls at once; further ones get 486
    #[arg(long, default_value_t = 5000)]
    at_once: usize,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    limits: LimitArguments,
}

#[derive(Args)]
struct Common {
    /// Codecs in order of preference
    #[arg(long, value_delimiter = ',', default_value = "PCMU,PCMA")]
    codecs: Vec<Codec>,
    /// Pin the thread to this CPU
    #[arg(long)]
    cpu: Option<usize>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the verdict as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No line of progress each second
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct LimitArguments {
    /// Failed calls allowed
    #[arg(long, default_value_t = 0)]
    max_failed: u64,
    /// Answered calls without any RTP that are allowed, each side
    #[arg(long, default_value_t = 0)]
    max_deaf: u64,
    /// Share of RTP lost that is allowed, 0 to 1
    #[arg(long, default_value_t = 0.01)]
    max_loss: f64,
    /// Set-up time (INVITE to 200) allowed for 99 of 100 calls, milliseconds
    #[arg(long)]
    max_setup_ms: Option<f64>,
    /// Post-dial delay (INVITE to 180) allowed for 99 of 100 calls, milliseconds
    #[arg(long)]
    max_post_dial_ms: Option<f64>,
    /// Gap between two packets of a stream that is allowed, milliseconds
    #[arg(long)]
    max_gap_ms: Option<f64>,
    /// Packets allowed to be neither received nor counted as dropped, each way
    #[arg(long)]
    max_unaccounted: Option<u64>,
    /// Do not fail because of who hears whom
    #[arg(long)]
    no_hearing_check: bool,
}

impl LimitArguments {
    fn limits(&self, both: bool, sampled: bool) -> Limits {
        Limits {
            failed_max: Some(self.max_failed),
            deaf_max: Some(self.max_deaf),
            loss_max: Some(self.max_loss),
            set_up_p99_ms_max: self.max_setup_ms,
            post_dial_p99_ms_max: self.max_post_dial_ms,
            gap_ms_max: self.max_gap_ms,
            unaccounted_max: self.max_unaccounted,
            hears: both && sampled && !self.no_hearing_check,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("tandem-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<bool> {
    match arguments.command {
        Command::Call(call) => call_or_run(&call, call.answer_on),
        Command::Run(call) => {
            let answer_on = call.answer_on.unwrap_or_else(|| ([127, 0, 0, 1], 5080).into());
            call_or_run(&call, Some(answer_on))
        }
        Command::Answer(answer) => {
            let plan = AnswerPlan {
                listen: answer.listen,
                ring_ms: ms("--ring", answer.ring)?,
                at_once_max: answer.at_once,
                codecs: answer.common.codecs.clone(),
                send_for_ms: None,
            };
            drive(None, Some(plan), &answer.common, &answer.limits.limits(false, false))
        }
    }
}

fn call_or_run(call: &Call, answer_on: Option<SocketAddr>) -> anyhow::Result<bool> {
    let duration_ms = ms("--duration", call.duration)?;
    let at_once_max = call.at_once.unwrap_or(usize::try_from(call.calls)?);
    let plan = CallPlan {
        target: call.target.clone(),
        via: call.via,
        listen: call.listen,
        user: call.from.clone(),
        calls: call.calls,
        rate_per_s: call.rate,
        at_once_max,
        duration_ms,
        answer_within_ms: ms("--answer-within", call.answer_within)?,
        codecs: call.common.codecs.clone(),
        sample_every: call.sample_every,
        digits: call.digits.clone(),
    };
    let answer = match answer_on {
        Some(listen) => Some(AnswerPlan {
            listen,
            ring_ms: ms("--ring", call.ring)?,
            // Calls may overlap at their ends.
            at_once_max: at_once_max.saturating_mul(2),
            codecs: call.common.codecs.clone(),
            send_for_ms: Some(duration_ms),
        }),
        None => None,
    };
    let tells = duration_ms >= HEARING_MS_MIN;
    if !tells && answer.is_some() && !call.limits.no_hearing_check {
        eprintln!("calls shorter than {HEARING_MS_MIN} ms: who hears whom is not checked");
    }
    let limits = call.limits.limits(answer.is_some(), tells && call.sample_every > 0);
    drive(Some(plan), answer, &call.common, &limits)
}

fn ms(name: &str, seconds: f64) -> anyhow::Result<u64> {
    anyhow::ensure!(
        (0.0..=86_400.0).contains(&seconds),
        "{name} {seconds}: allowed is 0 to 86400 seconds"
    );
    Ok((seconds * 1000.0) as u64)
}

/// Runs until all calls are over, or a signal comes.
fn drive(
    call: Option<CallPlan>,
    answer: Option<AnswerPlan>,
    common: &Common,
    limits: &Limits,
) -> anyhow::Result<bool> {
    // Blocked before any thread starts, so that only the descriptor sees them.
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;

    let bank = BankConfig { seed: common.seed, cpu: common.cpu };
    let mut run = LoadRun::start(bank, call, answer)?;
    if let Some(addr) = run.answer_addr() {
        eprintln!("answering on {addr}");
    }
    let began = Instant::now();
    let deadline = run.takes_at_most().map(|most| began + most);
    let mut next = began + Duration::from_secs(1);
    let mut line = ProgressLine::new(common.quiet);
    loop {
        let wait = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(200));
        if signalled(&signals, wait)? {
            run.hang_up()?;
            break;
        }
        let now = Instant::now();
        if now >= next {
            next += Duration::from_secs(1);
            line.show(&run.progress()?);
        }
        if run.is_over()? {
            break;
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            run.hang_up()?;
            break;
        }
    }
    line.show(&run.progress()?);
    line.end();
    let verdict = run.finish(limits)?;
    println!("{}", table(&verdict));
    if let Some(path) = &common.json {
        let text = serde_json::to_string_pretty(&verdict)? + "\n";
        std::fs::write(path, text).with_context(|| format!("--json {}", path.display()))?;
    }
    Ok(verdict.ok)
}

fn signalled(signals: &SignalFd, wait: Duration) -> anyhow::Result<bool> {
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(i32::try_from(wait.as_millis())? + 1)?;
    match poll(&mut fds, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context("poll"),
    }
}

/// One line that is renewed on a terminal, and lines elsewhere.
struct ProgressLine {
    quiet: bool,
    terminal: bool,
}

impl ProgressLine {
    fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, now: &Progress) {
        if self.quiet {
            return;
        }
        let text = format!(
            "{:6.1} s  {} calls, {} up, {} ok, {} failed  RTP {:.0}/s out, {:.0}/s in, {} lost",
            now.at_s,
            now.attempted,
            now.up,
            now.ok,
            now.failed,
            now.sent_per_s,
            now.received_per_s,
            now.lost
        );
        let mut out = std::io::stderr();
        // Nobody to read it is no reason to stop.
        let _ = if self.terminal { write!(out, "\r\x1b[K{text}") } else { writeln!(out, "{text}") };
        let _ = out.flush();
    }

    fn end(&self) {
        if self.terminal && !self.quiet {
            eprintln!();
        }
    }
}
