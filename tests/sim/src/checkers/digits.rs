//! Each digit is delivered once, in the order in which it was pressed.

use std::collections::BTreeMap;

use crate::workload::{Kind, Plan};
use crate::world::World;

pub(super) fn check(world: &World, plans: &[Plan], calm: bool, wrong: &mut Vec<String>) {
    for plan in plans.iter().filter(|plan| plan.kind == Kind::Gather) {
        let memories = world.phones.iter().flat_map(|phones| phones.memories.iter());
        let pressed: String = memories
            .filter(|memory| memory.party == plan.party(0))
            .map(|memory| memory.pressed.as_str())
            .collect();
        let prefix = format!("/{:04}/", plan.index);
        // A request that was repeated carries the same token.
        let mut told: BTreeMap<&str, &str> = BTreeMap::new();
        let mut heard = String::new();
        for receipt in world.apps.receipts.iter().filter(|r| r.path.starts_with(&prefix)) {
            let Some(digits) = receipt.params.get("Digits") else { continue };
            // A fallback gets the parameters of the request that failed.
            if receipt.params.contains_key("ErrorCode") {
                continue;
            }
            if told.insert(&receipt.token, digits).is_none() {
                heard.push_str(digits);
            }
        }
        if !is_part_of(&heard, &pressed) {
            wrong.push(format!("plan {}: pressed {pressed:?}, heard {heard:?}", plan.index));
        }
        if calm && pressed.len() >= 6 && heard.is_empty() {
            let lived = plan.caller.give_up_ms.is_none();
            if lived {
                wrong.push(format!("plan {}: pressed {pressed:?}, heard nothing", plan.index));
            }
        }
    }
}

/// The digits of `heard` in order, each once: those between two collections may be missing.
fn is_part_of(heard: &str, pressed: &str) -> bool {
    let mut rest = pressed.chars();
    heard.chars().all(|digit| rest.any(|pressed| pressed == digit))
}
