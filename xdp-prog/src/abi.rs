//! Mirror of abi.h: what the program in the kernel writes and the program that loaded it reads. Plain values,
//! used by any thread.

/// What became of a packet that the capture program saw (`enum outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Handed to the socket of its queue. Whether that took it, the socket counts.
    Redirected,
    /// No socket has this queue: left to the kernel, as if nobody were capturing.
    NoSocket,
    /// Besides: handed over without a time stamp, because the driver leaves no room before the packet.
    Unstamped,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Redirected, Outcome::NoSocket, Outcome::Unstamped];
}

/// Packets and bytes of one outcome (`struct tally`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

impl Tally {
    /// From the bytes of a map's value; `None` if they are not a tally's.
    pub fn read(value: &[u8]) -> Option<Tally> {
        let (packets, bytes) = value.split_first_chunk::<8>()?;
        let bytes = bytes.first_chunk::<8>()?;
        Some(Tally { packets: u64::from_ne_bytes(*packets), bytes: u64::from_ne_bytes(*bytes) })
    }
}

/// Bytes of `struct stamp`, which lies right before the packet's first byte: CLOCK_MONOTONIC in ns.
pub const STAMP_BYTES: usize = 8;

const _: () = assert!(size_of::<Tally>() == 16);
