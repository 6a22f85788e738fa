//! Whatever comes from outside, the core lives on and stays bounded.

use edge_core::{ControlIndex, Input, LinkInput};
use edge_media::command::{OpKey, PortKey, SessionKey};
use edge_media::event::{CollectEnd, LegStats, PlayEnd, RegionCounters, WorkerEvent};
use link_proto::call::{Blame, CallCommand, DialParams, EndReason, OnPeerEnd};
use link_proto::media::{LinkPath, MediaCommand, PlayItem, Port};
use link_proto::message::CommandMessage;
use link_proto::{CallSid, ChannelId, OpId};
use proptest::prelude::*;

use crate::world::{self, ALICE, World};

fn sid() -> impl Strategy<Value = CallSid> {
    (0u8..4).prop_map(|n| CallSid([n; 16]))
}

fn port() -> impl Strategy<Value = Port> {
    prop_oneof![sid().prop_map(Port::Leg), (0u64..3).prop_map(|n| Port::Channel(ChannelId(n))),]
}

fn media() -> impl Strategy<Value = MediaCommand> {
    let op = || (0u32..4).prop_map(OpId);
    prop_oneof![
        (port(), port())
            .prop_map(|(from, to)| { MediaCommand::Link { from, to, path: LinkPath::Relay } }),
        (port(), port()).prop_map(|(from, to)| MediaCommand::Unlink { from, to }),
        (op(), port()).prop_map(|(op, port)| {
            MediaCommand::Play { op, port, items: vec![PlayItem::Pause { length_ms: 1 }] }
        }),
        op().prop_map(|op| MediaCommand::Stop { op }),
        op().prop_map(|op| MediaCommand::Start { op }),
        any::<u32>().prop_map(|phase| MediaCommand::Snapshot { phase }),
        (op(), port(), ".{0,4}")
            .prop_map(|(op, port, keys)| { MediaCommand::Watch { op, port, keys } }),
    ]
}

fn command() -> impl Strategy<Value = CallCommand> {
    let (reason, whose) = (EndReason::Hangup, Blame::Us);
    prop_oneof![
        any::<bool>().prop_map(|early_media| CallCommand::Progress { early_media }),
        Just(CallCommand::Accept { codec: None }),
        (any::<u16>(), ".{0,9}")
            .prop_map(|(status, reason)| { CallCommand::Reject { status, reason } }),
        ("(sip:)?[a-z0-9+@.:;=]{0,20}|sip:bob@10\\.0\\.1\\.2", ".{0,9}").prop_map(|(to, from)| {
            CallCommand::Dial(DialParams {
                to,
                from,
                codecs: Vec::new(),
                timeout_ms: u64::MAX,
                headers: Vec::new(),
                username: None,
                password: None,
                near_leg: None,
            })
        }),
        Just(CallCommand::Hangup { reason, whose }),
        sid().prop_map(|peer| CallCommand::Couple {
            peer,
            on_peer_end: OnPeerEnd::End,
            peer_on_end: OnPeerEnd::End,
        }),
        Just(CallCommand::Uncouple),
        any::<u64>().prop_map(|limit_ms| CallCommand::TimeLimit { limit_ms }),
        media().prop_map(CallCommand::Media),
    ]
}

fn worker_event() -> impl Strategy<Value = WorkerEvent> {
    let port = || (0u32..3, 0u32..3).prop_map(|(index, generation)| PortKey { index, generation });
    let op = || {
        (0u32..3, 0u32..3, 0u32..4).prop_map(|(index, generation, op)| OpKey {
            session: SessionKey { index, generation },
            op: OpId(op),
        })
    };
    let end = CollectEnd::Timeout;
    let (stats, counters) = (LegStats::default(), RegionCounters::default());
    prop_oneof![
        port().prop_map(|port| WorkerEvent::MediaTimeout { port }),
        port().prop_map(move |port| WorkerEvent::PortRemoved { port, stats, counters }),
        port().prop_map(|port| WorkerEvent::PortRefused { port }),
        op().prop_map(|op| WorkerEvent::PlayStarted { op }),
        op().prop_map(|op| WorkerEvent::PlayDone { op, end: PlayEnd::Finished }),
        op().prop_map(move |op| WorkerEvent::CollectDone { op, digits: "1".into(), end }),
        op().prop_map(|op| WorkerEvent::Key { op, key: '*' }),
    ]
}

const INVITE: &str = "INVITE sip:+4930222@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.1.1;branch=z9hG4bKa\r\n\
    From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
    Contact: <sip:a@10.0.1.1>\r\nMax-Forwards: 70\r\nDiversion: <sip:+4911@a>\r\nX-A: b\r\n\
    Content-Type: application/sdp\r\n\r\n\
    v=0\r\no=- 1 1 IN IP4 10.0.1.1\r\ns=-\r\nc=IN IP4 10.0.1.1\r\nt=0 0\r\nm=audio 7000 RTP/AVP 0 101\r\n\
    a=rtpmap:101 telephone-event/8000\r\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Damaged requests from a provider.
    #[test]
    fn damaged_datagrams_do_no_harm(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new(1);
        let mut bytes = INVITE.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = bytes.clone();
        bytes.truncate(cut.index(whole.len() + 1));
        for bytes in [bytes, whole] {
            world.input(Input::Datagram {
                source: world::address(ALICE),
                local: world::address(world::EDGE),
                transport: sip_core::Transport::Udp,
                bytes: bytes.into(),
            });
            world.run_ms(50);
        }
        prop_assert!(world.edge.legs_live() <= 2);
    }

    /// Commands that make no sense, and reports about what is not there: every command is
    /// answered, and everything can be ended afterwards.
    #[test]
    fn senseless_commands_are_answered(
        steps in proptest::collection::vec((sid(), sid(), command(), worker_event()), 1..40),
    ) {
        let mut world = World::new(2);
        let mut ids = std::collections::BTreeMap::<CallSid, u64>::new();
        for (session, leg, command, event) in steps {
            let id = ids.entry(session).or_default();
            *id += 1;
            let message = CommandMessage { session, id: *id, epoch: 1, leg, command };
            let acks = world.control.acks.len();
            world.input(Input::Link(ControlIndex(0), LinkInput::Command(message)));
            prop_assert_eq!(world.control.acks.len(), acks + 1);
            // A worker that errs: the pretended one must not be asked about such ports again.
            let errs = matches!(
                event,
                WorkerEvent::PortRemoved { .. } | WorkerEvent::PortRefused { .. }
            );
            if !errs {
                world.input(Input::Worker { worker: 0, event });
            }
            world.run_ms(30);
        }
        world.input(Input::Drain { end_after: std::time::Duration::ZERO });
        world.run(std::time::Duration::from_secs(100));
        prop_assert_eq!(world.edge.legs_live(), 0);
        prop_assert!(world.edge.residue().iter().all(|(_, count)| *count == 0));
    }
}
