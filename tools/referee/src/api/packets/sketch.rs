//! One packet as the page draws it, and what it is in the course of its flow: sent again, out of order, after a gap.
//!
//! Runs where `packets` does. It is a sketch for the eye, made of this flow's kept packets alone: what counts was judged by
//! the worker, which saw all of them. Any packet gives a row.

use dataplane::decode::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN};
use dataplane::decode::{Class, Packet};
use dataplane::record::Recorded;
use serde::Serialize;

use super::survey::{Survey, raised};

/// A missing segment that comes within this time was overtaken; later, it was sent again. As Wireshark has it without a
/// round trip to go by.
const OVERTAKEN_NS: u64 = 3_000_000;
/// Gaps remembered of each side.
const GAPS: usize = 64;

/// One packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Number in the flow, from 1.
    pub n: u64,
    pub ts_ns: u64,
    /// Sent by the side that opened the flow, by the other, or part of it in another way (an ICMP error).
    pub dir: &'static str,
    /// "tcp", "udp", "icmp", "other".
    pub class: &'static str,
    /// Who sent it, where `dir` doesn't tell.
    pub from: Option<String>,
    /// TCP flags as letters: S, F, R, P, E, W, and a dot for ACK.
    pub flags: String,
    /// Relative; below 0 for what lies before the first number seen.
    pub seq: Option<i64>,
    pub ack: Option<i64>,
    /// Transport payload, bytes on the wire.
    pub len: u32,
    /// The window field as sent; the shift of a SYN's option beside it.
    pub win: Option<u16>,
    pub wscale: Option<u8>,
    pub mss: Option<u16>,
    pub ttl: Option<u8>,
    pub ip_id: Option<u16>,
    /// Relative edges of what was selectively acknowledged.
    pub sack: Vec<[i64; 2]>,
    /// Bytes kept, and bytes on the wire.
    pub bytes: usize,
    pub orig_len: u32,
    pub marks: Vec<String>,
    /// Rules that this packet woke.
    pub raised: Option<String>,
    /// Of a RST: the TTL its sender's other packets have.
    pub expected_ttl: Option<u8>,
}

/// One side's numbers so far.
#[derive(Clone, Debug, Default)]
struct Side {
    /// Relative sequence number it would send next, highest acknowledgement it sent, and the numbers last placed.
    next: Option<i64>,
    acked: Option<i64>,
    last_ack: Option<(i64, u16)>,
    at: i64,
    gaps: Vec<(i64, i64, u64)>,
}

/// The course of one flow.
pub struct Sketch<'a> {
    survey: &'a Survey,
    /// Of the side that opened it, and of the other.
    sides: [Side; 2],
    /// A SYN-ACK waits for its ACK.
    answered: bool,
}

impl<'a> Sketch<'a> {
    pub fn new(survey: &'a Survey) -> Sketch<'a> {
        Sketch { survey, sides: Default::default(), answered: false }
    }

    pub fn row(&mut self, number: u64, recorded: &Recorded<'_>, packet: &Packet) -> Row {
        let mut row = blank(number, recorded, packet);
        if !self.survey.is_of_flow(packet) {
            row.from = sender(packet).map(|address| address.to_string());
            row.marks.extend(icmp_mark(packet));
            return row;
        }
        let from_orig = self.survey.sent_by_orig(packet);
        row.dir = if from_orig { "orig" } else { "resp" };
        if packet.class == Class::Tcp {
            self.segment(from_orig, recorded, packet, &mut row);
        } else {
            row.marks.extend(icmp_mark(packet));
        }
        row
    }

    fn segment(&mut self, from_orig: bool, recorded: &Recorded<'_>, packet: &Packet, row: &mut Row) {
        let tcp = &packet.tcp;
        let base = self.survey.base();
        let (own, other) = if from_orig { (base.orig, base.resp) } else { (base.resp, base.orig) };
        let [orig, resp] = &mut self.sides;
        let (sender, receiver) = if from_orig { (orig, resp) } else { (resp, orig) };
        row.flags = letters(tcp.flags);
        row.win = Some(tcp.window);
        (row.wscale, row.mss) = (tcp.options.wscale, tcp.options.mss);
        row.len = tcp.payload;
        row.seq = own.map(|base| near(sender.at, tcp.seq, base));
        if tcp.flags & ACK != 0 {
            row.ack = other.map(|base| near(receiver.at, tcp.ack, base));
        }
        let blocks = sack_blocks(recorded.bytes, packet);
        row.sack = other.map_or_else(Vec::new, |base| {
            blocks.iter().map(|block| block.map(|edge| near(receiver.at, edge, base))).collect()
        });
        if tcp.flags & RST != 0 {
            row.expected_ttl = self.survey.usual_ttl(packet);
            return;
        }
        let mut marks = Vec::new();
        let probed = receiver.last_ack.is_some_and(|(_, window)| window == 0);
        handshake(&mut self.answered, tcp.flags, tcp.payload, &mut marks);
        if let Some(seq) = row.seq {
            sender.send(seq, tcp.flags, tcp.payload, receiver.acked, recorded.ts, &mut marks);
        }
        if let Some(ack) = row.ack {
            sender.acknowledge(ack, tcp.window, packet, receiver.next, &mut marks);
        }
        if tcp.window == 0 && tcp.flags & SYN == 0 {
            marks.push("zero_window");
        }
        // What looks like a keepalive asks for room where the window is closed.
        let named = |mark| if mark == "keepalive" && probed { "zero_window_probe" } else { mark };
        row.marks.extend(marks.into_iter().map(|mark| named(mark).to_owned()));
    }
}

impl Side {
    /// What a packet with this number is, and where its sender stands after it.
    fn send(
        &mut self,
        seq: i64,
        flags: u8,
        len: u32,
        acked: Option<i64>,
        ts: u64,
        marks: &mut Vec<&'static str>,
    ) {
        let takes = i64::from(len) + i64::from(flags & SYN != 0) + i64::from(flags & FIN != 0);
        let end = seq.saturating_add(takes);
        let Some(next) = self.next else {
            (self.next, self.at) = (Some(end), end);
            return;
        };
        let probes = takes <= 1 && flags & (SYN | FIN) == 0 && seq == next.saturating_sub(1);
        if probes {
            marks.push("keepalive");
        } else if seq > next {
            marks.push("lost_before");
            if self.gaps.len() < GAPS {
                self.gaps.push((next, seq, ts));
            }
        } else if takes > 0 && end <= next {
            let hole = self.gaps.iter().position(|&(from, to, _)| seq < to && end > from);
            let since = hole.and_then(|place| self.gaps.get(place)).map(|&(_, _, since)| since);
            let seen = acked.is_some_and(|acked| acked >= end);
            let overtaken = since.is_some_and(|since| ts.saturating_sub(since) < OVERTAKEN_NS) && !seen;
            marks.push(if overtaken { "out_of_order" } else { "retransmission" });
            hole.into_iter().for_each(|place| self.fill(place, seq, end));
        }
        self.next = Some(next.max(end));
        self.at = next.max(end);
    }

    /// Takes what has come out of a gap.
    fn fill(&mut self, place: usize, seq: i64, end: i64) {
        let (from, to, since) = self.gaps.remove(place);
        let left = [(from, seq, since), (end, to, since)];
        let room = GAPS.saturating_sub(self.gaps.len());
        self.gaps.extend(left.into_iter().filter(|(from, to, _)| from < to).take(room));
    }

    fn acknowledge(
        &mut self,
        ack: i64,
        window: u16,
        packet: &Packet,
        outstanding: Option<i64>,
        marks: &mut Vec<&'static str>,
    ) {
        let pure = packet.tcp.payload == 0 && packet.tcp.flags & (SYN | FIN) == 0;
        let waits = outstanding.is_some_and(|next| next > ack);
        if pure && waits && self.last_ack == Some((ack, window)) && !marks.contains(&"keepalive") {
            marks.push("duplicate_ack");
        }
        self.last_ack = Some((ack, window));
        self.acked = Some(self.acked.map_or(ack, |before| before.max(ack)));
    }
}

fn handshake(answered: &mut bool, flags: u8, len: u32, marks: &mut Vec<&'static str>) {
    let syn = flags & SYN != 0;
    if syn || (*answered && len == 0 && flags & (ACK | FIN) == ACK) {
        marks.push("handshake");
    }
    *answered = syn && flags & ACK != 0;
}

fn blank(number: u64, recorded: &Recorded<'_>, packet: &Packet) -> Row {
    let class = match packet.class {
        Class::Tcp => "tcp",
        Class::Udp => "udp",
        Class::Icmp => "icmp",
        _ => "other",
    };
    let ip = !matches!(packet.class, Class::NonIp | Class::Malformed);
    Row {
        n: number,
        ts_ns: recorded.ts,
        dir: "other",
        class,
        from: None,
        flags: String::new(),
        seq: None,
        ack: None,
        len: recorded.orig_len.saturating_sub(u32::from(packet.headers)),
        win: None,
        wscale: None,
        mss: None,
        ttl: ip.then_some(packet.ttl),
        ip_id: packet.ip_id,
        sack: Vec::new(),
        bytes: recorded.bytes.len(),
        orig_len: recorded.orig_len,
        marks: Vec::new(),
        raised: raised(recorded),
        expected_ttl: None,
    }
}

fn sender(packet: &Packet) -> Option<std::net::IpAddr> {
    let from =
        |key: &dataplane::decode::FlowKey| if packet.from_low { key.low_addr() } else { key.high_addr() };
    packet.has_flow.then(|| from(&packet.key))
}

fn icmp_mark(packet: &Packet) -> Option<String> {
    let icmp = &packet.icmp;
    (packet.class == Class::Icmp).then(|| match icmp.too_big {
        Some(mtu) => format!("icmp_too_big:{mtu}"),
        None => format!("icmp:{}/{}", icmp.kind, icmp.code),
    })
}

fn letters(flags: u8) -> String {
    let known = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ECE, 'E'), (CWR, 'W'), (ACK, '.')];
    known.into_iter().filter(|(flag, _)| flags & flag != 0).map(|(_, letter)| letter).collect()
}

/// A sequence number relative to `base`, as the one nearest to `at` of all that it may stand for.
fn near(at: i64, number: u32, base: u32) -> i64 {
    let apart = number.wrapping_sub(base).wrapping_sub(at as u32).cast_signed();
    at.saturating_add(i64::from(apart))
}

/// All SACK blocks: the decoder keeps the first, which is what rules go by; a drawing shows all four.
fn sack_blocks(bytes: &[u8], packet: &Packet) -> Vec<[u32; 2]> {
    let options = &packet.tcp.options;
    match options.sack_blocks {
        0 => Vec::new(),
        1 => vec![options.sack_edges],
        _ => tcp_header(bytes, packet).and_then(blocks_in).unwrap_or_else(|| vec![options.sack_edges]),
    }
}

/// The TCP header ends where the payload begins, and says itself how long it is.
fn tcp_header<'a>(bytes: &'a [u8], packet: &Packet) -> Option<&'a [u8]> {
    let end = usize::from(packet.headers);
    let fits = |header: &&[u8]| {
        header.get(12).is_some_and(|offset| usize::from(offset >> 4) * 4 == header.len())
            && header.get(4..8) == Some(&packet.tcp.seq.to_be_bytes())
            && header.get(8..12) == Some(&packet.tcp.ack.to_be_bytes())
    };
    (5..=15).filter_map(|words| bytes.get(end.checked_sub(words * 4)?..end)).find(fits)
}

fn blocks_in(header: &[u8]) -> Option<Vec<[u32; 2]>> {
    let mut options = header.get(20..)?;
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = options.get(1..)?,
            kind => {
                let (option, rest) = options.split_at_checked(usize::from(*options.get(1)?).max(2))?;
                if kind == 5 {
                    let word = |at: &[u8]| at.try_into().map(u32::from_be_bytes).unwrap_or_default();
                    let edges = |block: &[u8]| Some([word(block.get(..4)?), word(block.get(4..8)?)]);
                    return option.get(2..)?.chunks_exact(8).map(edges).collect();
                }
                options = rest;
            }
        }
    }
}
