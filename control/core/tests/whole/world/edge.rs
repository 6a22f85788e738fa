//! A scripted edge: takes commands once and in order, does what they say to its legs, and reports
//! with sequence numbers until it is acknowledged.

use std::collections::{BTreeMap, VecDeque};

use control_core::io::Input;
use link_proto::call::{
    Blame, CallCommand, CallEvent, DialParams, EndReason, LegStats, Offered, OnPeerEnd,
};
use link_proto::media::{
    AudioCodec, CollectEnd, CollectRules, MediaCommand, MediaEvent, PlayEnd, PlayItem, Port,
    RecordEnd, RecordRules,
};
use link_proto::message::{
    CommandAck, CommandMessage, CommandResult, EventAck, EventMessage, LiveLeg,
};
use link_proto::session::{CommandInbox, EventOutbox, Verdict};
use link_proto::table::NodeEntry;
use link_proto::{CallSid, OpId};

pub struct Leg {
    pub session: CallSid,
    pub answered: bool,
    pub codec: AudioCodec,
    pub dial: Option<DialParams>,
    peer: Option<(CallSid, OnPeerEnd)>,
}

pub struct Edge {
    pub entry: NodeEntry,
    pub boot: u64,
    pub connected: bool,
    pub legs: BTreeMap<CallSid, Leg>,
    /// What callees say in their answers.
    pub answer_headers: Vec<(String, String)>,
    /// Codec that callees and callers speak.
    pub codec: AudioCodec,
    pub plays: BTreeMap<OpId, (CallSid, Port, Vec<PlayItem>)>,
    pub collects: BTreeMap<OpId, (CallSid, CollectRules)>,
    /// Where they listen.
    pub collect_legs: BTreeMap<OpId, CallSid>,
    pub records: BTreeMap<OpId, (CallSid, RecordRules)>,
    pub record_legs: BTreeMap<OpId, CallSid>,
    pub watches: BTreeMap<OpId, CallSid>,
    pub links: Vec<(Port, Port)>,
    /// Everything that was carried out, in order.
    pub commands: Vec<CallCommand>,
    inboxes: BTreeMap<CallSid, CommandInbox>,
    outboxes: BTreeMap<CallSid, EventOutbox>,
    outgoing: VecDeque<Outgoing>,
    next_leg: u8,
}

enum Outgoing {
    Event(EventMessage),
    Ack(CommandAck),
}

impl Edge {
    pub fn new(entry: NodeEntry) -> Self {
        Self {
            entry,
            boot: 1,
            connected: false,
            legs: BTreeMap::new(),
            answer_headers: Vec::new(),
            codec: AudioCodec::Pcmu,
            plays: BTreeMap::new(),
            collects: BTreeMap::new(),
            collect_legs: BTreeMap::new(),
            records: BTreeMap::new(),
            record_legs: BTreeMap::new(),
            watches: BTreeMap::new(),
            links: Vec::new(),
            commands: Vec::new(),
            inboxes: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            outgoing: VecDeque::new(),
            next_leg: 0,
        }
    }

    /// The process starts again with nothing.
    pub fn reboot(&mut self) {
        let entry = self.entry.clone();
        let (boot, next_leg) = (self.boot + 1, self.next_leg);
        *self = Self { boot, next_leg, ..Self::new(entry) };
    }

    pub fn live_legs(&self) -> Vec<LiveLeg> {
        let live = |(leg, state): (&CallSid, &Leg)| LiveLeg {
            session: state.session,
            leg: *leg,
            answered: state.answered,
        };
        self.legs.iter().map(live).collect()
    }

    pub fn unacknowledged(&self) -> Vec<EventMessage> {
        self.outboxes.values().flat_map(|outbox| outbox.unacknowledged().cloned()).collect()
    }

    pub fn acknowledged(&mut self, ack: &EventAck) {
        if let Some(outbox) = self.outboxes.get_mut(&ack.session) {
            outbox.acknowledge(ack.sequence);
        }
    }

    pub fn take_outgoing(&mut self, unix_ms: u64) -> VecDeque<Input> {
        let node = self.entry.node.clone();
        let outgoing = std::mem::take(&mut self.outgoing);
        if !self.connected {
            return VecDeque::new();
        }
        outgoing
            .into_iter()
            .map(|item| match item {
                Outgoing::Event(message) => {
                    let message = EventMessage { at_unix_ms: unix_ms, ..message };
                    Input::LinkEvent { node: node.clone(), message }
                }
                Outgoing::Ack(ack) => Input::CommandAck { node: node.clone(), ack },
            })
            .collect()
    }

    fn emit(&mut self, session: CallSid, leg: CallSid, event: CallEvent) {
        let message = EventMessage { session, sequence: 0, leg, at_unix_ms: 0, event };
        let outbox = self.outboxes.entry(session).or_default();
        let message = outbox.push(message, 1_000).unwrap().clone();
        self.outgoing.push_back(Outgoing::Event(message));
    }

    fn media(&mut self, leg: CallSid, session: CallSid, event: MediaEvent) {
        self.emit(session, leg, CallEvent::Media(event));
    }

    fn session_of(&self, leg: CallSid) -> CallSid {
        self.legs.get(&leg).map_or(leg, |leg| leg.session)
    }

    // ---- the script ----

    pub fn offer(&mut self, from: &str, to: &str) -> CallSid {
        self.next_leg += 1;
        let leg = CallSid([self.next_leg; 16]);
        let codec = self.codec;
        self.legs.insert(leg, Leg { session: leg, answered: false, codec, dial: None, peer: None });
        let offered = Offered {
            from: from.to_owned(),
            to: to.to_owned(),
            caller_name: None,
            forwarded_from: None,
            provider: "p".to_owned(),
            sip_call_id: "id@h".to_owned(),
            source: "127.0.0.1".to_owned(),
            sip_domain: "h".to_owned(),
            headers: vec![("X-A".to_owned(), "b".to_owned())],
            codecs: vec![codec],
        };
        self.emit(leg, leg, CallEvent::Offered(offered));
        leg
    }

    /// The legs that control has dialled here.
    pub fn dialled(&self) -> Vec<CallSid> {
        self.legs.iter().filter(|(_, leg)| leg.dial.is_some()).map(|(sid, _)| *sid).collect()
    }

    pub fn ring(&mut self, leg: CallSid, early_media: bool) {
        let session = self.session_of(leg);
        self.emit(session, leg, CallEvent::Ringing { status: 180, early_media });
    }

    pub fn answer(&mut self, leg: CallSid) {
        let codec = self.codec;
        let Some(state) = self.legs.get_mut(&leg) else { return };
        if std::mem::replace(&mut state.answered, true) {
            return;
        }
        let codec = if state.dial.is_some() { codec } else { state.codec };
        let session = state.session;
        let (telephone_event, sip_call_id) = (Some(101), "out@h".to_owned());
        let headers = self.answer_headers.clone();
        let event = CallEvent::Answered { codec, telephone_event, sip_call_id, headers };
        self.emit(session, leg, event);
    }

    pub fn finish_plays(&mut self) {
        for op in self.plays.keys().copied().collect::<Vec<_>>() {
            self.end_play(op, PlayEnd::Finished);
        }
    }

    /// One program comes to its end.
    pub fn finish_play(&mut self, op: OpId) {
        self.end_play(op, PlayEnd::Finished);
    }

    /// Digits of one leg end its collection.
    pub fn digits_of(&mut self, leg: CallSid, digits: &str, end: CollectEnd) {
        let op = self.collect_legs.iter().find(|(_, of)| **of == leg).map(|(op, _)| *op);
        let op = op.expect("a collection of the leg");
        let collect = self.collects.remove(&op).expect("a collection");
        let others = std::mem::replace(&mut self.collects, [(op, collect)].into());
        self.digits(digits, end);
        self.collects = others;
    }

    fn end_play(&mut self, op: OpId, end: PlayEnd) {
        if let Some((session, _, _)) = self.plays.remove(&op) {
            self.media(session, session, MediaEvent::PlayDone { op, end });
        }
    }

    /// Digits end the collection that is there.
    pub fn digits(&mut self, digits: &str, end: CollectEnd) {
        let (op, (session, rules)) = self.collects.pop_first().expect("a collection");
        if let Some(play) = rules.stops_play.filter(|_| !digits.is_empty()) {
            self.end_play(play, PlayEnd::Stopped);
        }
        let digits = digits.to_owned();
        self.media(session, session, MediaEvent::CollectDone { op, digits, end });
    }

    pub fn recorded(&mut self, duration_ms: u64, end: RecordEnd) {
        let (op, (session, rules)) = self.records.pop_first().expect("a recording");
        let recording = rules.recording;
        self.media(session, session, MediaEvent::RecordDone { op, recording, duration_ms, end });
    }

    pub fn star(&mut self) {
        let (op, session) = self.watches.iter().next().map(|(o, s)| (*o, *s)).expect("a watch");
        self.media(session, session, MediaEvent::Key { op, key: '*' });
    }

    /// The endpoint, or the edge itself, ends a leg.
    pub fn end(&mut self, leg: CallSid, reason: EndReason, whose: Blame, sip: Option<u16>) {
        let Some(state) = self.legs.remove(&leg) else { return };
        let session = state.session;
        let on_leg = |port: &Port| *port == Port::Leg(leg);
        let plays: Vec<OpId> =
            self.plays.iter().filter(|(_, p)| on_leg(&p.1)).map(|(op, _)| *op).collect();
        for op in plays {
            self.end_play(op, PlayEnd::LegEnded);
        }
        let of_leg = |op: &OpId| self.record_legs.get(op) == Some(&leg);
        let records: Vec<OpId> = self.records.keys().copied().filter(of_leg).collect();
        for op in records.into_iter().filter(|_| leg != session) {
            let Some((session, rules)) = self.records.remove(&op) else { continue };
            let (recording, duration_ms, end) = (rules.recording, 2_000, RecordEnd::LegEnded);
            let done = MediaEvent::RecordDone { op, recording, duration_ms, end };
            self.media(session, session, done);
        }
        if leg == session {
            while !self.collects.is_empty() {
                self.digits("", CollectEnd::LegEnded);
            }
            while !self.records.is_empty() {
                self.recorded(2_000, RecordEnd::LegEnded);
            }
        }
        let answered_ms = if state.answered { 1_500 } else { 0 };
        let stats = LegStats::default();
        let end = CallEvent::Ended { reason, whose, sip_status: sip, stats, answered_ms };
        self.emit(session, leg, end);
        if let Some((peer, then)) = state.peer {
            if let Some(other) = self.legs.get_mut(&peer) {
                other.peer = None;
            }
            if then == OnPeerEnd::End {
                self.end(peer, EndReason::PeerEnded, whose, None);
            }
        }
    }

    pub fn hangs_up(&mut self, leg: CallSid) {
        let answered = self.legs.get(&leg).is_some_and(|leg| leg.answered);
        let outbound = self.legs.get(&leg).is_some_and(|leg| leg.dial.is_some());
        let whose = if outbound { Blame::Callee } else { Blame::Caller };
        let reason = if answered { EndReason::RemoteBye } else { EndReason::RemoteCancel };
        self.end(leg, reason, whose, None);
    }

    // ---- commands ----

    pub fn command(&mut self, message: CommandMessage) {
        let inbox = self.inboxes.entry(message.session).or_default();
        let (session, id) = (message.session, message.id);
        let result = match inbox.accept(message.epoch, id) {
            Verdict::Execute => {
                let result = self.execute(&message);
                self.inboxes.entry(session).or_default().store(id, result.clone());
                result
            }
            Verdict::Repeat(result) => result,
            Verdict::OldEpoch => CommandResult::Refused { why: "old epoch".to_owned() },
            Verdict::Gap => return,
        };
        self.outgoing.push_back(Outgoing::Ack(CommandAck { session, id, result }));
    }

    fn execute(&mut self, message: &CommandMessage) -> CommandResult {
        let (session, leg) = (message.session, message.leg);
        self.commands.push(message.command.clone());
        if let CallCommand::Dial(params) = &message.command {
            let codec = params.codecs[0];
            let dial = Some(params.clone());
            self.legs.insert(leg, Leg { session, answered: false, codec, dial, peer: None });
            return CommandResult::Done;
        }
        if let CallCommand::Media(command) = &message.command {
            return self.execute_media(session, command.clone());
        }
        if !self.legs.contains_key(&leg) {
            return CommandResult::Refused { why: "no such leg".to_owned() };
        }
        match message.command.clone() {
            CallCommand::Accept { codec } => {
                assert_eq!(codec, Some(self.legs[&leg].codec));
                self.answer(leg);
            }
            CallCommand::Reject { status, .. } => {
                self.end(leg, EndReason::Rejected, Blame::Customer, Some(status));
            }
            CallCommand::Hangup { reason, whose } => self.end(leg, reason, whose, None),
            CallCommand::Couple { peer, on_peer_end, peer_on_end } => {
                let Some(other) = self.legs.get_mut(&peer) else {
                    return CommandResult::Refused { why: "no such peer".to_owned() };
                };
                other.peer = Some((leg, on_peer_end));
                self.legs.get_mut(&leg).unwrap().peer = Some((peer, peer_on_end));
            }
            _ => {}
        }
        CommandResult::Done
    }

    fn execute_media(&mut self, session: CallSid, command: MediaCommand) -> CommandResult {
        match command {
            MediaCommand::Play { op, port, items } => {
                if let Port::Leg(leg) = port
                    && !self.legs.contains_key(&leg)
                {
                    return CommandResult::Refused { why: "no such leg".to_owned() };
                }
                self.plays.insert(op, (session, port, items));
            }
            MediaCommand::Collect { op, port, rules } => {
                if let Port::Leg(leg) = port {
                    self.collect_legs.insert(op, leg);
                }
                self.collects.insert(op, (session, rules));
            }
            MediaCommand::Record { op, port, rules } => {
                if let Port::Leg(leg) = port {
                    self.record_legs.insert(op, leg);
                }
                self.records.insert(op, (session, rules));
            }
            MediaCommand::Watch { op, .. } => {
                self.watches.insert(op, session);
            }
            MediaCommand::Link { from, to, .. } => self.links.push((from, to)),
            MediaCommand::Unlink { from, to } => self.links.retain(|link| *link != (from, to)),
            MediaCommand::Stop { op } => {
                self.end_play(op, PlayEnd::Stopped);
                self.watches.remove(&op);
                if let Some((session, _)) = self.collects.remove(&op) {
                    let (digits, end) = (String::new(), CollectEnd::Stopped);
                    self.media(session, session, MediaEvent::CollectDone { op, digits, end });
                }
                if let Some((session, rules)) = self.records.remove(&op) {
                    let (recording, end) = (rules.recording, RecordEnd::Stopped);
                    let done = MediaEvent::RecordDone { op, recording, duration_ms: 900, end };
                    self.media(session, session, done);
                }
            }
            MediaCommand::Snapshot { phase } => {
                let event = MediaEvent::Snapshot {
                    phase,
                    packets_out_of_region: 0,
                    packets_to_endpoints: 1,
                    packets_from_endpoints: 2,
                };
                self.media(session, session, event);
            }
            MediaCommand::OpenChannel { .. }
            | MediaCommand::CloseChannel { .. }
            | MediaCommand::PauseRecord { .. }
            | MediaCommand::ResumeRecord { .. }
            | MediaCommand::Start { .. } => {}
        }
        CommandResult::Done
    }
}
