//! The first call, and what makes a simulator worth having: the same seed is the same run.
#![allow(missing_docs)]

use std::time::Duration;

use control_core::record::CallStatus;
use link_proto::call::{Blame, EndReason};
use link_proto::table::Resources;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sim::checkers;
use sim::faults::Faults;
use sim::phone::{Ended, Script};
use sim::run::{Options, enter_plans, run};
use sim::workload::{Kind, Plan, Workload};
use sim::world::{Parcel, Setup, World};

fn first_call(real_media: bool) -> (World, Vec<Plan>) {
    let plan = Plan {
        index: 0,
        customer: 0,
        region: 0,
        far: 0,
        kind: Kind::Play,
        start_ms: 1_000,
        caller: Script::default(),
        called: Vec::new(),
        api: Vec::new(),
    };
    let workload = Workload::of(vec![plan], &mut StdRng::seed_from_u64(1));
    let mut world = World::new(Setup {
        seed: 1,
        real_media,
        directory: workload.directory,
        apps: workload.apps,
        faults: Faults::none(),
        resources: [Resources::default(); 2],
        verbose: true,
    });
    enter_plans(&mut world, &workload.plans);
    (world, workload.plans)
}

/// INVITE, Play, BYE; control is killed and started again while the prompt plays.
fn survives(real_media: bool, crash_ms: u64) {
    let (mut world, plans) = first_call(real_media);
    world.at(world.clock.at_ms(crash_ms), Parcel::ControlCrash { down_ms: 700 });
    world.run_until(world.clock.at_ms(120_000));
    let trace: Vec<&str> = world.trace.lines().collect();
    let trace = trace.join("\n");
    let wrong = checkers::check(&world, &plans, true);
    assert!(wrong.is_empty(), "killed at {crash_ms} ms: {wrong:#?}\n{trace}");
    assert_eq!(world.control.boot, 2, "control was restarted once");
    let records: Vec<_> = world.control.store.calls.values().collect();
    assert_eq!(records.len(), 1, "{trace}");
    assert_eq!(records[0].status, CallStatus::Completed, "killed at {crash_ms} ms\n{trace}");
    assert_eq!(records[0].end_reason, Some(EndReason::Hangup), "killed at {crash_ms} ms\n{trace}");
    assert_eq!(records[0].end_whose, Some(Blame::Customer));
    let memory = &world.phones[0].memories[0];
    assert!(memory.answered);
    assert_eq!(memory.ended, Some(Ended::RemoteBye));
    if real_media {
        assert!(memory.heard > 100, "{} packets", memory.heard);
    }
}

#[test]
fn the_first_call_survives_a_restart_of_control() {
    for crash_ms in (1_000..6_000).step_by(130) {
        survives(false, crash_ms);
    }
    for crash_ms in [1_100, 1_700, 2_500, 4_000] {
        survives(true, crash_ms);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for model_media in [true, false] {
        let options = Options { model_media, calls: 10, ..Options::default() };
        let (one, two) = (run(4, options), run(4, options));
        assert_eq!((one.hash, one.steps), (two.hash, two.steps));
        assert_eq!(one.virtual_time, two.virtual_time);
        assert_ne!(one.hash, run(5, options).hash, "another seed is another run");
        assert!(one.virtual_time > Duration::from_secs(10));
    }
}
