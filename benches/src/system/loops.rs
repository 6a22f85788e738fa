//! How punctual the loop of a media thread is: the real ring and wait, with a driver that has nothing
//! to do but its deadline. Against a timerfd and a spinning thread in the same run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge_uring::{Datagram, Doorbell, Driver, Io, Limits, ThreadConfig, WaitConfig, spawn};

use super::tick::{Lateness, of_spinning, of_timerfd};
use crate::gate::{Watch, wait_quiet};
use crate::machine::pin_thread;
use crate::report::{Goal, Outcome, median};
use crate::run::Context;

/// p99, × a timerfd's.
const TO_TIMER_MAX: f64 = 1.5;
/// With SCHED_FIFO and a busy neighbour: p99, × a spinning thread's, plus this much in µs.
const TO_SPIN_MAX: f64 = 1.5;
const TO_SPIN_PLUS_US: f64 = 100.0;
const FIFO_PRIORITY: u8 = 50;

struct Ticks {
    period: Duration,
    due: Instant,
    late_us: Vec<f64>,
    report: std::sync::mpsc::Sender<Vec<f64>>,
}

impl Driver for Ticks {
    fn on_datagram(&mut self, _: Instant, _: Datagram<'_>, _: &mut Io) {}

    fn on_doorbell(&mut self, _: Instant, _: &mut Io) {
        // Rung once, at the end.
        let _ = self.report.send(std::mem::take(&mut self.late_us));
    }

    fn on_deadline(&mut self, now: Instant, _: &mut Io) {
        while self.due <= now {
            if self.late_us.len() < self.late_us.capacity() {
                self.late_us.push((now - self.due).as_secs_f64() * 1e6);
            }
            self.due += self.period;
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.due)
    }
}

fn of_loop(
    context: &Context,
    period: Duration,
    time: Duration,
    fifo_priority: Option<u8>,
) -> anyhow::Result<Lateness> {
    let doorbell = Arc::new(Doorbell::new()?);
    let config = ThreadConfig {
        name: "bench-loop".to_owned(),
        limits: Limits::default(),
        wait: WaitConfig::default(),
        core: Some(context.cores.system),
        fifo_priority,
    };
    let (report, reported) = std::sync::mpsc::channel();
    let room = (time.as_secs_f64() / period.as_secs_f64()) as usize + 16;
    let make = move |_: &mut Io| {
        let due = Instant::now() + period;
        Ticks { period, due, late_us: Vec::with_capacity(room), report }
    };
    let thread = spawn(config, Arc::clone(&doorbell), Instant::now, make)?;
    anyhow::ensure!(
        fifo_priority.is_none() || thread.started.fifo,
        "SCHED_FIFO was refused: run as root or raise RLIMIT_RTPRIO"
    );
    crate::machine::pause(time);
    doorbell.ring();
    let late = reported.recv_timeout(Duration::from_secs(5))?;
    thread.stop()?;
    Lateness::of(late)
}

/// Keeps the core of the load busy with memory and datagrams.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Neighbour {
    fn start(core: usize) -> anyhow::Result<Self> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(socket.local_addr()?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _ = pin_thread(core);
            let mut memory = vec![1u8; 16 << 20];
            let mut at = 0usize;
            while !stopped.load(Ordering::Relaxed) {
                for _ in 0..1_000 {
                    at = (at + 4_099) % memory.len();
                    memory[at] = memory[at].wrapping_mul(3);
                }
                // A full socket refuses; that is load as well.
                let _ = socket.send(&memory[..172]);
            }
            std::hint::black_box(memory);
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Round {
    own: Lateness,
    timer: Lateness,
    spin: Lateness,
}

fn rounds(
    context: &Context,
    period: Duration,
    is_fifo: bool,
) -> anyhow::Result<(Vec<Round>, usize)> {
    let time =
        if period < Duration::from_millis(10) { context.window() } else { context.window() * 3 };
    let mut clean = 0;
    let mut rounds = Vec::new();
    for _ in 0..context.rounds() {
        let quiet = wait_quiet(context.cores, context.patience())?;
        let neighbour = is_fifo.then(|| Neighbour::start(context.cores.load)).transpose()?;
        let watch = Watch::start(context.cores)?;
        let own = of_loop(context, period, time, is_fifo.then_some(FIFO_PRIORITY))?;
        let timer = of_timerfd(context, period, time)?;
        let spin = of_spinning(context, period, time)?;
        drop(neighbour);
        clean += usize::from(quiet && watch.finish()?.steal().is_empty());
        rounds.push(Round { own, timer, spin });
    }
    Ok((rounds, clean))
}

/// Ticks of 1 ms and 20 ms on a quiet machine, and with SCHED_FIFO beside a busy core.
///
/// # Errors
/// If something does not start.
pub fn tick_loop(context: &Context) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::new("tick_loop");
    outcome.headings(&["lateness, µs", "p50", "p90", "p99", "max"]);
    let (mut clean, mut all) = (0, 0);
    let mut details = Vec::new();
    for (name, period_ms, is_fifo) in
        [("1 ms", 1, false), ("20 ms", 20, false), ("1 ms, FIFO, other core busy", 1, true)]
    {
        let (rounds, of_these) = rounds(context, Duration::from_millis(period_ms), is_fifo)?;
        (clean, all) = (clean + of_these, all + rounds.len());
        let middle = |pick: fn(&Round) -> &Lateness, quantile: f64| {
            let values: Vec<f64> = rounds.iter().map(|round| pick(round).at(quantile)).collect();
            median(&values).unwrap_or(f64::NAN)
        };
        let columns: [(&str, fn(&Round) -> &Lateness); 3] = [
            ("media loop", |round| &round.own),
            ("timerfd", |round| &round.timer),
            ("spinning", |round| &round.spin),
        ];
        for (who, pick) in columns {
            let [p50, p90, p99, max] =
                [0.5, 0.9, 0.99, 1.0].map(|quantile| format!("{:.0}", middle(pick, quantile)));
            outcome.row([format!("{name}: {who}"), p50, p90, p99, max]);
            details.push(serde_json::json!({
                "what": name, "who": who, "p50": middle(pick, 0.5), "p99": middle(pick, 0.99),
            }));
        }
        if is_fifo {
            let allowed = |round: &Round| round.spin.at(0.99) * TO_SPIN_MAX + TO_SPIN_PLUS_US;
            let shares = rounds.iter().map(|round| round.own.at(0.99) / allowed(round));
            let share = median(&shares.collect::<Vec<_>>()).unwrap_or(f64::NAN);
            let what = format!("{name}: p99 ÷ (1.5 × spinning + 100 µs)");
            outcome.check(&what, share, Goal::AtMost(1.0));
        } else {
            let ratios = rounds.iter().map(|round| round.own.at(0.99) / round.timer.at(0.99));
            let ratio = median(&ratios.collect::<Vec<_>>()).unwrap_or(f64::NAN);
            outcome.check(&format!("{name}: p99, × timerfd"), ratio, Goal::AtMost(TO_TIMER_MAX));
        }
    }
    outcome.details = serde_json::Value::Array(details);
    outcome.clean(clean * 2 > all, format!("{clean} of {all} rounds were clean"));
    Ok(outcome)
}
