//! How punctual the edge's frames are: what it makes by itself for a leg without a source, against
//! a timer of the kernel and against a thread that does nothing but look at the clock.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Ends, Kind, Running, start};
use crate::gate::{Watch, wait_quiet};
use crate::machine::{pin_thread, process_cpu};
use crate::report::{Entry, Goal, Outcome, median};
use crate::run::Context;

/// Of a frame.
pub(super) const PERIOD: Duration = Duration::from_millis(20);
const CALLS: usize = 32;
/// Lateness of the edge's p99, × that of a timerfd.
const RATIO_MAX: f64 = 1.5;
/// Frames of a leg that has just begun are not in its rhythm yet.
const SETTLING: Duration = Duration::from_millis(500);

/// Lateness in µs, sorted.
pub(super) struct Lateness(Vec<f64>);

impl Lateness {
    pub(super) fn of(mut values: Vec<f64>) -> anyhow::Result<Self> {
        anyhow::ensure!(values.len() >= 20, "only {} ticks were seen", values.len());
        values.sort_by(f64::total_cmp);
        Ok(Self(values))
    }

    pub(super) fn at(&self, quantile: f64) -> f64 {
        let last = self.0.len() - 1;
        self.0[(last as f64 * quantile).round() as usize]
    }
}

/// Lateness of one leg's frames against the grid that fits its earliest one.
fn against_grid(stamps_ns: &[u64]) -> Vec<f64> {
    let period_ns = PERIOD.as_nanos() as f64;
    let Some(first) = stamps_ns.first() else { return Vec::new() };
    let offsets: Vec<f64> = stamps_ns
        .iter()
        .map(|at| {
            let since = at.saturating_sub(*first) as f64;
            since - (since / period_ns).round() * period_ns
        })
        .collect();
    let earliest = offsets.iter().copied().fold(f64::INFINITY, f64::min);
    offsets.iter().map(|offset| (offset - earliest) / 1e3).collect()
}

/// An edge that sends frames of silence to 64 legs.
pub(super) struct Frames {
    running: Running,
    socket: UdpSocket,
}

impl Frames {
    /// Starts it on its core and waits until the legs are in their rhythm.
    pub(super) fn start(context: &Context) -> anyhow::Result<Self> {
        let place = context.place()?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let own = socket.local_addr()?;
        let ends = Ends { bulk: [own, own], sampled: [own, own] };
        let running = start(Kind::Edge, &place, CALLS, &ends)?;
        let settled = Instant::now() + SETTLING;
        while Instant::now() < settled {
            receive(&socket)?;
        }
        Ok(Self { running, socket })
    }

    /// The edge's process.
    pub(super) fn pid(&self) -> u32 {
        self.running.pid
    }

    /// Where it takes SIP.
    pub(super) fn sip(&self) -> SocketAddr {
        self.running.sip
    }

    /// Lateness of the frames of the next `time`, and what speaks against it.
    pub(super) fn lateness(
        &self,
        context: &Context,
        time: Duration,
    ) -> anyhow::Result<(Lateness, Vec<String>)> {
        let (watch, cpu) = (Watch::start(context.cores)?, process_cpu(self.running.pid)?);
        let mut stamps: BTreeMap<SocketAddr, Vec<u64>> = BTreeMap::new();
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Some((from, stamp_ns)) = receive(&self.socket)? {
                stamps.entry(from).or_default().push(stamp_ns);
            }
        }
        let cpu_s = (process_cpu(self.running.pid)? - cpu).as_secs_f64();
        let watched = watch.finish()?;
        let mut complaints = watched.steal();
        // What the edge's core did beside the edge would have delayed it.
        if watched.system_busy_s > cpu_s * 1.15 + watched.wall_s * 0.03 {
            let busy = watched.system_busy_s;
            complaints.push(format!(
                "the edge's core was busy {busy:.2} s, the edge itself {cpu_s:.2} s"
            ));
        }
        let all = stamps.values().flat_map(|stamps| against_grid(stamps)).collect();
        Ok((Lateness::of(all)?, complaints))
    }
}

fn receive(socket: &UdpSocket) -> anyhow::Result<Option<(SocketAddr, u64)>> {
    let mut bytes = [0; 2048];
    let mut room = nix::cmsg_space!(TimeSpec);
    let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
    let message = match recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut room),
        MsgFlags::empty(),
    ) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno).context("recvmsg"),
    };
    let from = message.address.context("no source")?;
    let stamp = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmTimestampns(at) => {
            u64::try_from(Duration::from(at).as_nanos()).ok()
        }
        _ => None,
    });
    let from = SocketAddr::from((from.ip(), from.port()));
    Ok(Some((from, stamp.context("the kernel stamps no datagrams")?)))
}

/// Something on the edge's core, in a thread of its own.
fn on_system_core(
    context: &Context,
    measure: impl FnOnce() -> anyhow::Result<Vec<f64>> + Send + 'static,
) -> anyhow::Result<Lateness> {
    let core = context.cores.system;
    let thread = std::thread::spawn(move || {
        pin_thread(core)?;
        measure()
    });
    let values = thread.join().map_err(|_| anyhow::anyhow!("ended by panic"))??;
    Lateness::of(values)
}

/// A periodic timerfd and a blocking read.
pub(super) fn of_timerfd(
    context: &Context,
    period: Duration,
    time: Duration,
) -> anyhow::Result<Lateness> {
    on_system_core(context, move || {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty())?;
        let began = Instant::now();
        timer.set(Expiration::Interval(TimeSpec::from(period)), TimerSetTimeFlags::empty())?;
        let mut late = Vec::new();
        let mut due = began + period;
        while began.elapsed() < time {
            timer.wait()?;
            late.push(due.elapsed().as_secs_f64() * 1e6);
            // A tick that was missed altogether is late by a period and counted as one.
            while due <= Instant::now() {
                due += period;
            }
        }
        Ok(late)
    })
}

/// A loop that looks at the clock: what the machine itself takes away.
pub(super) fn of_spinning(
    context: &Context,
    period: Duration,
    time: Duration,
) -> anyhow::Result<Lateness> {
    on_system_core(context, move || {
        let began = Instant::now();
        let (mut due, mut late) = (began + period, Vec::new());
        while began.elapsed() < time {
            let now = Instant::now();
            if now >= due {
                late.push(now.duration_since(due).as_secs_f64() * 1e6);
                due += period;
            }
            std::hint::spin_loop();
        }
        Ok(late)
    })
}

/// 20 ms ticks.
///
/// # Errors
/// If something does not start.
pub fn tick_20ms(context: &Context) -> anyhow::Result<Outcome> {
    let time = context.window() * 3;
    let (mut edge, mut timer, mut spin) = (Vec::new(), Vec::new(), Vec::new());
    let (mut clean, mut cleanness) = (0, Vec::new());
    for round in 0..context.rounds() {
        let quiet = wait_quiet(context.cores, context.patience())?;
        let (of_edge, complaints) = Frames::start(context)?.lateness(context, time)?;
        clean += usize::from(quiet && complaints.is_empty());
        cleanness.extend(complaints);
        let of_timer = of_timerfd(context, PERIOD, time)?;
        let figures = |late: &Lateness| [0.5, 0.9, 0.99].map(|quantile| late.at(quantile).round());
        context.note(&format!(
            "round {}: frames {:?} µs, timerfd {:?} µs",
            round + 1,
            figures(&of_edge),
            figures(&of_timer)
        ));
        edge.push(of_edge);
        timer.push(of_timer);
        spin.push(of_spinning(context, PERIOD, time)?);
    }
    let middle = |all: &[Lateness], quantile: f64| {
        median(&all.iter().map(|one| one.at(quantile)).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let mut outcome = Outcome::new("tick_20ms");
    outcome.headings(&["lateness, µs", "p50", "p90", "p99", "max"]);
    for (name, all) in
        [("edge, frames on the wire", &edge), ("timerfd", &timer), ("spinning", &spin)]
    {
        let [p50, p90, p99, max] =
            [0.5, 0.9, 0.99, 1.0].map(|quantile| format!("{:.0}", middle(all, quantile)));
        outcome.row([name.to_owned(), p50, p90, p99, max]);
    }
    let ratio = |others: &[Lateness]| {
        let ratios = edge.iter().zip(others).map(|(own, other)| own.at(0.99) / other.at(0.99));
        median(&ratios.collect::<Vec<_>>())
    };
    let (to_timer, to_spin) = (ratio(&timer), ratio(&spin));
    if let Some(ratio) = to_timer {
        outcome.check("p99 lateness, × timerfd", ratio, Goal::AtMost(RATIO_MAX));
    }
    let is_clean = clean * 2 > edge.len();
    outcome.details = serde_json::json!({ "legs": CALLS * 2, "seconds": time.as_secs_f64() });
    outcome.entry = Some(Entry {
        name: "tick_20ms".to_owned(),
        value: Some(middle(&edge, 0.99)),
        unit: "µs lateness, p99".to_owned(),
        peer: Some("timerfd".to_owned()),
        peer_value: Some(middle(&timer, 0.99)),
        floor: Some("spinning thread".to_owned()),
        floor_value: Some(middle(&spin, 0.99)),
        ratio_to_peer: to_timer.map(|ratio| 1.0 / ratio),
        ratio_to_floor: to_spin.map(|ratio| 1.0 / ratio),
        rounds: clean,
        clean: is_clean,
    });
    cleanness.insert(0, format!("{clean} of {} rounds were clean", edge.len()));
    outcome.clean(is_clean, cleanness.join("; "));
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_against_the_earliest_grid() {
        let stamps = [5_000_000u64, 25_000_000, 44_990_000, 65_300_000];
        let late = against_grid(&stamps);
        let expected = [10.0, 10.0, 0.0, 310.0];
        assert!(late.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{late:?}");
    }
}
