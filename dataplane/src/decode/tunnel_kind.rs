//! Which tunnel a packet came through, and its id. Plain values, part of a [`super::Packet`] and kept by its flow; made
//! by `shim` and `tunnel` on the worker's thread, written out with the flow's row.

use std::fmt;

/// What a packet came through. The order is that of nothing; a flow keeps it as a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(u8)]
pub enum TunnelKind {
    #[default]
    None,
    /// By its lowest label that names a service.
    Mpls,
    /// By session id.
    Pppoe,
    /// Without a key.
    Gre,
    GreKey,
    /// GRE version 1, by call id.
    Pptp,
    /// Type I, which has no session id.
    ErspanPlain,
    /// Types II and III.
    Erspan,
    /// By VXLAN network identifier.
    Vxlan,
    /// By virtual network identifier.
    Geneve,
    /// IPv4 or IPv6 in either.
    IpInIp,
    EtherIp,
    /// By tunnel endpoint identifier.
    Gtp,
    Teredo,
}

/// A tunnel and its id; 0 where the kind has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    pub kind: TunnelKind,
    pub id: u32,
}

impl Tunnel {
    /// Which of two nested tunnels to note: the inner one, unless only the outer has an id.
    pub(super) fn around(self, inner: Tunnel) -> Tunnel {
        if inner.kind == TunnelKind::None || (self.kind.has_id() && !inner.kind.has_id()) {
            self
        } else {
            inner
        }
    }
}

impl TunnelKind {
    pub const fn has_id(self) -> bool {
        !matches!(
            self,
            TunnelKind::None
                | TunnelKind::Gre
                | TunnelKind::ErspanPlain
                | TunnelKind::IpInIp
                | TunnelKind::EtherIp
                | TunnelKind::Teredo
        )
    }

    pub const fn name(self) -> &'static str {
        match self {
            TunnelKind::None => "",
            TunnelKind::Mpls => "mpls",
            TunnelKind::Pppoe => "pppoe",
            TunnelKind::Gre | TunnelKind::GreKey => "gre",
            TunnelKind::Pptp => "pptp",
            TunnelKind::ErspanPlain | TunnelKind::Erspan => "erspan",
            TunnelKind::Vxlan => "vxlan",
            TunnelKind::Geneve => "geneve",
            TunnelKind::IpInIp => "ipip",
            TunnelKind::EtherIp => "etherip",
            TunnelKind::Gtp => "gtp",
            TunnelKind::Teredo => "teredo",
        }
    }
}

impl fmt::Display for Tunnel {
    /// `vxlan:42`, `gtp:0x1234`, `ipip`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TunnelKind::Gtp => write!(f, "gtp:{:#x}", self.id),
            kind if kind.has_id() => write!(f, "{}:{}", kind.name(), self.id),
            kind => f.write_str(kind.name()),
        }
    }
}
