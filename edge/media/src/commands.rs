//! Commands of signalling, carried out in order.

use std::time::Instant;

use media_core::dtmf::Digit;

use crate::command::{
    ChannelConfig, CollectProgram, LegConfig, OpKey, PortKey, ProgramItem, RecordPause,
    RecordProgram, RecordTrack, SessionKey, WorkerCommand,
};
use crate::digits::Way;
use crate::event::{CollectEnd, LegStats, PlayEnd, RecordEnd, RegionCounters, WorkerEvent};
use crate::latch::PeerChanges;
use crate::limits::FIRST_FILL_US;
use crate::op::{Body, Op};
use crate::path::collect::Collect;
use crate::path::playback::Play;
use crate::path::record::Record;
use crate::port::{Kind, Port, Source};
use crate::recording::RecorderMessage;
use crate::tx::{Component, Tx};
use crate::worker::{At, Returned, Worker};

impl Worker {
    /// Carries out one command.
    pub fn handle_command<T: Tx>(&mut self, now: Instant, command: WorkerCommand, tx: &mut T) {
        let at = self.at(now);
        self.take_back_for(&command, at, tx);
        match command {
            WorkerCommand::AddLeg { port, session, config } => {
                self.add_leg(port, session, config, at, tx);
            }
            WorkerCommand::UpdateLeg { port, config } => self.update_leg(port, config, at, tx),
            WorkerCommand::AddChannel { port, session, config } => {
                self.add_channel(port, session, &config, at);
            }
            WorkerCommand::RemovePort { port } => self.remove_port(port, at, tx),
            WorkerCommand::Connect { from, to, path: _ } => self.connect(from, to, at),
            WorkerCommand::Disconnect { from, to } => self.disconnect(from, to, at),
            WorkerCommand::StartPlay { op, port, items } => self.start_play(op, port, items, at),
            WorkerCommand::StartCollect { op, port, program } => {
                self.start_collect(op, port, program, at);
            }
            WorkerCommand::StartRecord { op, port, program } => {
                self.start_record(op, port, program, at, tx);
            }
            WorkerCommand::PauseRecord { op, pause } => self.pause_record(op, pause, at, tx),
            WorkerCommand::StartWatch { op, port, keys } => self.start_watch(op, port, keys),
            WorkerCommand::StartOp { op } => self.start_op(op, at),
            WorkerCommand::StopOp { op } => self.stop_op(op, at, tx),
            WorkerCommand::InjectDigit { port, digit, duration_ms: _ } => {
                if let (Some(slot), Some(digit)) = (self.ports.find(port), Digit::from_char(digit))
                {
                    self.take_digit(slot, digit, Way::Signalling, at, tx);
                }
            }
            WorkerCommand::Snapshot { session, phase } => self.snapshot(session, phase),
        }
    }

    fn add_leg<T: Tx>(
        &mut self,
        key: PortKey,
        session: SessionKey,
        config: LegConfig,
        at: At,
        tx: &mut T,
    ) {
        let port = Port::leg(key, session, &config, at.us, &mut self.random);
        match self.ports.insert(port) {
            Some(slot) => self.configure(slot, &config, at, tx),
            None => self.refuse_port(key),
        }
        self.returned.push_back(Returned::Leg(config));
    }

    fn update_leg<T: Tx>(&mut self, key: PortKey, config: LegConfig, at: At, tx: &mut T) {
        if let Some(slot) = self.ports.find(key) {
            self.configure(slot, &config, at, tx);
        }
        self.returned.push_back(Returned::Leg(config));
    }

    fn configure<T: Tx>(&mut self, slot: u32, config: &LegConfig, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let PeerChanges { rtp, rtcp } = port.configure(config, at.us);
        if let Some(peer) = rtp {
            tx.set_peer(port.key, Component::Rtp, peer);
        }
        if let Some(peer) = rtcp {
            tx.set_peer(port.key, Component::Rtcp, peer);
        }
        self.settle_detector(slot);
        self.make_rhythm(slot, at);
    }

    /// Frames made at this port begin now if they have to, and its deadline is set.
    fn make_rhythm(&mut self, slot: u32, at: At) {
        if let Some(port) = self.ports.get_mut(slot) {
            if !port.makes_frames() {
                port.out.tick_us = None;
            } else if port.is_waiting_for_first_source() {
                port.out.tick_us.get_or_insert(at.us + FIRST_FILL_US);
            } else {
                port.out.start_rhythm(at.us);
            }
        }
        self.schedule(slot);
    }

    fn refuse_port(&mut self, port: PortKey) {
        self.stats.refused += 1;
        self.emit(WorkerEvent::PortRefused { port });
    }

    fn add_channel(&mut self, key: PortKey, session: SessionKey, config: &ChannelConfig, at: At) {
        let port = Port::channel(key, session, config, at.us, &mut self.random);
        match self.ports.insert(port) {
            Some(slot) => self.ports.name_channel(config.peer, config.channel, slot),
            None => self.refuse_port(key),
        }
    }

    fn remove_port<T: Tx>(&mut self, key: PortKey, at: At, tx: &mut T) {
        let Some(slot) = self.ports.find(key) else { return };
        let Some(port) = self.ports.get(slot) else { return };
        let (listeners, sinks, source) = (port.input.listeners, port.sinks, port.out.source);
        match source {
            Source::Play(place) => self.end_play(place, PlayEnd::LegEnded),
            Source::Port(_) | Source::None => self.clear_source(slot, at.us),
        }
        for place in listeners.as_slice() {
            self.port_of_program_gone(*place, slot, tx);
        }
        for sink in sinks.as_slice() {
            self.clear_source(*sink, at.us);
        }
        self.settle_detector(slot);
        self.deadlines.set(slot, None);
        self.quiet.set(slot, None);
        let Some(port) = self.ports.remove(slot) else { return };
        let (stats, counters) = (leg_stats(&port), port.counters);
        self.emit(WorkerEvent::PortRemoved { port: key, stats, counters });
    }

    /// A program ends with its port; a recording goes on without its second one.
    fn port_of_program_gone<T: Tx>(&mut self, place: u32, slot: u32, tx: &mut T) {
        let Some(op) = self.ops.get_mut(place) else { return };
        if op.port == slot {
            return self.end_listener(place, true, tx);
        }
        if let Body::Record(record) = &mut op.body {
            record.with = None;
        }
    }

    fn end_listener<T: Tx>(&mut self, place: u32, leg_ended: bool, tx: &mut T) {
        let Some(op) = self.ops.get(place) else { return };
        match (&op.body, leg_ended) {
            (Body::Play(_), true) => self.end_play(place, PlayEnd::LegEnded),
            (Body::Play(_), false) => self.end_play(place, PlayEnd::Stopped),
            (Body::Collect(_), true) => self.end_collect(place, CollectEnd::LegEnded),
            (Body::Collect(_), false) => self.end_collect(place, CollectEnd::Stopped),
            (Body::Record(_), true) => self.end_record(place, RecordEnd::LegEnded, tx),
            (Body::Record(_), false) => self.end_record(place, RecordEnd::Stopped, tx),
            (Body::Watch(_), _) => {
                self.unlisten(place);
                if let Some(Op { body: Body::Watch(keys), .. }) = self.ops.remove(place) {
                    self.returned.push_back(Returned::Text(keys));
                }
            }
        }
    }

    /// Takes the source of a port away, whatever it is; a leg goes on with silence.
    pub(crate) fn clear_source(&mut self, slot: u32, now_us: u64) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let source = std::mem::replace(&mut port.out.source, Source::None);
        port.out.begun = false;
        match source {
            Source::None => {}
            Source::Play(place) => self.end_play(place, PlayEnd::Stopped),
            Source::Port(from) => {
                if let Some(from) = self.ports.get_mut(from) {
                    from.sinks.remove(slot);
                }
            }
        }
        if let Some(port) = self.ports.get_mut(slot)
            && port.makes_frames()
        {
            port.out.start_rhythm(now_us);
        }
        self.schedule(slot);
    }

    fn connect(&mut self, from: PortKey, to: PortKey, at: At) {
        let (Some(from), Some(to)) = (self.ports.find(from), self.ports.find(to)) else { return };
        if from == to || self.ports.get(to).is_some_and(|p| p.out.source == Source::Port(from)) {
            return;
        }
        self.clear_source(to, at.us);
        if !self.ports.get_mut(from).is_some_and(|port| port.sinks.push(to)) {
            self.stats.sinks_refused += 1;
            return;
        }
        if let Some(port) = self.ports.get_mut(to) {
            port.out.source = Source::Port(from);
            port.out.relay_id = port.out.fresh_id();
        }
        self.make_rhythm(to, at);
    }

    fn disconnect(&mut self, from: PortKey, to: PortKey, at: At) {
        let (Some(from), Some(to)) = (self.ports.find(from), self.ports.find(to)) else { return };
        if self.ports.get(to).is_some_and(|port| port.out.source == Source::Port(from)) {
            self.clear_source(to, at.us);
            self.make_rhythm(to, at);
        }
    }

    fn start_play(&mut self, key: OpKey, port: PortKey, items: Vec<ProgramItem>, at: At) {
        let slot = self.ports.find(port).filter(|_| !self.ops.is_full());
        let Some(slot) = slot else {
            let gone = self.ports.find(port).is_none();
            self.stats.refused += u64::from(!gone);
            let end = if gone { PlayEnd::LegEnded } else { PlayEnd::Failed };
            self.emit(WorkerEvent::PlayDone { op: key, end });
            return self.returned.push_back(Returned::Items(items));
        };
        self.clear_source(slot, at.us);
        let body = Body::Play(Play::new(items));
        let Ok(place) = self.ops.insert(Op { key, port: slot, body }) else { return };
        if let Some(port) = self.ports.get_mut(slot) {
            if port.is_waiting_for_first_source() {
                // The first thing to be heard begins the rhythm.
                port.out.tick_us = None;
            }
            port.out.source = Source::Play(place);
            port.out.frame_id = port.out.fresh_id();
        }
        self.make_rhythm(slot, at);
    }

    fn start_collect(&mut self, key: OpKey, port: PortKey, program: CollectProgram, at: At) {
        let Some(slot) = self.ports.find(port) else {
            let (digits, end) = (String::new(), CollectEnd::LegEnded);
            return self.emit(WorkerEvent::CollectDone { op: key, digits, end });
        };
        let body = Body::Collect(Collect::new(program, at.us));
        if self.listen(slot, Op { key, port: slot, body }).is_err() {
            let (digits, end) = (String::new(), CollectEnd::Stopped);
            self.emit(WorkerEvent::CollectDone { op: key, digits, end });
        }
    }

    fn start_record<T: Tx>(
        &mut self,
        key: OpKey,
        port: PortKey,
        program: RecordProgram,
        at: At,
        tx: &mut T,
    ) {
        let recorder = program.recorder;
        let slot = self.ports.find(port);
        let tracks = slot.and_then(|_| self.tracks.take());
        let (Some(slot), Some(tracks)) = (slot, tracks) else {
            self.stats.refused += u64::from(slot.is_some());
            let end = if slot.is_none() { RecordEnd::LegEnded } else { RecordEnd::Failed };
            return self.refuse_record(key, recorder, end, tx);
        };
        let taps = program.track != RecordTrack::Received;
        let with = program.with.filter(|_| !taps).and_then(|with| self.ports.find(with));
        let with = with.filter(|with| *with != slot);
        let body = Body::Record(Record::new(program, tracks, with, at.us));
        let Ok(place) = self.listen(slot, Op { key, port: slot, body }) else {
            self.tracks.give_back(tracks);
            return self.refuse_record(key, recorder, RecordEnd::Failed, tx);
        };
        if let Some(with) = with
            && !self.ports.get_mut(with).is_some_and(|port| port.input.listeners.push(place))
        {
            return self.end_record(place, RecordEnd::Failed, tx);
        }
        if taps && !self.ports.get_mut(slot).is_some_and(|port| port.out.taps.push(place)) {
            self.end_record(place, RecordEnd::Failed, tx);
        }
    }

    fn refuse_record<T: Tx>(
        &mut self,
        op: OpKey,
        recorder: crate::command::RecorderHandle,
        end: RecordEnd,
        tx: &mut T,
    ) {
        tx.record(RecorderMessage::Finish { recorder, first_sample: 0, sample_count: 0 });
        self.emit(WorkerEvent::RecordDone { op, duration_ms: 0, end });
    }

    fn start_watch(&mut self, key: OpKey, port: PortKey, keys: String) {
        let Some(slot) = self.ports.find(port) else { return };
        // A watch that finds no room is counted; there is no result that could tell.
        let _ = self.listen(slot, Op { key, port: slot, body: Body::Watch(keys) });
    }

    /// Lets a program hear what arrives at a port.
    fn listen(&mut self, slot: u32, op: Op) -> Result<u32, ()> {
        let has_room = self.ports.get(slot).is_some_and(|port| {
            port.input.listeners.as_slice().len() < crate::limits::LISTENERS_MAX
        });
        let place = if has_room { self.ops.insert(op) } else { Err(op) };
        let Ok(place) = place else {
            self.stats.refused += 1;
            return Err(());
        };
        if let Some(port) = self.ports.get_mut(slot) {
            port.input.listeners.push(place);
        }
        self.settle_detector(slot);
        self.schedule(slot);
        Ok(place)
    }

    /// The reverse of [`Self::listen`]; the program is still there.
    pub(crate) fn unlisten(&mut self, place: u32) {
        let Some(op) = self.ops.get(place) else { return };
        let slot = op.port;
        let with = match &op.body {
            Body::Record(record) => record.with,
            _ => None,
        };
        for slot in [Some(slot), with].into_iter().flatten() {
            if let Some(port) = self.ports.get_mut(slot) {
                port.input.listeners.remove(place);
                port.out.taps.remove(place);
            }
        }
        self.settle_detector(slot);
    }

    fn pause_record<T: Tx>(&mut self, key: OpKey, pause: Option<RecordPause>, at: At, tx: &mut T) {
        let Some(place) = self.ops.find(key) else { return };
        // What was heard until now is not affected.
        self.record_blocks(place, at, tx);
        let Some(op) = self.ops.get_mut(place).filter(|op| op.key == key) else { return };
        if let Body::Record(record) = &mut op.body {
            record.paused = pause;
        }
    }

    fn start_op(&mut self, key: OpKey, at: At) {
        let Some(op) = self.ops.find(key).and_then(|place| self.ops.get_mut(place)) else { return };
        match &mut op.body {
            Body::Collect(collect) => collect.start_timer(at.us),
            Body::Record(record) => record.start(at.us),
            Body::Play(_) | Body::Watch(_) => {}
        }
        let slot = op.port;
        self.schedule(slot);
    }

    fn stop_op<T: Tx>(&mut self, key: OpKey, at: At, tx: &mut T) {
        let Some(place) = self.ops.find(key) else { return };
        if matches!(self.ops.get(place).map(|op| &op.body), Some(Body::Record(_))) {
            self.record_blocks(place, at, tx);
        }
        // It may have ended by itself at this very moment.
        if self.ops.get(place).is_some_and(|op| op.key == key) {
            self.end_listener(place, false, tx);
        }
    }

    fn snapshot(&mut self, session: SessionKey, phase: u32) {
        let mut counters = RegionCounters::default();
        for port in self.ports.iter().filter(|port| port.session == session) {
            counters.packets_out_of_region += port.counters.packets_out_of_region;
            counters.packets_to_endpoints += port.counters.packets_to_endpoints;
            counters.packets_from_endpoints += port.counters.packets_from_endpoints;
        }
        self.emit(WorkerEvent::Snapshot { session, phase, counters });
    }
}

fn leg_stats(port: &Port) -> LegStats {
    let totals = port.input.stats.totals();
    let round_trip_us = match &port.kind {
        Kind::Leg(leg) => leg.round_trip_us,
        Kind::Channel { .. } => 0,
    };
    LegStats {
        packets_received: totals.packets,
        packets_sent: port.out.sent.packets,
        packets_lost: totals.lost_packets,
        packets_dropped: port.dropped,
        jitter_us: port.input.stats.jitter_us(),
        longest_gap_out_us: port.out.sent.gap_us_max,
        round_trip_us,
    }
}
