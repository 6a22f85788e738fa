//! Calls that need no instructions (LAT-15): the edge connects them by its route table, whether or
//! not a control node is there. The table drives such a session with the same commands that control
//! would send.

use std::collections::BTreeMap;
use std::time::Instant;

use link_proto::CallSid;
use link_proto::call::{Blame, CallCommand, CallEvent, DialParams, EndReason, Offered, OnPeerEnd};
use link_proto::media::AudioCodec;
use link_proto::plan::{
    LegFacts, MediaGraph, Need, NodeCommand, PlanInput, Policy, difference, plan,
};
use link_proto::table::{NodeEntry, ResourceLimits};

use rand::RngExt as _;

use crate::call::leg::LegEnd;
use crate::call::session::Driver;
use crate::core::EdgeCore;

/// How long the far side may ring.
const RING_MAX_MS: u64 = 120_000;

#[derive(Debug)]
struct RouteCall {
    /// The outbound leg.
    far: CallSid,
    /// Media in force.
    graph: MediaGraph,
}

/// What the table remembers about its calls.
#[derive(Debug, Default)]
pub(crate) struct RouteCalls {
    by_session: BTreeMap<CallSid, RouteCall>,
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
    /// Who is to drive a call to this number; `None` if it is a control node and none is reachable.
    pub(crate) fn driver_of(&mut self, to: &str) -> Option<Driver> {
        let route = self.tables.route(to);
        // A route whose trunk is on another node needs control to bring the two together.
        match route.filter(|route| route.without_instructions && route.node == self.config.node) {
            Some(_) => Some(Driver::RouteTable),
            None => self.controls.choose(self.rng.random()).map(Driver::Control),
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
        let far = self.route_calls.by_session.get(&session).map(|call| call.far);
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
                    let feed = Need::Feed { from: leg, to: session };
                    self.route_media(now, session, vec![feed]);
                }
            }
            CallEvent::Answered { codec, .. } if far == Some(leg) => {
                let accept = CallCommand::Accept { codec: Some(*codec) };
                self.route_command(now, session, session, accept);
            }
            CallEvent::Answered { .. } if leg == session => {
                if let Some(far) = far {
                    let bridge = Need::Bridge { a: session, b: far };
                    self.route_media(now, session, vec![bridge]);
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
        let route_call = RouteCall { far, graph: MediaGraph::default() };
        self.route_calls.by_session.insert(session, route_call);
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

    /// Wires the two legs as the media plan says, with this node alone to do it: what only another
    /// node could do needs control.
    fn route_media(&mut self, now: Instant, session: CallSid, needs: Vec<Need>) {
        let input = self.plan_input(session, needs);
        let Some(call) = self.route_calls.by_session.get_mut(&session) else { return };
        let Ok(graph) = plan(&input) else {
            self.end_leg(now, session, LegEnd::new(EndReason::NotAcceptable, Blame::Us));
            return;
        };
        let steps = difference(&call.graph, &graph);
        call.graph = graph;
        for NodeCommand { leg, command, .. } in steps.into_iter().flatten() {
            self.route_command(now, session, leg, CallCommand::Media(command));
        }
    }

    fn plan_input(&self, session: CallSid, needs: Vec<Need>) -> PlanInput {
        let legs = self.calls.get(&session).map(|call| &call.legs).into_iter().flatten();
        let facts = legs.filter_map(|leg| self.legs.get(leg)).map(|leg| LegFacts {
            leg: leg.sid,
            node: self.config.node.clone(),
            codec: leg.media.codec(),
            telephone_event: leg.media.config().telephone_event_receive,
        });
        let node = NodeEntry {
            node: self.config.node.clone(),
            region: self.config.region.clone(),
            trunk_address: String::new(),
            resources: self.config.resources,
            // A call of the table takes the room that is there; control sees it in the load.
            limits: ResourceLimits::default(),
            core: false,
            available: true,
        };
        let policy = Policy::default();
        PlanInput { legs: facts.collect(), needs, nodes: vec![node], used: BTreeMap::new(), policy }
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
