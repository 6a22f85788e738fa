//! `tandem-wan`: delay, lose, duplicate and reorder UDP datagrams between two sets of ports.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tandem_wan::{LinkConfig, Mapping, PathConfig, Relay, RelayStats};

const EXAMPLES: &str = "\
Examples:
  80 ms one way between two processes: let one listen on 7000, tell the other to use 7001
    tandem-wan --map 127.0.0.1:7001=127.0.0.1:7000 --delay-ms 80

  A poor mobile line: jitter, 1 % loss, some reordering; a JSON line each second
    tandem-wan --map 127.0.0.1:7001=127.0.0.1:7000 --delay-ms 60 --jitter-ms 20 \\
               --loss 0.01 --reorder 0.005 --stats-every-s 1

  Loss towards the target only, a slow way back
    tandem-wan --map 127.0.0.1:7001=127.0.0.1:7000 --there loss=0.05 --back rate_bps=1000000

  Counters while it runs: one JSON object per connection
    tandem-wan --map 127.0.0.1:7001=127.0.0.1:7000 --admin 127.0.0.1:7099
    nc 127.0.0.1 7099

The relay keeps one upstream port per client address, as a NAT does. It stops on SIGINT or SIGTERM
and prints its counters as one JSON line; what is still under way is dropped.";

#[derive(Parser)]
#[command(
    name = "tandem-wan",
    version,
    about = "A wide-area network between two sets of UDP ports",
    after_help = EXAMPLES
)]
struct Arguments {
    /// Listen address and target, IP:PORT=IP:PORT; may be given several times
    #[arg(long = "map", value_name = "LISTEN=TARGET", required = true)]
    maps: Vec<Mapping>,
    /// One-way delay, milliseconds
    #[arg(long, default_value_t = 0.0)]
    delay_ms: f64,
    /// Delay varies evenly by plus or minus this, milliseconds (order is kept)
    #[arg(long, default_value_t = 0.0)]
    jitter_ms: f64,
    /// Probability that a datagram is lost, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Probability that a datagram arrives twice, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    duplicate: f64,
    /// Probability that a datagram is held back and may be overtaken, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// How long a datagram is held back, milliseconds
    #[arg(long, default_value_t = 25.0)]
    reorder_ms: f64,
    /// Probability that one bit is flipped, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    corrupt: f64,
    /// Line rate, bits per second of payload [default: unlimited]
    #[arg(long)]
    rate_bps: Option<u64>,
    /// Bytes that may be under way in one direction of one mapping
    #[arg(long, default_value_t = 64 << 20)]
    queue_bytes_max: usize,
    /// Other values from listen side to target, such as loss=0.05,delay_ms=20
    #[arg(long, value_name = "KEY=VALUE,...", default_value = "", hide_default_value = true)]
    there: String,
    /// Other values from target back, such as loss=0.05,delay_ms=20
    #[arg(long, value_name = "KEY=VALUE,...", default_value = "", hide_default_value = true)]
    back: String,
    /// Seed of the dice: the same seed and traffic give the same losses
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print counters as a JSON line each so many seconds (0: only at the end)
    #[arg(long, default_value_t = 0.0)]
    stats_every_s: f64,
    /// Keep the latest counters in this file (replaced as a whole, at the end as well)
    #[arg(long, value_name = "FILE")]
    stats_json: Option<PathBuf>,
    /// Answer each TCP connection here with the counters as one JSON line
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
}

impl Arguments {
    fn config(&self) -> anyhow::Result<PathConfig> {
        let both = LinkConfig {
            delay_ms: self.delay_ms,
            jitter_ms: self.jitter_ms,
            loss: self.loss,
            duplicate: self.duplicate,
            reorder: self.reorder,
            reorder_ms: self.reorder_ms,
            corrupt: self.corrupt,
            rate_bps: self.rate_bps,
            queue_bytes_max: self.queue_bytes_max,
        };
        let there = overridden(both, &self.there).context("--there")?;
        let back = overridden(both, &self.back).context("--back")?;
        there.check().context("towards the target")?;
        back.check().context("back from the target")?;
        Ok(PathConfig { there, back })
    }
}

fn overridden(mut config: LinkConfig, text: &str) -> anyhow::Result<LinkConfig> {
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("'{pair}' is not KEY=VALUE, such as loss=0.05");
        };
        let (key, value) = (key.trim(), value.trim());
        let wrong = || format!("{key}: '{value}' is not a number");
        match key {
            "delay_ms" => config.delay_ms = value.parse().with_context(wrong)?,
            "jitter_ms" => config.jitter_ms = value.parse().with_context(wrong)?,
            "loss" => config.loss = value.parse().with_context(wrong)?,
            "duplicate" => config.duplicate = value.parse().with_context(wrong)?,
            "reorder" => config.reorder = value.parse().with_context(wrong)?,
            "reorder_ms" => config.reorder_ms = value.parse().with_context(wrong)?,
            "corrupt" => config.corrupt = value.parse().with_context(wrong)?,
            "rate_bps" => config.rate_bps = Some(value.parse().with_context(wrong)?),
            "queue_bytes_max" => config.queue_bytes_max = value.parse().with_context(wrong)?,
            _ => bail!(
                "'{key}' is unknown; known are delay_ms, jitter_ms, loss, duplicate, reorder, \
                 reorder_ms, corrupt, rate_bps, queue_bytes_max"
            ),
        }
    }
    Ok(config)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem-wan: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    if !(0.0..=86_400.0).contains(&arguments.stats_every_s) {
        bail!("--stats-every-s {}: allowed is 0 to 86400", arguments.stats_every_s);
    }
    // Blocked before any thread starts, so that only the descriptor sees them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;

    let admin = match arguments.admin {
        Some(addr) => {
            Some(TcpListener::bind(addr).with_context(|| format!("--admin: tcp {addr}"))?)
        }
        None => None,
    };
    let relay = Relay::start(arguments.maps.clone(), config, arguments.seed)?;
    for (listen, mapping) in relay.listen_addrs().iter().zip(&arguments.maps) {
        eprintln!("tandem-wan: {listen} -> {}", mapping.target);
    }
    serve(arguments, &relay, &signals, admin.as_ref())?;
    let stats = relay.stats();
    drop(relay);
    println!("{}", serde_json::to_string(&stats)?);
    save(arguments, &stats)
}

/// Reports until a signal comes.
fn serve(
    arguments: &Arguments,
    relay: &Relay,
    signals: &SignalFd,
    admin: Option<&TcpListener>,
) -> anyhow::Result<()> {
    let print = arguments.stats_every_s > 0.0;
    let every = if print { arguments.stats_every_s } else { 1.0 };
    let every = Duration::from_secs_f64(every).max(Duration::from_millis(10));
    let mut next = Instant::now() + every;
    loop {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(admin.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        let wait_ms = next.saturating_duration_since(Instant::now()).as_millis() + 1;
        let wait = PollTimeout::try_from(i32::try_from(wait_ms)?)?;
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready.first() == Some(&true) {
            return Ok(());
        }
        if let (Some(true), Some(listener)) = (ready.get(1), admin)
            && let Ok((stream, _)) = listener.accept()
        {
            answer(stream, &relay.stats());
        }
        if Instant::now() >= next {
            next += every;
            let stats = relay.stats();
            if print {
                println!("{}", serde_json::to_string(&stats)?);
            }
            save(arguments, &stats)?;
        }
    }
}

/// A client that went away is no trouble of ours.
fn answer(mut stream: TcpStream, stats: &RelayStats) {
    let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
    if let Ok(mut line) = serde_json::to_vec(stats) {
        line.push(b'\n');
        let _ = stream.write_all(&line);
    }
}

/// Replaces the file as a whole, so that a reader never sees half of it.
fn save(arguments: &Arguments, stats: &RelayStats) -> anyhow::Result<()> {
    let Some(path) = &arguments.stats_json else { return Ok(()) };
    let draft = path.with_extension("tmp");
    let mut text = serde_json::to_vec(stats)?;
    text.push(b'\n');
    std::fs::write(&draft, text).with_context(|| format!("--stats-json: {}", draft.display()))?;
    std::fs::rename(&draft, path).with_context(|| format!("--stats-json: {}", path.display()))
}
