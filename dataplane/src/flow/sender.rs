//! What of one side's packets is rarely touched: how often it said SYN and FIN, the fingerprint a RST in its name
//! is compared with, a gap. Half a cache line a side. Worker's thread; `analyze` writes it, facts and rows read it.

use super::record::Flow;

/// Bits of [`Sender::bits`].
pub mod sender_flag {
    /// A RST in this side's name was seen; the fields `rst_*` are of it.
    pub const RST: u16 = 1;
    /// It had Don't Fragment.
    pub const RST_DF: u16 = 1 << 1;
    /// Its sequence number was the one the other side expects next.
    pub const RST_EXACT: u16 = 1 << 2;
    /// It was within the window the other side offers.
    pub const RST_IN_WINDOW: u16 = 1 << 3;
    /// The other side's expectation was known, so that the two above mean something.
    pub const RST_PLACED: u16 = 1 << 4;
    /// Its IP-ID was judged, and went on from the side's other packets.
    pub const RST_ID_JUDGED: u16 = 1 << 5;
    pub const RST_ID_FITS: u16 = 1 << 6;
    /// `rst_delay_us` is known: the other side had sent something before.
    pub const RST_TIMED: u16 = 1 << 7;
    /// Other packets followed from this side, later than a round trip and with something only a living socket
    /// sends.
    pub const LIVED_ON: u16 = 1 << 8;
    /// It came before the connection was established.
    pub const RST_EARLY: u16 = 1 << 9;
}

/// One side; exactly half a cache line. RSTs count in none but the fields `rst*`.
///
/// As long as all its packets have one TTL, the fields `ttl_*` are 0, and what they would say follows from
/// [`Direction`](super::Direction).
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Sender {
    pub bits: u16,
    pub rst: u16,
    /// SYNs, SYN-ACKs and FINs seen, as far as 255.
    pub syn: u8,
    pub syn_ack: u8,
    pub fin: u8,
    /// The TTL most of its packets have (majority vote of Boyer and Moore), and the votes it is ahead.
    pub ttl_usual: u8,
    pub ttl_votes: u8,
    /// TTL of the newest packet, and how many in a row had it, as far as 255.
    pub ttl_last: u8,
    pub ttl_run: u8,
    /// How often the TTL became another by two or more, as far as 255.
    pub ttl_changes: u8,
    pub rst_ttl: u8,
    /// Packets after the RST, as far as 255.
    pub after_rst: u8,
    pub rst_window: u16,
    /// From the other side's last packet to the RST, µs.
    pub rst_delay_us: u32,
    /// Packet time of the RST, ms modulo 2^32.
    pub rst_ms: u32,
    /// When it closed its receive window, likewise; 0 if it is open.
    pub closed_ms: u32,
    /// See [`Flow::continuous`].
    pub continuous: u32,
}

const _: () = assert!(size_of::<Sender>() == 32);

impl Sender {
    #[inline(always)]
    pub fn has(&self, bit: u16) -> bool {
        self.bits & bit != 0
    }
}

impl Flow {
    /// The TTL most of `dir`'s packets have; it must have sent one that is no RST.
    pub fn ttl_usual(&self, dir: usize) -> u8 {
        let own = &self.senders[dir];
        if own.ttl_run > 0 { own.ttl_usual } else { self.dirs[dir].ttl_min }
    }

    /// Packets of `dir` that are not RSTs.
    pub fn packets_but_rst(&self, dir: usize) -> u32 {
        self.dirs[dir].packets.saturating_sub(u32::from(self.senders[dir].rst))
    }
}
