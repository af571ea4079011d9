//! The segment that most are: next in line, nothing missing, nobody waited long. It changes a few numbers, the same
//! ones by the same rules as the long way through all of `analyze`, and no other analysis has anything to say of it.
//! Worker's thread; plain values.

use super::sequence::{self, acknowledge};
use super::{SILENCE, sender, story, wait};
use crate::decode::{Packet, flags};
use crate::flow::Flow;
use crate::flow::record::{NONE, before, dir_flag, flow_flag, scale, sign};
use crate::source::Nanos;

/// IP's "congestion experienced" (RFC 3168 §5).
const CE: u8 = 3;
const KNOWN: u8 = dir_flag::SEEN | dir_flag::SEQ | dir_flag::ACK | dir_flag::WINDOW;
const PROBES: u8 = dir_flag::KEEPALIVE | dir_flag::WINDOW_PROBE;

/// The long way would find nothing. Asked before the packet is counted.
#[inline(always)]
pub(super) fn is_plain(flow: &Flow, dir: usize, packet: &Packet, now: Nanos) -> bool {
    let (own, other, tcp) = (&flow.dirs[dir], &flow.dirs[dir ^ 1], &packet.tcp);
    let data = tcp.payload > 0;
    let end = tcp.seq.wrapping_add(tcp.payload);
    // Not one by one: nearly always all of it is so.
    let header = (tcp.flags & !flags::PSH == flags::ACK)
        & (tcp.window != 0)
        & (tcp.options.sack_blocks == 0)
        & (packet.ecn != CE)
        & (own.ttl_min == packet.ttl)
        & (own.ttl_max == packet.ttl);
    let healthy = (flow.flags & (flow_flag::ESTABLISHED | flow_flag::UNTIMED) == flow_flag::ESTABLISHED)
        & story::is_easy(flow, dir, data)
        & (flow.trouble == NONE)
        & (now.saturating_sub(flow.last_ns) < SILENCE)
        & (own.flags & (KNOWN | PROBES) == KNOWN)
        & (own.scale & (scale::ASIDE | scale::BASE) == scale::BASE)
        & (own.signs & (sign::GAP | sign::RST | sign::CLOSED) == 0)
        & (other.flags & dir_flag::WINDOW_PROBE == 0)
        & (other.scale & scale::BASE != 0)
        & (other.signs & sign::GAP == 0)
        & (other.unanswered_sends <= 1)
        & (other.window != 0);
    let in_line = (tcp.seq == own.expected)
        & (tcp.seq == own.next_seq)
        & (own.expected != 0)
        & (other.expected != 0)
        & !before(other.expected, tcp.ack);
    let news = if data {
        before(other.last_ack, end) && before(own.expected, end) && !sequence::fills_window(flow, dir, tcp)
    } else {
        tcp.ack != own.last_ack
    };
    header & healthy & in_line & news
}

/// Takes in what [`is_plain`], once it is counted.
#[inline(always)]
pub(super) fn take(flow: &mut Flow, dir: usize, packet: &Packet, now: Nanos) {
    let tcp = &packet.tcp;
    sender::step(&mut flow.dirs[dir], packet);
    wait::ordinary(flow, dir, tcp.payload > 0, now);
    story::ordinary(flow, dir, tcp.payload > 0);
    acknowledge(flow, dir, tcp);
    let own = &mut flow.dirs[dir];
    own.scale &= !scale::PENDING;
    own.pass_to(now);
    if tcp.payload > 0 {
        own.next_seq = tcp.seq.wrapping_add(tcp.payload);
        (own.expected, own.advanced_ago) = (own.next_seq, 0);
    }
    if tcp.ack != own.last_ack {
        own.dup_acks = 0;
    }
    (own.window, own.last_ack) = (tcp.window, tcp.ack);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::{Outcome, begin, segment, through_all};
    use crate::decode::frames::Seg;
    use crate::flow::trouble::TroubleSlab;

    /// Numbers that look random and are the same each time.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *state >> 33
    }

    /// Conversations that mostly go well, with something wrong now and then.
    fn segments(seed: u64) -> Vec<(Nanos, Packet)> {
        let mut dice = seed;
        let (mut now, mut seq, mut acked) = (1_000_000_000_000, [100_u32, 0xffff_f000], [0; 2]);
        let mut made = Vec::new();
        for n in 0..400_u64 {
            let roll = next(&mut dice) % [40, 2000][seed as usize & 1];
            let dir = if n < 3 { n as usize & 1 } else { next(&mut dice) as usize & 1 };
            let mut len = [0, 0, 1, 100, 1448][next(&mut dice) as usize % 5];
            let mut flags = [flags::ACK, flags::ACK | flags::PSH][next(&mut dice) as usize & 1];
            let (mut at, mut ack, mut window) = (seq[dir], seq[dir ^ 1], 500 + (next(&mut dice) % 3) as u16);
            // Whoever has nothing to acknowledge says something new, in every other conversation.
            len = if seed & 1 == 1 && len == 0 && acked[dir] == ack { 100 } else { len };
            acked[dir] = ack;
            now += [1000, 90_000, 30_000_000][next(&mut dice) as usize % 3];
            match roll {
                _ if n < 2 => (flags, len) = ([flags::SYN, flags::SYN | flags::ACK][n as usize], 0),
                0 => at = at.wrapping_add(1000),
                1 => at = at.wrapping_sub(len as u32),
                2 => window = 0,
                3 => now += 6_000_000_000,
                4 => ack = ack.wrapping_add(500),
                5 => flags |= [flags::ECE, flags::RST, flags::FIN, flags::SYN][next(&mut dice) as usize & 3],
                6 => (at, len) = (at.wrapping_sub(1), 0),
                7 => ack = ack.wrapping_sub(10),
                8 => now -= 40_000_000,
                _ => {}
            }
            if roll != 1 && roll != 6 {
                seq[dir] = at.wrapping_add(len as u32 + u32::from(flags & (flags::SYN | flags::FIN) != 0));
            }
            let seg = Seg::new(dir == 0, flags, at, ack).data(len).window(window);
            let ttl = if roll == 9 && n % 50 > 40 { 50 } else { 64 };
            let ip_id = [Some(n as u16), Some(7000), None][next(&mut dice) as usize % 3];
            let ecn = if roll == 10 { CE } else { 0 };
            made.push((now, Packet { ttl, ip_id, ecn, df: roll != 11, ..seg.packet() }));
        }
        made
    }

    #[test]
    fn the_short_way_comes_to_the_same_as_the_long_one() {
        let mut plain = 0;
        for seed in 0..200 {
            let mut flows: [Flow; 2] = bytemuck::Zeroable::zeroed();
            let mut slabs = [TroubleSlab::new(4), TroubleSlab::new(4)];
            flows.iter_mut().for_each(|flow| flow.trouble = NONE);
            for (now, packet) in segments(seed) {
                let (mut out, mut wanted) = (Outcome::default(), Outcome::default());
                plain += u32::from(is_plain(&flows[0], usize::from(!packet.from_low), &packet, now));
                segment(&mut flows[0], &mut slabs[0], &packet, now, &mut out);
                begin(&flows[1], &packet, &mut wanted);
                through_all(&mut flows[1], &mut slabs[1], &packet, now, &mut wanted);
                assert_eq!(format!("{:?} {out:?}", flows[0]), format!("{:?} {wanted:?}", flows[1]), "{seed}");
            }
        }
        assert!(plain > 5000, "{plain} went the short way");
    }
}
