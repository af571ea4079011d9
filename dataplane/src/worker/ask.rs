//! Asking the rules about a flow. Worker's thread; never allocates or runs Rhai: guards are native. What a condition
//! reads is gathered when the first one reads it, since most are decided before. Matches go to `verdict`.

use rules::event::{Event, EventSet};
use rules::facts::{FlowFacts, Parts, Rivals};

use super::engine::Engine;
use super::trials::Trials;
use crate::activity::Party;
use crate::analyze::Outcome;
use crate::analyze::facts::{self, Scene};
use crate::flow::Flow;
use crate::sightings::Sightings;
use crate::source::Nanos;

/// Events whose evidence is that something did not come.
const SILENCES: EventSet =
    EventSet::EMPTY.with(Event::SynTimeout).with(Event::Stalled).with(Event::TlsTimeout);
/// One raise in so many has its guards timed, where they are timed at all.
const TIMED_EVERY: u32 = 1024;

/// What happened to a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub outcome: &'a Outcome,
    pub now: Nanos,
    /// The raising packet's number; `None` for a timer.
    pub packet: Option<u64>,
    pub around: Around,
}

/// What of other flows is evidence here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    Nothing,
    /// Whether the packets of the flow's hosts pass here at all.
    Hosts,
    /// That, and what became of other connections to its service.
    All,
}

impl Engine {
    /// Evaluates the guards of every rule that waits for one of the outcome's events, and tells the judge of
    /// those that matched. `packet` is the raising packet's number; `None` for a timer.
    #[inline(never)]
    pub(super) fn raise(&mut self, slot: u32, outcome: &Outcome, now: Nanos, packet: Option<u64>) {
        let mut events = outcome.events.and(self.subscribed);
        if events.contains(Event::Disproved) {
            let trouble = self.slab.get(self.table.flows[slot as usize].trouble);
            if trouble.is_none_or(|trouble| trouble.rules == 0) {
                events = events.without(Event::Disproved);
            }
        }
        if self.skips_ordinary
            && events.contains(Event::SynAck)
            && is_ordinary(&self.table.flows[slot as usize])
        {
            events = events.without(Event::SynAck);
        }
        if events.is_empty() {
            return;
        }
        let silent = !events.and(SILENCES).is_empty();
        let around = if silent { Around::All } else { Around::Nothing };
        let moment = Moment { outcome, now, packet, around };
        self.begin(slot, &moment);
        for event in events.without(Event::Disproved).iter() {
            self.ask(slot, event, &moment);
        }
        if events.contains(Event::Disproved) {
            self.snapshot.disproved = true;
            self.ask(slot, Event::Disproved, &moment);
        }
    }

    /// Begins the snapshot that the guards of a moment's events are asked on.
    #[inline]
    pub(super) fn begin(&mut self, slot: u32, moment: &Moment) {
        facts::begin(&mut self.snapshot, &scene(&self.table.flows[slot as usize], None, None, moment));
        self.raised = self.raised.wrapping_add(1);
    }

    /// Fills in parts of it now.
    pub(super) fn gather(&mut self, slot: u32, moment: &Moment, parts: Parts) {
        let flow = &self.table.flows[slot as usize];
        let scene = scene(flow, self.slab.get(flow.trouble), self.apps.slab.get(flow.app), moment);
        gather(&mut self.snapshot, parts, &scene, moment.around, &self.sightings, &self.trials);
    }

    /// The guards of every rule that waits for `event`, on the snapshot that was begun.
    pub(super) fn ask(&mut self, slot: u32, event: Event, moment: &Moment) {
        self.hits.clear();
        let Engine { rules, hits, snapshot, table, slab, apps, sightings, trials, .. } = self;
        let flow = &table.flows[slot as usize];
        let scene = scene(flow, slab.get(flow.trouble), apps.slab.get(flow.app), moment);
        let fill = |facts: &mut FlowFacts, parts| {
            gather(facts, parts, &scene, moment.around, sightings, trials);
        };
        if self.timed && self.raised.is_multiple_of(TIMED_EVERY) {
            rules.match_flow_timed(event, snapshot, hits, fill, dataplane_sys::ticks);
        } else {
            rules.match_flow_gathering(event, snapshot, hits, fill);
        }
        if !self.hits.is_empty() {
            self.tell_hits(slot, event, moment);
        }
    }

    /// The judge and the bodies get all there is.
    #[cold]
    fn tell_hits(&mut self, slot: u32, event: Event, moment: &Moment) {
        self.gather(slot, moment, Parts::ALL.without(self.snapshot.have));
        let snapshot = *self.snapshot;
        self.outlet.account.matched += self.hits.len() as u64 + self.hits.overflowed;
        self.outlet.account.hits_overflowed += self.hits.overflowed;
        for i in 0..self.hits.len() {
            let rule = self.hits.as_slice()[i];
            if let Some(counters) = self.rules.counters(rule) {
                counters.count_match();
            }
            self.matched(slot, rule, event, moment.packet, moment.now, &snapshot);
        }
    }
}

/// Of its handshake no more was seen than should be, as far as [`rules::RuleSet::asks_ordinary_syn_acks`] goes.
fn is_ordinary(flow: &Flow) -> bool {
    let [a, b] = &flow.senders;
    let once = |a: u8, b: u8| u32::from(a) + u32::from(b) == 1;
    once(a.syn, b.syn)
        && once(a.syn_ack, b.syn_ack)
        && flow.rare.late_syn_acks == 0
        && flow.rare.ecn_syns == 0
}

fn scene<'a>(
    flow: &'a Flow,
    trouble: Option<&'a crate::flow::trouble::Trouble>,
    app: Option<&'a crate::flow::app::App>,
    moment: &Moment<'a>,
) -> Scene<'a> {
    Scene { flow, trouble, app, outcome: moment.outcome, now: moment.now, timer: moment.packet.is_none() }
}

#[inline(never)]
fn gather(
    snapshot: &mut FlowFacts,
    parts: Parts,
    scene: &Scene,
    around: Around,
    sightings: &Sightings,
    trials: &Trials,
) {
    facts::gather(snapshot, parts, scene);
    if parts.cover(Parts::AROUND) {
        look_around(snapshot, scene.flow, around, sightings);
        snapshot.rivals = if around == Around::All { trials.rivals(scene.flow) } else { Rivals::default() };
    }
}

/// What a silence proves depends on whether the silent side's packets pass here at all.
fn look_around(snapshot: &mut FlowFacts, flow: &Flow, around: Around, sightings: &Sightings) {
    let looks = around != Around::Nothing;
    let both_ways = sightings.both_ways();
    snapshot.both_ways = looks && both_ways == Some(true);
    for (dir, side) in [(flow.orig(), &mut snapshot.orig), (flow.orig() ^ 1, &mut snapshot.resp)] {
        (side.in_sight, side.out_of_sight) = (false, false);
        if looks {
            let host = sightings.passes(Party::of(&flow.key, dir).addr);
            let passes = host.or(both_ways.filter(|both| !both));
            side.out_of_sight = passes == Some(false);
            side.in_sight = !side.out_of_sight && (passes == Some(true) || flow.dirs[dir].packets > 0);
        }
    }
}
