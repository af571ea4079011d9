//! The first look over a flow's packets: who opened it, where its sequence numbers begin, how far its ends are, what
//! raised something. Runs where `packets` does; the sketch of each packet needs all of it beforehand.

use std::net::IpAddr;

use dataplane::decode::flags::{ACK, RST, SYN};
use dataplane::decode::{Class, FlowKey, Packet};
use dataplane::record::Recorded;
use serde::Serialize;

/// Interfaces named, at most.
const TAPS: usize = 8;
/// What the comment on a packet that raised an event begins with.
const RAISED: &str = "referee: ";

/// Sequence numbers of the two sides that relative number 0 stands for; `None` for a side of which nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Base {
    pub orig: Option<u32>,
    pub resp: Option<u32>,
}

/// Who opened a flow, and towards whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ends {
    pub src: IpAddr,
    pub sport: u16,
    pub dst: IpAddr,
    pub dport: u16,
}

/// What one end sent.
#[derive(Clone, Debug)]
struct End {
    /// Of its SYN, or one before the first number seen of it.
    base: Option<u32>,
    by_syn: bool,
    /// Packets other than RSTs by TTL.
    ttls: [u32; 256],
}

/// All of the flow's packets, looked at once.
#[derive(Clone, Debug)]
pub struct Survey {
    key: Option<FlowKey>,
    ends: [End; 2],
    /// The end that opened it: the SYN's sender, else whoever was seen first.
    low_opened: Option<bool>,
    by_syn: bool,
    packets: u64,
    first_raised: Option<u64>,
    taps: Vec<String>,
}

impl Default for Survey {
    fn default() -> Self {
        let end = End { base: None, by_syn: false, ttls: [0; 256] };
        Survey {
            key: None,
            ends: [end.clone(), end],
            low_opened: None,
            by_syn: false,
            packets: 0,
            first_raised: None,
            taps: Vec::new(),
        }
    }
}

impl Survey {
    pub fn take(&mut self, recorded: &Recorded<'_>, packet: &Packet) {
        self.packets += 1;
        if self.first_raised.is_none() && raised(recorded).is_some() {
            self.first_raised = Some(self.packets);
        }
        let name = &recorded.interface.name;
        if self.taps.len() < TAPS && !self.taps.contains(name) {
            self.taps.push(name.clone());
        }
        if !packet.has_flow || *self.key.get_or_insert(packet.key) != packet.key {
            return;
        }
        self.low_opened.get_or_insert(packet.from_low);
        if packet.class == Class::Tcp {
            self.segment(packet);
        }
        let is_rst = packet.class == Class::Tcp && packet.tcp.flags & RST != 0;
        if !is_rst {
            let [low, high] = &mut self.ends;
            let end = if packet.from_low { low } else { high };
            if let Some(seen) = end.ttls.get_mut(usize::from(packet.ttl)) {
                *seen = seen.saturating_add(1);
            }
        }
    }

    fn segment(&mut self, packet: &Packet) {
        let tcp = &packet.tcp;
        let syn = tcp.flags & SYN != 0;
        if syn && !self.by_syn {
            self.by_syn = true;
            self.low_opened = Some(packet.from_low == (tcp.flags & ACK == 0));
        }
        let [low, high] = &mut self.ends;
        let (sender, other) = if packet.from_low { (low, high) } else { (high, low) };
        if syn && !sender.by_syn {
            (sender.base, sender.by_syn) = (Some(tcp.seq), true);
        } else if sender.base.is_none() && tcp.flags & RST == 0 {
            sender.base = Some(tcp.seq.wrapping_sub(1));
        }
        if tcp.flags & ACK != 0 && tcp.flags & RST == 0 && other.base.is_none() {
            other.base = Some(tcp.ack.wrapping_sub(1));
        }
    }

    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Number, from 1, of the first packet that raised something.
    pub fn first_raised(&self) -> Option<u64> {
        self.first_raised
    }

    pub fn taps(&self) -> &[String] {
        &self.taps
    }

    /// The flow as the side that opened it has it.
    pub fn ends(&self) -> Option<Ends> {
        let key = self.key?;
        // ICMP has an echo's identifier where others have ports.
        let port = |port| if matches!(key.proto, 1 | 58) { 0 } else { port };
        let low = (key.low_addr(), port(key.low_port));
        let high = (key.high_addr(), port(key.high_port));
        let ((src, sport), (dst, dport)) =
            if self.low_opened == Some(false) { (high, low) } else { (low, high) };
        Some(Ends { src, sport, dst, dport })
    }

    pub fn is_of_flow(&self, packet: &Packet) -> bool {
        packet.has_flow && self.key == Some(packet.key)
    }

    pub fn sent_by_orig(&self, packet: &Packet) -> bool {
        Some(packet.from_low) == self.low_opened
    }

    pub fn base(&self) -> Base {
        let [low, high] = self.ends.each_ref().map(|end| end.base);
        match self.low_opened {
            Some(false) => Base { orig: high, resp: low },
            _ => Base { orig: low, resp: high },
        }
    }

    /// The TTL that most packets of this packet's sender, RSTs aside, arrived with.
    pub fn usual_ttl(&self, packet: &Packet) -> Option<u8> {
        let [low, high] = &self.ends;
        let end = if packet.from_low { low } else { high };
        let most = (0..=u8::MAX).zip(end.ttls).max_by_key(|&(_, seen)| seen)?;
        (most.1 > 0).then_some(most.0)
    }
}

/// The rules a packet woke, as its comment lists them, without their events.
pub fn raised(recorded: &Recorded<'_>) -> Option<String> {
    let listed = recorded.comments.iter().find_map(|comment| comment.strip_prefix(RAISED))?;
    let name = |part: &str| part.split_whitespace().next().map(str::to_owned);
    let names: Vec<String> = listed.split([',', ';']).filter_map(name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
