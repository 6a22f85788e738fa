//! What a bridged call costs in memory where its media is: a process with one media thread and
//! nothing else, made for as many legs as an edge by default.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edge::media_handle::{MediaHandle, MediaQueues, ToMedia};
use edge::media_thread::{self, MediaThreadConfig};
use edge::trunk_ring::{self, Epoch};
use edge_media::command::{LinkPath, PortKey, SessionKey, WorkerCommand};
use edge_uring::socket::{SocketConfig, bind};
use edge_uring::{Limits, MediaThread, WaitConfig};
use link_daemon::metrics::Metrics;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::bridge::{leg, packet};
use crate::machine::{memory, pause, want_descriptors};
use crate::report::{Goal, Outcome};
use crate::run::Context;

/// Of an edge by default.
const LEGS_MAX: u32 = 2_000;
const CALLS: u32 = 1_000;
/// Packets of each leg: more in all than there are receive buffers.
const PACKETS: u16 = 25;
/// Between the packets of a leg.
const PERIOD: Duration = Duration::from_millis(20);
const KIB_PER_CALL_MAX: f64 = 12.0;
/// Of what a second thousand calls take beyond the first, in the place of those.
const KIB_PER_CALL_AGAIN_MAX: f64 = 0.25;

/// Memory of the process, its files aside, KiB.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seen {
    calls: u32,
    anonymous_kib: u64,
    forwarded: u64,
}

/// The media thread of the process, and two far ends for all of its legs.
struct World {
    handle: MediaHandle,
    thread: MediaThread,
    metrics: Metrics,
    far: [UdpSocket; 2],
    generation: u32,
}

impl World {
    fn start() -> anyhow::Result<Self> {
        let queues = MediaQueues::new(8_192, Arc::new(Notify::new()))?;
        let (trunk_out, _) = trunk_ring::ring(4 << 20);
        let (_, trunk_in) = trunk_ring::ring(4 << 20);
        let config = MediaThreadConfig {
            index: 0,
            queues: queues.clone(),
            trunk_out,
            trunk_wake: Arc::default(),
            epoch: Epoch::new(link_daemon::clock::now()),
            trunk_in,
            recorder: Arc::new(crossbeam::queue::ArrayQueue::new(10_000)),
            ports_max: LEGS_MAX * 2,
            limits: Limits { sockets_max: LEGS_MAX * 2 + 64, ..Limits::default() },
            wait: WaitConfig::default(),
            core: None,
            fifo_priority: None,
            fast_path: None,
        };
        let metrics = Metrics::new("edge");
        let thread = media_thread::spawn(config, &metrics)?;
        let far = [far_end()?, far_end()?];
        Ok(Self { handle: MediaHandle::new(queues), thread, metrics, far, generation: 0 })
    }

    fn tell(&mut self, message: ToMedia) {
        self.handle.push(message);
        self.handle.flush();
    }

    fn key(&self, index: u32) -> PortKey {
        PortKey { index, generation: self.generation }
    }

    /// Sets calls up and lets both sides of each talk.
    fn call(&mut self, calls: std::ops::Range<u32>) -> anyhow::Result<()> {
        let mut legs = Vec::new();
        for index in calls.start * 2..calls.end * 2 {
            let any = || bind(([127, 0, 0, 1], 0).into(), &SocketConfig::default());
            let (rtp, rtcp) = (any()?, any()?);
            legs.push(rtp.local_addr()?);
            let port = self.key(index);
            self.tell(ToMedia::Sockets { port, rtp, rtcp });
            let far = self.far[index as usize % 2].local_addr()?;
            let mut config = leg(index);
            config.remote_rtp = Some(far);
            config.remote_rtcp = None;
            let session = SessionKey { index: index / 2, generation: self.generation };
            self.tell(ToMedia::Command(WorkerCommand::AddLeg { port, session, config }));
            if index % 2 == 1 {
                for (from, to) in [(index - 1, index), (index, index - 1)] {
                    let (from, to, path) = (self.key(from), self.key(to), LinkPath::Relay);
                    let connect = WorkerCommand::Connect { from, to, path };
                    self.tell(ToMedia::Command(connect));
                }
                self.events();
            }
        }
        self.talk(&legs)
    }

    fn talk(&mut self, legs: &[SocketAddr]) -> anyhow::Result<()> {
        let began = Instant::now();
        for n in 0..PACKETS {
            pause((PERIOD * u32::from(n)).saturating_sub(began.elapsed()));
            for (index, leg) in legs.iter().enumerate() {
                self.far[index % 2].send_to(&packet(n + 1, index as u32 + 1), leg)?;
            }
            self.events();
        }
        // Counters are copied once a second.
        pause(Duration::from_millis(1_200));
        Ok(())
    }

    fn hang_up(&mut self, calls: u32) {
        for index in 0..calls * 2 {
            let port = self.key(index);
            self.tell(ToMedia::Command(WorkerCommand::RemovePort { port }));
            self.tell(ToMedia::Release { port });
            self.events();
        }
        self.generation += 1;
        pause(Duration::from_millis(500));
        self.events();
    }

    /// Read and forgotten, as by signalling.
    fn events(&mut self) {
        while self.handle.event().is_some() {}
    }

    fn seen(&self, calls: u32) -> anyhow::Result<Seen> {
        let page = self.metrics.encode();
        let forwarded = page.lines().find_map(|line| {
            line.strip_prefix("tandem_edge_media_packets_relayed_total ")?.parse().ok()
        });
        let forwarded = forwarded.context("no count of relayed packets")?;
        let anonymous_kib = memory(std::process::id())?.anonymous_kib;
        Ok(Seen { calls, anonymous_kib, forwarded })
    }
}

/// Takes packets of any number of legs and lets the kernel discard them.
fn far_end() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket2::SockRef::from(&socket).attach_filter(&[socket2::SockFilter::new(0x06, 0, 0, 0)])?;
    Ok(socket)
}

/// The process: a line of JSON for every look.
///
/// # Errors
/// If something does not start.
pub fn process() -> anyhow::Result<()> {
    want_descriptors(u64::from(CALLS) * 4 + 256)?;
    let mut world = World::start()?;
    let say = |seen: Seen| -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(&seen)?);
        Ok(())
    };
    // A call that is over: what is made once is made.
    world.call(0..1)?;
    world.hang_up(1);
    say(world.seen(0)?)?;
    for calls in [CALLS / 4, CALLS / 2, CALLS] {
        let before = world.seen(0)?;
        let up = if calls == CALLS / 4 { 0 } else { calls / 2 };
        world.call(up..calls)?;
        let seen = world.seen(calls)?;
        let sent = u64::from(calls - up) * 2 * u64::from(PACKETS);
        let missing = sent.saturating_sub(seen.forwarded - before.forwarded);
        anyhow::ensure!(missing * 100 <= sent, "{missing} of {sent} packets were not relayed");
        say(seen)?;
    }
    // Twice, because the first time goes through places of the queues that were never used.
    for _ in 0..2 {
        world.hang_up(CALLS);
        world.call(0..CALLS)?;
        say(world.seen(CALLS)?)?;
    }
    world.thread.stop()?;
    Ok(())
}

/// Starts the process and judges what it says.
///
/// # Errors
/// If it fails.
pub fn media_memory(context: &Context) -> anyhow::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("media-memory").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failure = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the process failed: {failure}");
    let seen: Vec<Seen> =
        said.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("its words")?;
    let [idle, _, _, full, once, again] = seen[..] else {
        anyhow::bail!("{} looks", seen.len());
    };
    context.note(&format!("{idle:?} {full:?}"));
    let kib = |seen: Seen, before: Seen| {
        seen.anonymous_kib.saturating_sub(before.anonymous_kib) as f64 / f64::from(CALLS)
    };
    let mut outcome = Outcome::new("media_memory");
    outcome.headings(&["calls", "own memory, KiB", "beyond idle, KiB a call"]);
    for (n, look) in seen.iter().enumerate() {
        let calls = if n >= 4 { "as many others" } else { "" };
        let beyond = look.anonymous_kib.saturating_sub(idle.anonymous_kib) as f64;
        let each = if look.calls == 0 { 0.0 } else { beyond / f64::from(look.calls) };
        outcome.row([
            if calls.is_empty() { look.calls.to_string() } else { calls.to_owned() },
            look.anonymous_kib.to_string(),
            format!("{each:.2}"),
        ]);
    }
    outcome.check("KiB a bridged call beyond idle", kib(full, idle), {
        Goal::AtMost(KIB_PER_CALL_MAX)
    });
    outcome.check("KiB a call when all are replaced", kib(again, once), {
        Goal::AtMost(KIB_PER_CALL_AGAIN_MAX)
    });
    outcome.details = serde_json::json!({ "looks": seen });
    Ok(outcome)
}
