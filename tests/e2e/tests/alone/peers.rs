//! Programs that nobody here wrote, as callers, callees, customers and judges.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::audio::{self, tone, tone_ms, tone_wav};
use e2e::netns::Netns;
use e2e::world::{LIMIT, World, ended, hears, is_terminal};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, pause_ms, tools};
use tandem_load::{Phone, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{Page, Process, Recorded, ports};

/// What the outside phones say.
const PEER_HZ: f64 = 1_000.0;

/// Fails if a program is missing: `make test` installs them all.
fn needs(program: &str) -> Result<()> {
    ensure!(tools::is_there(program), "{program} is missing: run tools/setup/install.sh test");
    Ok(())
}

fn spawn(world: &World, name: &str, command: Command) -> Result<Process> {
    Process::spawn(name, command, &world.rig.folder().join(format!("{name}.log")))
}

/// Waits for a program that has to end with success.
fn ends_well(mut process: Process, name: &str) -> Result<String> {
    wait_for(&format!("{name} to end"), LIMIT, || Ok(process.ended()?.is_some()))
        .with_context(|| process.log())?;
    ensure!(process.ended()? == Some(true), "{name} failed:\n{}", process.log());
    Ok(process.log())
}

/// Milliseconds of a tone in a WAV file.
fn heard_ms(file: &Path, hz: f64) -> Result<u32> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let (channels, rate_hz) = audio::read_wav(&bytes)?;
    ensure!(rate_hz == 8_000, "{}: {rate_hz} Hz", file.display());
    Ok(channels.first().map_or(0, |samples| tone_ms(samples, hz)))
}

// ---- sipp

#[test]
fn tel_05_sipp_presses_captured_keys_into_a_gather() -> Result<()> {
    needs("sipp")?;
    let verbs =
        "<Gather numDigits='3' timeout='8' action='/keys'><Play loop='0'>/700.wav</Play></Gather>";
    let world = Setup::with(verbs)?.page("/keys", Page::verbs("<Play>/900.wav</Play>")).begin()?;
    let (sip, media) = (ports::udp()?, ports::rtp_range(2).0);
    let mut command = Command::new("sipp");
    command.current_dir(world.rig.folder());
    command.arg(world.eu.sip.to_string()).args(["-s", NUMBER, "-m", "1", "-nostdin"]);
    command.arg("-sf").arg(tools::conformance("sipp/uac_digits.xml"));
    command.args(["-i", "127.0.0.1", "-p", &sip.port().to_string()]);
    command.args(["-mi", "127.0.0.1", "-mp", &media.to_string()]);
    command.args(["-timeout", "14s", "-timeout_error"]);
    ends_well(spawn(&world, "sipp", command)?, "sipp")?;
    let keys = world.app.requests_for("/keys");
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].param("Digits"), Some("123"));
    world.finish()
}

#[test]
fn lat_04_sipp_answers_and_echoes_a_dialled_call() -> Result<()> {
    needs("sipp")?;
    let world = Setup::new()?.begin()?;
    let (sip, media) = (ports::udp()?, ports::rtp_range(2).0);
    let mut command = Command::new("sipp");
    command.current_dir(world.rig.folder());
    command.args(["-sn", "uas", "-rtp_echo", "-m", "1", "-nostdin"]);
    command.args(["-i", "127.0.0.1", "-p", &sip.port().to_string()]);
    command.args(["-mi", "127.0.0.1", "-mp", &media.to_string()]);
    command.args(["-timeout", "14s", "-timeout_error"]);
    let sipp = spawn(&world, "sipp", command)?;
    pause_ms(500);
    world.app.page("/start", Page::verbs(&format!("<Dial><Sip>sip:service@{sip}</Sip></Dial>")));
    let mut steps = hears(&[ALICE_HZ]);
    steps.extend([Step::Wait(1_000), Step::Hangup]);
    let heard = world.call_through(steps)?;
    assert!(heard.bursts.len() >= 2, "its own voice comes back: {:?}", heard.bursts);
    ends_well(sipp, "sipp")?;
    world.finish()
}

// ---- baresip

/// A folder with the configuration of one baresip; it says [`PEER_HZ`] and keeps what it hears.
fn baresip_folder(world: &World, at: std::net::Ipv4Addr, name: &str) -> Result<std::path::PathBuf> {
    let folder = world.rig.folder().join(name);
    std::fs::create_dir_all(&folder)?;
    let voice = folder.join("voice.wav");
    std::fs::write(&voice, audio::wav(8_000, 1, &tone(PEER_HZ, 20_000, 8_000)))?;
    let modules = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"];
    let modules =
        modules.iter().find(|path| Path::new(path).is_dir()).context("baresip's modules")?;
    let mut config = format!("module_path {modules}\n");
    for module in ["g711.so", "aufile.so", "aubridge.so", "sndfile.so"] {
        let _ = writeln!(config, "module {module}");
    }
    let _ = write!(
        config,
        "module_tmp account.so\nmodule_app menu.so\nsip_listen {at}:5060\n\
         audio_player aubridge,x\naudio_alert aubridge,y\naudio_source aufile,{}\n\
         audio_channels 1-1\nausrc_srate 8000\nauplay_srate 8000\n\
         rtp_ports 30000-30100\nsnd_path {}\n",
        voice.display(),
        folder.display()
    );
    std::fs::write(folder.join("config"), config)?;
    let account = format!("<sip:b@{at}>;answermode=auto;regint=0;audio_codecs=PCMU/8000/1\n");
    std::fs::write(folder.join("accounts"), account)?;
    std::fs::write(folder.join("contacts"), "")?;
    Ok(folder)
}

/// What it heard, when the file is complete.
fn baresip_heard(folder: &Path) -> Result<std::path::PathBuf> {
    let mut found = None;
    wait_for("baresip's recording", LIMIT, || {
        let files = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
        found = files.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).max();
        Ok(found.as_ref().is_some_and(|path| heard_ms(path, 1.0).is_ok()))
    })?;
    found.context("recording")
}

fn world_on(setup: Setup, netns: &Netns) -> Result<World> {
    let (ours, theirs) = (netns.ours, netns.theirs);
    let setup = setup.edge(|edge| {
        edge.bind = ours.into();
        edge.providers = vec![format!("{ours}/32"), format!("{theirs}/32")];
    });
    setup.begin()
}

#[test]
fn tel_01_baresip_calls_hears_and_is_heard() -> Result<()> {
    needs("baresip")?;
    let Some(netns) = Netns::new()? else { return Ok(()) };
    let world = world_on(Setup::new()?, &netns)?;
    let talk = [Step::Answer, Step::wait_tone(PEER_HZ), Step::Wait(2_000), Step::Hangup];
    let bob = Phone::callee("bob").listen((netns.ours, 0).into()).tone(BOB_HZ).script(talk);
    let bob = world.bank.add(bob)?;
    let dial =
        format!("<Play>/700.wav</Play><Dial><Sip>{}</Sip></Dial><Play>/900.wav</Play>", bob.uri());
    world.app.page("/start", Page::verbs(&dial));
    let folder = baresip_folder(&world, netns.theirs, "baresip")?;
    let mut command = netns.command("baresip");
    command.arg("-f").arg(&folder).args(["-t", "12", "-e"]);
    command.arg(format!("/dial {}", world.uri(NUMBER)));
    let _baresip = spawn(&world, "baresip-caller", command)?;
    let bob_saw = ended(&bob)?;
    assert!(bob_saw.heard_tone(PEER_HZ));
    world.eu.wait_idle(LIMIT)?;
    let heard = baresip_heard(&folder)?;
    for (hz, ms) in [(700.0, 700), (BOB_HZ, 500), (900.0, 700)] {
        let there = heard_ms(&heard, hz)?;
        assert!(there >= ms, "{hz} Hz for {there} ms in {}", heard.display());
    }
    world.finish()
}

#[test]
fn lat_04_baresip_is_called_hears_and_is_heard() -> Result<()> {
    needs("baresip")?;
    let Some(netns) = Netns::new()? else { return Ok(()) };
    let world = world_on(Setup::new()?, &netns)?;
    let folder = baresip_folder(&world, netns.theirs, "baresip")?;
    let mut command = netns.command("baresip");
    command.arg("-f").arg(&folder).args(["-t", "12"]);
    let baresip = spawn(&world, "baresip-callee", command)?;
    wait_for("baresip", LIMIT, || Ok(baresip.log().contains("ready")))
        .with_context(|| baresip.log())?;
    let dial = format!("<Dial><Sip>sip:b@{}:5060</Sip></Dial>", netns.theirs);
    world.app.page("/start", Page::verbs(&dial));
    let mut steps = hears(&[PEER_HZ]);
    steps.extend([Step::Wait(2_500), Step::Hangup]);
    let alice = world.caller(NUMBER, steps).listen((netns.ours, 0).into());
    let alice_saw = ended(&world.bank.add(alice)?)?;
    assert_eq!(alice_saw.received.lost, 0);
    world.eu.wait_idle(LIMIT)?;
    let there = heard_ms(&baresip_heard(&folder)?, ALICE_HZ)?;
    assert!(there >= 500, "{there} ms");
    world.finish()
}

// ---- pjsua2

struct Pjsua {
    process: Process,
    recording: std::path::PathBuf,
}

fn pjsua(world: &World, role: &str, at: std::net::SocketAddr, more: &[&str]) -> Result<Pjsua> {
    pjsua_saying(world, PEER_HZ, &[], role, at, more)
}

fn pjsua_saying(
    world: &World,
    hz: f64,
    options: &[&str],
    role: &str,
    at: std::net::SocketAddr,
    more: &[&str],
) -> Result<Pjsua> {
    let folder = world.rig.folder();
    let file = |what: &str| folder.join(format!("pjsua-{role}-{what}.wav"));
    let (voice, recording) = (file("voice"), file("heard"));
    std::fs::write(&voice, tone_wav(hz, 20_000))?;
    let mut command = Command::new(tools::python());
    command.arg(tools::conformance("pjsua2_peer.py")).args(options);
    command.args([role, &at.to_string()]);
    command.arg(&voice).arg(&recording).arg("12").args(more);
    let mut process = spawn(world, &format!("pjsua2-{role}"), command)?;
    wait_for("pjsua2", LIMIT, || {
        process.check()?;
        Ok(process.log().contains("ready"))
    })?;
    Ok(Pjsua { process, recording })
}

/// What it saw, after it has ended well.
fn pjsua_saw(pjsua: Pjsua) -> Result<(serde_json::Value, std::path::PathBuf)> {
    let log = ends_well(pjsua.process, "pjsua2")?;
    let line = log.lines().find(|line| line.starts_with('{')).with_context(|| log.clone())?;
    Ok((serde_json::from_str(line)?, pjsua.recording))
}

#[test]
fn tel_05_pjsua2_calls_presses_keys_and_talks() -> Result<()> {
    let verbs =
        "<Gather numDigits='2' timeout='8' action='/dial'><Play loop='0'>/700.wav</Play></Gather>";
    let world = Setup::with(verbs)?
        .page("/dial", Page::verbs(&format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>")))
        .begin()?;
    let talk = [Step::Answer, Step::wait_tone(PEER_HZ), Step::Wait(1_500), Step::Hangup];
    let bob = world.answer(talk)?;
    let pjsua = pjsua(&world, "call", ports::udp()?, &[&world.uri(NUMBER), "46"])?;
    let bob_saw = ended(&bob)?;
    assert!(bob_saw.heard_tone(PEER_HZ));
    let (seen, recording) = pjsua_saw(pjsua)?;
    assert_eq!(world.app.requests_for("/dial")[0].param("Digits"), Some("46"));
    assert_eq!(seen["lost"], 0, "{seen}");
    for (hz, ms) in [(700.0, 700), (BOB_HZ, 300), (900.0, 600)] {
        let there = heard_ms(&recording, hz)?;
        assert!(there >= ms, "{hz} Hz for {there} ms: {seen}");
    }
    world.finish()
}

#[test]
fn lat_10_pjsua2_is_called_and_hung_up_on_by_star() -> Result<()> {
    let world = Setup::new()?.begin()?;
    let at = ports::udp()?;
    let pjsua = pjsua(&world, "answer", at, &[])?;
    let dial =
        format!("<Dial hangupOnStar='true'><Sip>sip:pjsua@{at}</Sip></Dial><Play>/900.wav</Play>");
    world.app.page("/start", Page::verbs(&dial));
    let mut steps = hears(&[PEER_HZ]);
    steps.extend([Step::Wait(1_500), Step::digits("*"), Step::wait_tone(900.0)]);
    let alice_saw = world.call_through(steps)?;
    assert_eq!(alice_saw.received.lost, 0);
    let (seen, recording) = pjsua_saw(pjsua)?;
    assert!(seen["rx"].as_u64().is_some_and(|packets| packets > 50), "{seen}");
    let there = heard_ms(&recording, ALICE_HZ)?;
    assert!(there >= 400, "{there} ms: {seen}");
    world.finish()
}

#[test]
fn lat_06_pjsua2_of_one_codec_each_hold_and_resume() -> Result<()> {
    let world = Setup::new()?.begin()?;
    let at = ports::udp()?;
    let callee = pjsua_saying(&world, BOB_HZ, &["--codec=PCMU"], "answer", at, &[])?;
    world.app.page("/start", Page::verbs(&format!("<Dial><Sip>sip:pjsua@{at}</Sip></Dial>")));
    let options = ["--codec=PCMA", "--hold=1.2-2.4"];
    let to = world.uri(NUMBER);
    let caller = pjsua_saying(&world, PEER_HZ, &options, "call", ports::udp()?, &[&to])?;
    for (who, pjsua, hz) in [("caller", caller, BOB_HZ), ("callee", callee, PEER_HZ)] {
        let (seen, recording) = pjsua_saw(pjsua)?;
        let there = heard_ms(&recording, hz)?;
        // Before the hold for 1.2 s, after it for one, and nothing of the other in between.
        assert!((1_700..2_900).contains(&there), "{who}: {hz} Hz for {there} ms: {seen}");
        assert_eq!(seen["lost"], 0, "{who}: {seen}");
    }
    world.finish()
}

// ---- tshark

#[test]
fn lat_07_tshark_confirms_the_streams() -> Result<()> {
    needs("tshark")?;
    let world =
        Setup::with(&format!("<Play>/700.wav</Play><Dial>{BOB}</Dial><Play>/900.wav</Play>"))?
            .begin()?;
    let capture = world.rig.folder().join("call.pcapng");
    let mut command = Command::new("tshark");
    // Others may use loopback as well: only what the edge sends and gets.
    let config = std::fs::read_to_string(world.rig.folder().join("edge-eu-1.toml"))?;
    let ports = config.lines().find_map(|line| line.strip_prefix("ports = "));
    let ports = ports.context("RTP ports")?.trim_matches('"');
    let only = format!("udp port {} or udp portrange {ports}", world.eu.sip.port());
    command.args(["-i", "lo", "-f", &only, "-q", "-w"]).arg(&capture);
    let mut tshark = spawn(&world, "tshark", command)?;
    wait_for("tshark", LIMIT, || {
        tshark.check()?;
        Ok(tshark.log().contains("Capturing"))
    })?;
    pause_ms(700);
    let bob =
        world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(1_500), Step::Hangup])?;
    let alice = world.call(hears(&[700.0, BOB_HZ, 900.0]))?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    pause_ms(700);
    ensure!(tshark.stop(Duration::from_secs(5))?, "{}", tshark.log());
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&capture).args(["-q", "-z", "rtp,streams", "-z", "sip,stat"]);
    for port in [world.eu.sip, alice.addr(), bob.addr()] {
        command.args(["-d", &format!("udp.port=={},sip", port.port())]);
    }
    let said = tools::run(command, LIMIT)?;
    let streams: Vec<&str> = said.lines().filter(|line| line.contains("127.0.0.1")).collect();
    assert_eq!(streams.len(), 4, "{said}");
    let counts: Vec<u64> = streams.iter().filter_map(|line| packets_of(line)).collect();
    assert_eq!(counts.len(), 4, "{said}");
    for (who, count) in [
        ("caller hears", alice_saw.received.packets),
        ("caller says", alice_saw.sent.packets),
        ("callee hears", bob_saw.received.packets),
        ("callee says", bob_saw.sent.packets),
    ] {
        assert!(counts.iter().any(|seen| seen.abs_diff(count) <= 2), "{who} {count}: {said}");
    }
    assert!(streams.iter().all(|line| line.contains(" 0 (0.0%)")), "nothing is lost: {said}");
    let resent = said.lines().find(|line| line.contains("resent")).unwrap_or_default();
    assert!(resent.trim_end().ends_with(": 0"), "{said}");
    world.finish()
}

/// The packets of a line of `rtp,streams`: the number before that of the lost ones.
fn packets_of(line: &str) -> Option<u64> {
    let lost = line.find('(')?;
    let numbers: Vec<&str> = line.get(..lost)?.split_whitespace().collect();
    numbers.get(numbers.len().checked_sub(2)?)?.parse().ok()
}

// ---- the stock SDK

#[test]
fn tel_08_the_stock_sdk_runs_a_call() -> Result<()> {
    let world = Setup::new()?
        .page("/loop", Page::verbs("<Play loop='0'>/700.wav</Play>"))
        .page("/record", Page::verbs("<Record maxLength='2' playBeep='false' action='/loop'/>"))
        .begin()?;
    let bob = world.answer([Step::Answer])?;
    let mut command = Command::new(tools::python());
    command.arg(tools::conformance("sdk.py")).arg(world.control.url(""));
    command.args([ACCOUNT, TOKEN, BOB, NUMBER]);
    command.args([world.app.url("/loop"), world.app.url("/record")]);
    tools::run(command, Duration::from_secs(20))?;
    assert_eq!(bob.reports()?.len(), 3);
    let rows = world.app.requests_for("/status");
    assert_eq!(rows.iter().filter(|row| is_terminal(row)).count(), 1);
    world.finish()
}

#[test]
fn tel_08_the_stock_sdk_for_node_runs_a_call() -> Result<()> {
    let world =
        Setup::new()?.page("/loop", Page::verbs("<Play loop='0'>/700.wav</Play>")).begin()?;
    let bob = world.answer([Step::Answer])?;
    let mut command = tools::node();
    command.arg(tools::conformance("sdk.js")).arg(world.control.url(""));
    command.args([ACCOUNT, TOKEN, BOB, NUMBER]).arg(world.app.url("/loop"));
    tools::run(command, Duration::from_secs(20))?;
    ended(&bob)?;
    world.finish()
}

#[test]
fn tel_03_the_stock_validator_accepts_every_webhook() -> Result<()> {
    let world = Setup::with("<Gather numDigits='1' action='/a?name=J%C3%BCrgen&amp;x={Digits}'><Play>/700.wav</Play></Gather>")?
        .page("/a", Page::verbs("<Dial action='/b?' method='GET'><Number statusCallback='/status' \
            statusCallbackEvent='initiated ringing answered completed'>+15550101</Number></Dial>"))
        .page("/b", Page::verbs("<Record maxLength='1' playBeep='false' action='/c' recordingStatusCallback='/status'/>"))
        .page("/c", Page::status(500))
        .page("/fallback", Page::verbs("<Hangup/>"))
        .begin()?;
    let bob =
        world.answer([Step::Ring(200), Step::Answer, Step::wait_tone(ALICE_HZ), Step::Hangup])?;
    let mut steps = hears(&[700.0]);
    steps.push(Step::digits("7"));
    let alice = world.call(steps)?;
    ended(&alice)?;
    ended(&bob)?;
    world.wait_terminal(&world.sid_of(&alice)?)?;
    wait_for("all callbacks", LIMIT, || Ok(world.app.requests_for("/status").len() >= 6))?;
    let requests: Vec<Recorded> = world.app.requests();
    let webhooks: Vec<serde_json::Value> = requests
        .iter()
        .filter(|request| !request.path.ends_with(".wav"))
        .map(|request| {
            serde_json::json!({
                "url": request.url,
                "form": request.form,
                "signature": request.headers.get("x-twilio-signature"),
            })
        })
        .collect();
    assert!(webhooks.len() >= 11, "{}", webhooks.len());
    let mut child = Command::new(tools::python())
        .arg(tools::conformance("validate.py"))
        .arg(TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(&serde_json::to_vec(&webhooks)?)?;
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.finish()
}
