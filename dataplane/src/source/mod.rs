//! Where packets come from. Runs on the worker's thread; a source never analyses, it hands over bytes.
//!
//! Live queues, capture files, the merge step and synthetic traffic all stand behind [`Source`], so that
//! replay, tests, benchmarks and production run the same worker lines. The packets go to `decode` next.

/// For a source around another, held in this field: packets are the other's, also those that it leaves out.
macro_rules! packets_of {
    ($inner:ident) => {
        #[inline]
        fn bytes(&self, packet: &Descriptor) -> &[u8] {
            self.$inner.bytes(packet)
        }

        #[inline]
        fn release(&mut self, batch: &mut Batch) {
            self.$inner.release(batch);
        }
    };
}
pub(crate) use packets_of;

pub mod afpacket;
pub mod afxdp;
pub mod dispatch;
pub mod file;
pub mod lane;
pub mod live;
pub mod merge;
pub mod netlink;
pub mod nic;
pub mod open;
pub mod rss;
pub mod synthetic;

/// Nanoseconds since the Unix epoch, UTC.
pub type Nanos = u64;

/// Packets in one batch at most: enough to hide a cache miss behind its siblings, few enough for L1.
pub const BATCH: usize = 64;

/// Link-layer header types (LINKTYPE_*, <https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// 1
    Ethernet,
    /// 113
    LinuxSll,
    /// 276
    LinuxSll2,
    /// 101, also 12 and 14 (raw IP), 228 (IPv4), 229 (IPv6)
    Raw,
    /// 0: 4-byte address family in the capturing host's byte order
    Null,
    /// 108: as Null, in network byte order
    Loop,
    /// 9, also 50: with or without HDLC's address and control bytes
    Ppp,
    /// 51: a PPPoE session's header
    PppEther,
    /// 104
    CiscoHdlc,
    /// 105: 802.11 without radio information
    Ieee80211,
    /// 127: 802.11 behind it
    Radiotap,
    /// Any other: kept and counted, not decoded
    Other(u16),
}

impl LinkType {
    /// The type a LINKTYPE_ number stands for.
    pub fn from_number(number: u16) -> LinkType {
        match number {
            0 => LinkType::Null,
            1 => LinkType::Ethernet,
            9 | 50 => LinkType::Ppp,
            51 => LinkType::PppEther,
            104 => LinkType::CiscoHdlc,
            105 => LinkType::Ieee80211,
            127 => LinkType::Radiotap,
            12 | 14 | 101 | 228 | 229 => LinkType::Raw,
            108 => LinkType::Loop,
            113 => LinkType::LinuxSll,
            276 => LinkType::LinuxSll2,
            other => LinkType::Other(other),
        }
    }

    /// A LINKTYPE_ number that stands for this type.
    pub fn number(self) -> u16 {
        match self {
            LinkType::Null => 0,
            LinkType::Ethernet => 1,
            LinkType::Ppp => 9,
            LinkType::PppEther => 51,
            LinkType::CiscoHdlc => 104,
            LinkType::Ieee80211 => 105,
            LinkType::Radiotap => 127,
            LinkType::Raw => 101,
            LinkType::Loop => 108,
            LinkType::LinuxSll => 113,
            LinkType::LinuxSll2 => 276,
            LinkType::Other(number) => number,
        }
    }
}

/// One interface packets can come from, as capture files describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Interface name, or the input file's name (without its directory).
    pub name: String,
    /// How it was captured, in words ("file, pcapng", "AF_XDP zero-copy", …); pcapng if_description.
    pub description: String,
    pub link: LinkType,
    /// The LINKTYPE_ number as read, written back unchanged.
    pub link_number: u16,
    /// 0 = no limit.
    pub snap_len: u32,
}

/// What a source knows of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    pub const NONE: Marks = Marks(0);
    /// The host joined several segments into this one, or has yet to cut it: no packet of this size was on the wire.
    pub const COALESCED: Marks = Marks(1);
    /// Its checksum has not been filled in yet.
    pub const UNCHECKED: Marks = Marks(2);

    pub const fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 == mark.0
    }

    pub const fn with(self, mark: Marks) -> Marks {
        Marks(self.0 | mark.0)
    }
}

/// One packet of a batch: where its bytes are (known to the source alone) and what came with them.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub ts: Nanos,
    /// The source's own handle to the bytes.
    pub handle: u64,
    /// Bytes present.
    pub cap_len: u32,
    /// Bytes on the wire.
    pub orig_len: u32,
    /// Index into [`Source::interfaces`].
    pub interface: u16,
    pub link: LinkType,
    pub marks: Marks,
}

/// Packets of one poll, in the order they are to be processed. Reused; never grows past [`BATCH`].
#[derive(Debug)]
pub struct Batch {
    pub packets: Vec<Descriptor>,
    /// Nothing older than this will come from this source.
    pub watermark: Nanos,
}

impl Batch {
    pub fn new() -> Batch {
        Batch { packets: Vec::with_capacity(BATCH), watermark: 0 }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The batch holds at least one packet.
    Packets,
    /// Nothing to read; the capture clock stands at this time, and nothing older will come.
    Idle(Nanos),
    /// Nothing will ever come again.
    End,
}

/// A place packets come from.
///
/// The bytes of a batch stay valid from `poll` until `release`; the worker calls `release` before the
/// next `poll`. After start-up neither call may allocate, lock or log.
pub trait Source {
    /// Fills an empty batch.
    fn poll(&mut self, batch: &mut Batch) -> Poll;
    /// The bytes of one packet of the last batch.
    fn bytes(&self, packet: &Descriptor) -> &[u8];
    /// Gives the batch's memory back and empties it.
    fn release(&mut self, batch: &mut Batch);
    /// Interfaces known so far; only ever appended to.
    fn interfaces(&self) -> &[Interface];
}
