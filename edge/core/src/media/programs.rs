//! Media programs: how they are started, stopped and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use edge_media::command::{
    CollectProgram, OpKey, PortKey, ProgramItem, ProgramStart, Prompt, RecordPause, RecordProgram,
    RecorderHandle, WorkerCommand,
};
use link_proto::call::CallEvent;
use link_proto::media::{
    CollectEnd, CollectRules, MediaCommand, MediaEvent, PlayEnd, PlayItem, Port, PromptKey,
    RecordEnd, RecordRules, StartWhen,
};
use link_proto::table::Resource;
use link_proto::{CallSid, OpId};

use super::op::{Op, OpKind, OpState};
use crate::core::EdgeCore;
use crate::io::Output;
use crate::timers::TimerKey;

/// Most items of a play program.
const ITEMS_MAX: usize = 1_000;
/// Most repetitions of a prompt.
const TIMES_MAX: u32 = 1_000;
/// Most characters of a digits item or a set of keys.
const DIGITS_MAX: usize = 256;

/// How a program that never ran to its end ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Stopped,
    Failed,
    LegEnded,
}

impl EdgeCore {
    fn add_op(&mut self, session: CallSid, id: OpId, op: Op) -> Result<OpKey, String> {
        let ops_max = self.config.ops_max;
        let call = self.calls.get_mut(&session).ok_or("no such session")?;
        if call.ops.contains_key(&id) {
            return Err(format!("program {} is running already", id.0));
        }
        if call.ops.len() >= ops_max {
            return Err("too many programs in this session".to_owned());
        }
        call.ops.insert(id, op);
        Ok(OpKey { session: call.key, op: id })
    }

    pub(crate) fn op_mut(&mut self, key: OpKey) -> Option<(CallSid, &mut Op)> {
        let session = *self.by_session_key.get(&key.session)?;
        let op = self.calls.get_mut(&session)?.ops.get_mut(&key.op)?;
        Some((session, op))
    }

    /// [`MediaCommand::Play`].
    pub(crate) fn play(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        id: OpId,
        port: Port,
        items: Vec<PlayItem>,
    ) -> Result<(), String> {
        let (port, _) = self.usable_port(session, port)?;
        check_items(&items)?;
        self.expect_room(Resource::Play, Some(port))?;
        let keys = items.iter().filter_map(|item| match item {
            PlayItem::Prompt { key, .. } => Some(key.clone()),
            _ => None,
        });
        let missing: BTreeSet<PromptKey> = keys.collect();
        let op = Op {
            leg,
            port,
            kind: OpKind::Play,
            state: OpState::Prompts { items, missing: missing.clone() },
            after: None,
            stopping: false,
            prompts: BTreeMap::new(),
        };
        let key = self.add_op(session, id, op)?;
        self.stop_waiting_plays_but(now, session, port, Some(id));
        if missing.is_empty() {
            self.run_play(now, key);
            return Ok(());
        }
        self.timers.set(TimerKey::OpReady(key), now + self.config.prompt_wait_max);
        for prompt in missing {
            if self.prompts.add(prompt.clone(), key) {
                self.push(Output::FetchPrompt { key: prompt });
            }
        }
        Ok(())
    }

    /// A prompt has come, or will not.
    pub(crate) fn on_prompt(
        &mut self,
        now: Instant,
        prompt_key: &PromptKey,
        prompt: Option<Arc<Prompt>>,
    ) {
        for key in self.prompts.take(prompt_key) {
            let Some((session, op)) = self.op_mut(key) else { continue };
            let Some(prompt) = prompt.clone() else {
                self.cut_op(now, session, key.op, Cut::Failed);
                continue;
            };
            let OpState::Prompts { missing, .. } = &mut op.state else { continue };
            missing.remove(prompt_key);
            let complete = missing.is_empty();
            op.prompts.insert(prompt_key.clone(), prompt);
            if complete {
                self.run_play(now, key);
            }
        }
    }

    /// Hands a play program to the worker.
    fn run_play(&mut self, now: Instant, key: OpKey) {
        self.timers.cancel(TimerKey::OpReady(key));
        let Some((_, op)) = self.op_mut(key) else { return };
        let OpState::Prompts { items, .. } = std::mem::replace(&mut op.state, OpState::Running)
        else {
            return;
        };
        let prompts = std::mem::take(&mut op.prompts);
        let port = op.port;
        let items = items.into_iter().filter_map(|item| program_item(item, &prompts)).collect();
        self.set_source(now, port, None);
        if let Some(record) = self.ports.get(port) {
            self.worker(record.worker, WorkerCommand::StartPlay { op: key, port, items });
        }
    }

    /// A new source takes the place of plays that still wait for their prompts.
    pub(crate) fn stop_waiting_plays(&mut self, now: Instant, session: CallSid, port: PortKey) {
        self.stop_waiting_plays_but(now, session, port, None);
    }

    fn stop_waiting_plays_but(
        &mut self,
        now: Instant,
        session: CallSid,
        port: PortKey,
        but: Option<OpId>,
    ) {
        let Some(call) = self.calls.get(&session) else { return };
        let waits = |op: &Op| op.port == port && matches!(op.state, OpState::Prompts { .. });
        let stopped: Vec<OpId> = call
            .ops
            .iter()
            .filter(|(id, op)| Some(**id) != but && waits(op))
            .map(|(id, _)| *id)
            .collect();
        for id in stopped {
            self.cut_op(now, session, id, Cut::Stopped);
        }
        // What plays already gives its place up; its result is on the way.
        let Some(call) = self.calls.get_mut(&session) else { return };
        let plays = |op: &Op| op.port == port && matches!(op.kind, OpKind::Play);
        for (_, op) in call.ops.iter_mut().filter(|(id, op)| Some(**id) != but && plays(op)) {
            op.stopping = true;
        }
    }

    /// When a program begins, as the worker shall take it, and the play program it waits for.
    fn start_rule(&self, session: CallSid, when: StartWhen) -> (ProgramStart, Option<OpId>) {
        match when {
            StartWhen::Now => (ProgramStart::Now, None),
            StartWhen::OnCommand => (ProgramStart::OnCommand, None),
            StartWhen::AfterPlay(play) => {
                // One that is not running any more has ended: commands come in order.
                let running = self.calls.get(&session).is_some_and(|c| c.ops.contains_key(&play));
                if running {
                    (ProgramStart::OnCommand, Some(play))
                } else {
                    (ProgramStart::Now, None)
                }
            }
        }
    }

    /// [`MediaCommand::Collect`].
    pub(crate) fn collect(
        &mut self,
        session: CallSid,
        leg: CallSid,
        id: OpId,
        port: Port,
        rules: CollectRules,
    ) -> Result<(), String> {
        let (port, worker) = self.usable_port(session, port)?;
        check_keys(&rules.finish_on)?;
        self.expect_room(Resource::Collect, None)?;
        let (timer, after) = self.start_rule(session, rules.timer);
        let op = Op {
            leg,
            port,
            kind: OpKind::Collect { stops_play: rules.stops_play },
            state: OpState::Running,
            after,
            stopping: false,
            prompts: BTreeMap::new(),
        };
        let op = self.add_op(session, id, op)?;
        let program = CollectProgram {
            digits_max: rules.digits_max,
            finish_on: rules.finish_on,
            timeout_ms: rules.timeout_ms,
            timer,
            stops_play: rules.stops_play,
        };
        self.worker(worker, WorkerCommand::StartCollect { op, port, program });
        Ok(())
    }

    /// [`MediaCommand::Record`].
    pub(crate) fn record(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        id: OpId,
        port: Port,
        rules: RecordRules,
    ) -> Result<(), String> {
        let (port, _) = self.usable_port(session, port)?;
        check_keys(&rules.finish_on)?;
        self.expect_room(Resource::Record, None)?;
        let with = rules.with.map(|with| self.usable_port(session, with)).transpose()?;
        let (start, after) = self.start_rule(session, rules.start);
        let program = RecordProgram {
            recorder: RecorderHandle(0),
            with: with.map(|(with, _)| with),
            track: rules.track,
            paused: None,
            dual_channel: rules.dual_channel,
            start,
            length_max_ms: rules.length_max_ms,
            silence_timeout_ms: rules.silence_timeout_ms,
            finish_on: rules.finish_on,
            trim_silence: rules.trim_silence,
        };
        let op = Op {
            leg,
            port,
            kind: OpKind::Record { recording: rules.recording, recorder: None },
            state: OpState::Recorder { program },
            after,
            stopping: false,
            prompts: BTreeMap::new(),
        };
        let op = self.add_op(session, id, op)?;
        self.timers.set(TimerKey::OpReady(op), now + self.config.prompt_wait_max);
        let channels = if rules.dual_channel { 2 } else { 1 };
        let recording = rules.recording;
        let control = self.control_of(session).unwrap_or_default();
        self.push(Output::OpenRecording { op, recording, session, leg, channels, control });
        Ok(())
    }

    /// The recorder has opened a file, or cannot.
    pub(crate) fn on_recorder(
        &mut self,
        now: Instant,
        key: OpKey,
        recorder: Option<RecorderHandle>,
    ) {
        self.timers.cancel(TimerKey::OpReady(key));
        let Some((session, op)) = self.op_mut(key) else {
            if let Some(recorder) = recorder {
                self.push(Output::DropRecording { recorder });
            }
            return;
        };
        let Some(recorder) = recorder else {
            return self.cut_op(now, session, key.op, Cut::Failed);
        };
        let OpState::Recorder { program } = std::mem::replace(&mut op.state, OpState::Running)
        else {
            return;
        };
        if let OpKind::Record { recorder: slot, .. } = &mut op.kind {
            *slot = Some(recorder);
        }
        let port = op.port;
        let program = RecordProgram { recorder, ..program };
        if let Some(record) = self.ports.get(port) {
            self.worker(record.worker, WorkerCommand::StartRecord { op: key, port, program });
        }
    }

    /// [`MediaCommand::PauseRecord`] and [`MediaCommand::ResumeRecord`].
    pub(crate) fn pause_record(&mut self, session: CallSid, id: OpId, pause: Option<RecordPause>) {
        let Some(key) = self.op_key(session, id) else { return };
        let Some((_, op)) = self.op_mut(key) else { return };
        let port = op.port;
        match &mut op.state {
            // The file is not open yet.
            OpState::Recorder { program } => program.paused = pause,
            OpState::Prompts { .. } => {}
            OpState::Running => {
                if let Some(record) = self.ports.get(port) {
                    let command = WorkerCommand::PauseRecord { op: key, pause };
                    self.worker(record.worker, command);
                }
            }
        }
    }

    /// [`MediaCommand::Watch`].
    pub(crate) fn watch(
        &mut self,
        session: CallSid,
        leg: CallSid,
        id: OpId,
        port: Port,
        keys: String,
    ) -> Result<(), String> {
        let (port, worker) = self.usable_port(session, port)?;
        check_keys(&keys)?;
        self.expect_room(Resource::Collect, None)?;
        let op = Op {
            leg,
            port,
            kind: OpKind::Watch,
            state: OpState::Running,
            after: None,
            stopping: false,
            prompts: BTreeMap::new(),
        };
        let op = self.add_op(session, id, op)?;
        self.worker(worker, WorkerCommand::StartWatch { op, port, keys });
        Ok(())
    }

    /// [`MediaCommand::Start`], and the end of the play program that was waited for.
    pub(crate) fn start_op(&mut self, session: CallSid, id: OpId) {
        let Some(key) = self.op_key(session, id) else { return };
        let Some((_, op)) = self.op_mut(key) else { return };
        op.after = None;
        let port = op.port;
        match &mut op.state {
            OpState::Recorder { program } => program.start = ProgramStart::Now,
            OpState::Prompts { .. } => {}
            OpState::Running => {
                if let Some(record) = self.ports.get(port) {
                    self.worker(record.worker, WorkerCommand::StartOp { op: key });
                }
            }
        }
    }

    /// [`MediaCommand::Stop`].
    pub(crate) fn stop_op(&mut self, now: Instant, session: CallSid, id: OpId) {
        let Some(key) = self.op_key(session, id) else { return };
        let Some((_, op)) = self.op_mut(key) else { return };
        op.stopping = true;
        let (port, watch) = (op.port, matches!(op.kind, OpKind::Watch));
        if !matches!(op.state, OpState::Running) {
            return self.cut_op(now, session, id, Cut::Stopped);
        }
        if let Some(record) = self.ports.get(port) {
            self.worker(record.worker, WorkerCommand::StopOp { op: key });
        }
        if watch {
            // It has no result that would come back.
            self.cut_op(now, session, id, Cut::Stopped);
        }
    }

    /// Prompts or recorder did not come in time.
    pub(crate) fn on_op_not_ready(&mut self, now: Instant, key: OpKey) {
        if let Some((session, _)) = self.op_mut(key) {
            self.cut_op(now, session, key.op, Cut::Failed);
        }
    }

    /// Ends the programs of a port that is gone.
    pub(crate) fn end_ops_of(&mut self, now: Instant, session: CallSid, port: PortKey) {
        let Some(call) = self.calls.get(&session) else { return };
        let of_port = call.ops.iter().filter(|(_, op)| op.port == port);
        for id in of_port.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.cut_op(now, session, id, Cut::LegEnded);
        }
    }

    /// Ends a program that its worker does not (or no longer) know, and reports it.
    pub(crate) fn cut_op(&mut self, now: Instant, session: CallSid, id: OpId, cut: Cut) {
        let Some(call) = self.calls.get(&session) else { return };
        let event = match call.ops.get(&id).map(|op| &op.kind) {
            None => return,
            Some(OpKind::Play) => {
                let end = match cut {
                    Cut::Stopped => PlayEnd::Stopped,
                    Cut::Failed => PlayEnd::Failed,
                    Cut::LegEnded => PlayEnd::LegEnded,
                };
                Some(MediaEvent::PlayDone { op: id, end })
            }
            Some(OpKind::Collect { .. }) => {
                let end = match cut {
                    Cut::LegEnded => CollectEnd::LegEnded,
                    Cut::Stopped | Cut::Failed => CollectEnd::Stopped,
                };
                Some(MediaEvent::CollectDone { op: id, digits: String::new(), end })
            }
            Some(OpKind::Record { recording, .. }) => {
                let end = match cut {
                    Cut::Stopped => RecordEnd::Stopped,
                    Cut::Failed => RecordEnd::Failed,
                    Cut::LegEnded => RecordEnd::LegEnded,
                };
                let recording = *recording;
                Some(MediaEvent::RecordDone { op: id, recording, duration_ms: 0, end })
            }
            Some(OpKind::Watch) => None,
        };
        self.op_over(now, session, id, event);
    }

    /// Forgets a program, reports its end and starts what waited for it.
    pub(crate) fn op_over(
        &mut self,
        now: Instant,
        session: CallSid,
        id: OpId,
        event: Option<MediaEvent>,
    ) {
        let Some(call) = self.calls.get_mut(&session) else { return };
        let Some(op) = call.ops.remove(&id) else { return };
        let key = OpKey { session: call.key, op: id };
        let dependent = call.ops.iter().filter(|(_, other)| other.after == Some(id));
        let dependents: Vec<OpId> = dependent.map(|(other, _)| *other).collect();
        self.timers.cancel(TimerKey::OpReady(key));
        if let OpState::Prompts { missing, .. } = &op.state {
            for prompt in missing {
                self.prompts.forget(prompt, key);
            }
        }
        if let OpKind::Record { recording, recorder: Some(recorder) } = op.kind {
            let duration_ms = match &event {
                Some(MediaEvent::RecordDone { duration_ms, .. }) => *duration_ms,
                _ => 0,
            };
            self.push(Output::CloseRecording { recorder, recording, duration_ms });
        }
        if let Some(event) = event {
            self.emit(now, session, op.leg, CallEvent::Media(event));
        }
        for dependent in dependents {
            self.start_op(session, dependent);
        }
    }

    /// A command that waited for sockets could not be carried out after all.
    pub(crate) fn report_failed(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        command: &MediaCommand,
    ) {
        let event = match command {
            MediaCommand::Play { op, .. } => {
                MediaEvent::PlayDone { op: *op, end: PlayEnd::LegEnded }
            }
            MediaCommand::Collect { op, .. } => {
                let end = CollectEnd::LegEnded;
                MediaEvent::CollectDone { op: *op, digits: String::new(), end }
            }
            MediaCommand::Record { op, rules, .. } => MediaEvent::RecordDone {
                op: *op,
                recording: rules.recording,
                duration_ms: 0,
                end: RecordEnd::LegEnded,
            },
            _ => return,
        };
        self.emit(now, session, leg, CallEvent::Media(event));
    }
}

fn check_keys(keys: &str) -> Result<(), String> {
    let legal = keys.len() <= DIGITS_MAX && keys.chars().all(|c| "0123456789ABCD*#".contains(c));
    if legal { Ok(()) } else { Err(format!("{keys:?} are not keys")) }
}

fn check_items(items: &[PlayItem]) -> Result<(), String> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(format!("{} items are not between 1 and {ITEMS_MAX}", items.len()));
    }
    for item in items {
        let legal = match item {
            PlayItem::Prompt { times, .. } => *times <= TIMES_MAX,
            PlayItem::Digits { digits } => {
                digits.len() <= DIGITS_MAX
                    && digits.chars().all(|c| "0123456789ABCD*#wW".contains(c))
            }
            PlayItem::Ringback { country } => country_code(country).is_some(),
            PlayItem::Pause { .. } | PlayItem::Beep { .. } => true,
        };
        if !legal {
            return Err(format!("item {item:?} is not legal"));
        }
    }
    Ok(())
}

fn country_code(country: &str) -> Option<[u8; 2]> {
    let code: [u8; 2] = country.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_lowercase).then_some(code)
}

fn program_item(item: PlayItem, prompts: &BTreeMap<PromptKey, Arc<Prompt>>) -> Option<ProgramItem> {
    Some(match item {
        PlayItem::Prompt { key, times } => {
            ProgramItem::Prompt { prompt: prompts.get(&key)?.clone(), times }
        }
        PlayItem::Pause { length_ms } => ProgramItem::Pause { length_ms },
        PlayItem::Digits { digits } => ProgramItem::Digits { digits },
        PlayItem::Ringback { country } => {
            ProgramItem::Ringback { country: country_code(&country)? }
        }
        PlayItem::Beep { length_ms } => ProgramItem::Beep { length_ms },
    })
}
