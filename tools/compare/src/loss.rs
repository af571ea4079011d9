//! One connection that has packets without counterpart: what its sequence space, its acknowledgments and the
//! fingerprints of its packets say of each. Made for such connections only; looks, decides, changes nothing.

use dataplane::decode::flags;

use crate::conn::{Conn, World};
use crate::matching::loose_key;
use crate::record::Record;
use crate::spans::{Spans, Unwrap};

/// A TTL that is off by this much from its host's usual one is not that host's.
pub const FOREIGN_TTL: u8 = 2;
/// Round trips shorter than this say nothing about who could have answered, ns.
const TELLING_RTT: i64 = 200_000;
/// Two copies of one IP packet come within this, ns.
const SAME_ID: u64 = 1_000_000_000;
/// Two copies of one packet that has no IP-ID come within this, ns.
const MIRRORED: u64 = 5_000_000;
/// What is sent again after this was not answered meanwhile, ns.
const SENT_AGAIN: u64 = 150_000_000;

/// What one tap saw of one direction.
#[derive(Default)]
struct Way {
    data: Spans,
    /// Of packets without counterpart.
    free: Spans,
    /// Highest position of the other direction that it acknowledges.
    acked: Option<i64>,
}

pub struct View<'w, 't> {
    pub world: &'w World<'t>,
    pub conn: &'w Conn,
    /// By tap, then direction.
    ways: [[Way; 2]; 2],
    /// Position of each packet, by tap, then index.
    positions: [Vec<(u32, i64)>; 2],
    /// What makes packets of one tap look alike, and their place by time; sorted.
    alike: [Vec<(u64, u32, u32)>; 2],
}

impl<'w, 't> View<'w, 't> {
    pub fn new(world: &'w World<'t>, conn: &'w Conn) -> View<'w, 't> {
        let mut base = [None; 2];
        for tap in [0, 1] {
            for (_, r) in world.packets(conn, tap) {
                let (seq, ack) = world.numbers(conn, tap, r);
                base[r.dir()] = base[r.dir()].or(Some(seq));
                if r.has(flags::ACK) {
                    base[1 - r.dir()] = base[1 - r.dir()].or(Some(ack));
                }
            }
        }
        let base = base.map(|seq| seq.unwrap_or(0));
        let mut view = View {
            world,
            conn,
            ways: Default::default(),
            positions: Default::default(),
            alike: Default::default(),
        };
        for tap in [0, 1] {
            view.walk(tap, base);
        }
        view
    }

    fn walk(&mut self, tap: usize, base: [u32; 2]) {
        let mut count = base.map(Unwrap::new);
        let mut data: [Vec<(i64, i64)>; 2] = Default::default();
        let mut free: [Vec<(i64, i64)>; 2] = Default::default();
        for (place, (index, r)) in (0u32..).zip(self.world.packets(self.conn, tap)) {
            let (seq, ack) = self.world.numbers(self.conn, tap, r);
            let dir = r.dir();
            // The number of a RST is anybody's guess; it must not move the count.
            let mut here = count[dir];
            let position = here.position(seq);
            if !r.is_rst() {
                count[dir] = here;
                let part = (position, position + i64::from(r.span()));
                data[dir].push(part);
                if !self.world.is_matched(tap, index) {
                    free[dir].push(part);
                }
                if r.has(flags::ACK) {
                    let acked = count[1 - dir].position(ack);
                    let way = &mut self.ways[tap][dir];
                    way.acked = way.acked.max(Some(acked));
                }
            }
            self.positions[tap].push((index, position));
            self.alike[tap].push((loose_key(self.world, self.conn, tap, r), place, index));
        }
        self.positions[tap].sort_unstable();
        self.alike[tap].sort_unstable();
        for (dir, (data, free)) in data.into_iter().zip(free).enumerate() {
            self.ways[tap][dir].data = Spans::new(data);
            self.ways[tap][dir].free = Spans::new(free);
        }
    }

    /// A tap shows one direction of the conversation only, and the other tap packets of this one.
    pub fn is_one_sided(&self, tap: usize, dir: usize) -> bool {
        let sent = &self.conn.sent;
        sent[tap][dir] == 0 && sent[tap][1 - dir] > 0 && sent[1 - tap][dir] > 0
    }

    /// A tap shows that bytes of this direction, of which it has no packet, were received.
    pub fn proves_passed(&self, tap: usize, dir: usize) -> bool {
        let acked = self.ways[tap][1 - dir].acked;
        let first = self.ways[1 - tap][dir].data.start();
        acked.zip(first).is_some_and(|(acked, first)| acked > first)
    }

    /// A tap saw the same sent again in this direction.
    pub fn asks_again(&self, tap: usize, dir: usize) -> bool {
        let mut packets = self.world.packets(self.conn, tap).filter(|(_, r)| r.dir() == dir && !r.is_rst());
        packets.any(|(index, r)| {
            (r.span() > 0 && r.flags != 0 || r.asks().is_some()) && self.is_sent_again(tap, index, r)
        })
    }

    /// Packets of a tap that look like this one, itself among them, by time.
    fn alike(&self, tap: usize, r: &Record) -> impl Iterator<Item = u32> {
        let key = loose_key(self.world, self.conn, tap, r);
        let all = &self.alike[tap];
        let from = all.partition_point(|(other, ..)| *other < key);
        all.iter().skip(from).take_while(move |(other, ..)| *other == key).map(|(.., index)| *index)
    }

    fn part(&self, tap: usize, index: u32, r: &Record) -> (i64, i64) {
        let at = self.positions[tap].binary_search_by_key(&index, |(index, _)| *index);
        let from = at.ok().and_then(|at| self.positions[tap].get(at)).map_or(0, |(_, position)| *position);
        (from, from + i64::from(r.span()))
    }

    /// It was mirrored twice: another copy of it has the counterpart, or came first.
    pub fn is_copy(&self, tap: usize, index: u32, r: &Record, mirrored: bool) -> bool {
        self.alike(tap, r).any(|other| {
            let twin = self.world.record(tap, other);
            let apart = twin.ts.abs_diff(r.ts);
            let same = match (r.ip_id, twin.ip_id) {
                (0, 0) => apart <= MIRRORED && r.tsval == twin.tsval && (r.span() > 0 || mirrored),
                (a, b) => a == b && apart <= SAME_ID,
            };
            other != index && same && (self.world.is_matched(tap, other) || other < index)
        })
    }

    /// Its bytes are at the other tap, in other segments.
    pub fn is_resegmented(&self, tap: usize, index: u32, r: &Record) -> bool {
        let (from, to) = self.part(tap, index, r);
        r.len > 0 && self.ways[1 - tap][r.dir()].free.covers(from, to)
    }

    /// Its bytes that are at the other tap in other segments, if only some are.
    pub fn arrived(&self, tap: usize, index: u32, r: &Record) -> u64 {
        let (from, to) = self.part(tap, index, r);
        if r.len == 0 || r.flags == 0 {
            0
        } else {
            self.ways[1 - tap][r.dir()].free.within(from, to).unsigned_abs()
        }
    }

    /// The other tap saw all it brings, in this or another packet.
    pub fn is_covered(&self, tap: usize, index: u32, r: &Record) -> bool {
        let (from, to) = self.part(tap, index, r);
        self.ways[1 - tap][r.dir()].data.covers(from, to)
    }

    /// The other tap saw the answer to what it never saw asked.
    pub fn was_received(&self, tap: usize, index: u32, r: &Record) -> bool {
        if let Some(question) = r.asks() {
            let there =
                |is: &dyn Fn(&Record) -> bool| self.world.packets(self.conn, 1 - tap).any(|(_, q)| is(q));
            return there(&|q| q.answers(question)) && !there(&|q| q.asks() == Some(question));
        }
        let (_, to) = self.part(tap, index, r);
        let acked = self.ways[1 - tap][1 - r.dir()].acked;
        r.span() > 0
            && r.flags != 0
            && !self.is_covered(tap, index, r)
            && acked.is_some_and(|acked| acked >= to)
    }

    /// The other tap saw its sender go on after it.
    pub fn was_sent(&self, tap: usize, index: u32, r: &Record) -> bool {
        let (_, to) = self.part(tap, index, r);
        let end = self.ways[1 - tap][r.dir()].data.end();
        r.span() > 0 && !self.is_covered(tap, index, r) && end.is_some_and(|end| end >= to)
    }

    /// It asks for an answer, and none came to this tap, or none before it was asked again.
    pub fn is_unanswered(&self, tap: usize, index: u32, r: &Record) -> bool {
        if r.is_rst() {
            return false;
        }
        let again = self.again(tap, index, r).filter(|ts| *ts >= r.ts.saturating_add(SENT_AGAIN)).min();
        if r.flags != 0 {
            let (_, to) = self.part(tap, index, r);
            let acked = self.ways[tap][1 - r.dir()].acked.is_some_and(|acked| acked >= to);
            return r.span() > 0 && (again.is_some() || !acked);
        }
        let Some(question) = r.asks() else { return false };
        let until = again.unwrap_or(u64::MAX);
        let answered = |q: &Record| q.answers(question) && (r.ts..=until).contains(&q.ts);
        !self.world.packets(self.conn, tap).any(|(_, q)| answered(q))
    }

    /// When this tap saw the same before or after.
    fn again(&self, tap: usize, index: u32, r: &Record) -> impl Iterator<Item = u64> {
        let others = self.alike(tap, r).filter(move |other| *other != index);
        others.map(move |other| self.world.record(tap, other).ts)
    }

    /// This tap saw it sent before.
    pub fn is_sent_again(&self, tap: usize, index: u32, r: &Record) -> bool {
        self.again(tap, index, r).any(|ts| ts.saturating_add(SENT_AGAIN) <= r.ts)
    }

    /// The same was sent later, and that came to the other tap.
    pub fn retry_arrived(&self, tap: usize, index: u32, r: &Record) -> bool {
        self.alike(tap, r).any(|other| {
            other != index && self.world.record(tap, other).ts > r.ts && self.world.is_matched(tap, other)
        })
    }

    /// The TTL of its alleged sender's packets here, if any other is known.
    pub fn usual_ttl(&self, tap: usize, r: &Record) -> Option<u8> {
        let own = self.world.packets(self.conn, tap).find(|(index, other)| {
            other.dir() == r.dir() && !other.is_rst() && self.world.is_matched(tap, *index)
        });
        let sender = self.world.flows.ends(self.conn.flow, r.from_low).0;
        own.map(|(_, r)| r.ttl).or_else(|| self.world.places.usual_ttl(tap, sender))
    }

    /// Time since the other side began to speak, if that was too short for the other tap's side to have answered.
    pub fn answered_too_fast(&self, tap: usize, r: &Record) -> Option<u64> {
        let rtt = self.world.clock.as_ref().map_or(0, |clock| clock.rtt());
        if rtt < TELLING_RTT {
            return None;
        }
        let rtt = rtt.unsigned_abs();
        let mut begun = r.ts;
        let asked =
            self.world.packets(self.conn, tap).rev().filter(|(_, q)| q.dir() != r.dir() && q.ts <= r.ts);
        for (_, q) in asked {
            if begun - q.ts > rtt {
                break;
            }
            begun = q.ts;
        }
        let since = r.ts - begun;
        (begun < r.ts && since < rtt / 10 * 9).then_some(since)
    }

    /// Its alleged sender, beyond the other tap, can't have sent it.
    pub fn is_forged(&self, tap: usize, r: &Record) -> bool {
        let usual = self.usual_ttl(tap, r);
        usual.is_some_and(|usual| usual.abs_diff(r.ttl) >= FOREIGN_TTL)
            || r.is_rst() && self.answered_too_fast(tap, r).is_some()
    }
}
