//! An interface listened to by a packet socket: opened, begun and ended, and what its socket counted.
//!
//! Main thread. Nothing of the interface is changed but that it is promiscuous meanwhile; when the process ends, however
//! it ends, the kernel takes the socket and that away.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane_sys::ethtool;
use dataplane_sys::packet::{Promiscuous, promiscuous};
use dataplane_sys::packet_ring::{BLOCK, Control, Counted, Ring, Settings};
use xdp_prog::filter::RefusedCount;

use super::{AfPacket, PacketShared};
use crate::filter::{Filter, Filtered, SocketFilter};
use crate::ledger::DropReason;
use crate::source::afxdp::TapError;
use crate::source::live::{PortReport, QueueReport};
use crate::source::nic::{Nic, NicCounters};
use crate::source::{Interface, LinkType};

/// Bytes before an IP packet at most: Ethernet and two VLAN tags.
const LINK_BYTES: u32 = 14 + 2 * 4;

/// Hardware types that say what packets begin with, include/uapi/linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_NONE: u16 = 0xfffe;

/// How an interface is to be listened to.
#[derive(Clone, Debug)]
pub struct PacketSettings {
    /// Memory for packets that wait for the worker.
    pub ring_mib: u32,
    /// What of its packets is wanted; all, without one.
    pub filter: Option<Arc<Filter>>,
}

/// One interface, listened to.
#[derive(Debug)]
pub struct PacketTap {
    nic: Nic,
    driver: String,
    link: LinkType,
    compromises: Vec<String>,
    control: Control,
    filter: Option<Arc<Filter>>,
    /// The part of it that the kernel does.
    sieve: Option<SocketFilter>,
    shared: Arc<PacketShared>,
    /// What the socket has counted so far.
    counted: Cell<Counted>,
    before: NicCounters,
    _promiscuous: Promiscuous,
}

/// What packets of an interface begin with; `None`: what is not read.
pub fn link_type(nic: &Nic) -> Option<LinkType> {
    match nic.hardware {
        ARPHRD_ETHER | ARPHRD_LOOPBACK => Some(LinkType::Ethernet),
        ARPHRD_NONE | ARPHRD_RAWIP => Some(LinkType::Raw),
        _ => None,
    }
}

/// The kernel knows only packets that begin with Ethernet.
fn sieve(filter: Option<&Filter>, link: LinkType) -> Result<Option<SocketFilter>, TapError> {
    let filter = filter.filter(|_| link == LinkType::Ethernet);
    Ok(filter.map(Filter::for_sockets).transpose()?)
}

impl PacketTap {
    /// Opens a ring; packets come from [`PacketTap::begin`] on.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn open(nic: Nic, settings: PacketSettings) -> Result<(PacketTap, Filtered<AfPacket>), TapError> {
        let interface = nic.name.clone();
        let Some(link) = link_type(&nic) else {
            return Err(TapError::NoLinkType { interface, hardware: nic.hardware });
        };
        if !nic.up {
            return Err(TapError::Down { interface });
        }
        let failed = |doing| {
            let interface = interface.clone();
            move |source| TapError::Interface { interface, doing, source }
        };
        let before = nic.counters().map_err(failed("reading its counters"))?;
        let (ring, control) = Ring::open(&Settings {
            ifindex: nic.ifindex,
            blocks: settings.ring_mib.saturating_mul(((1 << 20) / BLOCK) as u32),
            ethernet: link == LinkType::Ethernet,
            ignore_outgoing: nic.hardware == ARPHRD_LOOPBACK,
        })
        .map_err(failed("opening a packet socket with a ring"))?;
        let sieve = sieve(settings.filter.as_deref(), link)?;
        if let Some(sieve) = &sieve {
            sieve.attach(control.as_fd()).map_err(failed("filtering its packet socket"))?;
        }
        let promiscuous = promiscuous(nic.ifindex).map_err(failed("making it promiscuous"))?;
        let mut compromises = Vec::new();
        if nic.xdp_program.is_some() {
            compromises.push(format!(
                "{interface}: an XDP program is attached; packets that it drops or redirects are not seen"
            ));
        }
        let tap = PacketTap {
            driver: ethtool::driver(&interface).unwrap_or_else(|_| "unknown".to_owned()),
            link,
            compromises,
            control,
            filter: settings.filter,
            sieve,
            shared: Arc::default(),
            counted: Cell::default(),
            before,
            _promiscuous: promiscuous,
            nic,
        };
        let described = Interface {
            name: interface,
            description: tap.to_string(),
            link,
            link_number: link.number(),
            snap_len: 0,
        };
        let header = if link == LinkType::Ethernet { LINK_BYTES } else { 0 };
        let longest = tap.nic.mtu.saturating_add(header);
        let source = AfPacket::new(ring, Arc::clone(&tap.shared), described, longest);
        let rest = tap.filter.as_deref().filter(|filter| tap.sieve.is_none() || !filter.exact());
        let source = Filtered::new(source, rest)?;
        Ok((tap, source))
    }

    /// Lets packets come.
    ///
    /// # Errors
    /// The interface has gone.
    pub fn begin(&mut self) -> Result<(), TapError> {
        self.before = self.nic.counters().unwrap_or(self.before);
        self.control.begin().map_err(self.failed("listening"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> TapError + use<> {
        let interface = self.nic.name.clone();
        move |source| TapError::Interface { interface, doing, source }
    }

    pub fn nic(&self) -> &Nic {
        &self.nic
    }

    /// What of its packets is wanted.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.filter.as_ref()
    }

    /// What was asked for and not to be had, in words.
    pub fn compromises(&self) -> &[String] {
        &self.compromises
    }

    /// Takes no more packets. What the kernel has of them stays there for the worker.
    pub fn detach(&mut self) {
        // Without memory for that they come until the socket is closed, and are counted as long.
        let _ = self.control.end();
    }

    /// Tells the worker that nothing more will come.
    pub fn stop(&self) {
        let wanted = self.count().map_or(0, |counted| counted.packets - counted.drops);
        self.shared.wanted.store(wanted, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Release);
    }

    /// All that the socket has counted.
    fn count(&self) -> io::Result<Counted> {
        let (more, before) = (self.control.counted()?, self.counted.get());
        let now = Counted { packets: before.packets + more.packets, drops: before.drops + more.drops };
        self.counted.set(now);
        Ok(now)
    }

    /// What has become of its packets so far.
    ///
    /// # Errors
    /// A counter can't be read.
    pub fn report(&self) -> Result<PortReport, TapError> {
        // Before the socket's counters: what is counted here must have been seen there.
        let (refused, taken) =
            (self.shared.refused.load(Ordering::Acquire), self.shared.taken.load(Ordering::Acquire));
        let sieved = self.sieve.as_ref().map_or(Ok(RefusedCount::default()), SocketFilter::refused)?;
        let (after_silence, woken_late) = self.shared.wakings.counted();
        let queue = QueueReport {
            taken: taken - refused,
            coalesced: self.shared.coalesced.load(Ordering::Relaxed),
            after_silence,
            woken_late,
            ..QueueReport::default()
        };
        let counted = self.count().map_err(self.failed("reading its socket's counters"))?;
        let mut dropped = [0; DropReason::ALL.len()];
        dropped[DropReason::PacketRing as usize] = counted.drops;
        // An interface that has gone has no counters any more.
        let nic = self.nic.counters().unwrap_or(self.before).since(&self.before);
        let seen_bytes = self.shared.bytes.load(Ordering::Relaxed);
        Ok(PortReport {
            seen: counted.packets + sieved.packets,
            seen_bytes,
            filtered: sieved.packets + refused,
            filtered_tagged: sieved.tagged + self.shared.refused_tagged.load(Ordering::Relaxed),
            related: self.shared.related.load(Ordering::Relaxed),
            dropped,
            queues: vec![queue],
            nic,
            nic_clock_steps: None,
        })
    }
}

/// How it captures, in words; also goes into every capture file.
impl fmt::Display for PacketTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = if self.link == LinkType::Raw { ", raw IP" } else { "" };
        let driver = &self.driver;
        write!(f, "AF_PACKET, TPACKET_V3, driver {driver}{raw}, both directions, time by the host's clock")
    }
}
