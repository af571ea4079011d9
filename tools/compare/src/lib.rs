//! Two captures of one path: their clocks aligned from the packets themselves, and what happened in between.
//!
//! Off the packet path: runs on the caller's thread, after both files are read, and may allocate. It decides and
//! prints nothing; the tool that called it does. Captures come from `dataplane`'s sources and decoder, a
//! [`Report`] goes to the caller.
//!
//! The way: [`read`] makes small records of both captures; `conn` pairs their connections; `matching` finds each
//! packet's counterpart without regard to time; `votes` and `places` read geometry off those pairs, `clock` and
//! `steps` how clocks stand and whether one was set; `matching` again, now with time; `paths` and `recorded` say what
//! should be at the other tap at all; `fate` puts each packet into one account; `findings` tells what is wrong.

mod clock;
mod conn;
mod edits;
mod evidence;
mod fate;
mod findings;
mod flows;
mod loss;
mod matching;
mod pairing;
mod paths;
mod places;
mod raw;
mod read;
mod record;
mod recorded;
mod report;
mod spans;
mod steps;
mod votes;
mod watch;

pub use flows::Flows;
pub use read::{Reading, Tap};
pub use report::{
    Books, ClockStep, Evidence, Finding, FlowName, Remark, Report, Summary, TapName, Unrecorded,
};

/// Compares two captures read with the same [`Flows`].
pub fn compare(a: &Tap, b: &Tap, flows: &Flows) -> Report {
    let mut world = conn::World::new([a, b], flows);
    let steps = matching::first_pass(&mut world);
    if steps.is_empty() {
        return finish(world);
    }
    let level = b.without_steps(&steps);
    let mut world = conn::World::new([a, &level], flows);
    matching::first_pass(&mut world);
    finish(world)
}

fn finish(mut world: conn::World<'_>) -> Report {
    matching::second_pass(&mut world);
    let fates = fate::decide(&world);
    findings::report(&world, &fates)
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;
