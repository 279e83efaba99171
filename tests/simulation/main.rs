//! The deployment against a fake world: seeds × events × crashes × late answers.
//!
//! A failing seed is printed; `DORC_SEED=17 cargo test --test simulation` runs it alone and tells each step.
//! `DORC_SEEDS=100000` runs more of them.
#![allow(clippy::print_stderr, reason = "a failing seed is printed")]

mod random;
mod rules;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// How many seeds are run unless told otherwise.
const SEEDS: u64 = 4_000;

/// How many things happen to each world.
const STEPS: usize = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64, tell: bool) {
    let mut world = World::new(seed, tell);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm_down();
}

#[test]
fn the_deployment_keeps_its_promises_in_every_world() {
    if let Some(seed) = number("DORC_SEED") {
        return run(seed, true);
    }
    for seed in 0..number("DORC_SEEDS").unwrap_or(SEEDS) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
            eprintln!("failed: DORC_SEED={seed} cargo test --test simulation");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A test that can't fail is a defect: worlds that break the rules are seen.
#[test]
fn broken_worlds_are_seen() {
    for sabotage in world::Sabotage::ALL {
        let broken = move || (0..200).any(|seed| catch_unwind(|| run_broken(seed, sabotage)).is_err());
        // A test's own threads keep what they print to themselves.
        let seen = std::thread::spawn(broken).join().expect("panics are caught");
        assert!(seen, "{sabotage:?} is not seen");
    }
}

fn run_broken(seed: u64, sabotage: world::Sabotage) {
    let mut world = World::new(seed, false);
    world.sabotage = Some(sabotage);
    (0..STEPS).for_each(|_| world.step());
    world.calm_down();
}
