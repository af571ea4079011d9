//! Reads back one frame of ours and verifies it: lengths, IPv4 header checksum, TCP / UDP / ICMP checksum.
//!
//! Used by tests, here and elsewhere, as the generator's own proof; it knows only what packet.rs can make and
//! is not a decoder. Errors are words for a person. Nothing goes further.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{fold, sum};

/// What one frame says, as far as tests ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub vlan: [u16; 2],
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub protocol: u8,
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Bytes above TCP or UDP.
    pub payload: u32,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
}

fn be16(data: &[u8], at: usize) -> Result<u16, String> {
    let pair = data.get(at..at + 2).ok_or_else(|| format!("cut at byte {at}"))?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

fn be32(data: &[u8], at: usize) -> Result<u32, String> {
    Ok(u32::from(be16(data, at)?) << 16 | u32::from(be16(data, at + 2)?))
}

/// Reads and verifies a frame that carries IP.
///
/// # Errors
/// Says what is wrong with the frame; ARP is "not IP".
pub fn read(frame: &[u8]) -> Result<Seen, String> {
    let mut vlan = [0; 2];
    let mut at = 12;
    for tag in &mut vlan {
        if matches!(be16(frame, at)?, 0x8100 | 0x88a8) {
            *tag = be16(frame, at + 2)? & 0x0fff;
            at += 4;
        }
    }
    let rest = &frame[at + 2..];
    let (src, dst, ttl, protocol, data) = match be16(frame, at)? {
        0x0800 => ipv4(rest)?,
        0x86dd => ipv6(rest)?,
        other => return Err(format!("not IP: ether type {other:#06x}")),
    };
    let mut seen = Seen {
        vlan,
        src,
        dst,
        ttl,
        protocol,
        sport: 0,
        dport: 0,
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        payload: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
    };
    let pseudo = match (src, dst) {
        _ if protocol == 1 => 0,
        (IpAddr::V4(a), IpAddr::V4(b)) => sum(sum(0, &a.octets()), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => sum(sum(0, &a.octets()), &b.octets()),
        _ => return Err("mixed address families".into()),
    };
    let pseudo = if protocol == 1 { 0 } else { pseudo + u64::from(protocol) + data.len() as u64 };
    if fold(sum(pseudo, data)) != 0 {
        return Err(format!("checksum of protocol {protocol} is wrong"));
    }
    if protocol == 6 || protocol == 17 {
        seen.sport = be16(data, 0)?;
        seen.dport = be16(data, 2)?;
        seen.payload = data.len() as u32 - 8;
    }
    if protocol == 6 {
        tcp(data, &mut seen)?;
    }
    Ok(seen)
}

type Layer<'a> = (IpAddr, IpAddr, u8, u8, &'a [u8]);

fn ipv4(data: &[u8]) -> Result<Layer<'_>, String> {
    let total = usize::from(be16(data, 2)?);
    let header = data.get(..20).ok_or("IPv4 header cut")?;
    if header[0] != 0x45 || fold(sum(0, header)) != 0 {
        return Err("IPv4 header or its checksum is wrong".into());
    }
    let address = |at| Ok::<_, String>(IpAddr::V4(Ipv4Addr::from(be32(header, at)?)));
    let body = data.get(20..total).ok_or("IPv4 total length beyond the frame")?;
    Ok((address(12)?, address(16)?, header[8], header[9], body))
}

fn ipv6(data: &[u8]) -> Result<Layer<'_>, String> {
    let header = data.get(..40).ok_or("IPv6 header cut")?;
    let len = usize::from(be16(header, 4)?);
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes were sliced");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let body = data.get(40..40 + len).ok_or("IPv6 payload length beyond the frame")?;
    Ok((address(8), address(24), header[7], header[6], body))
}

fn tcp(data: &[u8], seen: &mut Seen) -> Result<(), String> {
    seen.seq = be32(data, 4)?;
    seen.ack = be32(data, 8)?;
    seen.window = be16(data, 14)?;
    seen.flags = data[13];
    let header = usize::from(data[12] >> 4) * 4;
    let mut options = data.get(20..header).ok_or("TCP header cut")?;
    seen.payload = (data.len() - header) as u32;
    while let [kind, rest @ ..] = options {
        let len = if *kind < 2 { 1 } else { usize::from(*rest.first().ok_or("TCP option cut")?) };
        let option = options.get(..len).filter(|o| !o.is_empty()).ok_or("TCP option cut")?;
        match option {
            [2, 4, high, low] => seen.mss = Some(u16::from_be_bytes([*high, *low])),
            [3, 3, shift] => seen.window_scale = Some(*shift),
            [4, 2] => seen.sack_permitted = true,
            _ => {}
        }
        options = &options[len..];
    }
    Ok(())
}
