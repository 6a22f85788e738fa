//! Status callbacks: one terminal row per leg, numbers without holes, repeats equal.

use std::collections::BTreeMap;

use link_proto::CallSid;

use crate::world::World;

pub(super) fn check(world: &World, wrong: &mut Vec<String>) {
    let store = &world.control.store;
    let mut by_call: BTreeMap<CallSid, Vec<(u64, &str)>> = BTreeMap::new();
    for row in store.callbacks.values() {
        by_call.entry(row.call).or_default().push((row.sequence, &row.event));
    }
    for (call, rows) in &mut by_call {
        rows.sort_unstable();
        let numbers: Vec<u64> = rows.iter().map(|(number, _)| *number).collect();
        if numbers != (0..rows.len() as u64).collect::<Vec<_>>() {
            wrong.push(format!("callbacks of {call} are numbered {numbers:?}"));
        }
        let ends = rows.iter().filter(|(_, event)| *event == "completed").count();
        if ends != 1 {
            wrong.push(format!("{call} has {ends} terminal callbacks"));
        }
        if rows.last().is_some_and(|(_, event)| *event != "completed") {
            wrong.push(format!("{call} has callbacks after its end: {rows:?}"));
        }
    }
    // Every leg of the workload is watched.
    for sid in store.calls.keys().filter(|sid| !by_call.contains_key(*sid)) {
        wrong.push(format!("{sid} has no callbacks"));
    }
    deliveries(world, wrong);
}

/// At least once, in order, and repeats are equal to the first.
fn deliveries(world: &World, wrong: &mut Vec<String>) {
    let mut seen: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut requests: BTreeMap<(&str, u64), &crate::app_server::Receipt> = BTreeMap::new();
    for receipt in &world.apps.receipts {
        let Some(number) = receipt.params.get("SequenceNumber").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let call = receipt.params.get("CallSid").map_or("", String::as_str);
        if let Some(first) = requests.insert((call, number), receipt)
            && (first.request != receipt.request || first.token != receipt.token)
        {
            wrong.push(format!("callback {number} of {call} was repeated with another content"));
        }
        let last = seen.entry((call, receipt.path.as_str())).or_insert(number);
        if number < *last || number > *last + 1 {
            wrong.push(format!("callback {number} of {call} came after {last}"));
        }
        *last = number;
    }
    for row in world.control.store.callbacks.values() {
        let call = row.call.to_string();
        if !requests.contains_key(&(call.as_str(), row.sequence)) {
            wrong.push(format!("callback {} was never delivered", row.key));
        }
    }
}
