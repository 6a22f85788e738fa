//! The table of cases. `docs/reference/media-plan.md` is written from it and checked against it.

use std::fmt::Write as _;

use super::*;
use crate::ids::ChannelId;
use crate::media::Port;
use crate::table::{ResourceLimits, ResourceUse};

fn sid(n: u8) -> CallSid {
    CallSid([n; 16])
}

const A: u8 = 0xa;
const B: u8 = 0xb;

fn node(name: &str, region: &str, core: bool, off: &str) -> NodeEntry {
    let resources = Resources {
        play: !off.contains("play"),
        collect: !off.contains("collect"),
        record: !off.contains("record"),
        transcode: !off.contains("transcode"),
        speech: !off.contains("speech"),
    };
    NodeEntry {
        node: NodeId::from(name),
        region: RegionId::from(region),
        trunk_address: String::new(),
        resources,
        limits: ResourceLimits::default(),
        core,
        available: true,
    }
}

fn leg(n: u8, home: &str, codec: AudioCodec) -> LegFacts {
    LegFacts { leg: sid(n), node: NodeId::from(home), codec, telephone_event: Some(101) }
}

fn play() -> Need {
    Need::Play { op: OpId(1), leg: sid(A), items: vec![], speech: true }
}

fn collect() -> Need {
    let rules = CollectRules {
        digits_max: Some(1),
        finish_on: "#".into(),
        timeout_ms: 5000,
        timer: StartWhen::AfterPlay(OpId(1)),
        stops_play: Some(OpId(1)),
    };
    Need::Collect { op: OpId(2), leg: sid(A), rules }
}

fn record() -> Need {
    let rules = RecordRules {
        recording: crate::ids::RecordingSid([1; 16]),
        with: None,
        track: Default::default(),
        dual_channel: false,
        start: StartWhen::Now,
        length_max_ms: 1000,
        silence_timeout_ms: 0,
        finish_on: String::new(),
        trim_silence: false,
    };
    Need::Record { op: OpId(3), leg: sid(A), with: Some(sid(B)), rules }
}

fn bridge() -> Need {
    Need::Bridge { a: sid(A), b: sid(B) }
}

struct Case {
    name: &'static str,
    nodes: Vec<NodeEntry>,
    legs: Vec<LegFacts>,
    needs: Vec<Need>,
    used: BTreeMap<NodeId, ResourceUse>,
}

/// Every node has one of each, and these have given theirs away.
fn used_up(mut case: Case, nodes: &[&str]) -> Case {
    let one = Some(1);
    for entry in &mut case.nodes {
        entry.limits = ResourceLimits {
            plays_max: one,
            collects_max: one,
            records_max: one,
            transcodes_max: one,
        };
    }
    let all = ResourceUse { plays: 1, collects: 1, records: 1, transcodes: 1 };
    case.used = nodes.iter().map(|node| (NodeId::from(*node), all)).collect();
    case
}

fn cases() -> Vec<Case> {
    use AudioCodec::{Pcma, Pcmu};
    let core = || node("core-1", "core", true, "");
    let two = |off: &str| vec![node("eu-1", "eu", false, off), core()];
    let one_leg = || vec![leg(A, "eu-1", Pcmu)];
    let pair = || vec![leg(A, "eu-1", Pcmu), leg(B, "eu-1", Pcmu)];
    let mixed = || vec![leg(A, "eu-1", Pcma), leg(B, "eu-1", Pcmu)];
    let far = || vec![leg(A, "eu-1", Pcmu), leg(B, "core-1", Pcmu)];
    let case = |name, nodes, legs, needs| Case { name, nodes, legs, needs, used: BTreeMap::new() };
    vec![
        case("prompt, the region can play", two(""), one_leg(), vec![play()]),
        case(
            "prompt and keys, the region can do both",
            two(""),
            one_leg(),
            vec![play(), collect()],
        ),
        case(
            "prompt and keys, the region cannot play",
            two("play speech"),
            one_leg(),
            vec![play(), collect()],
        ),
        case("speech only is switched off in the region", two("speech"), one_leg(), vec![play()]),
        case(
            "another node of the region plays",
            {
                let mut nodes = two("play");
                nodes.insert(1, node("eu-2", "eu", false, ""));
                nodes
            },
            one_leg(),
            vec![play()],
        ),
        case("two legs of one edge", two(""), pair(), vec![bridge()]),
        case(
            "two legs of one region, two edges",
            vec![node("eu-1", "eu", false, ""), node("eu-2", "eu", false, ""), core()],
            vec![leg(A, "eu-1", Pcmu), leg(B, "eu-2", Pcmu)],
            vec![bridge()],
        ),
        case("callee reached through another region", two(""), far(), vec![bridge()]),
        case("different codecs, the region can transcode", two(""), mixed(), vec![bridge()]),
        case(
            "different codecs, the region cannot transcode",
            two("transcode"),
            mixed(),
            vec![bridge()],
        ),
        case("bridge, recorded in the region", two(""), pair(), vec![bridge(), record()]),
        case("bridge, recorded in the core", two("record"), pair(), vec![bridge(), record()]),
        case(
            "early media of a callee elsewhere",
            two(""),
            far(),
            vec![Need::Feed { from: sid(B), to: sid(A) }],
        ),
        used_up(
            case("one of each in the region", two(""), one_leg(), vec![play(), collect()]),
            &["core-1"],
        ),
        used_up(
            case(
                "prompt and keys, used up in the region",
                two(""),
                one_leg(),
                vec![play(), collect()],
            ),
            &["eu-1"],
        ),
        used_up(
            case("different codecs, used up in the region", two(""), mixed(), vec![bridge()]),
            &["eu-1"],
        ),
        used_up(case("used up everywhere", two(""), one_leg(), vec![play()]), &["eu-1", "core-1"]),
        case("nobody can play", vec![node("eu-1", "eu", false, "play")], one_leg(), vec![play()]),
        case("two sources for one leg", two(""), pair(), vec![play(), bridge()]),
    ]
}

fn input(case: &Case) -> PlanInput {
    PlanInput {
        legs: case.legs.clone(),
        needs: case.needs.clone(),
        nodes: case.nodes.clone(),
        used: case.used.clone(),
        policy: Policy::default(),
    }
}

fn party(sid: CallSid) -> &'static str {
    if sid.0[0] == A { "A" } else { "B" }
}

fn describe(case: &Case) -> String {
    let graph = match plan(&input(case)) {
        Ok(graph) => graph,
        Err(error) => {
            let text = error.to_string();
            return text.replace(&sid(A).to_string(), "A").replace(&sid(B).to_string(), "B");
        }
    };
    let mut text = String::new();
    for flow in graph.flows() {
        let leg = party(flow.leg);
        let way = match flow.other {
            FlowSource::Leg(other) => format!("{leg} hears {}", party(other)),
            FlowSource::Player(_) => format!("{leg} hears prompt"),
            FlowSource::Listener(_) => format!("{leg} to listener"),
        };
        let regions: Vec<&str> = flow.regions.iter().map(RegionId::as_str).collect();
        let _ = write!(text, "{way}: **{}** ({}); ", flow.mode, regions.join(" → "));
    }
    let _ = write!(text, "{} channel(s)", graph.channels.len());
    text
}

fn table() -> String {
    let mut text = String::from(
        "# The media plan, case by case\n\nWritten from the cases in `link/proto/src/plan/tests.rs`, \
         which check it. Edge `eu-1` is the home of leg A;\n`core-1` is a media node of the core \
         region. Modes are computed from the graph, per direction.\n\n| case | result |\n|---|---|\n",
    );
    for case in cases() {
        let _ = writeln!(text, "| {} | {} |", case.name, describe(&case));
    }
    text
}

#[test]
fn the_table_of_cases_is_the_one_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/media-plan.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, table()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(committed, table(), "run with UPDATE_DOCS=1 and read the change");
}

/// Every wire names ports that exist on its node, and no port has two sources.
#[test]
fn graphs_are_consistent() {
    for case in cases() {
        let Ok(graph) = plan(&input(&case)) else { continue };
        let mut fed = std::collections::BTreeSet::new();
        for wire in &graph.wires {
            assert!(fed.insert((wire.node.clone(), wire.to)), "{}: two sources", case.name);
            for port in [wire.from, wire.to] {
                let there = match port {
                    Port::Leg(leg) => graph.homes[&leg] == wire.node,
                    Port::Channel(id) => {
                        let channel = &graph.channels[&id];
                        channel.home == wire.node || channel.far == wire.node
                    }
                };
                assert!(there, "{}: {port:?} is not on {}", case.name, wire.node);
            }
        }
    }
}

fn graph_of(name: &str) -> MediaGraph {
    let case = cases().into_iter().find(|case| case.name == name).unwrap();
    plan(&input(&case)).unwrap()
}

#[test]
fn a_local_change_is_one_step_and_makes_before_it_breaks() {
    let (old, new) = (graph_of("prompt, the region can play"), graph_of("two legs of one edge"));
    let steps = difference(&old, &new);
    assert_eq!(steps.len(), 1);
    let commands: Vec<_> = steps[0].iter().map(|c| &c.command).collect();
    assert!(matches!(commands[0], MediaCommand::Link { .. }));
    assert!(matches!(commands[1], MediaCommand::Link { .. }));
    assert_eq!(*commands[2], MediaCommand::Stop { op: OpId(1) });
    assert!(difference(&new, &new).is_empty());
}

#[test]
fn a_backhauled_player_starts_after_both_ends_of_its_channel_are_open() {
    let new = graph_of("prompt and keys, the region cannot play");
    let steps = difference(&MediaGraph::default(), &new);
    assert_eq!(steps.len(), 2);
    let open = |c: &NodeCommand| matches!(c.command, MediaCommand::OpenChannel { .. });
    assert_eq!(steps[0].iter().filter(|c| open(c)).count(), 2);
    let collects = |c: &&NodeCommand| matches!(c.command, MediaCommand::Collect { .. });
    let collect = steps.iter().flatten().find(collects).unwrap();
    assert_eq!(collect.node, NodeId::from("eu-1"), "keys are collected in the region");
    let MediaCommand::Collect { rules, .. } = &collect.command else { unreachable!() };
    assert_eq!(rules.timer, StartWhen::OnCommand, "the player runs elsewhere");
    let plays = |c: &NodeCommand| matches!(c.command, MediaCommand::Play { .. });
    assert!(steps[1].iter().any(|c| plays(c) && c.node == NodeId::from("core-1")));

    // Back home: the conversation is made first, the channel goes last.
    let steps = difference(&new, &graph_of("two legs of one edge"));
    let last = steps.last().unwrap().last().unwrap();
    assert!(matches!(last.command, MediaCommand::CloseChannel { .. }));
    assert!(matches!(steps[0][0].command, MediaCommand::Link { .. }));
}

#[test]
fn channels_of_different_legs_and_nodes_differ() {
    let graph = graph_of("different codecs, the region cannot transcode");
    let ids: Vec<ChannelId> = graph.channels.keys().copied().collect();
    assert_eq!(ids.len(), 2);
}

/// Applying the commands of `difference` to a model of the nodes gives the new graph.
#[test]
fn differences_lead_from_any_case_to_any_other() {
    let graphs: Vec<MediaGraph> = cases().iter().filter_map(|c| plan(&input(c)).ok()).collect();
    for old in &graphs {
        for new in &graphs {
            let mut wires = old.wires.clone();
            let mut ops: std::collections::BTreeSet<OpId> =
                old.processors.keys().copied().collect();
            let mut channels: std::collections::BTreeSet<(NodeId, ChannelId)> = old
                .channels
                .iter()
                .flat_map(|(id, c)| [(c.home.clone(), *id), (c.far.clone(), *id)])
                .collect();
            for NodeCommand { node, command, .. } in difference(old, new).into_iter().flatten() {
                match command {
                    MediaCommand::OpenChannel { channel, .. } => {
                        assert!(channels.insert((node, channel)))
                    }
                    MediaCommand::CloseChannel { channel } => {
                        assert!(channels.remove(&(node, channel)))
                    }
                    MediaCommand::Link { from, to, path } => {
                        wires.retain(|w| w.node != node || w.to != to);
                        wires.insert(Wire { node, to, from, path });
                    }
                    MediaCommand::Unlink { from, to } => {
                        wires.retain(|w| w.node != node || w.to != to || w.from != from);
                    }
                    MediaCommand::Play { op, .. }
                    | MediaCommand::Collect { op, .. }
                    | MediaCommand::Record { op, .. }
                    | MediaCommand::Watch { op, .. } => {
                        ops.insert(op);
                    }
                    MediaCommand::Stop { op } => assert!(ops.remove(&op)),
                    MediaCommand::Start { .. }
                    | MediaCommand::PauseRecord { .. }
                    | MediaCommand::ResumeRecord { .. }
                    | MediaCommand::Snapshot { .. } => unreachable!(),
                }
            }
            assert_eq!(wires, new.wires);
            assert_eq!(ops, new.processors.keys().copied().collect());
            assert_eq!(channels.len(), new.channels.len() * 2);
        }
    }
}
