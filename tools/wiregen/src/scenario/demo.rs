//! A minute and a half of a misbehaving network: four troubles at different times among healthy flows.
//!
//! Runs on the caller's thread; fills a `World` with some 80,000 packets. From 8 s a full state table in front
//! of the API, at 20 s a black hole for one office, at 48 s a cache that loses its state, and all along a
//! firewall that forgets database connections idle for 30 s.

use super::healthy::{self, SERVICES};
use super::idle::{Forgetful, forgetful};
use super::storm::{Storm, Vanishing, rst_storm, vanishing};
use super::trouble::{MS, PLAYS, SECOND};
use super::world::{World, between};

/// Healthy flows besides those that the troubles bring with them.
const BACKGROUND: u32 = 1500;

pub fn build(world: &mut World) {
    for _ in 0..BACKGROUND {
        let at = between(&mut world.rng, 0.0, 70.0);
        let service = SERVICES[world.rng.below(5) as usize];
        let client = 1 + world.rng.below(60) as u32;
        healthy::flow(world, client, service, at);
    }
    vanishing(world, &Vanishing { flows: 320, one_in: 40, from_s: 8.0, to_s: 40.0 });
    blackhole(world);
    rst_storm(world, Storm { host: 41, flows: 300, at_s: 48.0 });
    forgetful(world, &Forgetful { limit: 30 * SECOND, dead: 8, alive: 24, at: 15 * SECOND });
}

/// Five flows of one office behind a tunnel that swallows full-size segments.
fn blackhole(world: &mut World) {
    let play = PLAYS.iter().find(|(name, _)| *name == "pmtu_blackhole").map(|(_, play)| *play);
    let play = play.expect("the kind is in PLAYS");
    for i in 0..5 {
        let mut c = world.open(200 + i, (10, 443), 20 * SECOND + u64::from(i) * 800 * MS);
        let claims = play(&mut c);
        world.troubled(c, claims);
    }
}
