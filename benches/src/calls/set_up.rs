//! INVITE in to first prompt packet out.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use serde_json::json;
use sip_core::Message;
use tandem_rig::{AppServer, ControlPlan, NumberPlan, Page};

use super::world::{EDGE, World, edge_plan};
use crate::gate::{Watch, wait_quiet};
use crate::machine::{pause, realtime_ns};
use crate::report::{Goal, Outcome};
use crate::run::Context;
use crate::system::sip::{Request, dialog_of, receive, sdp};

const NUMBER: &str = "+15550600";
const CALLS: usize = 300;
/// Calls whose prompt is not cached yet, and the like.
const FIRST_CALLS: usize = 10;
const BETWEEN_CALLS: Duration = Duration::from_millis(60);
const CALL_MAX: Duration = Duration::from_secs(5);
const MEDIAN_MS_MAX: f64 = 15.0;

/// When the web server was asked, and how long it took itself: nanoseconds.
type Asked = Arc<Mutex<Option<(u64, u64)>>>;

/// One call's times in nanoseconds since its INVITE went out.
#[derive(Debug, Clone, Copy)]
struct Times {
    asked: u64,
    server: u64,
    answered: u64,
    /// First packet of any kind, most often silence.
    first: u64,
    prompt: u64,
}

/// A piece of a call's time.
type Part = fn(&Times) -> u64;

/// A number that plays, called several hundred times, one call after the other.
///
/// # Errors
/// If something does not start, or a call fails.
pub fn overhead(context: &Context) -> anyhow::Result<Outcome> {
    let app = AppServer::start()?;
    let asked = Asked::default();
    serve(&app, &asked);
    let number = NumberPlan {
        number: NUMBER.to_owned(),
        voice_url: app.url("/play"),
        ..NumberPlan::default()
    };
    let control = ControlPlan {
        numbers: vec![number],
        default_edge: Some(EDGE.to_owned()),
        ..ControlPlan::default()
    };
    let world = World::start(context, Some(&control), edge_plan(64))?;
    let mut caller = Caller::new(world.edge.sip)?;
    for _ in 0..FIRST_CALLS {
        caller.call(&asked)?;
    }
    let quiet = wait_quiet(context.cores, context.patience())?;
    let (watch, cpu_before_s) = (Watch::start(context.cores)?, world.cpu_s()?);
    let calls = if context.quick { CALLS / 6 } else { CALLS };
    let mut all = Vec::with_capacity(calls);
    for _ in 0..calls {
        all.push(caller.call(&asked)?);
        pause(BETWEEN_CALLS);
    }
    let own_cpu_s = world.cpu_s()? - cpu_before_s;
    let mut complaints = watch.finish()?.foreign(own_cpu_s);
    if !quiet {
        complaints.push("the machine was not quiet before".to_owned());
    }
    let mut outcome = judge(&all);
    outcome.clean(complaints.is_empty(), complaints.join(", "));
    Ok(outcome)
}

/// A prompt, and a page that notes when it was asked for and how long it took.
fn serve(app: &AppServer, asked: &Asked) {
    app.page("/prompt.wav", Page::of("audio/wav", tone_wav()));
    let (asked, document) = (Arc::clone(asked), format!("<Play>{}</Play>", app.url("/prompt.wav")));
    app.page(
        "/play",
        Page::dynamic(move |request| {
            let page = Page::verbs(&document);
            let since = u64::try_from(request.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            *asked = Some((realtime_ns().saturating_sub(since), since));
            page
        }),
    );
}

/// Two seconds of 1 kHz.
fn tone_wav() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut write = || -> hound::Result<()> {
        let mut writer = hound::WavWriter::new(&mut bytes, spec)?;
        for n in 0..16_000 {
            let phase = f64::from(n) * std::f64::consts::TAU / 8.0 + 0.3;
            writer.write_sample((phase.sin() * 8_000.0) as i16)?;
        }
        writer.finalize()
    };
    // Into memory: nothing can fail but the memory.
    write().unwrap_or_else(|error| unreachable!("{error}"));
    bytes.into_inner()
}

struct Caller {
    edge: SocketAddr,
    sip: UdpSocket,
    calls: u32,
}

impl Caller {
    fn new(edge: SocketAddr) -> anyhow::Result<Self> {
        let sip = UdpSocket::bind("127.0.0.1:0")?;
        sip.connect(edge)?;
        sip.set_nonblocking(true)?;
        Ok(Self { edge, sip, calls: 0 })
    }

    fn call(&mut self, asked: &Asked) -> anyhow::Result<Times> {
        self.calls += 1;
        let rtp = UdpSocket::bind("127.0.0.1:0")?;
        rtp.set_nonblocking(true)?;
        setsockopt(&rtp, sockopt::ReceiveTimestampns, &true)?;
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let uri = format!("sip:{NUMBER}@{}", self.edge);
        let call_id = format!("{}-s{}", std::process::id(), self.calls);
        let request = Request {
            method: "INVITE",
            uri: &uri,
            own: self.sip.local_addr()?,
            to: &format!("<{uri}>"),
            call_id: &call_id,
            number: 1,
            body: &sdp(rtp.local_addr()?),
        };
        let text = request.text();
        let (began, began_ns) = (Instant::now(), realtime_ns());
        self.sip.send(text.as_bytes())?;
        let answer = self.answer(began)?;
        let answered_ns = realtime_ns();
        let (target, to) = dialog_of(&answer)?;
        let ack = Request { method: "ACK", uri: &target, to: &to, body: "", ..request };
        self.sip.send(ack.text().as_bytes())?;
        let (first_ns, prompt_ns) = first_packets(&rtp, began)?;
        let bye = Request { method: "BYE", number: 2, ..ack };
        self.sip.send(bye.text().as_bytes())?;
        self.answer(Instant::now())?;
        let noted = *asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked_ns, server) = noted.context("the web server was not asked")?;
        let since = |at_ns: u64| at_ns.saturating_sub(began_ns);
        Ok(Times {
            asked: since(asked_ns),
            server,
            answered: since(answered_ns),
            first: since(first_ns),
            prompt: since(prompt_ns),
        })
    }

    /// The final response to the last request.
    fn answer(&self, began: Instant) -> anyhow::Result<Message> {
        loop {
            if let Some(message) = receive(&self.sip)?
                && let Some(status) = message.status().filter(|status| *status >= 200)
            {
                ensure!(status < 300, "refused: {status} {}", message.reason());
                return Ok(message);
            }
            ensure!(began.elapsed() < CALL_MAX, "no answer within {CALL_MAX:?}");
            std::thread::yield_now();
        }
    }
}

/// When the first packet came, and the first one that is no silence, by the kernel's stamp.
fn first_packets(rtp: &UdpSocket, began: Instant) -> anyhow::Result<(u64, u64)> {
    let mut bytes = [0; 2048];
    let mut first_ns = None;
    loop {
        if let Some((length, stamp_ns)) = stamped(rtp, &mut bytes)? {
            let first_ns = *first_ns.get_or_insert(stamp_ns);
            let payload = bytes.get(12..length).unwrap_or_default();
            // µ-law: 0x7f and 0xff are zero.
            if payload.iter().any(|byte| byte & 0x7f != 0x7f) {
                return Ok((first_ns, stamp_ns));
            }
        }
        ensure!(began.elapsed() < CALL_MAX, "no prompt within {CALL_MAX:?}");
        std::thread::yield_now();
    }
}

fn stamped(socket: &UdpSocket, bytes: &mut [u8]) -> anyhow::Result<Option<(usize, u64)>> {
    let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut slices = [std::io::IoSliceMut::new(bytes)];
    let message = match recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut room),
        MsgFlags::MSG_DONTWAIT,
    ) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno).context("recvmsg"),
    };
    let stamp = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmTimestampns(at) => {
            u64::try_from(Duration::from(at).as_nanos()).ok()
        }
        _ => None,
    });
    Ok(Some((message.bytes, stamp.context("the kernel stamps no datagrams")?)))
}

fn judge(all: &[Times]) -> Outcome {
    let mut outcome = Outcome::new("setup_overhead");
    outcome.headings(&["ms", "p50", "p90", "p99", "max"]);
    let parts: [(&str, Part); 6] = [
        ("INVITE → first prompt packet, less the web server", |t| {
            t.prompt.saturating_sub(t.server)
        }),
        ("· INVITE → web server asked", |t| t.asked),
        ("· web server itself", |t| t.server),
        ("· web server → 200 OK", |t| t.answered.saturating_sub(t.asked + t.server)),
        ("· 200 OK → first packet, if only silence", |t| t.first.saturating_sub(t.answered)),
        ("· 200 OK → first prompt packet", |t| t.prompt.saturating_sub(t.answered)),
    ];
    let mut details = serde_json::Map::new();
    for (index, (what, part)) in parts.into_iter().enumerate() {
        // The bounds are what the crate accepts.
        let mut histogram = Histogram::<u64>::new_with_max(60_000_000_000, 3)
            .unwrap_or_else(|_| unreachable!("valid bounds"));
        for times in all {
            histogram.saturating_record(part(times));
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        let values = [at(0.5), at(0.9), at(0.99), histogram.max() as f64 / 1e6];
        if index == 0 {
            outcome.check("median, ms", values[0], Goal::AtMost(MEDIAN_MS_MAX));
        }
        let [p50, p90, p99, max] = values.map(|value| format!("{value:.2}"));
        outcome.row([what.to_owned(), p50, p90, p99, max]);
        details.insert(what.to_owned(), json!(values));
    }
    outcome.details = json!({ "calls": all.len(), "p50_p90_p99_max_ms": details });
    outcome
}
