//! What the kernel knows of an interface (rtnetlink(7)): whether it is up, what depends on it, which XDP program
//! it has. Main thread, before anything is opened, and now and then for its counters; asks, and changes nothing.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::netlink::{dump, one};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    pub name: String,
    pub ifindex: u32,
    /// Ethernet, or something that looks like it.
    pub ethernet: bool,
    /// ARPHRD_ number: what a packet begins with.
    pub hardware: u16,
    pub up: bool,
    /// Has a link (a cable, a peer that is up).
    pub carrier: bool,
    /// Bytes of an IP packet at most.
    pub mtu: u32,
    /// Number of the XDP program that is attached.
    pub xdp_program: Option<u32>,
    /// What would lose its packets, in words ("the address 10.0.0.1"); IPv6 link-local addresses don't count.
    pub depends: Vec<String>,
}

/// What may become different while an interface is captured from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicState {
    pub name: String,
    /// It is up and has a link.
    pub linked: bool,
    pub mtu: u32,
    pub xdp_program: Option<u32>,
}

/// What the interface itself counted since it came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicCounters {
    pub rx_packets: u64,
    /// Packets it had no room for: never seen by an XDP program.
    pub rx_missed: u64,
    /// Packets dropped between the interface and whoever was to receive them, by the kernel's count.
    pub rx_dropped: u64,
    /// Frames it received damaged.
    pub rx_errors: u64,
}

impl NicCounters {
    /// What was counted since `before`.
    pub fn since(&self, before: &NicCounters) -> NicCounters {
        NicCounters {
            rx_packets: self.rx_packets.saturating_sub(before.rx_packets),
            rx_missed: self.rx_missed.saturating_sub(before.rx_missed),
            rx_dropped: self.rx_dropped.saturating_sub(before.rx_dropped),
            rx_errors: self.rx_errors.saturating_sub(before.rx_errors),
        }
    }
}

impl Nic {
    /// Asks the kernel about `name`, as this thread's network namespace has it.
    ///
    /// # Errors
    /// ENODEV: there is no such interface. Those of netlink sockets.
    pub fn find(name: &str) -> io::Result<Nic> {
        let all = links()?;
        let link = named(&all, name)?;
        let ifindex = link.header.index;
        let mut nic = Nic {
            name: name.to_owned(),
            ifindex,
            ethernet: link.header.link_layer_type == LinkLayerType::Ether,
            hardware: link.header.link_layer_type.into(),
            up: link.header.flags.contains(LinkFlags::Up),
            carrier: link.header.flags.contains(LinkFlags::LowerUp),
            mtu: 0,
            xdp_program: None,
            depends: Vec::new(),
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => nic.mtu = *mtu,
                LinkAttribute::Xdp(xdp) => nic.xdp_program = xdp_program(xdp),
                LinkAttribute::Controller(master) => {
                    let master = all.iter().find(|link| link.header.index == *master).and_then(link_name);
                    nic.depends.push(format!("the bridge or bond {} it belongs to", master.unwrap_or("?")));
                }
                _ => {}
            }
        }
        nic.depends.extend(all.iter().filter_map(|link| stacked(link, ifindex)));
        nic.depends.extend(addresses(ifindex)?);
        nic.depends.extend(routes(ifindex)?);
        let mut told = HashSet::new();
        nic.depends.retain(|what| told.insert(what.clone()));
        Ok(nic)
    }

    /// The same interface as of now, by whatever name.
    ///
    /// # Errors
    /// ENODEV: it has gone. Those of netlink sockets.
    pub fn now(&self) -> io::Result<NicState> {
        let link = self.link()?;
        let linked = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let mut state = NicState { name: self.name.clone(), linked, mtu: self.mtu, xdp_program: None };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => state.name = name,
                LinkAttribute::Mtu(mtu) => state.mtu = mtu,
                LinkAttribute::Xdp(xdp) => state.xdp_program = xdp_program(&xdp),
                _ => {}
            }
        }
        Ok(state)
    }

    /// Whether it is up and has a link, as of now.
    ///
    /// # Errors
    /// As [`Nic::now`].
    pub fn has_link(&self) -> io::Result<bool> {
        Ok(self.now()?.linked)
    }

    /// What the interface counted so far.
    ///
    /// # Errors
    /// As [`Nic::now`].
    pub fn counters(&self) -> io::Result<NicCounters> {
        let stats = self.link()?.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(NicCounters {
                rx_packets: stats.rx_packets,
                rx_missed: stats.rx_missed_errors,
                rx_dropped: stats.rx_dropped,
                rx_errors: stats.rx_errors,
            }),
            _ => None,
        });
        Ok(stats.unwrap_or_default())
    }

    fn link(&self) -> io::Result<LinkMessage> {
        let mut request = LinkMessage::default();
        request.header.index = self.ifindex;
        match one(RouteNetlinkMessage::GetLink(request))? {
            RouteNetlinkMessage::NewLink(link) => Ok(link),
            _ => Err(no_such()),
        }
    }
}

fn no_such() -> io::Error {
    // ENODEV
    io::Error::from_raw_os_error(19)
}

fn named<'a>(all: &'a [LinkMessage], name: &str) -> io::Result<&'a LinkMessage> {
    all.iter().find(|link| link_name(link) == Some(name)).ok_or_else(no_such)
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// An interface that sits on this one (a VLAN, a macvlan) and gets its packets through it. Both ends of a veth
/// pair name the other, too, and depend on nothing.
fn stacked(link: &LinkMessage, ifindex: u32) -> Option<String> {
    let veth = LinkInfo::Kind(InfoKind::Veth);
    let mut on_it = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(lower) => on_it = *lower == ifindex && link.header.index != ifindex,
            // The number is one of another namespace.
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(info) if info.contains(&veth) => return None,
            _ => {}
        }
    }
    on_it.then(|| format!("the interface {} on top of it", link_name(link).unwrap_or("?")))
}

fn xdp_program(attributes: &[LinkXdp]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id)
            if *id != 0 =>
        {
            Some(*id)
        }
        _ => None,
    })
}

fn links() -> io::Result<Vec<LinkMessage>> {
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    })
}

fn addresses(ifindex: u32) -> io::Result<Vec<String>> {
    let all = dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| match message {
        RouteNetlinkMessage::NewAddress(address) => Some(address),
        _ => None,
    })?;
    let own = all.iter().filter(|address| address.header.index == ifindex);
    let addresses = own.filter_map(|address| {
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    Ok(addresses.filter(|address| !is_link_local(address)).map(|a| format!("the address {a}")).collect())
}

/// An interface that is up gives itself one; it means nothing.
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Routes over the interface, in any table, but for those that come with every address and with every interface
/// that is up.
fn routes(ifindex: u32) -> io::Result<Vec<String>> {
    let all = dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    })?;
    Ok(all.iter().filter_map(|route| carried(route, ifindex)).collect())
}

fn carried(route: &RouteMessage, ifindex: u32) -> Option<String> {
    let over = route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == ifindex,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == ifindex),
        _ => false,
    });
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    if !over || route.header.kind != RouteType::Unicast || destination.is_some_and(|d| is_link_local(&d)) {
        return None;
    }
    Some(match destination {
        None => "the default route".to_owned(),
        Some(destination) => format!("the route to {destination}/{}", route.header.destination_prefix_length),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_described() {
        let lo = Nic::find("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.ethernet, lo.xdp_program), ("lo", false, None));
        assert!(lo.mtu > 0);
        lo.counters().unwrap();
        let now = lo.now().unwrap();
        assert_eq!((now.name.as_str(), now.mtu, now.xdp_program), ("lo", lo.mtu, None));
        let gone = Nic { ifindex: 0x7fff_fff0, ..lo };
        assert_eq!(gone.now().unwrap_err().raw_os_error(), Some(19));
        assert_eq!(gone.counters().unwrap_err().raw_os_error(), Some(19));
    }

    #[test]
    fn what_is_not_there_is_enodev() {
        assert_eq!(Nic::find("no-such-if").unwrap_err().raw_os_error(), Some(19));
    }
}
