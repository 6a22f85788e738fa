//! One seed from beginning to verdict: chaos, healing, judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use link_proto::table::Resources;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::checkers;
use crate::faults::{Faults, Kind};
use crate::workload::{Plan, Workload};
use crate::world::{Parcel, REGIONS, Setup, World};

/// How seeds are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Model of the media worker instead of the real one.
    pub model_media: bool,
    /// Keep the text of the trace.
    pub verbose: bool,
    /// Calls per seed.
    pub calls: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { model_media: false, verbose: false, calls: 24 }
    }
}

/// What came out of a seed.
#[derive(Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What does not hold; empty = passed.
    pub wrong: Vec<String>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Faults that hit.
    pub hits: BTreeMap<Kind, u64>,
    /// Calls that were made.
    pub calls: usize,
    /// Virtual time.
    pub virtual_time: Duration,
    /// Events.
    pub steps: u64,
    /// The trace, if it was kept.
    pub trace: Vec<String>,
}

/// Chaos lasts that long at most.
const CHAOS_MS: (u64, u64) = (20_000, 45_000);
/// Everything has to be over that long after healing: patience of the phones, the longest timers
/// of SIP, lingering of control and the sweeper.
const SETTLE: Duration = Duration::from_secs(600);

fn resources(rng: &mut StdRng) -> [Resources; REGIONS] {
    let full = Resources::default();
    let mut local = full;
    // LAT-06: what a region lacks comes from the core.
    let mut off = |percent: u32| rng.random_range(0..100) < percent;
    if off(25) {
        (local.play, local.speech) = (false, false);
    }
    if off(15) {
        local.collect = false;
    }
    if off(15) {
        local.record = false;
    }
    [local, full]
}

/// Runs a seed.
pub fn run(seed: u64, options: Options) -> Verdict {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5349_4d00);
    let mut faults =
        if rng.random_range(0..100) < 12 { Faults::none() } else { Faults::draw(&mut rng) };
    if options.model_media {
        // Without packets nothing is lost on the trunk but what the model takes for sure.
        faults.trunk.loss = 0.0;
    }
    let calm = faults.is_calm();
    let chaos_ms = rng.random_range(CHAOS_MS.0..CHAOS_MS.1);
    let workload = Workload::draw(options.calls, chaos_ms, &mut rng);
    let resources = resources(&mut rng);
    let mut world = World::new(Setup {
        seed,
        real_media: !options.model_media,
        directory: workload.directory,
        apps: workload.apps,
        faults: faults.clone(),
        resources,
        verbose: options.verbose,
    });
    enter_plans(&mut world, &workload.plans);
    enter_faults(&mut world, &faults, chaos_ms, &mut rng);
    world.at(world.clock.at_ms(chaos_ms), Parcel::Heal);
    let healed = world.clock.at_ms(chaos_ms);
    world.run_until(healed + Duration::from_millis(1));
    while world.clock.now() < healed + SETTLE && world.stalled.is_none() && !is_quiet(&world) {
        let until = world.clock.now() + Duration::from_secs(5);
        if !world.run_until(until) {
            break;
        }
    }
    world.count_hits();
    let wrong = checkers::check(&world, &workload.plans, calm);
    Verdict {
        seed,
        wrong,
        hash: world.trace.hash(),
        hits: world.hits.clone(),
        calls: workload.plans.len(),
        virtual_time: world.clock.elapsed(),
        steps: world.steps,
        trace: world.trace.lines().map(str::to_owned).collect(),
    }
}

/// Nothing is left to happen.
fn is_quiet(world: &World) -> bool {
    world.control.residue().is_empty()
        && world.edges.iter().all(|edge| edge.residue().is_empty())
        && world.phones.iter().all(|phones| phones.residue() == 0)
}

/// Puts calls into the future of a world.
pub fn enter_plans(world: &mut World, plans: &[Plan]) {
    for plan in plans {
        for (n, script) in plan.called.iter().enumerate() {
            let (user, party) = (plan.user(n + 1), plan.party(n + 1));
            if let Some(phones) = world.phones.get_mut(plan.far) {
                phones.called.insert(user, (party, script.clone()));
            }
        }
        let start = world.clock.at_ms(plan.start_ms);
        for (after_ms, action) in &plan.api {
            let account = world.accounts()[plan.customer];
            let (plan, action) = (plan.index, action.clone());
            let parcel = Parcel::Api { plan, account, action };
            world.at(start + Duration::from_millis(*after_ms), parcel);
        }
        if plan.kind != crate::workload::Kind::ApiCall {
            let (region, number, party) = (plan.region, plan.number(), plan.party(0));
            let script = plan.caller.clone();
            world.at(start, Parcel::Dial { region, number, party, script });
        }
    }
}

fn enter_faults(world: &mut World, faults: &Faults, chaos_ms: u64, rng: &mut StdRng) {
    let when = |rng: &mut StdRng| rng.random_range(1_000..chaos_ms);
    for _ in 0..faults.link_cuts {
        let down_ms = rng.random_range(0..20_000);
        let edge = rng.random_range(0..REGIONS);
        let at = world.clock.at_ms(when(rng));
        world.at(at, Parcel::Cut { edge, down_ms });
    }
    for _ in 0..faults.control_crashes {
        let at = world.clock.at_ms(when(rng));
        let down_ms = rng.random_range(100..12_000);
        let idle = rng.random_range(0..3) == 0;
        let crash = Parcel::ControlCrash { down_ms };
        world.at(at, if idle { crash } else { Parcel::ControlCrashBusy { down_ms } });
    }
    for _ in 0..faults.edge_crashes {
        let edge = rng.random_range(0..REGIONS);
        let at = world.clock.at_ms(when(rng));
        world.at(at, Parcel::EdgeCrash { edge });
    }
    for _ in 0..faults.clock_steps {
        let by_ms = rng.random_range(-3_600_000..3_600_000);
        let at = world.clock.at_ms(when(rng));
        world.at(at, Parcel::ClockStep { by_ms });
    }
}
