//! Bytes to a [`Packet`]. Runs on the worker's thread; total (any bytes give a value), never allocates.
//!
//! Every header field is read behind a length check; what the capture cut off is left unknown. Link layers
//! and VLANs are in `link`, IPv4 and IPv6 in `net`, TCP, UDP and ICMP in `transport`; what lies between link and
//! IP is in `shim` and `pseudowire`, packets in packets in `tunnel`: three more callers of `net`. The packet goes to `flow` next.

mod bytes;
mod link;
mod net;
mod packet;
mod pseudowire;
mod quote;
mod shim;
mod transport;
mod tunnel;
mod tunnel_kind;

pub use packet::{Address, Class, FlowKey, Fragment, Icmp, Packet, Part, Quote, Tcp, TcpOptions, flags};
pub use tunnel_kind::{Tunnel, TunnelKind};

use crate::source::LinkType;

/// Decodes one packet. `orig_len` is its length on the wire, at least `bytes.len()` in an honest capture.
#[inline]
pub fn decode(link: LinkType, bytes: &[u8], orig_len: u32) -> Packet {
    let mut packet = Packet::new(bytes.len(), orig_len);
    link::decode(link, bytes, bytes.len().max(orig_len as usize), &mut packet);
    packet
}

/// As [`decode`], in place: a batch's packets need not be copied to where they stay.
#[inline]
pub fn decode_into(link: LinkType, bytes: &[u8], orig_len: u32, packet: &mut Packet) {
    packet.clear(bytes.len(), orig_len);
    link::decode(link, bytes, bytes.len().max(orig_len as usize), packet);
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;

#[cfg(test)]
pub(crate) mod frames;
