//! The flow table, its wheel and its slabs against plain models, under seeded random use.

use std::collections::HashMap;

use super::keeper::{Keeper, Stamp};
use super::record::{Flow, NONE};
use super::table::{Class, FlowTable};
use super::timer::Wheel;
use super::trouble::{RULES_PER_FLOW, TroubleSlab};
use crate::decode::FlowKey;

const TICK: u64 = 1 << 24;

/// xorshift64: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn key(n: u64) -> FlowKey {
    FlowKey::new(([0, 0xffff_0000_0000 | n], 1), ([0, 0xffff_ffff_ffff], 2), 6, false).0
}

/// Finds, inserts, promotes and removes at random; `hash` may collide as badly as it likes.
fn against_model(flows: u32, half_open: u32, seed: u64, hash: impl Fn(&FlowTable, &FlowKey) -> u64) {
    let mut table = FlowTable::new(flows, half_open, seed);
    let mut model: HashMap<u64, (u32, u64)> = HashMap::new();
    let mut dice = Dice(seed);
    for step in 0..100_000_u64 {
        let n = dice.roll(u64::from(flows + half_open) * 2);
        let h = hash(&table, &key(n));
        let found = table.find(&key(n), h);
        assert_eq!(found, model.get(&n).map(|&(slot, _)| slot), "step {step}");
        match found {
            None => {
                let class = if dice.roll(2) == 0 { Class::HalfOpen } else { Class::Full };
                make_room(&mut table, &mut model, class);
                let slot = table.insert(key(n), h, class, step, step);
                assert_eq!(table.is_half_open(slot), class == Class::HalfOpen);
                table.flows[slot as usize].newest = step;
                model.insert(n, (slot, step));
            }
            Some(slot) if table.is_half_open(slot) && dice.roll(2) == 0 => {
                make_room(&mut table, &mut model, Class::Full);
                let to = table.promote(slot, step);
                assert!(!table.is_half_open(to));
                assert_eq!(table.flows[slot as usize].newest, 0, "history must not find the old place");
                model.get_mut(&n).unwrap().0 = to;
            }
            Some(slot) => {
                table.remove(slot, true);
                model.remove(&n);
            }
        }
        assert_eq!(table.live() as usize, model.len());
    }
    for (n, (slot, made)) in &model {
        assert_eq!(table.find(&key(*n), hash(&table, &key(*n))), Some(*slot));
        assert_eq!((table.flows[*slot as usize].newest, table.flows[*slot as usize].key), (*made, key(*n)));
    }
}

fn make_room(table: &mut FlowTable, model: &mut HashMap<u64, (u32, u64)>, class: Class) {
    if let Some(victim) = table.must_evict(class) {
        assert_eq!(table.is_half_open(victim), class == Class::HalfOpen, "each range pays for itself");
        let n = table.flows[victim as usize].key.low[1] & 0xffff_ffff;
        assert_eq!(model.remove(&n).map(|(slot, _)| slot), Some(victim));
        table.remove(victim, true);
    }
}

#[test]
fn the_table_is_a_map() {
    against_model(900, 300, 1, |table, key| table.hash(key));
}

#[test]
fn tiny_tables_whose_buckets_all_overflow_are_maps_too() {
    for (flows, half_open) in [(1, 1), (4, 5), (5, 5), (7, 5), (8, 4), (13, 8)] {
        against_model(flows, half_open, 3, |table, key| table.hash(key));
    }
}

#[test]
fn the_longest_idle_of_a_few_goes_first() {
    let mut table = FlowTable::new(8, 1, 5);
    for n in 0..8 {
        let hash = table.hash(&key(n));
        assert_eq!(table.must_evict(Class::Full), None);
        table.insert(key(n), hash, Class::Full, 100 - n, 0);
    }
    assert_eq!(table.must_evict(Class::HalfOpen), None);
    let victim = table.must_evict(Class::Full).unwrap();
    assert_eq!(table.flows[victim as usize].last_ns, 93);
    assert_eq!((table.live(), table.peak()), (8, 8));
    let live: Vec<u32> = (0..9).filter_map(|n| table.next_live(n)).collect();
    assert_eq!(live, [1, 1, 2, 3, 4, 5, 6, 7, 8]);
}

fn flows(count: usize) -> Vec<Flow> {
    vec![bytemuck::Zeroable::zeroed(); count]
}

/// Fires what is due at random steps of time, long gaps among them, while slots are put back, taken out of the
/// wheel and out of the list of those due.
#[test]
fn the_wheel_fires_each_deadline_once_and_never_early() {
    let mut dice = Dice(9);
    let mut flows = flows(500);
    let mut wheel = Wheel::new();
    let mut now = 77 * TICK;
    wheel.start(now);
    let mut deadline: Vec<Option<u64>> = vec![None; 500];
    let mut fired = 0;
    for _ in 0..20_000 {
        let slot = dice.roll(500) as usize;
        match deadline[slot] {
            None => {
                let wait = [3, 900, 9_000, 40_000][dice.roll(4) as usize];
                let at = now + dice.roll(wait) * TICK / 3;
                wheel.insert(&mut flows, slot as u32, at);
                deadline[slot] = Some(at);
            }
            Some(_) if dice.roll(4) == 0 => {
                wheel.remove(&mut flows, slot as u32);
                deadline[slot] = None;
            }
            Some(_) => {}
        }
        if dice.roll(50) == 0 {
            let most = [4, 600, 30_000][dice.roll(3) as usize];
            now += dice.roll(most) * TICK / 2;
            while let Some(slot) = wheel.pop(&mut flows, now) {
                let at = deadline[slot as usize].expect("only what is in the wheel comes out");
                if at >> 24 >= now >> 24 {
                    // Beyond its reach when it was put in: back it goes.
                    wheel.insert(&mut flows, slot, at);
                    continue;
                }
                deadline[slot as usize] = None;
                fired += 1;
                // While others wait in the due list, one of them may go.
                let gone = dice.roll(500) as usize;
                if deadline[gone].is_some() && dice.roll(3) == 0 {
                    wheel.remove(&mut flows, gone as u32);
                    deadline[gone] = None;
                }
            }
            assert!(!wheel.behind(now));
            let late = deadline.iter().flatten().find(|at| **at >> 24 < now >> 24);
            assert_eq!(late, None, "at {now}");
        }
    }
    assert!(fired > 1000, "{fired}");
}

#[test]
fn the_wheel_fires_in_order_of_ticks_and_the_last_tick_once() {
    let mut flows = flows(100);
    let mut wheel = Wheel::new();
    wheel.start(0);
    for slot in 0..100_u32 {
        wheel.insert(&mut flows, slot, u64::from((slot * 37) % 100) * TICK + 5);
    }
    let mut order = Vec::new();
    while let Some(slot) = wheel.pop(&mut flows, 60 * TICK) {
        order.push((slot * 37) % 100);
    }
    assert_eq!(order, (0..60).collect::<Vec<u32>>());
    wheel.open_last(60 * TICK + 9);
    let last = wheel.take(&mut flows).unwrap();
    wheel.insert(&mut flows, last, 60 * TICK);
    assert_eq!((last * 37 % 100, wheel.take(&mut flows)), (60, None));
}

#[test]
fn the_wheel_takes_any_time() {
    let mut flows = flows(3);
    let mut wheel = Wheel::new();
    wheel.start(u64::MAX - 5);
    wheel.insert(&mut flows, 0, 0);
    wheel.insert(&mut flows, 1, u64::MAX);
    assert_eq!(wheel.pop(&mut flows, 0), None);
    assert_eq!(wheel.pop(&mut flows, u64::MAX), None);
    wheel.open_last(u64::MAX);
    assert_eq!((wheel.take(&mut flows), wheel.take(&mut flows)), (Some(1), Some(0)));
    let mut wheel = Wheel::new();
    wheel.insert(&mut flows, 2, 5);
    assert_eq!(wheel.pop(&mut flows, u64::MAX), Some(2));
    wheel.open_last(0);
    assert_eq!(wheel.take(&mut flows), None, "time that went back");
}

#[test]
fn trouble_records_are_reused_blank_and_refusals_counted() {
    let mut slab = TroubleSlab::new(2);
    let (mut a, mut b, mut c) = (NONE, NONE, NONE);
    slab.get_or_take(&mut a).unwrap().midflow_rsts = 9;
    assert!(slab.get_or_take(&mut b).is_some());
    assert!(slab.get_or_take(&mut c).is_none());
    assert_eq!((slab.refused, slab.in_use(), c), (1, 2, NONE));
    slab.give_back(a);
    slab.give_back(NONE);
    let reused = slab.get_or_take(&mut c).unwrap();
    assert_eq!((reused.midflow_rsts, c, slab.in_use()), (0, a, 2));
    let reused = slab.get_mut(c).unwrap();
    for rule in 0..RULES_PER_FLOW as u16 + 3 {
        let room = usize::from(rule) < RULES_PER_FLOW;
        assert!(reused.hit(rule) == room && reused.hit(rule) == room);
    }
    assert!(reused.knows(3) && !reused.knows(RULES_PER_FLOW as u16));
    assert!(reused.rule_hits().iter().all(|hits| hits.count == 2));
    assert_eq!(reused.rule_hits().len(), RULES_PER_FLOW);
}

#[test]
fn the_keeper_keeps_the_first_of_each_kind_and_follows_a_move() {
    let mut keeper = Keeper::new(4);
    let stamp = |number| Stamp { ts: number * 10, number, orig_len: 500, interface: 2 };
    keeper.keep(1, 0, &stamp(0), &[7; 200]);
    keeper.keep(1, 0, &stamp(1), &[8; 20]);
    keeper.keep(1, 1, &stamp(2), &[9; 20]);
    keeper.moved(1, 3);
    assert!(keeper.of(1).iter().all(|cell| cell.number().is_none()));
    let [syn, syn_ack] = keeper.of(3);
    assert_eq!((syn.number(), syn.bytes(), syn.orig_len), (Some(0), &[7; 96][..], 500));
    assert_eq!((syn_ack.number(), syn_ack.bytes()), (Some(2), &[9; 20][..]));
    keeper.clear(3);
    assert!(keeper.of(3).iter().all(|cell| cell.number().is_none()));
}
