//! The kernel fast path in whole daemons: two networks on links of their own, and the same call
//! with and without it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::world::{LIMIT, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World};
use edge_xdp::testing::{FarEnd, Line, Netns};
use edge_xdp::{FastPath, Limits, LoadError, Mode};
use serde_json::Value;
use tandem_load::clock::now_ns;
use tandem_load::{BankConfig, PhoneBank, PhoneHandle, PhoneReport, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{EdgePlan, http};

const BOB_AT: &str = "10.8.2.2:5080";
const TIMEOUT_S: u64 = 3;
const HOLD_MS: u64 = 600;
/// Packets that may be between a phone and the edge when a call ends.
const UNDER_WAY_MAX: u64 = 3;

/// Two links with the edge between them; `None` where the kernel has no XDP for this process.
fn line() -> Result<Option<(Line, [FarEnd; 2])>> {
    let line = match Line::new() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("skipped: the kernel refuses network namespaces, and so XDP: {error}");
            return Ok(None);
        }
        line => line?,
    };
    let limits = Limits { streams_max: 1, hops_max: 1, tables: 1 };
    match line.middle.enter(|| FastPath::load(limits)) {
        Err(error @ LoadError::Refused(_)) => {
            println!("skipped: {error}");
            return Ok(None);
        }
        loaded => drop(loaded?),
    }
    // A virtual link takes redirected frames only if its other end has a program as well.
    let end = |ns: &Netns, interface: &str| -> Result<FarEnd> {
        let mut end = FarEnd::open()?;
        ns.enter(|| end.attach(interface, Mode::Native))?;
        Ok(end)
    };
    let ends = [end(&line.left, "l0")?, end(&line.right, "r0")?];
    line.meet()?;
    Ok(Some((line, ends)))
}

/// A world in the middle of the line.
struct Between<'a> {
    line: &'a Line,
    world: World,
    is_on: bool,
    alice: PhoneHandle,
    bob: PhoneHandle,
    _banks: [PhoneBank; 2],
}

impl<'a> Between<'a> {
    fn start(line: &'a Line, xdp: &str) -> Result<Self> {
        let world = line.middle.enter_with_sys(|| -> Result<World> {
            let mut setup = Setup::with(&format!("<Dial>{BOB}</Dial>"))?;
            setup.bob = BOB_AT.parse()?;
            for route in &mut setup.control.routes {
                route.uri = format!("sip:{{number}}@{BOB_AT}");
            }
            let change = |eu: &mut EdgePlan| {
                eu.bind = [10, 8, 1, 1].into();
                eu.providers = vec!["10.8.0.0/16".to_owned()];
                eu.media_timeout_s = TIMEOUT_S;
                eu.media_more = format!("xdp = \"{xdp}\"\nxdp_interfaces = [\"e0\", \"e1\"]");
            };
            setup.edge(change).begin()
        })?;
        let bank = |ns: &Netns| ns.enter(|| PhoneBank::start(BankConfig::default()));
        let banks = [bank(&line.left)?, bank(&line.right)?];
        let steps = [Step::Answer, Step::wait_tone(ALICE_HZ)];
        let bob = line.right.enter(|| banks[1].add(world.callee(steps)))?;
        let steps = [Step::WaitAnswer(10_000), Step::wait_tone(BOB_HZ)];
        let caller = world.caller(NUMBER, steps).listen("10.8.1.2:0".parse()?);
        let alice = line.left.enter(|| banks[0].add(caller))?;
        Ok(Self { line, world, is_on: xdp != "off", alice, bob, _banks: banks })
    }

    /// The daemons' own addresses are those of the middle.
    fn inside<R: Send>(&self, f: impl FnOnce(&World) -> R + Send) -> R {
        self.line.middle.enter(|| f(&self.world))
    }

    fn forwarded(&self) -> Result<f64> {
        self.inside(|world| world.eu.metric("tandem_edge_xdp_forwarded_total"))
    }

    /// Both talk for two seconds of 100 packets; by the kernel if that is on.
    fn talk(&self) -> Result<()> {
        if !self.is_on {
            e2e::pause_ms(2_000);
            return Ok(());
        }
        let before = self.forwarded()?;
        wait_for("200 packets by the kernel", LIMIT, || Ok(self.forwarded()? >= before + 200.0))
    }

    fn steps_done(&self, phone: &PhoneHandle) -> Result<PhoneReport> {
        let report = phone.wait(LIMIT, |report| report.script_done)?;
        anyhow::ensure!(report.script_done && report.failure.is_none(), "{:?}", report.brief());
        Ok(report)
    }

    /// Keys pressed by Alice arrive at Bob.
    fn press(&self) -> Result<()> {
        let wait = Step::WaitDigits { digits: "42".to_owned(), within_ms: 5_000 };
        self.bob.run([wait])?;
        self.alice.run([Step::digits("42")])?;
        self.steps_done(&self.alice)?;
        self.steps_done(&self.bob).map(drop)
    }

    fn hold(&self) -> Result<()> {
        self.alice.run([Step::Hold, Step::Wait(HOLD_MS), Step::Unhold])?;
        self.steps_done(&self.alice).map(drop)
    }

    /// Meanwhile nothing goes by the kernel.
    fn record(&self, call: &str) -> Result<()> {
        let path = format!("/Calls/{call}/Recordings.json");
        let (status, record) = self.inside(|world| world.api_post(&path, &[]))?;
        anyhow::ensure!(status == 201, "{status} {record}");
        e2e::pause_ms(300);
        let before = if self.is_on { self.forwarded()? } else { 0.0 };
        e2e::pause_ms(500);
        if self.is_on {
            assert_eq!(self.forwarded()?, before, "recorded and yet not here");
        }
        let path = format!("/Calls/{call}/Recordings/{}.json", text(&record, "sid"));
        let stop = [("Status", "stopped")];
        let (status, record) = self.inside(|world| world.api_post(&path, &stop))?;
        anyhow::ensure!(status == 200, "{status} {record}");
        Ok(())
    }
}

/// One of the edge's reports to Alice.
#[derive(Debug, Clone, Copy)]
struct Report {
    at_ns: u64,
    sent_packets: u64,
    lost: u32,
    highest: u32,
}

/// Sender reports that arrive beside Alice's RTP until `stop`.
fn reports(left: &Netns, sip: SocketAddr, stop: &AtomicBool) -> Result<Vec<Report>> {
    let rtcp = left.enter(|| -> Result<UdpSocket> {
        let ports = ports_of(&std::fs::read_to_string("/proc/thread-self/net/udp")?);
        let rtp = ports.into_iter().find(|port| *port != sip.port()).context("no RTP socket")?;
        Ok(UdpSocket::bind((sip.ip(), rtp + 1))?)
    })?;
    rtcp.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut found, mut bytes) = (Vec::new(), [0; 1_500]);
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = rtcp.recv(&mut bytes) else { continue };
        let word = |at: usize| -> Result<u32> {
            let part = bytes[..length].get(at..at + 4).context("a short report")?;
            Ok(u32::from_be_bytes(part.try_into()?))
        };
        // A sender report with one block about what Alice sends (RFC 3550 §6.4.1).
        if bytes[..2] == [0x81, 200] {
            found.push(Report {
                at_ns: now_ns(),
                sent_packets: word(20)?.into(),
                lost: word(32)? & 0x00ff_ffff,
                highest: word(36)?,
            });
        }
    }
    Ok(found)
}

/// Of 10.8.1.2, from `/proc/net/udp`.
fn ports_of(table: &str) -> Vec<u16> {
    let ports = table.lines().filter_map(|line| {
        let port = line.split_whitespace().nth(1)?.strip_prefix("0201080A:")?;
        u16::from_str_radix(port, 16).ok()
    });
    ports.collect()
}

/// What is the same with and without the kernel.
fn check_reports(reports: &[Report], alice: &PhoneReport) {
    assert!(!reports.is_empty(), "no report in {} packets", alice.sent.packets);
    for report in reports {
        let arrived = alice.received.arrivals.iter().filter(|a| a.at_ns <= report.at_ns).count();
        let sent = report.sent_packets;
        assert!(
            sent.abs_diff(arrived as u64) <= 2 * UNDER_WAY_MAX,
            "{report:?}: {arrived} arrived"
        );
        assert_eq!(report.lost, 0, "{report:?}");
    }
    let spoke_until = alice.sent.last_ns.unwrap_or(0);
    for pair in reports.windows(2).filter(|pair| pair[1].at_ns <= spoke_until) {
        let seconds = (pair[1].at_ns - pair[0].at_ns) as f64 / 1e9;
        let numbers = f64::from(pair[1].highest - pair[0].highest);
        assert!((numbers - seconds * 50.0).abs() <= 5.0, "{pair:?}");
    }
}

/// `held`: packets that had to be dropped because this phone had put the other one on hold.
/// `late_max`: packets that it may have sent when its leg had ended already.
fn check_leg(leg: &Value, phone: &PhoneReport, held: std::ops::RangeInclusive<u64>, late_max: u64) {
    let stats = |name: &str| leg["stats"][name].as_u64().unwrap_or(u64::MAX);
    let (received, sent) = (stats("packets_received"), phone.sent.packets);
    assert!((sent.saturating_sub(late_max)..=sent).contains(&received), "{sent} sent: {leg}");
    assert_eq!(stats("packets_lost"), 0, "{leg}");
    assert!(held.contains(&stats("packets_dropped")), "{leg}");
    let sent = stats("packets_sent");
    assert!(sent.abs_diff(phone.received.packets) <= UNDER_WAY_MAX, "{leg} {:?}", phone.brief());
    let heard = &phone.received;
    assert_eq!((heard.lost, heard.duplicates, heard.restarts), (0, 0, 0), "{:?}", phone.brief());
    assert_eq!((heard.ssrc_changes, heard.not_rtp), (0, 0), "{:?}", phone.brief());
}

fn call(line: &Line, xdp: &str) -> Result<()> {
    let between = Between::start(line, xdp)?;
    between.steps_done(&between.alice)?;
    between.steps_done(&between.bob)?;
    let call = between.inside(|world| world.sid_of(&between.alice))?;
    let stop = AtomicBool::new(false);
    let found = std::thread::scope(|scope| -> Result<Vec<Report>> {
        let listener = scope.spawn(|| reports(&line.left, between.alice.addr(), &stop));
        let talked = conversation(&between, &call);
        stop.store(true, Ordering::Relaxed);
        let found = listener.join().map_err(|_| anyhow::anyhow!("the listener panicked"))?;
        talked.and(found)
    })?;
    let (alice, bob) = (between.alice.report()?, between.bob.report()?);
    check_reports(&found, &alice);
    let url = between.world.control.url(&format!("/tandem/v1/calls/{call}/timeline.json"));
    let page = between.inside(|_| http::get(&url, Some((ACCOUNT, TOKEN))))?.json()?;
    let legs = page["legs"].as_array().context("legs")?;
    let hold = HOLD_MS / 20;
    // Alice falls silent before the end, Bob speaks until he is told of it.
    for (direction, phone, held, late_max) in [
        ("inbound", &alice, hold - 5..=hold * 2, 0),
        ("outbound", &bob, 0..=UNDER_WAY_MAX, UNDER_WAY_MAX),
    ] {
        let leg = legs.iter().find(|leg| text(leg, "direction").starts_with(direction));
        check_leg(leg.with_context(|| page.to_string())?, phone, held, late_max);
    }
    if between.is_on {
        // The thread's figures are copied once a second.
        wait_for("every packet of the kernel to be in the figures", LIMIT, || {
            let merged =
                between.inside(|world| world.eu.metric("tandem_edge_media_offload_packets_total"));
            Ok(merged? == between.forwarded()?)
        })?;
    }
    let Between { line, world, .. } = between;
    line.middle.enter(|| world.finish())
}

fn conversation(between: &Between<'_>, call: &str) -> Result<()> {
    between.talk()?;
    between.press()?;
    between.talk()?;
    between.hold()?;
    between.talk()?;
    between.record(call)?;
    between.talk()?;
    // Silence of a phone that was in the kernel ends its leg as ever.
    between.alice.run([Step::StopMedia])?;
    let silent = Instant::now();
    let (alice, bob) = (between.alice.wait_ended(LIMIT)?, between.bob.wait_ended(LIMIT)?);
    anyhow::ensure!(alice.ended() && bob.ended(), "nobody misses the media");
    let after_s = silent.elapsed().as_secs_f64();
    let timeout_s = TIMEOUT_S as f64;
    assert!((timeout_s - 0.1..timeout_s + 1.0).contains(&after_s), "after {after_s} s");
    Ok(())
}

#[test]
fn lat_04_a_call_in_the_kernel_is_as_one_in_user_space() -> Result<()> {
    let (Some(first), Some(second)) = (line()?, line()?) else { return Ok(()) };
    std::thread::scope(|scope| {
        let calls = [(&first.0, "native"), (&second.0, "off")].map(|(line, xdp)| {
            scope.spawn(move || call(line, xdp).with_context(|| format!("xdp = {xdp}")))
        });
        for call in calls {
            call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}
