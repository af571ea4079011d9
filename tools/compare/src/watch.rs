//! When each tap captured, by its own clock, and whether a packet should have come to it then.
//! Plain arithmetic; looks at the clocks' relation, changes nothing.

use crate::conn::{Conn, World};
use crate::record::Record;

/// When one tap captured.
pub struct Watch {
    pub first: u64,
    pub last: u64,
    /// Packets that passed it before and after; so it did not run then.
    pub passed: [bool; 2],
}

/// When a packet should have been at the other tap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    Within,
    After,
}

pub struct Watches<'w, 't> {
    world: &'w World<'t>,
    pub of: [Watch; 2],
    /// What clocks and the length of the way may be wrong by, ns.
    pub margin: i64,
}

impl<'w, 't> Watches<'w, 't> {
    pub fn new(world: &'w World<'t>) -> Watches<'w, 't> {
        let watch = |tap: usize| {
            let (first, last) = world.taps[tap].level_span().unwrap_or((0, 0));
            Watch { first, last, passed: [false; 2] }
        };
        let usual = world.clock.as_ref().map_or(0, |clock| clock.usual_transit);
        let margin = usual.max(0).saturating_mul(2).saturating_add(2_000_000);
        Watches { world, of: [watch(0), watch(1)], margin }
    }

    /// When a packet should have been at the other tap; `beyond` makes that tap's time longer, or shorter.
    pub fn when(&self, conn: &Conn, tap: usize, r: &Record, beyond: i64) -> When {
        let Some(clock) = &self.world.clock else { return When::Within };
        let half = clock.half_rtt.unwrap_or(0);
        let way = if conn.first_tap[r.dir()] == Some(tap) { half } else { -half };
        let there = i128::from(clock.to_other(tap, r.ts)) + i128::from(way);
        let watch = &self.of[1 - tap];
        let (first, last) = (i128::from(watch.first), i128::from(watch.last));
        // A capture shorter than its margins still has a middle.
        let beyond = i128::from(beyond).max((first - last) / 4);
        if there < first - beyond {
            When::Before
        } else if there > last + beyond {
            When::After
        } else {
            When::Within
        }
    }

    /// As [`Watches::when`], sure.
    pub fn surely(&self, conn: &Conn, tap: usize, r: &Record) -> When {
        self.when(conn, tap, r, -self.margin)
    }
}
