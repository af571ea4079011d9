//! The books: each packet of each capture gets exactly one account. Main thread, after matching; a byte a packet.
//!
//! What is missing at the other tap was lost on the way only if that tap was capturing then, would have seen it,
//! and nothing shows that it arrived. The findings are made of what ends as lost or made in between.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::decode::Address;

use crate::conn::{Conn, World};
use crate::loss::View;
use crate::paths::{Basis, Paths};
use crate::record::Record;
use crate::recorded::{Lacks, Recorded};
use crate::watch::{Watches, When};

/// An account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Seen at both taps.
    Matched,
    /// Passed here and never came to the other tap.
    Lost,
    /// Came out of the middle without having gone into it.
    Made,
    /// Its bytes are at the other tap in other segments.
    Resegmented,
    /// One more copy of a packet that this tap saw already.
    Copy,
    /// It did pass the other tap, whose capture lacks it.
    Missed,
    /// The other capture did not run then, or may not have.
    Outside,
    /// Of a flow whose way is not known to lead past the other tap.
    Elsewhere,
    /// The other tap does not record this direction.
    Unrecorded,
    /// What is known of it contradicts itself, or does not say which tap it passes first.
    Undecided,
    /// Multicast, broadcast, link-local.
    Local,
    /// The other capture lacks packets that did pass, and nothing tells whether this is one.
    Unproven,
    /// As Lost or Made, but without proof: becomes one of the above.
    PerhapsLost,
    PerhapsMade,
}

/// Fates of both captures' records, and what they rest on.
pub struct Fates {
    pub of: [Vec<Fate>; 2],
    pub paths: Paths,
    pub recorded: Recorded,
}

struct Judge<'w, 't> {
    world: &'w World<'t>,
    watches: Watches<'w, 't>,
    paths: Paths,
    recorded: Recorded,
    /// Which taps get packets from two mirrored ports.
    mirrored: [bool; 2],
}

/// Decides them all.
pub fn decide<'t>(world: &World<'t>) -> Fates {
    let mut fates = [0, 1].map(|tap: usize| -> Vec<Fate> {
        let of = |partner: &u32| if *partner == crate::conn::NONE { Fate::Elsewhere } else { Fate::Matched };
        world.partner[tap].iter().map(of).collect()
    });
    let (paths, recorded) = (Paths::new(world), Recorded::new(world));
    if world.clock.is_none() {
        return Fates { of: fates, paths, recorded };
    }
    // Made again for each walk: together they would take more memory than the captures.
    let views = || world.conns.iter().filter(|conn| has_free(world, conn)).map(|conn| View::new(world, conn));
    let mut judge = Judge { world, watches: Watches::new(world), paths, recorded, mirrored: [false; 2] };
    judge.look_around(views);
    for view in views() {
        for tap in [0, 1] {
            for (index, r) in world.packets(view.conn, tap).filter(|(i, _)| !world.is_matched(tap, *i)) {
                fates[tap][index as usize] = judge.fate(&view, tap, index, r);
            }
        }
    }
    settle(world, &mut fates);
    Fates { of: fates, paths: judge.paths, recorded: judge.recorded }
}

fn has_free(world: &World<'_>, conn: &Conn) -> bool {
    conn.ranges.iter().any(|range| range.len() > conn.matched as usize) && {
        let key = world.flows.key(conn.flow);
        !(is_local(key.low) || is_local(key.high)) || conn.matched > 0
    }
}

/// Where the other tap misses packets, or has some that can't be read, a packet that could be one of those is not
/// called lost.
fn settle(world: &World<'_>, fates: &mut [Vec<Fate>; 2]) {
    let count = |fates: &[Fate], what: Fate| fates.iter().filter(|fate| **fate == what).count() as u64;
    for (tap, own) in fates.iter_mut().enumerate() {
        let missed = count(own, Fate::Missed);
        let doubtful = count(own, Fate::PerhapsLost) + count(own, Fate::PerhapsMade);
        let doubt = missed > 0 && missed * 10 >= doubtful;
        let sure = count(own, Fate::Lost) + count(own, Fate::Made);
        let unread = world.taps[1 - tap].malformed;
        let blind = unread > 0 && unread * 10 >= sure + doubtful;
        for fate in own.iter_mut() {
            *fate = match *fate {
                Fate::PerhapsLost | Fate::PerhapsMade if doubt || blind => Fate::Unproven,
                Fate::Lost | Fate::Made if blind => Fate::Unproven,
                Fate::PerhapsLost => Fate::Lost,
                Fate::PerhapsMade => Fate::Made,
                other => other,
            };
        }
    }
}

impl Judge<'_, '_> {
    /// What goes another way, which directions are recorded, whether anything passed a tap that it should have
    /// seen before its first packet or after its last, and which tap sees packets twice.
    fn look_around<'w, 't: 'w, I: Iterator<Item = View<'w, 't>>>(&mut self, views: impl Fn() -> I) {
        for view in views() {
            self.recorded.look(&view);
            for tap in [0, 1] {
                if self.is_answered(&view, tap) {
                    self.paths.goes_around(self.world, view.conn, tap);
                }
            }
        }
        let mut twice = [(0usize, 0usize); 2];
        for view in views() {
            for tap in [0, 1] {
                for (index, r) in self.free(&view, tap) {
                    if r.span() > 0 {
                        twice[tap].0 += 1;
                        twice[tap].1 += usize::from(view.is_copy(tap, index, r, false));
                    }
                    let when = self.watches.when(view.conn, tap, r, self.watches.margin);
                    if when != When::Within && self.is_genuine(&view, tap, r) {
                        self.watches.of[1 - tap].passed[usize::from(when == When::After)] = true;
                    }
                }
            }
        }
        self.mirrored = twice.map(|(all, copies)| copies * 2 > all);
    }

    fn free<'v, 't>(
        &self,
        view: &'v View<'_, 't>,
        tap: usize,
    ) -> impl Iterator<Item = (u32, &'t Record)> + 'v {
        view.world.packets(view.conn, tap).filter(move |(index, _)| !view.world.is_matched(tap, *index))
    }

    /// It came past the other tap.
    fn is_genuine(&self, view: &View<'_, '_>, tap: usize, r: &Record) -> bool {
        view.conn.first_tap[r.dir()] == Some(1 - tap)
            && self.paths.basis(self.world, view.conn, tap).is_some_and(|basis| basis <= Basis::Host)
            && self.recorded.lacks(view, 1 - tap, r.dir()) == Lacks::No
            && !r.is_error
            && !view.is_forged(tap, r)
    }

    /// A conversation that this tap saw both sides of, and the other nothing while it captured: it goes another way,
    /// or a filter left it out there. A RST is no answer: whoever refuses for another sends one.
    fn is_answered(&self, view: &View<'_, '_>, tap: usize) -> bool {
        view.conn.ranges[1 - tap].is_empty()
            && self.world.packets(view.conn, tap).any(|(_, r)| {
                view.conn.first_tap[r.dir()] == Some(1 - tap)
                    && !r.is_error
                    && !r.is_rst()
                    && self.watches.surely(view.conn, tap, r) == When::Within
                    && !view.is_forged(tap, r)
            })
    }

    fn fate(&self, view: &View<'_, '_>, tap: usize, index: u32, r: &Record) -> Fate {
        let conn = view.conn;
        let (src, dst) = self.world.flows.ends(conn.flow, r.from_low);
        if is_local(src) || is_local(dst) {
            return Fate::Local;
        }
        if view.is_copy(tap, index, r, self.mirrored[tap]) {
            return Fate::Copy;
        }
        if view.is_resegmented(tap, index, r) {
            return Fate::Resegmented;
        }
        match self.recorded.lacks(view, 1 - tap, r.dir()) {
            Lacks::Yes => return Fate::Unrecorded,
            Lacks::Perhaps => return Fate::Undecided,
            Lacks::No => {}
        }
        let Some(first) = conn.first_tap[r.dir()] else {
            return if conn.matched > 0 { Fate::Undecided } else { Fate::Elsewhere };
        };
        if r.is_error && first != tap {
            return self.error(view, tap, r);
        }
        let Some(basis) = self.paths.basis(self.world, conn, tap) else { return Fate::Elsewhere };
        if self.is_answered(view, tap) {
            return Fate::Elsewhere;
        }
        let when = self.watches.surely(conn, tap, r);
        let sure = when == When::Within;
        let silent = !sure && !self.watches.of[1 - tap].passed[usize::from(when == When::After)];
        let fate = if first == tap {
            self.lost(view, tap, (index, r), when, silent)
        } else if basis <= Basis::Host || r.is_rst() {
            self.made(view, tap, (index, r), sure, silent)
        } else {
            Fate::Elsewhere
        };
        let is_guess = self.world.places.guessed && !view.retry_arrived(tap, index, r);
        match fate {
            Fate::Lost | Fate::Made | Fate::PerhapsLost | Fate::PerhapsMade if is_guess => Fate::Undecided,
            fate => fate,
        }
    }

    /// A router between the taps said it, if what it speaks of did not come to the other tap.
    fn error(&self, view: &View<'_, '_>, tap: usize, r: &Record) -> Fate {
        if self.watches.surely(view.conn, tap, r) != When::Within {
            return Fate::Outside;
        }
        let Some(flow) = r.quoted() else { return Fate::Made };
        let mut here =
            self.world.of_flow(flow).iter().flat_map(|conn| self.world.packets(conn, tap)).peekable();
        if here.peek().is_none() {
            return Fate::Undecided;
        }
        let stopped = here.any(|(index, _)| !self.world.is_matched(tap, index));
        if stopped { Fate::Made } else { Fate::Elsewhere }
    }

    fn lost(
        &self,
        view: &View<'_, '_>,
        tap: usize,
        (index, r): (u32, &Record),
        when: When,
        silent: bool,
    ) -> Fate {
        if view.was_received(tap, index, r) {
            return Fate::Missed;
        }
        let unanswered = view.is_unanswered(tap, index, r);
        if when == When::Within {
            let proven = unanswered || r.span() > 0 && r.flags != 0;
            return if proven { Fate::Lost } else { Fate::PerhapsLost };
        }
        let goes_on = self.watches.of[tap].last.saturating_sub(r.ts) >= 1_000_000_000;
        let asked_again = view.is_sent_again(tap, index, r);
        let struck = || {
            self.world.packets(view.conn, tap).any(|(other, made)| {
                made.ts >= r.ts
                    && made.dir() != r.dir()
                    && !view.world.is_matched(tap, other)
                    && view.is_forged(tap, made)
            })
        };
        // Its retry arrived: the other tap still captured when this should have.
        if when == When::After && view.retry_arrived(tap, index, r) {
            return Fate::Lost;
        }
        if silent && unanswered && (goes_on || asked_again || struck()) { Fate::Lost } else { Fate::Outside }
    }

    fn made(
        &self,
        view: &View<'_, '_>,
        tap: usize,
        (index, r): (u32, &Record),
        sure: bool,
        silent: bool,
    ) -> Fate {
        let forged = view.is_forged(tap, r);
        if !sure {
            return if silent && forged { Fate::Made } else { Fate::Outside };
        }
        if forged {
            return Fate::Made;
        }
        // Its sender went on after it, or was acknowledged for it: it did send it.
        let tcp = r.flags != 0 && !r.is_rst();
        let was_sent = tcp && (view.was_sent(tap, index, r) || view.was_received(tap, index, r));
        if was_sent { Fate::Missed } else { Fate::PerhapsMade }
    }
}

/// Packets to or from it stay on their link, or go to everyone.
pub fn is_local(address: Address) -> bool {
    let wide = u128::from(address[0]) << 64 | u128::from(address[1]);
    let v6 = Ipv6Addr::from(wide);
    match v6.to_ipv4_mapped() {
        Some(v4) => {
            v4.is_multicast() || v4.is_broadcast() || v4.is_link_local() || v4 == Ipv4Addr::UNSPECIFIED
        }
        None => v6.is_multicast() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}
