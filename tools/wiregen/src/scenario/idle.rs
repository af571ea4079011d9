//! Flows that say nothing for long: forgotten by a device in the path, or kept alive.
//!
//! Runs on the caller's thread; fills a `World`. The healthy siblings come close to the limit from below, so
//! that the contrast tells what the limit is. A short flow every ten seconds keeps the capture's clock going.

use super::healthy;
use super::trouble::{self, MS, SECOND};
use super::world::World;

const DATABASE: (u32, u16) = (30, 5432);

/// What `forgetful` makes.
pub struct Forgetful {
    /// The device forgets a flow idle for longer than this, ns.
    pub limit: u64,
    /// Flows idle for longer, and flows idle for less.
    pub dead: u32,
    pub alive: u32,
    /// When the first of them opens, ns.
    pub at: u64,
}

pub fn rst_after_idle(world: &mut World) {
    let limit = world.idle(300.0);
    let dead = world.flows(8);
    forgetful(world, &Forgetful { limit, dead, alive: 2 * dead, at: SECOND });
    for i in 0..limit / (10 * SECOND) + 2 {
        healthy::flow(world, 7 + i as u32 % 5, healthy::SERVICES[i as usize % 3], i * 10 * SECOND);
    }
}

/// Pooled connections of three clients to one database, through a device that forgets.
pub fn forgetful(world: &mut World, f: &Forgetful) {
    for i in 0..f.dead {
        let at = f.at + u64::from(i) * 370 * MS;
        let mut c = world.open(1 + i % 3, DATABASE, at);
        // From just above the limit to 8 % more.
        let idle = f.limit + f.limit / 300 + f.limit * 8 / 100 * u64::from(i) / u64::from(f.dead);
        let claims = trouble::rst_after_idle(&mut c, idle);
        world.troubled_after(c, claims, idle);
    }
    for i in 0..f.alive {
        let at = f.at + 90 * MS + u64::from(i) * 210 * MS;
        let mut c = world.open(1 + i % 3, DATABASE, at);
        // From a fifth of the limit to just below it.
        let idle = f.limit / 5 + (f.limit * 79 / 100) * u64::from(i + 1) / u64::from(f.alive);
        c.handshake();
        trouble::chat(&mut c, 3);
        let from = c.last;
        c.silence(idle);
        trouble::chat(&mut c, 2);
        if i % 4 != 0 {
            c.close(crate::profile::Side::Client, false);
        }
        debug_assert!(c.last > from + idle);
        world.healthy_after(c, idle);
    }
}

/// Eight probes on each of six flows; healthy flows around them.
pub fn keepalive(world: &mut World) {
    let every = world.idle(30.0);
    for i in 0..world.flows(6) {
        let mut c = world.open(1 + i % 4, (50, 5671), SECOND + u64::from(i) * 900 * MS);
        let claims = trouble::keepalive(&mut c, 8, every);
        world.troubled_after(c, claims, every);
    }
    for i in 0..every * 8 / (10 * SECOND) + 1 {
        healthy::flow(world, 7 + i as u32 % 5, healthy::SERVICES[i as usize % 3], i * 10 * SECOND);
    }
}
