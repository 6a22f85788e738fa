//! A flood of signalling while frames are made: media keeps its own core and its own time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::sip::{Request, sdp};
use super::tick::{Frames, Lateness, PERIOD, of_timerfd};
use crate::gate::wait_quiet;
use crate::machine::{pin_thread, pin_threads};
use crate::report::{Goal, Outcome, median};
use crate::run::Context;

/// INVITEs sent each millisecond.
const BURST: u64 = 20;
/// p99 of lateness under the flood, × its quiet value.
const RATIO_MAX: f64 = 2.0;

/// INVITEs to numbers that lead nowhere, many times what the edge admits.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(edge: SocketAddr, core: usize) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let own = socket.local_addr()?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let _ = pin_thread(core);
            let body = sdp(own);
            let mut number = 0u64;
            let mut answers = [0u8; 2_048];
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                let uri = format!("sip:+1999{number:07}@{edge}");
                let call_id = format!("flood-{number}");
                let to = format!("<{uri}>");
                let request = Request {
                    method: "INVITE",
                    uri: &uri,
                    own,
                    to: &to,
                    call_id: &call_id,
                    number: 1,
                    body: &body,
                };
                if socket.send_to(request.text().as_bytes(), edge).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if number.is_multiple_of(BURST) {
                    while socket.recv(&mut answers).is_ok() {}
                    crate::machine::pause(Duration::from_millis(1));
                }
            }
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// See the module.
///
/// # Errors
/// If something does not start.
pub fn tick_flood(context: &Context) -> anyhow::Result<Outcome> {
    let time = context.window() * 2;
    let mut pairs: Vec<(Lateness, Lateness)> = Vec::new();
    // What the machine itself does to a timer beside the edge's thread, then and then.
    let mut timers: Vec<(Lateness, Lateness)> = Vec::new();
    let (mut clean, mut floods) = (0, Vec::new());
    for _ in 0..context.rounds() {
        let quiet = wait_quiet(context.cores, context.patience())?;
        let frames = Frames::start(context)?;
        let cores = context.cores;
        pin_threads(frames.pid(), |name| {
            if name.starts_with("media-0") { cores.system } else { cores.load }
        })?;
        let timer_before = of_timerfd(context, PERIOD, time)?;
        let (before, complaints) = frames.lateness(context, time)?;
        let flood = Flood::start(frames.sip(), cores.load)?;
        let (under, _) = frames.lateness(context, time)?;
        floods.push(flood.sent.load(Ordering::Relaxed) as f64 / time.as_secs_f64());
        timers.push((timer_before, of_timerfd(context, PERIOD, time)?));
        drop(flood);
        clean += usize::from(quiet && complaints.is_empty());
        pairs.push((before, under));
        crate::machine::pause(Duration::from_millis(200));
    }
    let mut outcome = Outcome::new("tick_flood");
    outcome.headings(&["lateness of frames, µs", "p50", "p90", "p99", "max"]);
    type Pick = fn(&(Lateness, Lateness)) -> &Lateness;
    let columns: [(&str, &[(Lateness, Lateness)], Pick); 4] = [
        ("edge, quiet", &pairs, |pair| &pair.0),
        ("edge, under the flood", &pairs, |pair| &pair.1),
        ("timerfd beside it, quiet", &timers, |pair| &pair.0),
        ("timerfd beside it, under the flood", &timers, |pair| &pair.1),
    ];
    for (name, rows, pick) in columns {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|quantile| {
            let values: Vec<f64> = rows.iter().map(|pair| pick(pair).at(quantile)).collect();
            format!("{:.0}", median(&values).unwrap_or(f64::NAN))
        });
        outcome.row([name.to_owned(), p50, p90, p99, max]);
    }
    let rate = median(&floods).unwrap_or(0.0);
    outcome.row([
        "INVITEs per second".to_owned(),
        format!("{rate:.0}"),
        String::new(),
        String::new(),
        String::new(),
    ]);
    let ratios: Vec<f64> =
        pairs.iter().map(|(quiet, flood)| flood.at(0.99) / quiet.at(0.99)).collect();
    let ratio = median(&ratios).unwrap_or(f64::NAN);
    outcome.check("p99 under the flood, × quiet", ratio, Goal::AtMost(RATIO_MAX));
    outcome.check("INVITEs per second", rate, Goal::AtLeast(1_000.0));
    outcome.details = serde_json::json!({ "ratios": ratios, "invites_per_s": floods });
    outcome.clean(clean * 2 > pairs.len(), format!("{clean} of {} rounds were clean", pairs.len()));
    Ok(outcome)
}
