//! A media worker without media: it keeps the ports and programs it is told of and reports what a
//! real one would.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_media::command::{CollectProgram, LegConfig, OpKey, PortKey, ProgramStart, WorkerCommand};
use edge_media::event::{CollectEnd, LegStats, PlayEnd, RecordEnd, RegionCounters, WorkerEvent};

#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    Play,
    Collect { program: CollectProgram, digits: String, running: bool },
    Record,
    Watch { keys: String },
}

#[derive(Debug, Default)]
pub struct FakeWorker {
    pub legs: BTreeMap<PortKey, LegConfig>,
    pub channels: BTreeMap<PortKey, u32>,
    /// Source by fed port.
    pub sources: BTreeMap<PortKey, PortKey>,
    pub programs: BTreeMap<OpKey, (PortKey, Program)>,
    pub log: Vec<WorkerCommand>,
    /// Takes no ports away and says nothing.
    pub deaf: bool,
    events: Vec<(Duration, WorkerEvent)>,
}

impl FakeWorker {
    pub fn take_events(&mut self) -> Vec<(Duration, WorkerEvent)> {
        std::mem::take(&mut self.events)
    }

    pub fn is_empty(&self) -> bool {
        self.legs.is_empty()
            && self.channels.is_empty()
            && self.sources.is_empty()
            && self.programs.is_empty()
    }

    pub fn report(&mut self, event: WorkerEvent) {
        self.events.push((Duration::ZERO, event));
    }

    fn end(&mut self, op: OpKey, left: bool) {
        let Some((_, program)) = self.programs.remove(&op) else { return };
        let event = match program {
            Program::Play => {
                let end = if left { PlayEnd::LegEnded } else { PlayEnd::Stopped };
                WorkerEvent::PlayDone { op, end }
            }
            Program::Collect { digits, .. } => {
                let end = if left { CollectEnd::LegEnded } else { CollectEnd::Stopped };
                WorkerEvent::CollectDone { op, digits, end }
            }
            Program::Record => {
                let end = if left { RecordEnd::LegEnded } else { RecordEnd::Stopped };
                WorkerEvent::RecordDone { op, duration_ms: 1_234, end }
            }
            Program::Watch { .. } => return,
        };
        self.report(event);
    }

    /// A play program comes to its end.
    pub fn finish_plays(&mut self) {
        let plays: Vec<OpKey> = self
            .programs
            .iter()
            .filter(|(_, (_, program))| *program == Program::Play)
            .map(|(op, _)| *op)
            .collect();
        for op in plays {
            self.programs.remove(&op);
            self.report(WorkerEvent::PlayDone { op, end: PlayEnd::Finished });
        }
    }

    /// A key is pressed at a port.
    pub fn press(&mut self, port: PortKey, key: char) {
        let mut events = Vec::new();
        let mut stop = Vec::new();
        for (op, (at, program)) in &mut self.programs {
            match program {
                Program::Watch { keys } if *at == port && keys.contains(key) => {
                    events.push(WorkerEvent::Key { op: *op, key });
                }
                Program::Collect { program, digits, .. } if *at == port => {
                    if digits.is_empty() {
                        events.push(WorkerEvent::CollectBegun { op: *op });
                        stop.extend(program.stops_play.map(|play| OpKey { op: play, ..*op }));
                    }
                    digits.push(key);
                    if program.digits_max == Some(digits.len() as u32) {
                        let (digits, end) = (digits.clone(), CollectEnd::Complete);
                        events.push(WorkerEvent::CollectDone { op: *op, digits, end });
                    }
                }
                _ => {}
            }
        }
        for event in events {
            if let WorkerEvent::CollectDone { op, .. } = &event {
                self.programs.remove(op);
            }
            self.report(event);
        }
        for op in stop {
            self.end(op, false);
        }
    }

    pub fn receive(&mut self, command: WorkerCommand) {
        self.log.push(command.clone());
        match command {
            WorkerCommand::AddLeg { port, config, .. } => {
                assert!(self.legs.insert(port, config).is_none(), "{port:?} added twice");
            }
            WorkerCommand::UpdateLeg { port, config } => {
                assert!(self.legs.insert(port, config).is_some(), "{port:?} unknown");
            }
            WorkerCommand::AddChannel { port, config, .. } => {
                assert!(self.channels.insert(port, config.peer).is_none(), "{port:?} added twice");
            }
            WorkerCommand::RemovePort { .. } if self.deaf => {}
            WorkerCommand::RemovePort { port } => self.remove(port),
            WorkerCommand::Connect { from, to, .. } => {
                for port in [from, to] {
                    let known = self.legs.contains_key(&port) || self.channels.contains_key(&port);
                    assert!(known, "{port:?} unknown");
                }
                self.sources.insert(to, from);
            }
            WorkerCommand::Disconnect { from, to } => {
                if self.sources.get(&to) == Some(&from) {
                    self.sources.remove(&to);
                }
            }
            WorkerCommand::StartPlay { op, port, items } => {
                assert!(!items.is_empty());
                let others: Vec<OpKey> = self
                    .programs
                    .iter()
                    .filter(|(_, (at, program))| *at == port && *program == Program::Play)
                    .map(|(op, _)| *op)
                    .collect();
                for other in others {
                    self.end(other, false);
                }
                self.sources.remove(&port);
                self.programs.insert(op, (port, Program::Play));
                self.report(WorkerEvent::PlayStarted { op });
            }
            WorkerCommand::StartCollect { op, port, program } => {
                let running = program.timer == ProgramStart::Now;
                let program = Program::Collect { program, digits: String::new(), running };
                self.programs.insert(op, (port, program));
            }
            WorkerCommand::StartRecord { op, port, .. } => {
                self.programs.insert(op, (port, Program::Record));
            }
            WorkerCommand::PauseRecord { .. } => {}
            WorkerCommand::StartWatch { op, port, keys } => {
                self.programs.insert(op, (port, Program::Watch { keys }));
            }
            WorkerCommand::StartOp { op } => {
                if let Some((_, Program::Collect { running, .. })) = self.programs.get_mut(&op) {
                    *running = true;
                }
            }
            WorkerCommand::StopOp { op } => self.end(op, false),
            WorkerCommand::InjectDigit { port, digit, .. } => self.press(port, digit),
            WorkerCommand::Snapshot { session, phase } => {
                let counters =
                    RegionCounters { packets_to_endpoints: 5, ..RegionCounters::default() };
                self.report(WorkerEvent::Snapshot { session, phase, counters });
            }
        }
    }

    fn remove(&mut self, port: PortKey) {
        let of_port: Vec<OpKey> =
            self.programs.iter().filter(|(_, (at, _))| *at == port).map(|(op, _)| *op).collect();
        for op in of_port {
            self.end(op, true);
        }
        self.sources.retain(|to, from| *to != port && *from != port);
        let known = self.legs.remove(&port).is_some() | self.channels.remove(&port).is_some();
        assert!(known, "{port:?} removed twice");
        let stats = LegStats { packets_received: 50, ..LegStats::default() };
        let counters = RegionCounters { packets_from_endpoints: 50, ..RegionCounters::default() };
        self.report(WorkerEvent::PortRemoved { port, stats, counters });
    }
}
