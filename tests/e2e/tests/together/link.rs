//! LAT: the link between edge and control, spoken to by hand.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::link::{CONTROL, EDGE, LinkEnd, init, of_a_later_release, of_action, requiring};
use e2e::world::{LIMIT, ended, hears, program};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, assert_undisturbed};
use link_proto::call::{Blame, CallCommand, CallEvent, EndReason, LegStats, Offered};
use link_proto::media::AudioCodec;
use link_proto::message::{
    About, CommandMessage, CommandResult, EventAck, EventMessage, Hello, Load, Message, Reconcile,
    Welcome,
};
use link_proto::table::{NodeEntry, Resources};
use link_proto::{CallSid, NodeId, RegionId};
use tandem_load::{BankConfig, Phone, PhoneBank, Step};
use tandem_rig::process::wait_for;
use tandem_rig::{EdgePlan, Page, Rig, ports};

const LACKING: &str = "telepathy/2";

fn hello(node: &str) -> Message {
    let node = NodeEntry {
        node: NodeId::from(node),
        region: RegionId::from("eu"),
        trunk_address: "127.0.0.1:9".to_owned(),
        resources: Resources::default(),
        limits: link_proto::table::ResourceLimits::default(),
        core: false,
        available: true,
    };
    Message::Hello(Hello { node, boot: 1, version_min: 1 })
}

fn event(session: CallSid, sequence: u64, event: CallEvent) -> Message {
    let at_unix_ms = 1;
    Message::Event(EventMessage { session, sequence, leg: session, at_unix_ms, event })
}

fn offered(number: &str) -> CallEvent {
    CallEvent::Offered(Offered {
        from: "+15557001".to_owned(),
        to: number.to_owned(),
        caller_name: None,
        forwarded_from: None,
        provider: "rig".to_owned(),
        sip_call_id: "by-hand".to_owned(),
        source: "127.0.0.1:5060".to_owned(),
        sip_domain: "127.0.0.1".to_owned(),
        headers: Vec::new(),
        codecs: vec![AudioCodec::Pcmu],
    })
}

fn ended_event() -> CallEvent {
    CallEvent::Ended {
        reason: EndReason::RemoteBye,
        whose: Blame::Caller,
        sip_status: None,
        stats: LegStats::default(),
        answered_ms: 10,
    }
}

fn acknowledged(session: CallSid, sequence: u64) -> impl FnMut(&Message) -> Option<()> {
    let wanted = EventAck { session, sequence };
    move |message| matches!(message, Message::EventAck(ack) if *ack == wanted).then_some(())
}

#[test]
fn lat_09_control_ignores_the_unknown_and_refuses_what_it_lacks() -> Result<()> {
    let world = Setup::with(&format!("<Dial>{BOB}</Dial>"))?
        .number("+15550077", "/by-hand")
        .page("/by-hand", Page::verbs("<Play>/700.wav</Play>"))
        .begin()?;
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(4_000), Step::Hangup];
    let bob = world.answer(talk)?;
    let alice = world.call(hears(&[BOB_HZ]))?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    init(world.rig.folder())?;
    let mut edge = LinkEnd::new(world.rig.folder(), "eu", EDGE, None)?;
    // A hello that requires too much is told so, and the connection ends.
    edge.connect(world.control.link, CONTROL)?;
    edge.send(&[requiring(&edge.frame(&hello(EDGE))?, LACKING)?])?;
    let (refused, envelope) = edge.wait("refusal of hello", |message| match message {
        Message::Refused(refused) => Some(refused.clone()),
        _ => None,
    })?;
    assert_eq!(
        (refused.action.as_str(), refused.unmet.as_slice()),
        ("hello", &[LACKING.into()][..])
    );
    assert_eq!((envelope.region.as_str(), envelope.action.as_str()), ("core", "refused"));
    assert!(edge.is_closed_within(LIMIT), "no connection without hello");
    // One that only knows more than we do is welcome.
    edge.connect(world.control.link, CONTROL)?;
    let reconcile = edge.frame(&Message::Reconcile(Reconcile { legs: Vec::new() }))?;
    edge.send(&[of_a_later_release(&edge.frame(&hello(EDGE))?)?, of_a_later_release(&reconcile)?])?;
    let (version, envelope) = edge.wait("welcome", |message| match message {
        Message::Welcome(welcome) => Some(welcome.version),
        _ => None,
    })?;
    assert_eq!((version, envelope.region.as_str()), (1, "core"));
    assert!(envelope.supported.iter().any(|feature| feature == "call/1"), "{envelope:?}");
    calls_of_a_later_release(&edge)?;
    assert!(!edge.is_closed_within(Duration::ZERO), "the connection lives on");
    // The refused call reached nobody; the others are as if nothing had been.
    assert_eq!(world.app.requests_for("/by-hand").len(), 1);
    for report in [ended(&alice)?, ended(&bob)?] {
        assert_undisturbed(&report);
    }
    let unusable = "tandem_control_events_unusable_total";
    assert_eq!(tandem_rig::http::metric(world.control.admin, unusable)?, 2.0);
    drop(edge);
    world.finish()
}

/// A call whose messages know more than control, one that control cannot take, and an event in the
/// middle of a call that control cannot read.
fn calls_of_a_later_release(edge: &LinkEnd) -> Result<()> {
    let (known, lacking) = (CallSid([0x71; 16]), CallSid([0x72; 16]));
    let offer = edge.frame(&event(known, 1, offered("+15550077")))?;
    edge.send(&[of_a_later_release(&offer)?])?;
    edge.wait("acknowledgement", acknowledged(known, 1))?;
    let (command, envelope) = edge.wait("command", |message| match message {
        Message::Command(message) if message.session == known => Some(message.clone()),
        _ => None,
    })?;
    assert!(matches!(command.command, CallCommand::Accept { .. }), "{command:?}");
    assert_eq!((envelope.action.as_str(), envelope.region.as_str()), ("command", "core"));
    assert_eq!(envelope.required, ["call/1"]);

    let offer = edge.frame(&event(lacking, 1, offered("+15550077")))?;
    let load = Message::Load(Load {
        legs: 1,
        legs_max: 10,
        draining: false,
        used: Default::default(),
        routes: vec![],
    });
    let nonsense = of_action(&edge.frame(&load)?, "teleport")?;
    edge.send(&[requiring(&offer, LACKING)?, nonsense])?;
    let refusal = |message: &Message| match message {
        Message::Refused(refused) => Some(refused.clone()),
        _ => None,
    };
    let (refused, _) = edge.wait("refusal of an event", refusal)?;
    assert_eq!(
        (refused.action.as_str(), refused.unmet.as_slice()),
        ("event", &[LACKING.into()][..])
    );
    assert!(refused.why.contains(LACKING), "{refused:?}");
    assert_eq!(refused.about, Some(About { session: lacking, number: 1, epoch: 0 }));
    let (refused, _) = edge.wait("refusal of an action", refusal)?;
    assert_eq!((refused.action.as_str(), refused.unmet.len()), ("teleport", 0));
    assert!(refused.why.contains("unknown action"), "{refused:?}");

    // What control cannot read in the middle of a call does not hold up what follows.
    let early = edge.frame(&event(known, 2, CallEvent::Hold { on: true }))?;
    let end = edge.frame(&event(known, 3, ended_event()))?;
    edge.send(&[requiring(&early, LACKING)?, of_a_later_release(&end)?])?;
    let (refused, _) = edge.wait("refusal of the second event", refusal)?;
    assert_eq!(refused.about, Some(About { session: known, number: 2, epoch: 0 }));
    edge.wait("acknowledgement of the third", acknowledged(known, 3))?;
    Ok(())
}

fn welcome() -> Result<Vec<u8>> {
    let (node, region) = (NodeId::from(CONTROL), RegionId::from("core"));
    let welcome = Message::Welcome(Welcome { node, region: region.clone(), version: 1 });
    of_a_later_release(&link_proto::codec::encode(&region, &welcome)?)
}

fn command(session: CallSid, id: u64, command: CallCommand) -> Message {
    Message::Command(CommandMessage { session, id, epoch: 1, leg: session, command })
}

fn result_of(session: CallSid, id: u64) -> impl FnMut(&Message) -> Option<CommandResult> {
    move |message| match message {
        Message::CommandAck(ack) if (ack.session, ack.id) == (session, id) => {
            Some(ack.result.clone())
        }
        _ => None,
    }
}

/// The next call that an edge offers.
fn offer(control: &LinkEnd) -> Result<CallSid> {
    let (session, envelope) = control.wait("offer", |message| match message {
        Message::Event(event) => match event.event {
            CallEvent::Offered(_) => Some(event.session),
            _ => None,
        },
        _ => None,
    })?;
    assert_eq!((envelope.region.as_str(), envelope.action.as_str()), ("eu", "event"));
    assert_eq!(envelope.required, ["call/1"]);
    Ok(session)
}

#[test]
fn lat_09_an_edge_ignores_the_unknown_and_refuses_what_it_lacks() -> Result<()> {
    let rig = Rig::temporary(&program())?;
    init(rig.folder())?;
    let listen = ports::udp()?;
    let control = LinkEnd::new(rig.folder(), "core", CONTROL, Some((listen, welcome()?)))?;
    let plan = EdgePlan {
        controls: vec![(CONTROL.to_owned(), listen)],
        ..EdgePlan::new("edge-eu-1", "eu")
    };
    let mut edge = rig.edge(&plan)?;
    let (_, envelope) =
        control.wait("hello", |message| matches!(message, Message::Hello(_)).then_some(()))?;
    assert!(envelope.supported.iter().any(|feature| feature == "media/1"), "{envelope:?}");
    let bank = PhoneBank::start(BankConfig::default())?;
    let caller = |name: &str, steps: &[Step]| {
        let uri = format!("sip:{NUMBER}@{}", edge.sip);
        let phone = Phone::caller(name, &uri).user("+15557002").tone(ALICE_HZ);
        bank.add(phone.script(steps.iter().cloned()))
    };
    let alice = caller("alice", &[Step::WaitAnswer(5_000)])?;
    let first = offer(&control)?;
    let ack = control.frame(&Message::EventAck(EventAck { session: first, sequence: 1 }))?;
    let accept = control.frame(&command(first, 1, CallCommand::Accept { codec: None }))?;
    control.send(&[of_a_later_release(&ack)?, of_a_later_release(&accept)?])?;
    let (result, _) = control.wait("result", result_of(first, 1))?;
    assert_eq!(result, CommandResult::Done);
    alice.wait_answered(LIMIT)?;

    let carol = caller("carol", &[Step::WaitAnswer(5_000)])?;
    let second = offer(&control)?;
    let accept = control.frame(&command(second, 1, CallCommand::Accept { codec: None }))?;
    let nonsense = of_action(&accept, "teleport")?;
    control.send(&[requiring(&accept, LACKING)?, nonsense])?;
    // In either order: the refusal says why, the acknowledgement lets the next command through.
    let (mut refusals, mut results) = (Vec::new(), Vec::new());
    control.wait("refusals and a result", |message| {
        match message {
            Message::Refused(refused) => refusals.push(refused.clone()),
            Message::CommandAck(ack) if ack.session == second => results.push(ack.result.clone()),
            _ => {}
        }
        (refusals.len() == 2 && results.len() == 1).then_some(())
    })?;
    assert_eq!(refusals[0].action, "command");
    assert_eq!(refusals[0].unmet, [LACKING]);
    assert_eq!(refusals[0].about, Some(About { session: second, number: 1, epoch: 1 }));
    assert_eq!((refusals[1].action.as_str(), refusals[1].unmet.len()), ("teleport", 0));
    let CommandResult::Refused { why } = &results[0] else { panic!("{results:?}") };
    assert!(why.contains(LACKING), "{why}");
    let busy = CallCommand::Reject { status: 486, reason: "Busy Here".to_owned() };
    control.send(&[control.frame(&command(second, 2, busy))?])?;
    assert_eq!(control.wait("result", result_of(second, 2))?.0, CommandResult::Done);
    assert_eq!(carol.wait_ended(LIMIT)?.end.and_then(|end| end.status), Some(486));

    // The first call has noticed nothing and ends by command.
    let hangup = CallCommand::Hangup { reason: EndReason::Hangup, whose: Blame::Customer };
    control.send(&[of_a_later_release(&control.frame(&command(first, 2, hangup))?)?])?;
    let end = ended(&alice)?.end.context("end")?;
    assert_eq!(end.how, "bye");
    wait_for("the count", LIMIT, || {
        Ok(edge.metric("tandem_edge_link_commands_unusable_total")? == 1.0)
    })?;
    edge.stop()
}
