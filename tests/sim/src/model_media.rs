//! A media worker without media: it keeps the ports and programs it is told of and reports, at the
//! right times, what a real one would. Digits reach it as they are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use edge_media::command::{
    CollectProgram, OpKey, PortKey, ProgramItem, ProgramStart, RecordProgram, SessionKey,
    WorkerCommand,
};
use edge_media::event::{CollectEnd, LegStats, PlayEnd, RecordEnd, RegionCounters, WorkerEvent};
use link_proto::ChannelId;

#[derive(Debug)]
enum Program {
    Play,
    Collect { program: CollectProgram, digits: String },
    Record { program: RecordProgram, since: Option<Instant> },
    Watch { keys: String },
}

#[derive(Debug)]
struct Running {
    port: PortKey,
    program: Program,
    /// Its timer, if one runs.
    due: Option<Instant>,
}

/// The worker.
#[derive(Debug, Default)]
pub struct ModelWorker {
    ports: BTreeMap<PortKey, SessionKey>,
    channels: BTreeMap<PortKey, (u32, ChannelId)>,
    sources: BTreeMap<PortKey, PortKey>,
    programs: BTreeMap<OpKey, Running>,
    timers: BTreeSet<(Instant, OpKey)>,
    events: VecDeque<WorkerEvent>,
    /// Commands about ports or programs that are not there.
    pub violations: Vec<String>,
}

impl ModelWorker {
    /// Nothing is left.
    pub fn residue(&self) -> usize {
        self.ports.len() + self.sources.len() + self.programs.len() + self.timers.len()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<WorkerEvent> {
        self.events.pop_front()
    }

    /// When [`Self::tick`] is wanted.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn arm(&mut self, op: OpKey, at: Option<Instant>) {
        let Some(running) = self.programs.get_mut(&op) else { return };
        if let Some(old) = running.due.take() {
            self.timers.remove(&(old, op));
        }
        running.due = at;
        self.timers.extend(at.map(|at| (at, op)));
    }

    fn end(
        &mut self,
        now: Instant,
        op: OpKey,
        play: PlayEnd,
        collect: CollectEnd,
        record: RecordEnd,
    ) {
        self.arm(op, None);
        let Some(running) = self.programs.remove(&op) else { return };
        let event = match running.program {
            Program::Play => WorkerEvent::PlayDone { op, end: play },
            Program::Collect { digits, .. } => {
                WorkerEvent::CollectDone { op, digits, end: collect }
            }
            Program::Record { since, .. } => {
                let length = since.map_or(0, |since| (now - since).as_millis());
                let duration_ms = u64::try_from(length).unwrap_or(0);
                WorkerEvent::RecordDone { op, duration_ms, end: record }
            }
            Program::Watch { .. } => return,
        };
        self.events.push_back(event);
    }

    fn stop(&mut self, now: Instant, op: OpKey) {
        self.end(now, op, PlayEnd::Stopped, CollectEnd::Stopped, RecordEnd::Stopped);
    }

    /// Runs timers.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, op)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.end(now, op, PlayEnd::Finished, CollectEnd::Timeout, RecordEnd::LengthMax);
        }
    }

    /// A key is pressed at a port.
    pub fn press(&mut self, now: Instant, port: PortKey, key: char) {
        let listening: Vec<OpKey> =
            self.programs.iter().filter(|(_, r)| r.port == port).map(|(op, _)| *op).collect();
        for op in listening {
            let Some(running) = self.programs.get_mut(&op) else { continue };
            match &mut running.program {
                Program::Watch { keys } if keys.contains(key) => {
                    self.events.push_back(WorkerEvent::Key { op, key });
                }
                Program::Record { program, .. } if program.finish_on.contains(key) => {
                    let end = RecordEnd::FinishKey(key);
                    self.end(now, op, PlayEnd::Stopped, CollectEnd::Stopped, end);
                }
                Program::Collect { program, digits } => {
                    let (first, stops) = (digits.is_empty(), program.stops_play);
                    let timeout = Duration::from_millis(program.timeout_ms);
                    let finish = program.finish_on.contains(key);
                    if !finish {
                        digits.push(key);
                    }
                    let full = program.digits_max == u32::try_from(digits.len()).ok();
                    if first {
                        self.events.push_back(WorkerEvent::CollectBegun { op });
                        if let Some(play) = stops {
                            self.stop(now, OpKey { op: play, ..op });
                        }
                    }
                    if finish || full {
                        let end =
                            if finish { CollectEnd::FinishKey(key) } else { CollectEnd::Complete };
                        self.end(now, op, PlayEnd::Stopped, end, RecordEnd::Stopped);
                    } else {
                        self.arm(op, Some(now + timeout));
                    }
                }
                _ => {}
            }
        }
    }

    /// Trunk channels that are fed by a port: digits go on there.
    pub fn channels_fed_by(&self, port: PortKey) -> Vec<(u32, ChannelId)> {
        let fed = self.sources.iter().filter(|(_, from)| **from == port);
        fed.filter_map(|(to, _)| self.channels.get(to).copied()).collect()
    }

    /// The port of a channel.
    pub fn channel(&self, peer: u32, channel: ChannelId) -> Option<PortKey> {
        let found = self.channels.iter().find(|(_, at)| **at == (peer, channel));
        found.map(|(port, _)| *port)
    }

    fn add(&mut self, port: PortKey, session: SessionKey) {
        if self.ports.insert(port, session).is_some() {
            self.violations.push(format!("{port:?} added twice"));
        }
    }

    fn expect(&mut self, port: PortKey, what: &str) {
        if !self.ports.contains_key(&port) {
            self.violations.push(format!("{what} at {port:?}, which is not there"));
        }
    }

    fn start(&mut self, now: Instant, op: OpKey, port: PortKey, program: Program) {
        self.expect(port, "program");
        let due = match &program {
            Program::Play | Program::Watch { .. } => None,
            Program::Collect { program, .. } => (program.timer == ProgramStart::Now)
                .then(|| now + Duration::from_millis(program.timeout_ms)),
            Program::Record { since, program } => {
                since.map(|at| at + Duration::from_millis(program.length_max_ms))
            }
        };
        if self.programs.insert(op, Running { port, program, due: None }).is_some() {
            self.violations.push(format!("{op:?} started twice"));
        }
        self.arm(op, due);
    }

    /// Carries out a command.
    pub fn command(&mut self, now: Instant, command: WorkerCommand) {
        match command {
            WorkerCommand::AddLeg { port, session, .. } => self.add(port, session),
            WorkerCommand::AddChannel { port, session, config } => {
                self.add(port, session);
                self.channels.insert(port, (config.peer, config.channel));
            }
            WorkerCommand::UpdateLeg { port, .. } => self.expect(port, "update"),
            WorkerCommand::RemovePort { port } => self.remove(now, port),
            WorkerCommand::Connect { from, to, .. } => {
                self.expect(from, "connect");
                self.expect(to, "connect");
                self.stop_plays(now, to);
                self.sources.insert(to, from);
            }
            WorkerCommand::Disconnect { from, to } => {
                if self.sources.get(&to) == Some(&from) {
                    self.sources.remove(&to);
                }
            }
            WorkerCommand::StartPlay { op, port, items } => {
                self.stop_plays(now, port);
                self.sources.remove(&port);
                self.start(now, op, port, Program::Play);
                self.arm(op, play_length(&items).map(|length| now + length));
                self.events.push_back(WorkerEvent::PlayStarted { op });
            }
            WorkerCommand::StartCollect { op, port, program } => {
                self.start(now, op, port, Program::Collect { program, digits: String::new() });
            }
            WorkerCommand::StartRecord { op, port, program } => {
                let since = (program.start == ProgramStart::Now).then_some(now);
                self.start(now, op, port, Program::Record { program, since });
            }
            WorkerCommand::StartWatch { op, port, keys } => {
                self.start(now, op, port, Program::Watch { keys });
            }
            WorkerCommand::StartOp { op } => self.start_waiting(now, op),
            // The model has no sound: a pause changes nothing that it reports.
            WorkerCommand::PauseRecord { .. } => {}
            WorkerCommand::StopOp { op } => self.stop(now, op),
            WorkerCommand::InjectDigit { port, digit, .. } => self.press(now, port, digit),
            WorkerCommand::Snapshot { session, phase } => {
                let counters = RegionCounters::default();
                self.events.push_back(WorkerEvent::Snapshot { session, phase, counters });
            }
        }
    }

    fn start_waiting(&mut self, now: Instant, op: OpKey) {
        let Some(running) = self.programs.get_mut(&op) else { return };
        if running.due.is_some() {
            return;
        }
        let length_ms = match &mut running.program {
            Program::Collect { program, .. } => program.timeout_ms,
            Program::Record { program, since } => {
                *since = Some(now);
                program.length_max_ms
            }
            _ => return,
        };
        self.arm(op, Some(now + Duration::from_millis(length_ms)));
    }

    fn stop_plays(&mut self, now: Instant, port: PortKey) {
        let plays: Vec<OpKey> = self
            .programs
            .iter()
            .filter(|(_, r)| r.port == port && matches!(r.program, Program::Play))
            .map(|(op, _)| *op)
            .collect();
        for op in plays {
            self.stop(now, op);
        }
    }

    fn remove(&mut self, now: Instant, port: PortKey) {
        self.expect(port, "removal");
        let of_port: Vec<OpKey> =
            self.programs.iter().filter(|(_, r)| r.port == port).map(|(op, _)| *op).collect();
        for op in of_port {
            self.end(now, op, PlayEnd::LegEnded, CollectEnd::LegEnded, RecordEnd::LegEnded);
        }
        self.sources.retain(|to, from| *to != port && *from != port);
        self.ports.remove(&port);
        self.channels.remove(&port);
        let (stats, counters) = (LegStats::default(), RegionCounters::default());
        self.events.push_back(WorkerEvent::PortRemoved { port, stats, counters });
    }
}

/// `None` = until stopped.
fn play_length(items: &[ProgramItem]) -> Option<Duration> {
    let mut length = Duration::ZERO;
    for item in items {
        length += match item {
            ProgramItem::Prompt { times: 0, .. } | ProgramItem::Ringback { .. } => return None,
            ProgramItem::Prompt { prompt, times } => {
                Duration::from_millis(prompt.samples.len() as u64 / 8) * *times
            }
            ProgramItem::Pause { length_ms } | ProgramItem::Beep { length_ms } => {
                Duration::from_millis(*length_ms)
            }
            ProgramItem::Digits { digits } => Duration::from_millis(180) * digits.len() as u32,
        };
    }
    Some(length)
}
