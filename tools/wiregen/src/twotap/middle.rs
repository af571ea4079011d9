//! What lies between two taps, and what it does to packets. Pure functions on frames; the caller keeps count.
//! Frames come from and go back to the splitter.

use super::frame::{Layout, shift};
use crate::packet::{ACK, SYN};

const MS: u64 = 1_000_000;
const DNS: u16 = 53;

/// On which of a handshake's segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum On {
    #[default]
    Neither,
    Syn,
    SynAck,
    Both,
}

impl On {
    fn is(self, flags: u8) -> bool {
        match self {
            On::Neither => false,
            On::Syn => flags & ACK == 0,
            On::SynAck => flags & ACK != 0,
            On::Both => true,
        }
    }
}

/// The middle. By default it does nothing but take time and lower TTLs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Middle {
    /// One in so many SYNs, DNS questions and data segments after a silence had been sent before, and was lost.
    pub lose_one_in: Option<u32>,
    /// Larger MSS options are lowered to this.
    pub mss: Option<u16>,
    pub strip_wscale: On,
    pub strip_sack: On,
    /// Ends that agreed on no time stamps send none.
    pub strip_timestamps: On,
    /// Added to the client's sequence numbers on their way to the server, and, otherwise, to the server's.
    pub shift: Option<u32>,
    /// Leaves SACK blocks about them as they are.
    pub forget_sack: bool,
    /// Ends use ECN: TCP segments with payload are ECT(0) where they are sent.
    pub ecn: bool,
    pub bleach_ecn: bool,
    /// Congestion in the middle: what is ECT arrives marked (RFC 3168 §5).
    pub mark_ce: bool,
    /// Every packet arrives with this DSCP.
    pub dscp: Option<u8>,
    /// The last byte of each payload of 100 bytes and more is another.
    pub alter: bool,
}

impl Middle {
    /// How long before this packet the same was sent and lost, ns; `silent` is how long its flow was.
    pub fn lost_before(&self, layout: &Layout, frame: &[u8], silent: u64, turn: &mut u32) -> Option<u64> {
        let one_in = self.lose_one_in?;
        let flags = layout.flags(frame);
        let wait = if flags & SYN != 0 && flags & ACK == 0 {
            1000 * MS
        } else if layout.ports(frame).1 == DNS && !layout.is_tcp() {
            5000 * MS
        } else if layout.is_tcp() && flags & SYN == 0 && !layout.payload(frame).is_empty() {
            220 * MS
        } else {
            return None;
        };
        if silent <= wait + 100 * MS {
            return None;
        }
        *turn += 1;
        turn.is_multiple_of(one_in).then_some(wait)
    }

    /// Changes a frame on its way: `ends` is what passes the client's tap and the server's. Says each kind of change.
    pub fn change(
        &self,
        layout: &Layout,
        ends: &mut [Vec<u8>; 2],
        from_client: bool,
        mut did: impl FnMut(&'static str),
    ) {
        let [client, server] = ends;
        let (sent, received) = if from_client { (client, server) } else { (server, client) };
        if let Some(dscp) = self.dscp {
            layout.set_dscp(received, dscp);
        }
        if !layout.is_tcp() {
            return;
        }
        if self.ecn && !layout.payload(sent).is_empty() {
            layout.set_ecn(sent, 2);
            let (ecn, what) = match (self.bleach_ecn, self.mark_ce) {
                (true, _) => (0, Some("ecn_bleached")),
                (false, true) => (3, Some("ecn_ce_between")),
                (false, false) => (2, None),
            };
            layout.set_ecn(received, ecn);
            what.into_iter().for_each(&mut did);
        }
        if self.alter && layout.alter(received) {
            did("payload_altered");
        }
        if self.strip_timestamps != On::Neither && !layout.is_syn(sent) {
            for frame in [&mut *sent, &mut *received] {
                layout.options(frame, without_time);
            }
        }
        let flags = layout.flags(sent);
        if layout.is_syn(sent) {
            self.handshake(layout, received, flags, &mut did);
        }
        if let Some(by) = self.shift {
            let [own, other] = if from_client { [by, by.rotate_left(7)] } else { [by.rotate_left(7), by] };
            let at_server = if from_client { &mut *received } else { &mut *sent };
            layout.shift_number(at_server, 4, own);
            layout.shift_number(at_server, 8, other);
            did("seq_rewritten");
            let mut forgot = false;
            let mut blocks = |frame: &mut [u8]| {
                layout.options(frame, |option| {
                    if let [5, _, blocks @ ..] = option {
                        blocks.chunks_exact_mut(4).for_each(|edge| shift(edge, other));
                        forgot = true;
                    }
                });
            };
            // The server speaks of numbers that were shifted on their way to it, whatever the middle forgets.
            match (from_client, self.forget_sack) {
                (true, false) => blocks(received),
                (true, true) => blocks(&mut received.clone()),
                (false, false) => blocks(sent),
                (false, true) => {
                    blocks(sent);
                    blocks(received);
                }
            }
            if forgot && self.forget_sack {
                did("sack_garbled");
            }
        }
        layout.finish(sent);
        layout.finish(received);
    }

    fn handshake(&self, layout: &Layout, received: &mut [u8], flags: u8, did: &mut impl FnMut(&'static str)) {
        layout.options(received, |option| match *option {
            [2, 4, high, low] => {
                let clamp = self.mss.filter(|mss| *mss < u16::from_be_bytes([high, low]));
                if let Some(mss) = clamp {
                    option[2..].copy_from_slice(&mss.to_be_bytes());
                    did("mss_clamped");
                }
            }
            [3, 3, _] if self.strip_wscale.is(flags) => {
                option.fill(1);
                did("wscale_stripped");
            }
            [8, 10, ..] if self.strip_timestamps.is(flags) => {
                option.fill(1);
                did("timestamps_stripped");
            }
            [4, 2] if self.strip_sack.is(flags) => {
                option.fill(1);
                did("sack_stripped");
            }
            _ => {}
        });
    }
}

fn without_time(option: &mut [u8]) {
    if let [8, 10, ..] = option {
        option.fill(1);
    }
}
