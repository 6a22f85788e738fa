//! Two endpoints, one clock, a network that loses, doubles and reorders. Random users act on random
//! moments; at the end every leg has had exactly one last word and nothing is left over.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Faults, World, handle_of, is_terminal, sdp};
use rand::Rng;
use sip_core::{Body, DialogHandle, Event};

const CALLS_PER_SEED: usize = 12;
const SEEDS: u64 = 40;
const BAD: Faults =
    Faults { loss_percent: 15, duplicate_percent: 10, delay_max_ms: 400, corrupt_percent: 0 };

#[derive(Default)]
struct Leg {
    events: Vec<String>,
    terminal: usize,
    answered: bool,
    acked: bool,
}

type Legs = BTreeMap<(usize, DialogHandle), Leg>;

fn act_on(world: &mut World, agent: usize, event: &Event) {
    let draw = world.rng.next_u64() % 100;
    let Some(handle) = handle_of(event) else { return };
    world.with(agent, |sip, now| match event {
        Event::Incoming { .. } if draw < 15 => {
            let _ = sip.reject(now, handle, 486, "", Vec::new());
        }
        Event::Incoming { .. } if draw < 60 => {
            sip.provisional(now, handle, 180, "", Vec::new(), None).expect("incoming");
            if draw < 40 {
                sip.accept(now, handle, Vec::new(), sdp()).expect("incoming");
            }
        }
        Event::Incoming { .. } => {
            sip.provisional(now, handle, 183, "", Vec::new(), sdp()).expect("incoming");
        }
        Event::Answered { .. } => {
            // Only needed if our INVITE had no offer; refused otherwise.
            let _ = sip.ack(now, handle, Body::sdp(common::SDP));
        }
        Event::ReInviteAnswered { .. } => {
            let _ = sip.ack(now, handle, Body::sdp(common::SDP));
        }
        Event::ReInvite { .. } if draw < 80 => {
            let _ = sip.respond_reinvite(now, handle, 200, "", Vec::new(), sdp());
        }
        Event::ReInvite { .. } => {
            let _ = sip.respond_reinvite(now, handle, 488, "", Vec::new(), None);
        }
        Event::Info { id, .. } => {
            let _ = sip.respond(now, *id, 200, "", Vec::new(), None);
        }
        _ => {}
    });
}

fn act_by_chance(world: &mut World, agent: usize, handle: DialogHandle) {
    let draw = world.rng.next_u64() % 100;
    world.with(agent, |sip, now| match draw {
        0..20 => drop(sip.accept(now, handle, Vec::new(), sdp())),
        20..35 => drop(sip.reinvite(now, handle, Vec::new(), sdp())),
        35..40 => drop(sip.reinvite(now, handle, Vec::new(), None)),
        40..55 => drop(sip.info(now, handle, "application/dtmf-relay", "Signal=1".into())),
        55..75 => drop(sip.hang_up(now, handle, 480, Vec::new())),
        75..80 => drop(sip.cancel(now, handle, Vec::new())),
        _ => {}
    });
}

fn collect(world: &mut World, legs: &mut Legs, act: bool) {
    for agent in 0..2 {
        while let Some(event) = world.event(agent) {
            let Some(handle) = handle_of(&event) else { continue };
            let leg = legs.entry((agent, handle)).or_default();
            assert_eq!(leg.terminal, 0, "{event:?} after the last word: {:?}", leg.events);
            leg.events.push(common::describe(&event));
            leg.terminal += usize::from(is_terminal(&event));
            leg.answered |= matches!(event, Event::Answered { .. });
            leg.acked |= matches!(event, Event::AckReceived { .. });
            if act {
                act_on(world, agent, &event);
            }
        }
    }
}

fn run(seed: u64, faults: Faults, settle_s: u64) -> (World, Legs) {
    let mut world = World::new(seed, faults, 2);
    let mut legs = Legs::new();
    for _ in 0..CALLS_PER_SEED {
        let from = (world.rng.next_u64() % 2) as usize;
        let mut params = world.params(1 - from);
        if world.percent(20) {
            params.body = None;
        }
        let handle = world.with(from, |sip, now| sip.invite(now, params)).expect("room");
        legs.entry((from, handle)).or_default();
        let pause_ms = world.rng.next_u64() % 3000;
        let limit = world.now + Duration::from_millis(pause_ms);
        while world.step(limit) {
            collect(&mut world, &mut legs, true);
        }
        let live: Vec<_> =
            legs.iter().filter(|(_, leg)| leg.terminal == 0).map(|(k, _)| *k).collect();
        for (agent, handle) in live {
            act_by_chance(&mut world, agent, handle);
        }
        collect(&mut world, &mut legs, true);
    }
    // Everybody hangs up, then only timers run.
    for (agent, handle) in legs.keys().copied().collect::<Vec<_>>() {
        let _ = world.with(agent, |sip, now| sip.hang_up(now, handle, 480, Vec::new()));
    }
    let limit = world.now + Duration::from_secs(settle_s);
    while world.step(limit) {
        collect(&mut world, &mut legs, true);
    }
    for ((agent, handle), leg) in &legs {
        assert_eq!(leg.terminal, 1, "seed {seed} agent {agent} {handle:?}: {:?}", leg.events);
    }
    assert!(world.idle(), "seed {seed}: something is left");
    (world, legs)
}

#[test]
fn calls_end_on_both_sides_over_a_bad_network() {
    let (mut answered, mut acked) = (0, 0);
    for seed in 0..SEEDS {
        let faults = BAD;
        // A BYE lost eleven times leaves the far leg to its call limit (600 s here).
        let (world, legs) = run(seed, faults, 800);
        answered += legs.values().filter(|leg| leg.answered).count();
        acked += legs.values().filter(|leg| leg.acked).count();
        let counters = world.agents[0].sip.counters();
        assert!(counters.request_retransmissions_sent > 0);
    }
    // The test is worth something only if calls are made.
    assert!(answered > 100 && acked > 100, "{answered} answered, {acked} acknowledged");
}

#[test]
fn calls_end_on_both_sides_over_a_good_network() {
    let mut answered = 0;
    for seed in 100..100 + SEEDS {
        // 64·T1 for the last transaction and T4 for its echo: after that nothing may be left.
        let (world, legs) = run(seed, Faults { delay_max_ms: 20, ..Faults::NONE }, 38);
        for agent in &world.agents {
            let counters = agent.sip.counters();
            assert_eq!(counters.transaction_timeouts, 0, "seed {seed}");
            assert_eq!(counters.ack_timeouts, 0, "seed {seed}");
            assert_eq!(counters.parse_errors_dropped + counters.parse_errors_answered, 0);
            // An ACK that a BYE overtook is unmatched; a response never is.
            assert_eq!(counters.responses_unmatched, 0, "seed {seed}");
        }
        answered += legs.values().filter(|leg| leg.answered).count();
    }
    assert!(answered > 100, "{answered} answered");
}

#[test]
fn corrupted_datagrams_do_no_lasting_harm() {
    let mut noticed = 0;
    for seed in 300..300 + SEEDS {
        // A corrupted tag can leave a leg to its call limit, a corrupted INVITE to the ringing limit.
        let (world, _) = run(seed, Faults { corrupt_percent: 20, ..BAD }, 2000);
        for agent in &world.agents {
            let counters = agent.sip.counters();
            noticed += counters.responses_unmatched + counters.parse_errors_answered;
        }
    }
    assert!(noticed > 100, "{noticed} corruptions noticed");
}

#[test]
fn a_dead_network_leaves_nothing_behind() {
    for seed in 200..205 {
        run(seed, Faults { loss_percent: 100, ..Faults::NONE }, 70);
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let faults = BAD;
    let first = run(7, faults, 800).0.log;
    let second = run(7, faults, 800).0.log;
    assert!(first == second, "two runs of one seed differ");
}
