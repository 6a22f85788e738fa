//! Reports of media workers.

use std::time::Instant;

use edge_media::command::{OpKey, PortKey};
use edge_media::event::{RegionCounters, WorkerEvent};
use link_proto::CallSid;
use link_proto::call::{Blame, CallEvent, EndReason};
use link_proto::media::MediaEvent;

use super::op::{OpKind, OpState};
use super::programs::Cut;
use crate::call::leg::LegEnd;
use crate::core::EdgeCore;
use crate::ports::PortOwner;

impl EdgeCore {
    pub(crate) fn on_worker_event(&mut self, now: Instant, event: WorkerEvent) {
        match event {
            WorkerEvent::FirstPacket { port } => self.on_channel_heard(now, port, true),
            // Nobody asks for it yet.
            WorkerEvent::Latched { .. } => {}
            WorkerEvent::MediaTimeout { port } => self.on_media_timeout(now, port),
            WorkerEvent::PlayStarted { op } => {
                self.on_op_event(now, op, MediaEvent::PlayStarted { op: op.op }, false);
            }
            WorkerEvent::PlayDone { op, end } => {
                self.on_op_event(now, op, MediaEvent::PlayDone { op: op.op, end }, true);
            }
            WorkerEvent::CollectBegun { op } => self.on_collect_begun(now, op),
            WorkerEvent::CollectDone { op, digits, end } => {
                let event = MediaEvent::CollectDone { op: op.op, digits, end };
                self.on_op_event(now, op, event, true);
            }
            WorkerEvent::RecordDone { op, duration_ms, end } => {
                let Some((_, found)) = self.op_mut(op) else { return };
                let OpKind::Record { recording, .. } = found.kind else { return };
                let event = MediaEvent::RecordDone { op: op.op, recording, duration_ms, end };
                self.on_op_event(now, op, event, true);
            }
            WorkerEvent::Key { op, key } => {
                self.on_op_event(now, op, MediaEvent::Key { op: op.op, key }, false);
            }
            WorkerEvent::Snapshot { session, phase, counters } => {
                if let Some(session) = self.by_session_key.get(&session).copied() {
                    self.report_snapshot(now, session, phase, counters);
                }
            }
            WorkerEvent::PortRemoved { port, stats, counters } => {
                let Some(record) = self.ports.get(port) else {
                    self.counters.worker_events_stale += 1;
                    return;
                };
                let (session, owner) = (record.session, record.owner);
                self.count_port(session, counters);
                self.release_port(port);
                if let PortOwner::Leg(leg) = owner {
                    self.on_leg_stats(now, leg, stats);
                }
            }
            WorkerEvent::PortRefused { port } => self.on_port_refused(now, port),
        }
    }

    fn on_op_event(&mut self, now: Instant, key: OpKey, event: MediaEvent, last: bool) {
        let Some((session, op)) = self.op_mut(key) else {
            self.counters.worker_events_stale += 1;
            return;
        };
        let leg = op.leg;
        if last {
            self.op_over(now, session, key.op, Some(event));
        } else {
            self.emit(now, session, leg, CallEvent::Media(event));
        }
    }

    fn on_collect_begun(&mut self, now: Instant, key: OpKey) {
        let Some((session, op)) = self.op_mut(key) else { return };
        let (port, kind) = (op.port, op.kind.clone());
        self.on_op_event(now, key, MediaEvent::CollectBegun { op: key.op }, false);
        let OpKind::Collect { stops_play: Some(play) } = kind else { return };
        let state = self
            .calls
            .get(&session)
            .and_then(|call| call.ops.get(&play))
            .map(|op| matches!(op.state, OpState::Running));
        match state {
            // The worker stops it by itself.
            Some(true) => {}
            Some(false) => self.cut_op(now, session, play, Cut::Stopped),
            // It plays on another node: the worker has cut the source.
            None => self.set_source(now, port, None),
        }
    }

    fn on_media_timeout(&mut self, now: Instant, port: PortKey) {
        let sid = match self.ports.get(port).map(|record| record.owner) {
            Some(PortOwner::Leg(sid)) => sid,
            Some(PortOwner::Channel(_)) => return self.on_channel_heard(now, port, false),
            None => return,
        };
        let Some(leg) = self.legs.get(&sid).filter(|leg| leg.is_live() && !leg.held) else {
            return;
        };
        let whose = leg.party();
        self.counters.media_timeouts += 1;
        self.end_leg(now, sid, LegEnd::new(EndReason::MediaTimeout, whose));
    }

    /// A channel that nothing comes out of is no conversation: the far leg may have ended while no
    /// control node was there to say so.
    fn on_channel_heard(&mut self, now: Instant, port: PortKey, heard: bool) {
        let Some(record) = self.ports.get_mut(port) else { return };
        if matches!(record.owner, PortOwner::Leg(_)) || record.heard == heard {
            return;
        }
        record.heard = heard;
        let session = record.session;
        let legs = self.calls.get(&session).map(|call| call.legs.clone()).unwrap_or_default();
        for leg in legs {
            self.review_hold(now, leg);
        }
    }

    fn on_port_refused(&mut self, now: Instant, port: PortKey) {
        let Some(record) = self.ports.get(port) else { return };
        let (session, owner) = (record.session, record.owner);
        self.release_port(port);
        match owner {
            PortOwner::Leg(leg) => {
                let end = LegEnd::new(EndReason::Overload, Blame::Us);
                self.end_leg(now, leg, end);
                self.finish_leg(now, leg);
            }
            PortOwner::Channel(channel) => {
                let event = CallEvent::Media(MediaEvent::ChannelState { channel, up: false });
                let leg = self.leg_to_report_on(session, session);
                self.emit(now, session, leg, event);
                self.end_ops_of(now, session, port);
                if let Some(call) = self.calls.get_mut(&session) {
                    call.channels.remove(&channel);
                }
                self.drop_call_if_over(session);
            }
        }
    }

    /// A leg for an event that is about the whole session: an ended one has had its last event.
    pub(crate) fn leg_to_report_on(&self, session: CallSid, leg: CallSid) -> CallSid {
        let live = self.calls.get(&session).map(|call| &call.legs);
        let live = live.filter(|legs| !legs.contains(&leg));
        live.and_then(|legs| legs.first().copied()).unwrap_or(leg)
    }

    /// Answers a snapshot: what the worker counted now, and what its former ports had counted.
    pub(crate) fn report_snapshot(
        &mut self,
        now: Instant,
        session: CallSid,
        phase: u32,
        counters: RegionCounters,
    ) {
        let Some(call) = self.calls.get_mut(&session) else { return };
        let Some(leg) = call.snapshots.remove(&phase) else { return };
        let before = call.counted;
        let leg = self.leg_to_report_on(session, leg);
        let event = MediaEvent::Snapshot {
            phase,
            packets_out_of_region: before.packets_out_of_region + counters.packets_out_of_region,
            packets_to_endpoints: before.packets_to_endpoints + counters.packets_to_endpoints,
            packets_from_endpoints: before.packets_from_endpoints + counters.packets_from_endpoints,
        };
        self.emit(now, session, leg, CallEvent::Media(event));
    }
}
