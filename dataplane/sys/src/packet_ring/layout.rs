//! How the kernel lays packets out in a block (TPACKET_V3): what a header says, and a tag put back where it was. Plain
//! functions on the bytes of a block; whatever they hold, nothing outside is reached. The worker's thread.

/// Room in front of a packet, for a tag to be put back.
pub(super) const TAG: usize = 4;

/// Places in `struct tpacket_block_desc` …
pub(super) const BLOCK_STATUS: usize = 8;
pub(super) const PACKETS: usize = 12;
pub(super) const FIRST: usize = 16;
/// … and in `struct tpacket3_hdr`.
const NEXT: usize = 0;
const SECONDS: usize = 4;
const NANOS: usize = 8;
const LENGTH: usize = 12;
const WIRE_LENGTH: usize = 16;
const STATUS: usize = 20;
const MAC: usize = 24;
const VLAN_TCI: usize = 32;
const VLAN_TPID: usize = 36;

/// Bits of `tp_status`.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
const VLAN_VALID: u32 = 1 << 4;
const VLAN_TPID_VALID: u32 = 1 << 6;
const GSO_TCP: u32 = 1 << 8;

const ETH_P_8021Q: u16 = 0x8100;
/// A packet of the block that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Where it begins in the block.
    pub(super) at: u32,
    /// Bytes there are, and were on the wire or will be.
    pub len: u32,
    pub wire_len: u32,
    /// When the kernel had it: CLOCK_REALTIME, ns.
    pub ts: u64,
    /// The host has joined several segments into it, or has yet to cut it up. (Linux 6.3; before, nobody says.)
    pub joined: bool,
    /// Its checksum is not filled in yet.
    pub unchecked: bool,
}

/// What a packet's header says besides.
pub(super) struct Header {
    /// From this header to the next one.
    pub next: usize,
    /// The VLAN tag the kernel took out of the packet.
    pub tag: Option<[u8; TAG]>,
}

#[inline]
pub(super) fn word(block: &[u8], at: usize) -> Option<u32> {
    block.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[inline]
fn half(block: &[u8], at: usize) -> Option<u16> {
    block.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// The packet whose header is at `at`.
#[inline]
pub(super) fn read(block: &[u8], at: usize) -> Option<(Packet, Header)> {
    let header = block.get(at..at + 48)?;
    let status = word(header, STATUS)?;
    let start = at + usize::from(half(header, MAC)?);
    let len = word(header, LENGTH)?;
    let wire_len = word(header, WIRE_LENGTH)?.max(len);
    block.get(start..start.checked_add(len as usize)?)?;
    let ts = u64::from(word(header, SECONDS)?) * 1_000_000_000 + u64::from(word(header, NANOS)?);
    let (joined, unchecked) = (status & GSO_TCP != 0, status & CHECKSUM_NOT_READY != 0);
    let packet = Packet { at: start as u32, len, wire_len, ts, joined, unchecked };
    let tag = if status & VLAN_VALID == 0 { None } else { Some(tag(header, status)?) };
    Some((packet, Header { next: word(header, NEXT)? as usize, tag }))
}

#[cold]
fn tag(header: &[u8], status: u32) -> Option<[u8; TAG]> {
    let known = status & VLAN_TPID_VALID != 0;
    let protocol = if known { half(header, VLAN_TPID)? } else { ETH_P_8021Q };
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), (word(header, VLAN_TCI)? as u16).to_be_bytes());
    Some([a, b, c, d])
}

/// Puts a tag where it was, between the addresses and the type. What lies before the packet is its own header, which
/// has been read, and the room asked for.
#[cold]
pub(super) fn put_back(block: &mut [u8], packet: &mut Packet, tag: [u8; TAG]) {
    const ADDRESSES: usize = 12;
    let start = packet.at as usize;
    if (packet.len as usize) < ADDRESSES || start < TAG {
        return;
    }
    block.copy_within(start..start + ADDRESSES, start - TAG);
    block[start - TAG + ADDRESSES..start + ADDRESSES].copy_from_slice(&tag);
    packet.at -= TAG as u32;
    packet.len += TAG as u32;
    packet.wire_len += TAG as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block as the kernel makes it, with one packet of these bytes.
    fn block(bytes: &[u8], status: u32, vlan: (u32, u16)) -> Vec<u8> {
        let mut block = vec![0; 4096];
        let mut put = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        let (at, mac) = (48, 86);
        put(PACKETS, 1);
        put(FIRST, at as u32);
        put(at + SECONDS, 3);
        put(at + NANOS, 7);
        put(at + LENGTH, bytes.len() as u32);
        put(at + WIRE_LENGTH, bytes.len() as u32 + 100);
        put(at + STATUS, status);
        put(at + MAC, mac as u32);
        put(at + VLAN_TCI, vlan.0);
        block[at + VLAN_TPID..at + VLAN_TPID + 2].copy_from_slice(&vlan.1.to_ne_bytes());
        block[at + mac..at + mac + bytes.len()].copy_from_slice(bytes);
        block
    }

    #[test]
    fn a_packet_is_read_with_all_that_is_said_of_it() {
        let block = block(&[9; 60], GSO_TCP | CHECKSUM_NOT_READY, (0, 0));
        let (packet, header) = read(&block, 48).unwrap();
        assert_eq!((packet.len, packet.wire_len, packet.ts), (60, 160, 3_000_000_007));
        assert!(packet.joined && packet.unchecked && header.tag.is_none());
        assert_eq!(block[packet.at as usize..][..60], [9; 60]);
    }

    #[test]
    fn a_tag_is_put_back_with_its_own_protocol() {
        let frame: Vec<u8> = (0..60).collect();
        for (status, protocol) in
            [(VLAN_VALID, 0x8100_u16), (VLAN_VALID | VLAN_TPID_VALID, 0x88a8), (VLAN_VALID, 0x8100)]
        {
            let mut block = block(&frame, status, (0x6064, 0x88a8));
            let (mut packet, header) = read(&block, 48).unwrap();
            put_back(&mut block, &mut packet, header.tag.unwrap());
            let [high, low] = protocol.to_be_bytes();
            let wanted = [&frame[..12], &[high, low, 0x60, 0x64], &frame[12..]].concat();
            assert_eq!(block[packet.at as usize..][..64], wanted);
            assert_eq!((packet.len, packet.wire_len), (64, 164));
        }
    }

    #[test]
    fn numbers_that_lead_outside_give_nothing() {
        let good = block(&[1; 60], 0, (0, 0));
        for (place, value) in [(LENGTH, 4096_u32), (LENGTH, u32::MAX), (MAC, 0xffff)] {
            let mut bad = good.clone();
            bad[48 + place..48 + place + 4].copy_from_slice(&value.to_ne_bytes());
            assert!(read(&bad, 48).is_none(), "{place}");
        }
        assert!(read(&good, 4090).is_none() && read(&good, usize::MAX - 50).is_none());
        let mut packet = Packet { at: 2, len: 60, ..Packet::default() };
        put_back(&mut good.clone(), &mut packet, [0; 4]);
        assert_eq!((packet.at, packet.len), (2, 60));
    }
}
