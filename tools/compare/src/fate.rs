//! The books: each packet of each capture gets exactly one account. Main thread, after matching; a byte a packet.
//!
//! What is missing at the other tap was lost on the way only if that tap was capturing then, would have seen it,
//! and nothing shows that it arrived. The findings are made of what ends as lost or made in between.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::decode::Address;

use crate::conn::{Conn, World};
use crate::loss::View;
use crate::record::Record;

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
    /// Multicast, broadcast, link-local.
    Local,
    /// The other capture lacks packets that did pass, and nothing tells whether this is one.
    Unproven,
    /// As Lost or Made, but without proof: becomes one of the above.
    PerhapsLost,
    PerhapsMade,
}

/// Fates of both captures' records.
pub struct Fates(pub [Vec<Fate>; 2]);

/// When one tap captured, by its own clock.
struct Watch {
    first: u64,
    last: u64,
    /// Packets that passed it before and after; so it did not run then.
    passed: [bool; 2],
}

/// When a packet should have been at the other tap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    Within,
    After,
}

struct Judge<'w, 't> {
    world: &'w World<'t>,
    watches: [Watch; 2],
    /// Which taps get packets from two mirrored ports.
    mirrored: [bool; 2],
    margin: i64,
}

/// Decides them all.
pub fn decide(world: &World<'_>) -> Fates {
    let mut fates = Fates([0, 1].map(|tap: usize| {
        let of = |partner: &u32| if *partner == crate::conn::NONE { Fate::Elsewhere } else { Fate::Matched };
        world.partner[tap].iter().map(of).collect()
    }));
    let Some(clock) = &world.clock else { return fates };
    let views: Vec<View<'_, '_>> =
        world.conns.iter().filter(|conn| has_free(world, conn)).map(|conn| View::new(world, conn)).collect();
    let watch = |tap: usize| {
        let (first, last) = world.taps[tap].span.unwrap_or((0, 0));
        Watch { first, last, passed: [false; 2] }
    };
    let margin = clock.usual_transit.max(0).saturating_mul(2).saturating_add(2_000_000);
    let mut judge = Judge { world, watches: [watch(0), watch(1)], mirrored: [false; 2], margin };
    judge.look_around(&views);
    for view in &views {
        for tap in [0, 1] {
            for (index, r) in world.packets(view.conn, tap).filter(|(i, _)| !world.is_matched(tap, *i)) {
                fates.0[tap][index as usize] = judge.fate(view, tap, index, r);
            }
        }
    }
    settle(&mut fates);
    fates
}

fn has_free(world: &World<'_>, conn: &Conn) -> bool {
    conn.ranges.iter().any(|range| range.len() > conn.matched as usize) && {
        let key = world.flows.key(conn.flow);
        !(is_local(key.low) || is_local(key.high)) || conn.matched > 0
    }
}

/// Where taps miss packets, a packet that could be one of those is not called lost.
fn settle(fates: &mut Fates) {
    let count = |fates: &[Fate], what: Fate| fates.iter().filter(|fate| **fate == what).count();
    for own in &mut fates.0 {
        let missed = count(own, Fate::Missed);
        let doubtful = count(own, Fate::PerhapsLost) + count(own, Fate::PerhapsMade);
        let doubt = missed > 0 && missed * 10 >= doubtful;
        for fate in own.iter_mut() {
            *fate = match *fate {
                Fate::PerhapsLost | Fate::PerhapsMade if doubt => Fate::Unproven,
                Fate::PerhapsLost => Fate::Lost,
                Fate::PerhapsMade => Fate::Made,
                other => other,
            };
        }
    }
}

impl Judge<'_, '_> {
    /// Did anything pass a tap that it should have seen, before its first packet or after its last? And which
    /// tap sees packets twice?
    fn look_around(&mut self, views: &[View<'_, '_>]) {
        let mut twice = [(0usize, 0usize); 2];
        for view in views {
            for tap in [0, 1] {
                for (index, r) in self.free(view, tap) {
                    if r.span() > 0 {
                        twice[tap].0 += 1;
                        twice[tap].1 += usize::from(view.is_copy(tap, index, r, false));
                    }
                    let when = self.when(view.conn, tap, r, self.margin);
                    let genuine = view.conn.first_tap[r.dir()] == Some(1 - tap)
                        && self.leads_past(view.conn, tap)
                        && !r.is_error
                        && !view.is_forged(tap, r);
                    if genuine && when != When::Within {
                        self.watches[1 - tap].passed[usize::from(when == When::After)] = true;
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

    /// When a packet should have been at the other tap; `beyond` makes that tap's time longer, or shorter.
    fn when(&self, conn: &Conn, tap: usize, r: &Record, beyond: i64) -> When {
        let Some(clock) = &self.world.clock else { return When::Within };
        let half = clock.half_rtt.unwrap_or(0);
        let way = if conn.first_tap[r.dir()] == Some(tap) { half } else { -half };
        let there = i128::from(clock.to_other(tap, r.ts)) + i128::from(way);
        let watch = &self.watches[1 - tap];
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

    /// The other tap saw packets of the host on its side.
    fn leads_past(&self, conn: &Conn, tap: usize) -> bool {
        let far = |dir: usize| {
            let (src, dst) = self.world.flows.ends(conn.flow, dir == 1);
            if conn.first_tap[dir] == Some(tap) { dst } else { src }
        };
        conn.matched > 0 || conn.first_tap[0].is_some() && self.world.hosts[1 - tap].contains(&far(0))
    }

    /// A conversation that this tap saw both sides of, and the other nothing: it goes another way, or a filter
    /// left it out there.
    fn bypasses(&self, view: &View<'_, '_>, tap: usize) -> bool {
        view.conn.matched == 0
            && self.world.packets(view.conn, tap).any(|(_, r)| {
                view.conn.first_tap[r.dir()] == Some(1 - tap) && !r.is_error && !view.is_forged(tap, r)
            })
    }

    fn fate(&self, view: &View<'_, '_>, tap: usize, index: u32, r: &Record) -> Fate {
        let (src, dst) = self.world.flows.ends(view.conn.flow, r.from_low);
        if is_local(src) || is_local(dst) {
            return Fate::Local;
        }
        if view.is_copy(tap, index, r, self.mirrored[tap]) {
            return Fate::Copy;
        }
        if view.is_resegmented(tap, index, r) {
            return Fate::Resegmented;
        }
        let Some(first) = view.conn.first_tap[r.dir()] else { return Fate::Elsewhere };
        if r.is_error && first != tap {
            return self.error(view, tap, r);
        }
        if !self.leads_past(view.conn, tap) || self.bypasses(view, tap) {
            return Fate::Elsewhere;
        }
        let when = self.when(view.conn, tap, r, -self.margin);
        let sure = when == When::Within;
        let silent = !sure && !self.watches[1 - tap].passed[usize::from(when == When::After)];
        if first == tap {
            self.lost(view, tap, (index, r), when, silent)
        } else {
            self.made(view, tap, (index, r), sure, silent)
        }
    }

    /// A router between the taps said it.
    fn error(&self, view: &View<'_, '_>, tap: usize, r: &Record) -> Fate {
        match self.when(view.conn, tap, r, -self.margin) {
            When::Within => Fate::Made,
            When::Before | When::After => Fate::Outside,
        }
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
        let goes_on = self.watches[tap].last.saturating_sub(r.ts) >= 1_000_000_000;
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
