//! Calls that need no instructions (LAT-15): the edge connects them by its route table, whether or
//! not a control node is there. The table drives such a session with the same commands that control
//! would send.

use std::collections::BTreeMap;
use std::time::Instant;

use link_proto::CallSid;
use link_proto::call::{Blame, CallCommand, CallEvent, DialParams, EndReason, Offered, OnPeerEnd};
use link_proto::media::{AudioCodec, LinkPath, MediaCommand, Port};

use crate::call::leg::LegEnd;
use crate::call::session::Driver;
use crate::core::EdgeCore;

/// How long the far side may ring.
const RING_MAX_MS: u64 = 120_000;

/// What the table remembers about its calls: the outbound leg of each session.
#[derive(Debug, Default)]
pub(crate) struct RouteCalls {
    by_session: BTreeMap<CallSid, CallSid>,
}

impl RouteCalls {
    pub(crate) fn forget(&mut self, session: CallSid) {
        self.by_session.remove(&session);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_session.len()
    }
}

impl EdgeCore {
    /// Who is to drive a call to this number.
    pub(crate) fn driver_of(&self, to: &str) -> Driver {
        let route = self.tables.route(to);
        // A route whose trunk is on another node needs control to bring the two together.
        match route.filter(|route| route.without_instructions && route.node == self.config.node) {
            Some(_) => Driver::RouteTable,
            None => Driver::Control,
        }
    }

    /// An event of a session that the table drives.
    pub(crate) fn on_route_event(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        event: &CallEvent,
    ) {
        let far = self.route_calls.by_session.get(&session).copied();
        match event {
            CallEvent::Offered(offered) => self.connect(now, session, offered),
            CallEvent::Ringing { early_media, .. } if far == Some(leg) => {
                self.route_command(
                    now,
                    session,
                    session,
                    CallCommand::Progress { early_media: *early_media },
                );
                if *early_media {
                    self.route_link(now, session, leg, session);
                }
            }
            CallEvent::Answered { codec, .. } if far == Some(leg) => {
                let accept = CallCommand::Accept { codec: Some(*codec) };
                self.route_command(now, session, session, accept);
            }
            CallEvent::Answered { .. } if leg == session => {
                if let Some(far) = far {
                    self.route_link(now, session, far, session);
                    self.route_link(now, session, session, far);
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, now: Instant, session: CallSid, offered: &Offered) {
        self.counters.calls_without_instructions += 1;
        let far = CallSid::mint(&mut self.rng);
        let dial = CallCommand::Dial(DialParams {
            to: offered.to.clone(),
            from: offered.from.clone(),
            codecs: self.codecs_like(&offered.codecs),
            timeout_ms: RING_MAX_MS,
            headers: offered.headers.clone(),
            username: None,
            password: None,
            near_leg: Some(session),
        });
        let couple = CallCommand::Couple {
            peer: far,
            on_peer_end: OnPeerEnd::End,
            peer_on_end: OnPeerEnd::End,
        };
        self.route_calls.by_session.insert(session, far);
        let coupled = self
            .execute(now, session, far, dial)
            .and_then(|()| self.execute(now, session, session, couple));
        if coupled.is_err() {
            self.end_leg(now, session, LegEnd::new(EndReason::Unreachable, Blame::Us));
        }
    }

    /// The caller's codecs first, so that the two legs most likely need no transcoding.
    fn codecs_like(&self, first: &[AudioCodec]) -> Vec<AudioCodec> {
        let mut codecs = first.to_vec();
        let others = self.config.codecs.iter().filter(|codec| !first.contains(codec));
        codecs.extend(others.copied());
        codecs
    }

    fn route_link(&mut self, now: Instant, session: CallSid, from: CallSid, to: CallSid) {
        let codec = |leg: CallSid| self.legs.get(&leg).map(|leg| leg.media.codec());
        let path = if codec(from) == codec(to) { LinkPath::Relay } else { LinkPath::Transcode };
        let link = MediaCommand::Link { from: Port::Leg(from), to: Port::Leg(to), path };
        self.route_command(now, session, to, CallCommand::Media(link));
    }

    fn route_command(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        command: CallCommand,
    ) {
        if self.execute(now, session, leg, command).is_err() {
            // The leg has ended; its coupling takes care of the other one.
            self.counters.commands_refused += 1;
        }
    }
}
