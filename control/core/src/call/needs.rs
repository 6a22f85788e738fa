//! What the session needs from media now, the graph that gives it, and the steps from one graph
//! to the next: a step begins when every command of the step before has been answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use link_proto::call::{CallCommand, CallEvent};
use link_proto::media::{
    CollectEnd, MediaCommand, MediaEvent, PlayEnd, Port, RecordEnd, StartWhen,
};
use link_proto::message::{CommandMessage, CommandResult};
use link_proto::plan::{
    Channel, FlowSource, LegFacts, MediaGraph, Need, NodeCommand, PlanError, PlanInput, Policy,
    Processor, difference, plan,
};
use link_proto::table::{NodeEntry, ResourceUse};
use link_proto::{CallSid, ChannelId, NodeId, OpId};
use serde::{Deserialize, Serialize};

use super::legs::Leg;
use super::session::Session;
use super::turn::Turn;
use crate::record::{DirectionLabel, ProcessorPlace, TimelineEvent};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Media {
    next_op: u32,
    graph: MediaGraph,
    steps: VecDeque<Vec<NodeCommand>>,
    awaiting: BTreeSet<(NodeId, u64)>,
}

fn legs_of(need: &Need) -> [CallSid; 2] {
    match need {
        Need::Play { leg, .. } | Need::Collect { leg, .. } | Need::Watch { leg, .. } => {
            [*leg, *leg]
        }
        Need::Record { leg, with, .. } => [*leg, with.unwrap_or(*leg)],
        Need::Feed { from, to } => [*from, *to],
        Need::Bridge { a, b } => [*a, *b],
    }
}

fn op_of(need: &Need) -> Option<OpId> {
    match need {
        Need::Play { op, .. }
        | Need::Collect { op, .. }
        | Need::Watch { op, .. }
        | Need::Record { op, .. } => Some(*op),
        Need::Feed { .. } | Need::Bridge { .. } => None,
    }
}

fn port_of(command: &MediaCommand) -> Option<Port> {
    match command {
        MediaCommand::Play { port, .. }
        | MediaCommand::Collect { port, .. }
        | MediaCommand::Record { port, .. }
        | MediaCommand::Watch { port, .. } => Some(*port),
        _ => None,
    }
}

fn op_of_command(command: &MediaCommand) -> Option<OpId> {
    match command {
        MediaCommand::Play { op, .. }
        | MediaCommand::Collect { op, .. }
        | MediaCommand::Record { op, .. }
        | MediaCommand::Watch { op, .. } => Some(*op),
        _ => None,
    }
}

/// A command that makes no sense without one of these channels.
fn opens_or_uses(command: &MediaCommand, gone: &BTreeMap<ChannelId, Channel>) -> bool {
    let dead = |port: &Port| matches!(port, Port::Channel(id) if gone.contains_key(id));
    match command {
        MediaCommand::OpenChannel { channel, .. } => gone.contains_key(channel),
        MediaCommand::Link { from, to, .. } | MediaCommand::Unlink { from, to } => {
            dead(from) || dead(to)
        }
        other => port_of(other).is_some_and(|port| dead(&port)),
    }
}

/// Inside a channel the number is ours to choose; most endpoints use this one as well.
const TELEPHONE_EVENT_USUAL: u8 = 101;

impl Leg {
    /// What a channel carries digits as. Before the answer nobody knows whether the endpoint sends
    /// telephone-events; a channel without them would swallow every digit.
    fn telephone_event_expected(&self) -> Option<u8> {
        if self.answered() { self.telephone_event } else { Some(TELEPHONE_EVENT_USUAL) }
    }
}

impl Media {
    /// Commands wait until others have been answered.
    pub(crate) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// What it uses of each node.
    pub(crate) fn usage(&self) -> BTreeMap<NodeId, ResourceUse> {
        self.graph.usage()
    }

    /// Every node that takes part now.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        self.graph.nodes()
    }
}

impl Session {
    pub(crate) fn new_op(&mut self) -> OpId {
        self.media.next_op += 1;
        OpId(self.media.next_op)
    }

    /// Plans for what the present document needs from now on, and sends what leads there. Without a
    /// plan everything stays as it is.
    pub(crate) fn set_needs(
        &mut self,
        turn: &mut Turn<'_>,
        needs: Vec<Need>,
    ) -> Result<(), PlanError> {
        let before = std::mem::replace(&mut self.run.needs, needs);
        let planned = self.plan_now(turn);
        if planned.is_err() {
            self.run.needs = before;
        }
        planned
    }

    /// What all documents of the session need, without recordings beside them.
    fn needs_of_documents(&self) -> Vec<Need> {
        let runs = std::iter::once(&self.run).chain(self.screenings.values());
        runs.flat_map(|run| run.needs.iter().cloned()).collect()
    }

    /// Plans for the documents, and for recordings beside them.
    fn plan_now(&mut self, turn: &mut Turn<'_>) -> Result<(), PlanError> {
        let needs = self.needs_of_documents();
        let beside = self.leg_recording_needs();
        if beside.is_empty() {
            return self.plan_needs(turn, needs);
        }
        let all = needs.iter().cloned().chain(beside).collect();
        self.plan_needs(turn, all).or_else(|_| {
            // The instructions go before them.
            let ended = std::mem::take(&mut self.leg_recordings);
            self.plan_needs(turn, needs)?;
            for recording in ended.into_values() {
                self.recording_interrupted(turn, recording.rules.recording);
            }
            Ok(())
        })
    }

    /// A recording was added, the instructions are the same.
    pub(crate) fn plan_again(&mut self, turn: &mut Turn<'_>) -> Result<(), PlanError> {
        let mut needs = self.needs_of_documents();
        needs.extend(self.leg_recording_needs());
        self.plan_needs(turn, needs)
    }

    /// Something has ended by itself, or is wanted no more; the rest is the same.
    pub(crate) fn plan_rest(&mut self, turn: &mut Turn<'_>) {
        if self.plan_now(turn).is_err() {
            turn.metrics.internal_errors += 1;
        }
    }

    fn plan_needs(&mut self, turn: &mut Turn<'_>, needs: Vec<Need>) -> Result<(), PlanError> {
        let live = |leg: &CallSid| self.legs.get(leg).is_some_and(|leg| !leg.ended());
        let legs: Vec<LegFacts> = self
            .legs
            .values()
            .filter(|leg| !leg.ended())
            .map(|leg| LegFacts {
                leg: leg.record.sid,
                node: leg.record.node.clone(),
                codec: leg.codec,
                telephone_event: leg.telephone_event_expected(),
            })
            .collect();
        let needs: Vec<Need> =
            needs.into_iter().filter(|need| legs_of(need).iter().all(live)).collect();
        // A node that is away is no place for anything new. One that the session uses already is
        // expected back: control itself may have been away.
        let usable =
            |node: &NodeId| turn.nodes.up.contains_key(node) || self.links.contains_key(node);
        let mut nodes: Vec<NodeEntry> = turn.nodes.known.values().cloned().collect();
        for entry in &mut nodes {
            entry.available &= usable(&entry.node) && turn.nodes.takes_calls(&entry.node);
        }
        let input = PlanInput {
            legs,
            needs,
            nodes,
            used: turn.nodes.used_beside(&self.media.graph.usage()),
            policy: Policy { core_regions: turn.config.core_regions.clone() },
        };
        let graph = plan(&input)?;
        let steps = difference(&self.media.graph, &graph);
        let changed = self.media.graph != graph;
        self.media.graph = graph;
        self.media.steps.extend(steps);
        if changed {
            self.note_graph(turn);
        }
        self.send_steps(turn);
        Ok(())
    }

    /// Sends as many steps as may go now.
    fn send_steps(&mut self, turn: &mut Turn<'_>) {
        while self.media.awaiting.is_empty() {
            let Some(step) = self.media.steps.pop_front() else { return };
            for NodeCommand { node, leg, command } in step {
                let id = self.command_at(turn, node.clone(), leg, CallCommand::Media(command));
                self.media.awaiting.insert((node, id));
            }
        }
    }

    /// Asks every node that takes part for its counters.
    pub(crate) fn snapshot(&mut self, turn: &mut Turn<'_>, phase: u32) {
        for node in self.media.graph.nodes() {
            let leg = self
                .legs
                .values()
                .find(|leg| leg.record.node == node && !leg.ended())
                .map_or(self.sid, |leg| leg.record.sid);
            self.command_at(turn, node, leg, CallCommand::Media(MediaCommand::Snapshot { phase }));
        }
    }

    /// A command was answered.
    pub(crate) fn command_answered(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        id: u64,
        result: CommandResult,
    ) {
        let Some(link) = self.links.get_mut(node) else { return };
        let Some(message) = link.outbox.answered(id) else { return };
        self.media.awaiting.remove(&(node.clone(), id));
        if let CommandResult::Refused { why } = result {
            self.command_refused(turn, node, message, &why);
        }
        self.send_steps(turn);
    }

    /// A refusal is reported to the runner as the end of what was wanted, so that nobody waits.
    fn command_refused(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        message: CommandMessage,
        why: &str,
    ) {
        let alive = self.legs.get(&message.leg).is_some_and(|leg| !leg.ended());
        if !alive {
            return;
        }
        turn.metrics.commands_refused += 1;
        let event = match message.command {
            CallCommand::Dial(_) => {
                let end = super::legs::LegEnd {
                    reason: link_proto::call::EndReason::Unreachable,
                    whose: link_proto::call::Blame::Us,
                    sip_status: None,
                    stats: link_proto::call::LegStats::default(),
                    answered_ms: 0,
                };
                self.leg_ended(turn, message.leg, end);
                return;
            }
            CallCommand::Media(MediaCommand::Play { op, .. }) => {
                MediaEvent::PlayDone { op, end: PlayEnd::Failed }
            }
            CallCommand::Media(MediaCommand::Collect { op, .. }) => {
                let (digits, end) = (String::new(), CollectEnd::Stopped);
                MediaEvent::CollectDone { op, digits, end }
            }
            CallCommand::Media(MediaCommand::Record { op, rules, .. }) => {
                let (recording, end) = (rules.recording, RecordEnd::Failed);
                MediaEvent::RecordDone { op, recording, duration_ms: 0, end }
            }
            _ => return,
        };
        let alert = self.alert(turn, 0, crate::error_code::INTERNAL, why);
        self.put_alert(turn, alert);
        self.media_event(turn, node, event);
    }

    pub(crate) fn media_event(&mut self, turn: &mut Turn<'_>, node: &NodeId, event: MediaEvent) {
        match event {
            MediaEvent::PlayStarted { .. } | MediaEvent::CollectBegun { .. } => {}
            MediaEvent::PlayDone { op, end } => {
                self.forget(op);
                self.start_what_waits_for(turn, op);
                let screened = self.run_with_op(op);
                self.in_run(turn, screened, |session, turn| session.run_play_done(turn, op, end));
            }
            MediaEvent::CollectDone { op, digits, end } => {
                self.forget(op);
                let screened = self.run_with_op(op);
                if !digits.is_empty() {
                    let event = TimelineEvent::Digits { digits: self.shown(turn, &digits) };
                    self.note(turn, Some(screened.unwrap_or(self.sid)), event);
                }
                self.in_run(turn, screened, |session, turn| {
                    session.run_collect_done(turn, op, digits, end);
                });
            }
            MediaEvent::RecordDone { op, recording, duration_ms, end } => {
                self.forget(op);
                self.leg_recordings.remove(&op);
                let failed = end == RecordEnd::Failed;
                self.recording_ended(turn, recording, duration_ms, failed);
                self.run_record_done(turn, op, duration_ms, end);
            }
            MediaEvent::Key { op, key } => {
                let digits = self.shown(turn, key.encode_utf8(&mut [0; 4]));
                let event = TimelineEvent::Digits { digits };
                self.note(turn, Some(self.sid), event);
                self.run_key(turn, op);
            }
            MediaEvent::Snapshot {
                phase,
                packets_out_of_region,
                packets_to_endpoints,
                packets_from_endpoints,
            } => {
                let event = TimelineEvent::Counters {
                    phase,
                    node: node.clone(),
                    packets_out_of_region,
                    packets_to_endpoints,
                    packets_from_endpoints,
                };
                self.note(turn, None, event);
            }
            MediaEvent::ChannelState { up: true, .. } => {}
            MediaEvent::ChannelState { channel, up: false } => {
                let port = Port::Channel(channel);
                let lost = |processor: &Processor| port_of(&processor.command) == Some(port);
                let lost = self.lost_programs(lost);
                self.report_lost(turn, node, lost);
            }
        }
    }

    /// Digits for the timeline: hidden where they are sent encrypted.
    fn shown(&self, turn: &Turn<'_>, digits: &str) -> String {
        if turn.is_sealed(&self.account, "Digits") {
            return "x".repeat(digits.chars().count());
        }
        digits.to_owned()
    }

    /// A program ended by itself.
    fn forget(&mut self, op: OpId) {
        self.media.graph.forget(op);
        for run in std::iter::once(&mut self.run).chain(self.screenings.values_mut()) {
            run.needs.retain(|need| op_of(need) != Some(op));
        }
    }

    /// Programs on another node than the play they wait for are started by command.
    fn start_what_waits_for(&mut self, turn: &mut Turn<'_>, play: OpId) {
        let waits = |need: &Need| match need {
            Need::Collect { op, rules, .. } if rules.timer == StartWhen::AfterPlay(play) => {
                Some(*op)
            }
            Need::Record { op, rules, .. } if rules.start == StartWhen::AfterPlay(play) => {
                Some(*op)
            }
            _ => None,
        };
        let waiting: Vec<OpId> = self.needs_of_documents().iter().filter_map(waits).collect();
        for op in waiting {
            let Some(processor) = self.media.graph.processors.get(&op) else { continue };
            let by_command = match &processor.command {
                MediaCommand::Collect { rules, .. } => rules.timer == StartWhen::OnCommand,
                MediaCommand::Record { rules, .. } => rules.start == StartWhen::OnCommand,
                _ => false,
            };
            if by_command {
                let (node, leg) = (processor.node.clone(), processor.leg);
                let command = CallCommand::Media(MediaCommand::Start { op });
                self.command_at(turn, node, leg, command);
            }
        }
    }

    /// The leg's node has taken its port away; what is left of it elsewhere goes now.
    pub(crate) fn media_leg_ended(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        self.media.graph.forget_leg(leg);
        for run in std::iter::once(&mut self.run).chain(self.screenings.values_mut()) {
            run.needs.retain(|need| !legs_of(need).contains(&leg));
        }
        for step in &mut self.media.steps {
            step.retain(|command| command.leg != leg || op_of_command(&command.command).is_none());
        }
        self.plan_rest(turn);
    }

    /// A node is gone with its programs and channels. All of it is forgotten before anybody hears
    /// of it: what is planned next may use the node's new process, under the same channel numbers.
    pub(crate) fn media_node_lost(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        self.media.awaiting.retain(|(waiting, _)| waiting != node);
        let lost = self.lost_programs(|processor| processor.node == *node);
        let gone = self.media.graph.forget_node(node);
        for step in &mut self.media.steps {
            step.retain(|c| c.node != *node && !opens_or_uses(&c.command, &gone));
        }
        for (channel, ends) in &gone {
            let other = if ends.home == *node { &ends.far } else { &ends.home };
            let close = MediaCommand::CloseChannel { channel: *channel };
            self.command_at(turn, other.clone(), ends.leg, CallCommand::Media(close));
        }
        self.report_lost(turn, node, lost);
        self.send_steps(turn);
    }

    /// Commands of the programs that are lost.
    pub(crate) fn lost_programs(&self, lost: impl Fn(&Processor) -> bool) -> Vec<MediaCommand> {
        let processors = self.media.graph.processors.values();
        processors.filter(|p| lost(p)).map(|p| p.command.clone()).collect()
    }

    /// Programs that will not report any more are reported as failed.
    fn report_lost(&mut self, turn: &mut Turn<'_>, node: &NodeId, lost: Vec<MediaCommand>) {
        for command in lost {
            let event = match command {
                MediaCommand::Play { op, .. } => MediaEvent::PlayDone { op, end: PlayEnd::Failed },
                MediaCommand::Collect { op, .. } => {
                    let (digits, end) = (String::new(), CollectEnd::Stopped);
                    MediaEvent::CollectDone { op, digits, end }
                }
                MediaCommand::Record { op, rules, .. } => {
                    // What is on its disk comes when it is back.
                    self.forget(op);
                    self.leg_recordings.remove(&op);
                    self.recording_interrupted(turn, rules.recording);
                    self.run_record_done(turn, op, 0, RecordEnd::Failed);
                    continue;
                }
                _ => continue,
            };
            self.media_event(turn, node, event);
        }
    }

    /// Nodes or their resources have changed: the same needs may have a better place now. Programs
    /// that run are left where they are; only conversations move.
    pub(crate) fn replan(&mut self, turn: &mut Turn<'_>) {
        let conversation = |need: &Need| matches!(need, Need::Bridge { .. } | Need::Feed { .. });
        let needs = self.needs_of_documents();
        if self.leg_recordings.is_empty() && !needs.is_empty() && needs.iter().all(conversation) {
            // Without a plan the graph in force stays as it is.
            let _ = self.plan_needs(turn, needs);
        }
    }

    fn note_graph(&mut self, turn: &mut Turn<'_>) {
        let graph = &self.media.graph;
        let kind = |command: &MediaCommand| match command {
            MediaCommand::Play { .. } => "play",
            MediaCommand::Collect { .. } => "collect",
            MediaCommand::Record { .. } => "record",
            _ => "watch",
        };
        let name = |op: &OpId| {
            graph.processors.get(op).map_or("listener", |p| kind(&p.command)).to_owned()
        };
        let labels = graph
            .flows()
            .into_iter()
            .map(|flow| {
                let leg = flow.leg.to_string();
                let label = flow.mode.to_string();
                match flow.other {
                    FlowSource::Leg(from) => {
                        DirectionLabel { from: from.to_string(), to: leg, label }
                    }
                    FlowSource::Player(op) => DirectionLabel { from: name(&op), to: leg, label },
                    FlowSource::Listener(op) => DirectionLabel { from: leg, to: name(&op), label },
                }
            })
            .collect();
        let region = |node: &NodeId| {
            graph.regions.get(node).cloned().unwrap_or_else(|| link_proto::RegionId::from("?"))
        };
        let place = |kind: &str, node: &NodeId| ProcessorPlace {
            kind: kind.to_owned(),
            node: node.clone(),
            region: region(node),
        };
        let mut processors: Vec<ProcessorPlace> = graph
            .processors
            .values()
            .map(|processor| place(kind(&processor.command), &processor.node))
            .collect();
        let transcoders: BTreeSet<&NodeId> = graph
            .wires
            .iter()
            .filter(|wire| wire.path == link_proto::media::LinkPath::Transcode)
            .map(|wire| &wire.node)
            .collect();
        processors.extend(transcoders.into_iter().map(|node| place("transcode", node)));
        let phase = self.timeline.phase;
        self.note(turn, None, TimelineEvent::Graph { phase, labels, processors });
    }
}

/// Whether an event is about a leg's end (the edge sends it last).
pub(crate) fn is_end(event: &CallEvent) -> bool {
    matches!(event, CallEvent::Ended { .. })
}
