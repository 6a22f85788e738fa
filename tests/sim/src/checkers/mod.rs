//! What must hold at the end of every run, whatever went wrong.

mod callbacks;
mod digits;
mod legs;

use crate::workload::Plan;
use crate::world::World;

/// Everything that does not hold, in words. `chaotic` runs may end calls early.
pub fn check(world: &World, plans: &[Plan], calm: bool) -> Vec<String> {
    let mut wrong = residue(world);
    wrong.extend(world.stalled.clone());
    violations(world, calm, &mut wrong);
    legs::check(world, plans, calm, &mut wrong);
    callbacks::check(world, &mut wrong);
    digits::check(world, plans, calm, &mut wrong);
    wrong
}

/// Nothing is left anywhere.
fn residue(world: &World) -> Vec<String> {
    let mut left = world.control.residue();
    for edge in &world.edges {
        left.extend(edge.residue());
    }
    for phones in &world.phones {
        left.push((format!("phones at {}", phones.address), phones.residue()));
    }
    let left = left.into_iter().filter(|(_, count)| *count > 0);
    left.map(|(what, count)| format!("{count} left: {what}")).collect()
}

/// What nodes have noticed themselves.
fn violations(world: &World, calm: bool, wrong: &mut Vec<String>) {
    wrong.extend(world.control.store.violations.iter().cloned());
    wrong.extend(world.apps.violations.iter().cloned());
    for phones in &world.phones {
        wrong.extend(phones.violations.iter().cloned());
    }
    for life in world.edges.iter().filter_map(|edge| edge.life.as_ref()) {
        wrong.extend(life.violations.iter().cloned());
        for shard in &life.shards {
            wrong.extend(shard.media.violations().iter().cloned());
        }
    }
    // While a node is away there may be no place for what it does.
    if calm && world.control.internal_errors() > 0 {
        wrong.push(format!("{} internal errors of control", world.control.internal_errors()));
    }
}
