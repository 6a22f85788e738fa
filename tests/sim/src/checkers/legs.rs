//! Every leg ends exactly once, in a state that fits what the phone saw.

use std::collections::{BTreeMap, BTreeSet};

use control_core::record::{CallRecord, CallStatus, TimelineEvent};
use link_proto::CallSid;
use link_proto::call::EndReason;

use crate::faults::Kind;
use crate::phone::{Ended, Memory};
use crate::reference;
use crate::workload::{self, Plan};
use crate::world::World;

pub(super) fn check(world: &World, plans: &[Plan], calm: bool, wrong: &mut Vec<String>) {
    let store = &world.control.store;
    for record in store.calls.values() {
        if !record.status.is_terminal() || record.end_reason.is_none() {
            wrong.push(format!("{} never ended: {:?}", record.sid, record.status));
        }
        if record.end_reason == Some(EndReason::Internal) {
            wrong.push(format!("{} ended by a defect of ours", record.sid));
        }
        if record.status == CallStatus::Completed && record.answered_unix_ms.is_none() {
            wrong.push(format!("{} is completed but was never answered", record.sid));
        }
    }
    timelines(world, wrong);
    phones(world, wrong);
    gaps(world, wrong);
    if calm {
        statuses(world, plans, wrong);
    }
}

/// One end per leg, one end per session, numbers without holes.
fn timelines(world: &World, wrong: &mut Vec<String>) {
    let mut ends: BTreeMap<CallSid, u32> = BTreeMap::new();
    let mut sessions: BTreeMap<CallSid, (u64, u32)> = BTreeMap::new();
    for ((session, sequence), row) in &world.control.store.timeline {
        let (next, over) = sessions.entry(*session).or_default();
        if *sequence != *next {
            wrong.push(format!("timeline of {session}: {sequence} after {next}"));
        }
        *next = sequence + 1;
        match (&row.event, row.leg) {
            (TimelineEvent::LegEnded { .. }, Some(leg)) => *ends.entry(leg).or_default() += 1,
            (TimelineEvent::SessionEnded, _) => *over += 1,
            _ => {}
        }
    }
    for (leg, count) in ends.into_iter().filter(|(_, count)| *count != 1) {
        wrong.push(format!("{leg} ended {count} times"));
    }
    for (session, (_, over)) in sessions.into_iter().filter(|(_, (_, over))| *over != 1) {
        wrong.push(format!("session {session} ended {over} times"));
    }
}

fn memories(world: &World) -> impl Iterator<Item = &Memory> {
    world.phones.iter().flat_map(|phones| phones.memories.iter())
}

/// A phone that talked has a record that says so, and the other way round.
fn phones(world: &World, wrong: &mut Vec<String>) {
    let edges_lived = !world.hits.contains_key(&Kind::EdgeCrash);
    let mut by_call_id: BTreeMap<&str, &CallRecord> = BTreeMap::new();
    for record in world.control.store.calls.values() {
        if let Some(id) = &record.sip_call_id
            && by_call_id.insert(id, record).is_some()
        {
            wrong.push(format!("two records of SIP call {id}"));
        }
    }
    let mut known = BTreeSet::new();
    for memory in memories(world) {
        let party = memory.party;
        if !known.insert(memory.call_id.as_str()) {
            wrong.push(format!("{party:?} was called twice within one SIP call"));
        }
        if memory.ended.is_none() {
            wrong.push(format!("{party:?} never ended"));
        }
        if memory.ssrcs.len() > 1 {
            wrong.push(format!("{party:?} heard {} SSRCs", memory.ssrcs.len()));
        }
        // An edge that was killed forgets what it has not yet told.
        let Some(record) = by_call_id.get(memory.call_id.as_str()).filter(|_| edges_lived) else {
            continue;
        };
        // A caller's 200 may be lost, until its CANCEL or our BYE ends the call.
        if memory.answered && record.answered_unix_ms.is_none() {
            wrong.push(format!("{party:?} talked, but {} says {:?}", record.sid, record.status));
        }
        if memory.ended == Some(Ended::Lost) {
            wrong.push(format!("{party:?} was forgotten by the edge ({:?})", record.end_reason));
        }
    }
}

/// Largest spacing of packets towards an endpoint in µs: a relayed source that falls silent is
/// filled up after 100 ms.
const GAP_US_MAX: u64 = 165_000;

fn gaps(world: &World, wrong: &mut Vec<String>) {
    for record in world.control.store.calls.values() {
        let gap_us = record.stats.map_or(0, |stats| stats.longest_gap_out_us);
        if gap_us > GAP_US_MAX {
            wrong.push(format!("{}: gap of {gap_us} us towards the endpoint", record.sid));
        }
    }
}

/// Without crashes and broken servers every call goes as written.
fn statuses(world: &World, plans: &[Plan], wrong: &mut Vec<String>) {
    for plan in plans {
        let expected = reference::caller(plan);
        let first = world.first_leg(plan.index).and_then(|sid| world.control.store.calls.get(&sid));
        match first {
            None if expected.is_empty() => unknown_number(world, plan, wrong),
            // Cancelled before the edge had told control.
            None => {}
            Some(record) if expected.contains(&record.status) => {}
            Some(record) => wrong.push(format!(
                "plan {} ({:?}): caller {:?} because of {:?} by {:?}, expected {expected:?}",
                plan.index, plan.kind, record.status, record.end_reason, record.end_whose
            )),
        }
        for role in 1..=plan.called.len() {
            let user = plan.user(role);
            let expected = reference::called(plan, role);
            let legs = world.control.store.calls.values().filter(|record| record.to == user);
            for record in legs.filter(|record| !expected.contains(&record.status)) {
                wrong.push(format!(
                    "plan {} ({:?}): {user} {:?} because of {:?} by {:?}, expected {expected:?}",
                    plan.index, plan.kind, record.status, record.end_reason, record.end_whose
                ));
            }
        }
    }
}

fn unknown_number(world: &World, plan: &Plan, wrong: &mut Vec<String>) {
    debug_assert_eq!(plan.kind, workload::Kind::Unknown);
    let memory = memories(world).find(|memory| memory.party == plan.party(0));
    let right = |ended: Ended| match ended {
        Ended::Failed(404) => true,
        // It gave up before, or nothing came through.
        Ended::Failed(487 | 408) | Ended::LocalBye => true,
        _ => false,
    };
    if let Some(ended) = memory.and_then(|memory| memory.ended).filter(|ended| !right(*ended)) {
        wrong.push(format!("plan {}: unknown number, but the caller saw {ended:?}", plan.index));
    }
}
