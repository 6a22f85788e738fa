//! The floor as a process of its own: connected sockets on an io_uring, and no logic.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use edge_uring::socket::{SocketConfig, bind};

use super::{Ends, Place, Running};
use crate::machine::{pinned, want_descriptors};

/// What one socket may hold that receives for all.
const INBOX_BYTES: usize = 4 << 20;

/// Arguments of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub struct FloorArguments {
    /// Calls.
    #[arg(long)]
    calls: usize,
    /// Bulk A, bulk B, sampled A, sampled B.
    #[arg(long, num_args = 4)]
    ends: Vec<SocketAddr>,
    /// How it sends.
    #[arg(long, value_enum, default_value_t)]
    way: FloorWay,
}

/// See [`benches_sys::Way`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum FloorWay {
    /// Sends copy.
    #[default]
    Plain,
    /// Sends do not copy.
    ZeroCopy,
    /// A thread of the kernel submits.
    KernelThread,
    /// One socket receives for all.
    OneReceives,
}

impl FloorWay {
    const fn argument(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ZeroCopy => "zero-copy",
            Self::KernelThread => "kernel-thread",
            Self::OneReceives => "one-receives",
        }
    }
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The floor on processors that do not sleep.
///
/// # Errors
/// As [`start`]; or if they cannot be kept awake.
pub fn start_awake(place: &Place, calls: usize, ends: &Ends) -> anyhow::Result<Running> {
    let awake = edge::awake::hold().context("/dev/cpu_dma_latency")?;
    let mut running = start(place, calls, ends, FloorWay::Plain)?;
    running.guard = Box::new((running.guard, awake));
    Ok(running)
}

/// Starts this program again as the floor.
///
/// # Errors
/// If it does not come up.
pub fn start(place: &Place, calls: usize, ends: &Ends, way: FloorWay) -> anyhow::Result<Running> {
    let mut command = pinned(&std::env::current_exe()?, place.cores.system);
    let calls_text = calls.to_string();
    command.args(["floor", "--way", way.argument(), "--calls", &calls_text, "--ends"]);
    command.args(ends.bulk.iter().chain(&ends.sampled).map(ToString::to_string));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut guard = Guard(command.spawn().context("taskset")?);
    let output = guard.0.stdout.take().context("no output")?;
    let mut legs = Vec::with_capacity(calls);
    let mut lines = BufReader::new(output).lines();
    for _ in 0..calls {
        let line = lines.next().context("the floor ended early")??;
        let (a, b) = line.split_once(' ').with_context(|| line.clone())?;
        legs.push([a.parse()?, b.parse()?]);
    }
    let pid = guard.0.id();
    Ok(Running { pid, sip: super::NO_SIP, legs, guard: Box::new(guard) })
}

/// The process: binds, prints the addresses of its legs, forwards until its input is closed.
///
/// # Errors
/// Of the sockets, or without io_uring.
pub fn run(arguments: &FloorArguments) -> anyhow::Result<()> {
    want_descriptors(arguments.calls as u64 * 2 + 64)?;
    let [bulk_a, bulk_b, sampled_a, sampled_b] = arguments.ends[..] else {
        anyhow::bail!("--ends takes four addresses");
    };
    let ends = Ends { bulk: [bulk_a, bulk_b], sampled: [sampled_a, sampled_b] };
    let mut sockets = Vec::with_capacity(arguments.calls * 2 + 1);
    let inbox = match arguments.way {
        FloorWay::OneReceives => {
            let config =
                SocketConfig { receive_buffer_bytes: INBOX_BYTES, ..SocketConfig::default() };
            Some(bind("127.0.0.1:0".parse()?, &config)?)
        }
        _ => None,
    };
    let inbox_at = inbox.as_ref().map(UdpSocket::local_addr).transpose()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for call in 0..arguments.calls {
        let leg = |side| -> anyhow::Result<UdpSocket> {
            let socket = bind("127.0.0.1:0".parse()?, &SocketConfig::default())?;
            socket.connect(ends.of(call, side))?;
            Ok(socket)
        };
        let (a, b) = (leg(0)?, leg(1)?);
        let at = |own: &UdpSocket| inbox_at.map_or_else(|| own.local_addr(), Ok);
        writeln!(out, "{} {}", at(&a)?, at(&b)?)?;
        sockets.extend([a, b]);
    }
    sockets.extend(inbox);
    out.flush()?;
    // The parent kills it; a parent that is gone closes the input.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let way = match arguments.way {
        FloorWay::Plain => benches_sys::Way::Plain,
        FloorWay::ZeroCopy => benches_sys::Way::ZeroCopy,
        FloorWay::KernelThread => benches_sys::Way::KernelThread,
        FloorWay::OneReceives => benches_sys::Way::OneReceives,
    };
    benches_sys::forward(sockets, way, |_| false)?;
    Ok(())
}
