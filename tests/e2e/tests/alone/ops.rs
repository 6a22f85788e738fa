//! OPS, TEN: configuration, drain, overload, metrics, storage, tools, isolation.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::raw::{Raw, header};
use e2e::world::{LIMIT, ended, hears, program, root, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, assert_undisturbed, pause_ms, tools};
use tandem_load::Step;
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{Page, http};

#[test]
fn ops_01_wrong_configuration_is_told_all_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (role, config, expected) in [
        (
            "edge",
            "node = \"edge eu\"\nregion = 5\n[sip]\nlisten = \"nowhere\"\nlegs_mx = 3\n\
             [media]\nports = \"9-1\"\ntimeout_s = -1\n[link]\nca_file = \"absent.pem\"\n",
            vec![
                "node",
                "region",
                "sip.listen",
                "legs_mx",
                "legs_max",
                "media.ports",
                "media.timeout_s",
                "link.ca_file",
            ],
        ),
        (
            "control",
            "node = \"control-1\"\n[api]\nlisten = 8080\n[speech]\nengine = \"parrot\"\n\
             [[number]]\nnumber = \"+1555\"\nvoice_url = \"ftp://x\"\n",
            vec![
                "api.listen",
                "speech.engine",
                "espeak-ng",
                "number[1].voice_url",
                "number[1].account",
            ],
        ),
    ] {
        let file = folder.path().join(format!("{role}.toml"));
        std::fs::write(&file, config)?;
        let output = Command::new(program()).arg(role).arg("--config").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        for word in expected {
            assert!(said.contains(word), "{word} is not in:\n{said}");
        }
        assert!(said.contains(&file.display().to_string()), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[test]
fn ops_01_nothing_is_bound_when_one_key_is_wrong() -> Result<()> {
    let world = Setup::with("<Play>/short.wav</Play>")?.begin()?;
    let good = std::fs::read_to_string(world.rig.folder().join("edge-eu-1.toml"))?;
    let free = tandem_rig::ports::udp()?;
    let listen = format!("listen = \"{}\"", world.eu.sip);
    ensure!(good.contains(&listen), "{good}");
    let bad = good.replace(&listen, &format!("listen = \"{free}\"")) + "\n[nonsense]\nx = 1\n";
    let file = world.rig.folder().join("bad.toml");
    std::fs::write(&file, bad)?;
    // If it tried to bind, this would be in its way and in its message.
    let _taken = std::net::UdpSocket::bind(free)?;
    let output = Command::new(program()).args(["edge", "--config"]).arg(&file).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nonsense"), "{said}");
    assert!(!said.to_lowercase().contains("in use"), "{said}");
    let check = Command::new(program()).args(["config", "check", "edge"]).arg(&file).output()?;
    assert!(!check.status.success());
    world.finish()
}

#[test]
fn ops_01_ports_that_are_taken_are_told_with_their_keys() -> Result<()> {
    let world = Setup::with("<Hangup/>")?.begin()?;
    // A second process from the same file: everything is taken.
    let output = Command::new(program())
        .args(["control", "--config"])
        .arg(&world.control.config)
        .output()
        .context("control")?;
    ensure!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    for key in ["`api.listen` = ", "`admin.listen` = ", "`link.listen` = "] {
        ensure!(text.contains(key), "{key} not in\n{text}");
    }
    world.finish()
}

#[test]
fn ops_01_drain_lets_calls_end_and_takes_no_new_ones() -> Result<()> {
    let mut world = Setup::with(&format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>"))?.begin()?;
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(2_500), Step::Hangup];
    let bob = world.answer(talk)?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    world.eu.process.signal("TERM")?;
    wait_for("drain", LIMIT, || Ok(world.eu.metric("tandem_edge_drain_active_state")? == 1.0))?;
    let raw = Raw::bind("127.0.0.1")?;
    raw.send(world.eu.sip, raw.invite(&world.uri(NUMBER), "d1", "")?.as_bytes())?;
    let refused = raw.final_response().context("refusal")?;
    assert!(refused.starts_with("SIP/2.0 503"), "{refused}");
    assert!(header(&refused, "Retry-After").is_some(), "{refused}");
    raw.send(world.eu.sip, raw.ack(&world.uri(NUMBER), "d1", &refused)?.as_bytes())?;
    let ready = http::get(&format!("http://{}/ready", world.eu.admin), None)?;
    assert_eq!(ready.status, 503);
    // The call goes on to its natural end, instructions and all; then the process ends.
    ended(&alice)?;
    ended(&bob)?;
    wait_for("the edge to end", LIMIT, || Ok(world.eu.process.ended()?.is_some()))?;
    assert_eq!(world.eu.process.ended()?, Some(true));
    world.control.stop()
}

#[test]
fn ops_02_metrics_calls_and_health_are_there() -> Result<()> {
    let world = Setup::with(&format!("<Dial>{BOB}</Dial>"))?.begin()?;
    let bob = world.answer([Step::Answer])?;
    let alice = world.call([
        Step::WaitAnswer(5_000),
        Step::wait_tone(BOB_HZ),
        Step::Wait(1_500),
        Step::Hangup,
    ])?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    world.wait_metric("legs_live_count", 2.0)?;
    let calls = world.eu.calls()?;
    assert_eq!(calls.len(), 2, "{calls:?}");
    let sid = world.sid_of(&alice)?;
    assert!(calls.iter().all(|leg| leg.to_string().contains(&sid)), "session of both: {calls:?}");
    ended(&alice)?;
    world.wait_metric("legs_live_count", 0.0)?;
    world.wait_metric("legs_inbound_total", 1.0)?;
    world.wait_metric("legs_outbound_total", 1.0)?;
    wait_for("the session to end", LIMIT, || {
        Ok(http::metric(world.control.admin, "tandem_control_sessions_ended_total")? == 1.0)
    })?;
    for admin in [world.eu.admin, world.control.admin] {
        let page = http::get(&format!("http://{admin}/metrics"), None)?.text();
        let samples = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap_or_default();
            ensure!(name.starts_with("tandem_"), "{sample}");
            ensure!(
                !sample.contains("CA0") && !sample.contains("+1555"),
                "no labels per call: {sample}"
            );
        }
        assert!(page.contains("# HELP") && page.contains("# TYPE"));
        assert_eq!(http::get(&format!("http://{admin}/live"), None)?.status, 200);
    }
    world.finish()
}

#[test]
fn ops_03_the_load_tool_judges_calls() -> Result<()> {
    let tool = root().join("target/debug/tandem-load");
    ensure!(tool.is_file(), "{} is not built", tool.display());
    let world = Setup::with(&format!("<Dial>{BOB}</Dial>"))?.begin()?;
    let facts = world.rig.folder().join("verdict.json");
    let mut command = Command::new(&tool);
    command.args(["run", "--target", &world.uri(NUMBER), "--from", e2e::ALICE]);
    command.args(["--answer-on", &world.bob.to_string(), "--calls", "6", "--rate", "4"]);
    command.args(["--duration", "3", "--json"]).arg(&facts);
    let table = tools::run(command, LIMIT)?;
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(facts)?)?;
    assert_eq!(facts["ok"], true, "{facts:#}\n{table}");
    assert!(!table.trim().is_empty());
    world.finish()
}

#[test]
fn ops_05_what_was_written_is_there_after_a_restart() -> Result<()> {
    let mut world = Setup::with("<Play>/short.wav</Play>")?.begin()?;
    let url = world.app.url("/start");
    let alice = world.call([Step::WaitAnswer(5_000)])?;
    alice.wait_ended(LIMIT)?;
    let sid = world.sid_of(&alice)?;
    let before = world.wait_status(&sid, "completed")?;
    let form = [("PhoneNumber", "+15550088"), ("VoiceUrl", &url), ("FriendlyName", "kept")];
    let (status, number) = world.api_post("/IncomingPhoneNumbers.json", &form)?;
    assert_eq!(status, 201);
    // Killed the moment after the answer: what was promised is there.
    world.control.process.kill()?;
    world.rig.control_again(&mut world.control)?;
    assert_eq!(world.record(&sid)?, before);
    let path = format!("/IncomingPhoneNumbers/{}.json", text(&number, "sid"));
    assert_eq!(text(&world.api(&path)?, "friendly_name"), "kept");
    // The edge itself may not know yet that its link was lost: the new process counts it anew.
    wait_for("the edge to be back", LIMIT, || {
        Ok(http::metric(world.control.admin, "tandem_link_connected_edges").unwrap_or(0.0) >= 1.0)
    })?;
    let again = world.bank.add(world.caller("+15550088", [Step::WaitAnswer(5_000)]))?;
    again.wait_ended(LIMIT)?;
    world.app.wait_for("/start", 2, LIMIT)?;
    world.finish()
}

#[test]
fn ops_05_what_was_accepted_is_there_exactly_once_after_kill_9() -> Result<()> {
    const THREADS: usize = 8;
    let mut world = Setup::with("<Hangup/>")?.begin()?;
    let url = world.control.account_url("/IncomingPhoneNumbers.json");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (url, stop) = (url.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut answers = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let number = format!("+1777{thread}{number:05}");
                    let form = [("PhoneNumber", number.as_str())];
                    // No answer: the process was killed, whatever it had done.
                    let answer = http::post(&url, Some((ACCOUNT, TOKEN)), &form);
                    let status = answer.map_or(0, |answer| answer.status);
                    if status == 0 {
                        pause_ms(20);
                    }
                    answers.push((number, status));
                }
                answers
            })
        })
        .collect();
    for _ in 0..3 {
        pause_ms(400);
        world.control.process.kill()?;
        world.rig.control_again(&mut world.control)?;
    }
    pause_ms(200);
    stop.store(true, Ordering::Relaxed);
    let answers: BTreeMap<String, u16> =
        writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect();
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    let mut page = Some("/IncomingPhoneNumbers.json?PageSize=1000&PhoneNumber=%2B1777".to_owned());
    while let Some(path) = page {
        let list = world.api(&path)?;
        for row in list["incoming_phone_numbers"].as_array().context("a list")? {
            *found.entry(text(row, "phone_number").to_owned()).or_default() += 1;
        }
        let next = list["next_page_uri"].as_str();
        page = next.and_then(|next| Some(next.split_once(ACCOUNT)?.1.to_owned()));
    }
    let accepted = answers.values().filter(|status| **status == 201).count();
    ensure!(accepted > 100, "{accepted} of {} accepted", answers.len());
    for (number, status) in &answers {
        let times = found.get(number).copied().unwrap_or(0);
        let right = match status {
            201 => times == 1,
            0 => times <= 1,
            _ => times == 0,
        };
        ensure!(right, "{number}: answered {status}, there {times} times");
    }
    world.finish()
}

#[test]
fn ops_06_a_flood_is_shed_and_a_conversation_does_not_notice() -> Result<()> {
    let world = Setup::with(&format!("<Dial>{BOB}</Dial>"))?
        .edge(|edge| edge.calls_per_s_max = 5)
        .page("/flood", Page::verbs("<Reject/>"))
        .number("+15550009", "/flood")
        .begin()?;
    let bob =
        world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(3_000), Step::Hangup])?;
    let alice = world.call(hears(&[BOB_HZ]))?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    let raw = Raw::bind("127.0.0.1")?;
    let uri = world.uri("+15550009");
    let (mut shed, mut with_time) = (0, 0);
    for number in 0..400 {
        raw.send(world.eu.sip, raw.invite(&uri, &format!("f{number}"), "")?.as_bytes())?;
        let answers = if number % 10 == 9 { raw.received_within(20)? } else { Vec::new() };
        for text in answers.iter().filter(|text| text.starts_with("SIP/2.0 503")) {
            shed += 1;
            with_time += usize::from(header(text, "Retry-After").is_some());
        }
    }
    assert!(shed > 300, "{shed}");
    assert_eq!(shed, with_time, "each with Retry-After");
    wait_for("the count", LIMIT, || {
        Ok(world.eu.metric("tandem_edge_calls_shed_rate_total")? > 300.0)
    })?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    for report in [&alice_saw, &bob_saw] {
        assert_undisturbed(report);
    }
    world.finish()
}

#[test]
fn ops_06_without_a_leg_left_a_call_is_refused_and_others_go_on() -> Result<()> {
    let world =
        Setup::with("<Play loop='0'>/700.wav</Play>")?.edge(|edge| edge.legs_max = 2).begin()?;
    let hold =
        || [Step::WaitAnswer(5_000), Step::wait_tone(700.0), Step::Wait(1_500), Step::Hangup];
    let (first, second) = (world.call(hold())?, world.call(hold())?);
    for phone in [&first, &second] {
        phone.wait(LIMIT, |report| report.heard_tone(700.0))?;
    }
    let third = world.call([Step::WaitAnswer(5_000)])?;
    assert_eq!(third.wait_ended(LIMIT)?.end.and_then(|end| end.status), Some(503));
    world.wait_metric("calls_refused_capacity_total", 1.0)?;
    for phone in [&first, &second] {
        assert_eq!(ended(phone)?.received.lost, 0);
    }
    world.eu.wait_idle(LIMIT)?;
    ended(&world.call(hold())?)?;
    world.finish()
}

#[test]
fn ops_06_malformed_sip_is_answered_or_ignored_and_counted() -> Result<()> {
    let world = Setup::with("<Play>/short.wav</Play>")?.begin()?;
    let raw = Raw::bind("127.0.0.1")?;
    let uri = world.uri(NUMBER);
    let good = raw.invite(&uri, "m0", "")?;
    // RFC 3261 §8.2.6: what can be answered is.
    let answered = [
        good.replace("CSeq: 1 INVITE", "CSeq: 99999999999 INVITE").replace("m0", "m2"),
        good.replace("CSeq: 1 INVITE", "CSeq: 1 BYE").replace("m0", "m3"),
    ];
    for message in answered {
        raw.send(world.eu.sip, message.as_bytes())?;
        let text = raw.final_response().with_context(|| format!("no answer to {message}"))?;
        assert!(text.starts_with("SIP/2.0 400"), "{text}");
    }
    let counted = |name: &str| world.eu.metric(&format!("tandem_edge_sip_malformed_{name}_total"));
    world.wait_metric("sip_malformed_answered_total", 2.0)?;
    // Without CSeq no response can be made.
    let no_cseq = good.replace("CSeq: 1 INVITE\r\n", "");
    let ignored: [&[u8]; 6] = [
        no_cseq.as_bytes(),
        b"INVITE",
        b"\xff\xfe\x00garbage\r\n\r\n",
        b"SIP/2.0 200\r\n\r\n",
        b"INVITE sip:x SIP/2.0\r\nFrom: \r\n\r\n",
        &[b'A'; 60_000],
    ];
    for message in ignored {
        raw.send(world.eu.sip, message)?;
    }
    assert_eq!(raw.statuses(), Vec::<u16>::new());
    wait_for("the count", LIMIT, || Ok(counted("dropped")? >= 5.0))?;
    world.call([Step::WaitAnswer(5_000)])?.wait_ended(LIMIT)?;
    world.app.wait_for("/start", 1, LIMIT)?;
    world.finish()
}

#[test]
fn ten_09_one_account_sees_nothing_of_another() -> Result<()> {
    let other = "AC00000000000000000000000000000002";
    let secret = "abcdefabcdefabcdefabcdefabcdefab";
    let mut setup = Setup::with("<Record maxLength='1' playBeep='false' action='/end'/>")?
        .page("/end", Page::verbs("<Nonsense/>"))
        .page("/fallback", Page::verbs("<Hangup/>"));
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("other.token");
    std::fs::write(&file, secret)?;
    let file = file.display();
    setup.control.more = format!(
        "\n[[account]]\nsid = \"{other}\"\nauth_token_file = \"{file}\"\nname = \"Other\"\n"
    );
    let world = setup.begin()?;
    let alice = world.call(hears(&[]))?;
    ended(&alice)?;
    let sid = world.sid_of(&alice)?;
    world.wait_status(&sid, "completed")?;
    let mine = Some((ACCOUNT, TOKEN));
    let theirs = Some((other, secret));
    for resource in ["Calls", "Recordings", "Notifications", "IncomingPhoneNumbers"] {
        let own = world.api(&format!("/{resource}.json"))?;
        let key = own.as_object().into_iter().flatten().find(|(_, value)| value.is_array());
        let (key, rows) = key.context("list")?;
        let rows = rows.as_array().context("rows")?;
        assert!(!rows.is_empty(), "{resource}: {own}");
        let url = |account: &str, rest: &str| {
            world.control.url(&format!("/2010-04-01/Accounts/{account}/{resource}{rest}.json"))
        };
        let list = http::get(&url(other, ""), theirs)?.json()?;
        assert_eq!(list[key].as_array().map(Vec::len), Some(0), "{list}");
        let one = format!("/{}", text(&rows[0], "sid"));
        assert_eq!(http::get(&url(other, &one), theirs)?.status, 404, "{resource}");
        for account in [ACCOUNT, other] {
            let foreign = if account == ACCOUNT { theirs } else { mine };
            let status = http::get(&url(account, &one), foreign)?.status;
            assert!([401, 403, 404].contains(&status), "{resource}: {status}");
        }
    }
    let path = format!("/tandem/v1/calls/{sid}/timeline.json");
    let status = http::get(&world.control.url(&path), theirs)?.status;
    assert!([401, 403, 404].contains(&status), "{status}");
    let hang_up = world.control.url(&format!("/2010-04-01/Accounts/{other}/Calls/{sid}.json"));
    assert_eq!(http::post(&hang_up, theirs, &[("Status", "completed")])?.status, 404);
    pause_ms(Duration::from_millis(50).as_millis() as u64);
    world.finish()
}
