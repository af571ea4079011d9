//! What routers said of one side's packets, and how that side keeps an idle connection alive: rare, so in the
//! trouble record. Worker's thread; `analyze::icmp` and `analyze::wait` write it, facts and rows read it.

/// Of one side. Times are packet time, ms modulo 2^32.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Notes {
    /// The last keepalive probe, and the time between it and the one before; 0 if there were none.
    pub keepalive_ms: u32,
    pub keepalive_every_ms: u32,
    /// The last ICMP "too big" that quoted this side's packets.
    pub too_big_ms: u32,
    /// Packets larger than the last of those messages allows, sent again well after it.
    pub oversize: u16,
    /// ICMP "destination unreachable" that quoted this side's packets, and the code of the last.
    pub unreachable: u16,
    /// ICMP "time exceeded" likewise: the packets went in circles, or too far.
    pub time_exceeded: u16,
    pub unreachable_code: u8,
    /// An ICMP "too big" quoted this side's packets.
    pub too_big: bool,
}
