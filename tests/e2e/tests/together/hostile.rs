//! SIP that no proper phone sends, at running daemons: malformed, odd, out of place, refused.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::raw::{self, Raw};
use e2e::world::{LIMIT, World, ended, hears};
use e2e::{NUMBER, Setup, tools};
use tandem_load::Step;
use tandem_rig::process::wait_for;
use tandem_rig::{Page, Process, ports};

/// Rejects every call.
const REJECTS: &str = "+15550109";
/// Statuses of a call that control refuses.
const REFUSED: &[u16] = &[403, 404, 603];
/// Nothing is to come back.
const SILENCE: &[u16] = &[];
/// Changed messages that are sent.
const CHANGED: u64 = 400;
/// An OPTIONS that is answered later than this after a hostile message counts as missed.
const OPTIONS_MAX: Duration = Duration::from_millis(500);

/// A peer with bad manners and, beside it, one that asks whether the edge lives.
struct Hostile {
    raw: Raw,
    edge: SocketAddr,
    at: SocketAddr,
    number: u64,
}

impl Hostile {
    fn new(edge: SocketAddr) -> Result<Self> {
        let raw = Raw::bind("127.0.0.9")?;
        let at = raw.address()?;
        Ok(Self { raw, edge, at, number: 0 })
    }

    /// A request; `given` are header lines that take the place of the usual ones of their name.
    fn request(&mut self, line: &str, given: &str, body: &str) -> String {
        self.number += 1;
        let (n, at) = (self.number, self.at);
        let method = line.split(' ').next().unwrap_or_default();
        let usual = [
            ("Via", format!("SIP/2.0/UDP {at};branch=z9hG4bKh{n};rport")),
            ("Max-Forwards", "70".to_owned()),
            ("From", format!("<sip:+15559001@{at}>;tag=f{n}")),
            ("To", format!("<sip:{REJECTS}@example.com>")),
            ("Call-ID", format!("h{n}")),
            ("CSeq", format!("1 {method}")),
            ("Contact", format!("<sip:h@{at}>")),
        ];
        let mut text = format!("{line}\r\n");
        for (name, value) in usual {
            let same = |l: &str| l.split(':').next().is_some_and(|l| l.eq_ignore_ascii_case(name));
            if !given.lines().any(same) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for line in given.lines().filter(|line| !line.is_empty()) {
            text.push_str(&format!("{line}\r\n"));
        }
        text.push_str(&format!("\r\n{body}"));
        text
    }

    fn options(&mut self) -> (String, String) {
        let uri = format!("OPTIONS sip:x@{} SIP/2.0", self.edge);
        let text = self.request(&uri, "", "");
        (text, format!("Call-ID: h{}\r\n", self.number))
    }

    /// Sends bytes, then an OPTIONS. What came for the bytes until that was answered, and later
    /// if `wait` says so; `None` if the OPTIONS was not answered in time.
    fn hit(&mut self, bytes: &[u8], wait: bool) -> Result<Option<Vec<u16>>> {
        let (options, mark) = self.options();
        self.raw.send(self.edge, bytes)?;
        self.raw.send(self.edge, options.as_bytes())?;
        let (sent, mut alive, mut statuses) = (Instant::now(), false, Vec::new());
        while !alive || (wait && statuses.is_empty()) {
            let Some((text, _)) = self.raw.receive() else { break };
            if text.contains(&mark) {
                alive = sent.elapsed() < OPTIONS_MAX;
                continue;
            }
            let code = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
            let code: Option<u16> = code.and_then(|code| code.parse().ok());
            if let Some(code) = code.filter(|code| *code >= 200) {
                self.acknowledge(&text)?;
                // What is repeated belongs to an earlier message.
                if is_of(&text, bytes) {
                    statuses.push(code);
                }
            }
        }
        Ok(alive.then_some(statuses))
    }

    fn acknowledge(&mut self, refusal: &str) -> Result<()> {
        let of = |name, short| raw::header(refusal, name).or(raw::header(refusal, short));
        let cseq = of("CSeq", "CSeq").unwrap_or_default();
        if !cseq.ends_with("INVITE") {
            return Ok(());
        }
        let number = cseq.split_whitespace().next().unwrap_or("1");
        let ack = format!(
            "ACK sip:x SIP/2.0\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {number} ACK\r\n\r\n",
            of("Via", "v").unwrap_or_default(),
            of("From", "f").unwrap_or_default(),
            of("To", "t").unwrap_or_default(),
            of("Call-ID", "i").unwrap_or_default(),
        );
        self.raw.send(self.edge, ack.as_bytes())
    }
}

/// Whether a response has the Call-ID of a request.
fn is_of(response: &str, request: &[u8]) -> bool {
    let request = String::from_utf8_lossy(request);
    let id = |text: &str| {
        let found = raw::header(text, "Call-ID").or(raw::header(text, "i"));
        found.map(str::to_owned)
    };
    id(response) == id(request.trim_start()) || !request.contains("Call-ID")
}

fn offer() -> String {
    "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\nm=audio 30000 RTP/AVP 0\r\n"
        .to_owned()
}

/// Request line, header lines, body, allowed statuses. In the manner of RFC 4475 §3.1 to §3.4.
fn table(edge: SocketAddr) -> Vec<(String, String, String, &'static [u16])> {
    let invite = format!("INVITE sip:{REJECTS}@{edge} SIP/2.0");
    let options = format!("OPTIONS sip:x@{edge} SIP/2.0");
    let sdp = "Content-Type: application/sdp\n";
    let long = "x".repeat(18_000);
    let many: String = (0..300).map(|n| format!("X-{n}: y\n")).collect();
    let multipart = format!("--b\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b--\r\n", offer());
    let mut rows = Vec::new();
    let mut row = |line: &str, headers: &str, body: &str, allowed| {
        rows.push((line.to_owned(), headers.to_owned(), body.to_owned(), allowed));
    };
    for (headers, allowed) in [
        ("", REFUSED),
        ("From: \"\u{e9}\" <sip:a@b>;tag=1\nSubject:\n folded\n\tonce more\nX: a\n", REFUSED),
        ("Via: SIP/2.0/UDP 192.0.2.15;;,;,,", &[400][..]),
        ("To: \"Mr. J. User <sip:j.user@example.com>", &[400]),
        ("CSeq: 36893488147419103232 INVITE", &[400]),
        ("CSeq: 1 OPTIONS", &[400]),
        ("Max-Forwards: 300", &[400]),
        ("Max-Forwards: 0", &[483]),
        ("Content-Length: 9999", &[400]),
        ("Content-Length: -999", &[400]),
        ("Content-Length: 20", &[488]),
        ("From: <sip:a@b>;tag=1\nFrom: <sip:c@b>;tag=2", &[400]),
        ("Require: nothingSupportsThis", &[420]),
        ("Record-Route: <sip:", &[400]),
        ("Accept: text/nobodyKnowsThis", &[406]),
        ("Content-Encoding: gzip", &[415]),
    ] {
        row(&invite, &format!("{headers}\n{sdp}"), &offer(), allowed);
    }
    row(&invite, &format!("X-Long: {long}\n{sdp}"), &offer(), REFUSED);
    row(&invite, &format!("{many}{sdp}"), &offer(), &[513]);
    row(&invite, "Content-Type: application/unknownformat", "<audio/>", &[415]);
    row(&invite, "Content-Type: multipart/mixed;boundary=b", &multipart, REFUSED);
    row(&invite, sdp, "v=0\r\nm=audio 4294967296 RTP/AVP 0\r\n", &[488]);
    row(&invite, sdp, &offer().replace("RTP/AVP 0", "RTP/SAVP 0"), &[488]);
    row(&invite, sdp, &offer().replace("c=IN IP4 127.0.0.9", "c=IN IP6 ::1"), &[488]);
    row(&invite, sdp, &offer().replace("c=IN IP4 127.0.0.9", "c=IN IP4 224.1.1.1"), &[488]);
    row(&format!("INVITE <sip:x@{edge}> SIP/2.0"), sdp, &offer(), &[400]);
    row(&format!("INVITE sip:x@{edge}; lr SIP/2.0"), sdp, &offer(), &[400]);
    row(&format!("INVITE sip:{long}@{edge} SIP/2.0"), sdp, &offer(), &[400]);
    row(&format!("INVITE sips:x@{edge} SIP/2.0"), sdp, &offer(), &[416]);
    row(&format!("INVITE tel:{REJECTS} SIP/2.0"), sdp, &offer(), REFUSED);
    row(&options, "Max-Forwards: 0", "", &[200]);
    row(&format!("{options}  "), "", "", &[200]);
    row(&options, "Content-Length: 13\nContent-Length: 5", "There is no way", &[400]);
    row(&options, "To: <sip:x@y>;tag=nobody", "", &[481]);
    row(&options.replace("SIP/2.0", "SIP/7.0"), "", "", &[505]);
    row("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", "", "", &[416]);
    for (method, allowed) in [
        ("REGISTER", &[405][..]),
        ("SUBSCRIBE", &[405]),
        ("PUBLISH", &[405]),
        ("MESSAGE", &[405]),
        ("REFER", &[405]),
        ("UPDATE", &[481]),
        ("INFO", &[481]),
        ("BYE", &[481]),
        ("CANCEL", &[481]),
        ("RE%47IST%45R", &[501]),
        ("ACK", SILENCE),
    ] {
        row(&format!("{method} sip:x@{edge} SIP/2.0"), "Refer-To: <sip:y@z>", "", allowed);
    }
    row("SIP/2.0 200 OK", "CSeq: 35 INVITE", "", SILENCE);
    row("SIP/2.0 4294967301 better not break the receiver", "CSeq: 35 INVITE", "", SILENCE);
    row("GET / HTTP/1.1", "", "", SILENCE);
    row("hello", "", "", SILENCE);
    rows
}

/// Marsaglia's xorshift64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// The message with a few places changed.
    fn change(&mut self, message: &str) -> Vec<u8> {
        const ODD: [&str; 12] =
            ["%", "\"", "<", ">", ";", ",", "\r\n", "\n ", "\0", "4294967296", "\\", "["];
        let mut bytes = message.as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(60)).min(bytes.len());
            match self.below(6) {
                0 => bytes[at] = u8::try_from(self.below(256)).unwrap_or(0),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let copy = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, copy));
                }
                3 => drop(bytes.splice(at..at, ODD[self.below(ODD.len())].bytes())),
                4 => drop(bytes.splice(at..at, std::iter::repeat_n(b'A', 3_000))),
                _ => bytes.truncate(at + 1),
            }
            bytes.truncate(60_000);
            if bytes.is_empty() {
                bytes.push(b'\r');
            }
        }
        bytes
    }
}

#[test]
fn lat_02_hostile_messages_are_answered_in_class_and_harm_no_call() -> Result<()> {
    let verbs = "<Play loop='0'>/700.wav</Play>";
    let world = Setup::with(verbs)?
        .number(REJECTS, "/reject")
        .page("/reject", Page::verbs("<Reject/>"))
        .begin()?;
    let mut steps = hears(&[700.0]);
    steps.extend([Step::Wait(2_000), Step::wait_tone(700.0), Step::Hangup]);
    let alice = world.call(steps)?;
    let edge = world.eu.sip;
    let mut hostile = Hostile::new(edge)?;
    let rows = table(edge);
    let mut wrong = Vec::new();
    for (line, headers, body, allowed) in &rows {
        let text = hostile.request(line, headers, body);
        let came = hostile.hit(text.as_bytes(), !allowed.is_empty())?;
        let right = match came.as_deref() {
            Some([status, ..]) => allowed.contains(status),
            Some([]) => allowed.is_empty(),
            None => false,
        };
        if !right {
            wrong.push(format!("{came:?} for {text:.200}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let mut draw = Draw(0x5eed_0001);
    for n in 0..CHANGED {
        let row = draw.below(rows.len());
        let (line, headers, body, _) = &rows[row];
        let text = hostile.request(line, headers, body);
        let bytes = draw.change(&text);
        let came = hostile.hit(&bytes, false)?;
        ensure!(came.is_some(), "no answer to OPTIONS after change {n}: {bytes:?}");
    }
    let metric = |name: &str| world.eu.metric(&format!("tandem_edge_{name}_total"));
    wait_for("the counters", LIMIT, || {
        Ok(metric("sip_malformed_answered")? > 50.0 && metric("sip_requests_refused")? > 10.0)
    })?;
    assert!(metric("sip_malformed_dropped")? > 20.0);
    let heard = ended(&alice)?;
    assert_eq!(heard.received.lost, 0, "the call beside it heard everything");
    world.finish()
}

// ---- sipp

fn sipp(world: &World, scenario: &str, at: SocketAddr, more: &[&str]) -> Result<Process> {
    ensure!(tools::is_there("sipp"), "sipp is missing: run tools/setup/install.sh test");
    let mut command = Command::new("sipp");
    command.current_dir(world.rig.folder()).args(more);
    command.arg("-sf").arg(tools::conformance(&format!("sipp/{scenario}.xml")));
    command.args(["-m", "1", "-nostdin", "-i", "127.0.0.1", "-p", &at.port().to_string()]);
    command.args(["-mi", "127.0.0.1", "-mp", &ports::rtp_range(2).0.to_string()]);
    command.args(["-timeout", "10s", "-timeout_error", "-trace_err"]);
    Process::spawn(scenario, command, &world.rig.folder().join(format!("{scenario}.log")))
}

fn end_well(processes: &mut [Process]) -> Result<()> {
    for process in processes {
        wait_for("sipp to end", LIMIT, || Ok(process.ended()?.is_some()))
            .with_context(|| process.log())?;
        ensure!(process.ended()? == Some(true), "sipp failed:\n{}", process.log());
    }
    Ok(())
}

#[test]
fn tel_05_sipp_callers_hold_ask_for_offers_and_give_up() -> Result<()> {
    let world = Setup::with("<Play loop='0'>/700.wav</Play>")?
        .number(REJECTS, "/later")
        .page("/later", Page::verbs("<Pause length='5'/>"))
        .begin()?;
    let edge = world.eu.sip.to_string();
    let mut callers = Vec::new();
    for (scenario, number) in
        [("uac_hold", NUMBER), ("uac_offerless", NUMBER), ("uac_cancel", REJECTS)]
    {
        callers.push(sipp(&world, scenario, ports::udp()?, &[&edge, "-s", number])?);
    }
    end_well(&mut callers)?;
    world.finish()
}

#[test]
fn tel_13_callees_that_fork_refuse_or_are_not_there() -> Result<()> {
    let names = ["uas_fork", "uas_unreachable_contact", "uas_challenges"];
    let mut setup = Setup::new()?;
    let closed = ports::udp()?;
    let mut uris = vec![format!("sip:x@{closed}"), format!("sip:x@{closed};transport=tcp")];
    let at = [ports::udp()?, ports::udp()?, ports::udp()?];
    uris.extend(at.iter().map(|at| format!("sip:x@{at}")));
    for (n, uri) in uris.iter().enumerate() {
        let (path, done) = (format!("/dial{n}"), format!("/done{n}"));
        let dial = format!("<Dial action='{done}' timeout='10'><Sip>{uri}</Sip></Dial>");
        setup = setup.number(&format!("+1555020{n}"), &path).page(&path, Page::verbs(&dial));
        setup = setup.page(&done, Page::verbs("<Hangup/>"));
    }
    let world = setup.begin()?;
    let mut callees = Vec::new();
    for (name, at) in names.into_iter().zip(at) {
        callees.push(sipp(&world, name, at, &[])?);
    }
    e2e::pause_ms(500);
    let began = Instant::now();
    let mut callers = Vec::new();
    for (n, _) in uris.iter().enumerate() {
        let mut steps = vec![Step::WaitAnswer(5_000)];
        // The two that answer are hung up on; the others make the document end the call.
        steps.extend(
            (n == 2 || n == 3).then_some([Step::Wait(900), Step::Hangup]).into_iter().flatten(),
        );
        callers.push(world.bank.add(world.caller(&format!("+1555020{n}"), steps))?);
    }
    for caller in &callers {
        ended(caller)?;
    }
    assert!(began.elapsed() < Duration::from_secs(6), "nobody was waited for");
    end_well(&mut callees)?;
    for (n, status, code) in [
        (0, "failed", Some("503")),
        (1, "failed", None),
        (2, "completed", None),
        (3, "completed", None),
        (4, "failed", Some("401")),
    ] {
        let done = || world.app.requests_for(&format!("/done{n}"));
        wait_for(&format!("/done{n}"), LIMIT, || Ok(!done().is_empty()))?;
        let done = done();
        assert_eq!(done.len(), 1, "{n}");
        assert_eq!(done[0].param("DialCallStatus"), Some(status), "{n}");
        if code.is_some() {
            assert_eq!(done[0].param("DialSipResponseCode"), code, "{n}");
        }
    }
    world.finish()
}
