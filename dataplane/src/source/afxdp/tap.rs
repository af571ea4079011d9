//! An interface taken over for capture: its XDP program, a socket for each queue, and what they all counted.
//!
//! Main thread. Opens in the order that fails early and harmlessly, and says what it really got. The queues go
//! to workers; the tap stays with main, because when it is dropped, or the process ends however it ends, the
//! kernel detaches the program and packets go where they went before.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane_sys::bpf::{self, XdpLink, XdpMode};
use dataplane_sys::ethtool;
use dataplane_sys::packet::{Promiscuous, promiscuous};
use dataplane_sys::xsk::{Observer, Socket};
use xdp_prog::abi::Outcome;
use xdp_prog::{Capture, Tallies};

use super::clock::CaptureClock;
use super::nic_time::NicTime;
use super::open::{Plan, TapError, TapSettings, attach, check, load, mode_name};
use super::{AfXdp, QueueShared};
use crate::filter::Filter;
use crate::ledger::DropReason;
use crate::source::live::{Needs, PortReport, QueueReport};
use crate::source::nic::{Nic, NicCounters};
use crate::source::rss::Rss;
use crate::source::{Interface, LinkType};

/// What main keeps of one queue.
#[derive(Debug)]
struct Queue {
    observer: Observer,
    shared: Arc<QueueShared>,
    frames: u64,
}

/// One interface, taken.
#[derive(Debug)]
pub struct Tap {
    nic: Nic,
    driver: String,
    mode: XdpMode,
    zero_copy: bool,
    huge_pages: bool,
    jumbo: bool,
    /// What was asked for and not to be had, and why.
    compromises: Vec<String>,
    link: Option<XdpLink>,
    program: Capture,
    /// `None` if the kernel doesn't say.
    program_id: Option<u32>,
    filter: Option<Arc<Filter>>,
    queues: Vec<Queue>,
    before: NicCounters,
    /// What the program counted before the queues had sockets: the kernel's.
    passed: Tallies,
    clock: Arc<CaptureClock>,
    rss: Rss,
    nic_time: Option<NicTime>,
    _promiscuous: Promiscuous,
}

impl Tap {
    /// Takes an interface: all its queues, one source each. They get packets from [`Tap::begin`] on.
    ///
    /// # Errors
    /// What stands in the way, before anything was changed; what was begun is undone.
    pub fn open(
        nic: Nic,
        settings: &TapSettings,
        clock: &Arc<CaptureClock>,
    ) -> Result<(Tap, Vec<AfXdp>), TapError> {
        Tap::open_near(nic, settings, clock, &|_| None)
    }

    /// The same, with each queue's memory near the core that `near` says.
    ///
    /// # Errors
    /// As there.
    pub fn open_near(
        nic: Nic,
        settings: &TapSettings,
        clock: &Arc<CaptureClock>,
        near: &dyn Fn(u32) -> Option<usize>,
    ) -> Result<(Tap, Vec<AfXdp>), TapError> {
        check(&nic, settings)?;
        let failed = |doing| {
            let interface = nic.name.clone();
            move |source| TapError::Interface { interface, doing, source }
        };
        let driver = ethtool::driver(&nic.name).unwrap_or_else(|_| "unknown".to_owned());
        let count = ethtool::receive_queues(&nic.name).map_err(failed("counting its queues"))?;
        let before = nic.counters().map_err(failed("reading its counters"))?;
        let jumbo = nic.is_jumbo();
        let mut compromises = Vec::new();
        let rss = Rss::prepare(&nic.name, count, settings.rss);
        let program = load(count, jumbo, settings)?;
        let mut nic_time = NicTime::prepare(&nic, &program, jumbo, settings.clock, &mut compromises);
        let (link, mode) = match NicTime::attach(&mut nic_time, &nic, &mut compromises) {
            Some(link) => (link, XdpMode::Native),
            None => attach(&nic, &driver, &program, settings.zero_copy, &mut compromises)?,
        };
        let plan = Plan { nic: &nic, driver: &driver, mode, jumbo, settings, near };
        let sockets = plan.bind(count, &mut compromises)?;
        let promiscuous = promiscuous(nic.ifindex).map_err(failed("making it promiscuous"))?;
        let mut tap = Tap {
            driver,
            mode,
            zero_copy: true,
            huge_pages: true,
            jumbo,
            compromises,
            link: Some(link),
            program_id: attached_id(&program, nic_time.as_ref()),
            program,
            filter: settings.filter.clone(),
            queues: Vec::new(),
            before,
            passed: Tallies::default(),
            clock: Arc::clone(clock),
            rss,
            nic_time,
            _promiscuous: promiscuous,
            nic,
        };
        let sources = tap.hand_out(sockets)?;
        Ok((tap, sources))
    }

    /// Makes sources of the sockets.
    fn hand_out(&mut self, sockets: Vec<Socket>) -> Result<Vec<AfXdp>, TapError> {
        let name = self.nic.name.clone();
        let failed =
            move |doing| move |source| TapError::Interface { interface: name.clone(), doing, source };
        for socket in &sockets {
            let observer = socket.observer().map_err(failed.clone()("watching its socket"))?;
            self.zero_copy &= observer.zero_copy().map_err(failed.clone()("asking for its mode"))?;
            self.huge_pages &= socket.huge_pages();
            let shared = Arc::new(QueueShared::default());
            self.queues.push(Queue { observer, shared, frames: socket.frames() });
        }
        let mut sources = Vec::new();
        let nic = self.nic_time.as_ref().map(|time| Arc::clone(time.follower.shared()));
        for (socket, queue) in sockets.into_iter().zip(&self.queues) {
            let (clock, shared) = (Arc::clone(&self.clock), Arc::clone(&queue.shared));
            sources.push(AfXdp::new(socket, self.jumbo, clock, nic.clone(), shared, self.interface()));
        }
        Ok(sources)
    }

    /// Lets the program give the sockets packets; what it saw before was the kernel's, and isn't counted. Still
    /// needs privilege, and is best done when the workers are about to run: until they do, only the rings take
    /// what comes.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn begin(&mut self) -> Result<(), TapError> {
        for (number, queue) in self.queues.iter().enumerate() {
            self.program.give(number as u32, queue.observer.as_fd())?;
        }
        self.follow();
        self.passed = self.program.tallies()?.not_redirected();
        self.before = self.nic.counters().unwrap_or(self.before);
        Ok(())
    }

    fn interface(&self) -> Interface {
        Interface {
            name: self.nic.name.clone(),
            description: self.to_string(),
            link: LinkType::Ethernet,
            link_number: LinkType::Ethernet.number(),
            snap_len: 0,
        }
    }

    pub fn nic(&self) -> &Nic {
        &self.nic
    }

    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.filter.as_ref()
    }

    /// How it spreads packets over its queues.
    pub fn rss(&self) -> &Rss {
        &self.rss
    }

    /// What was asked for and not to be had, in words.
    pub fn compromises(&self) -> &[String] {
        &self.compromises
    }

    /// Reads the card's clock, if packets have its time; to be done about once a second.
    pub fn follow(&mut self) {
        if let Some(time) = &mut self.nic_time {
            // What was known of it holds until it can be read again.
            let _ = time.follower.read();
        }
    }

    /// Gives the interface back to the kernel. What is in the rings stays there for the workers.
    pub fn detach(&mut self) {
        self.link = None;
        for queue in 0..self.queues.len() {
            // Were somebody to run the program by hand, it would find no socket. One that is not there any
            // more is as good.
            let _ = self.program.take(queue as u32);
        }
    }

    /// What of the interface has to stay as it is.
    pub fn needs(&self) -> Needs {
        Needs {
            program: self.program_id,
            queues: u32::try_from(self.queues.len()).ok(),
            mtu: self.nic.room(),
        }
    }

    /// Tells the queues that nothing more will come.
    pub fn stop(&self) {
        self.queues.iter().for_each(|queue| queue.shared.stop.store(true, Ordering::Release));
    }

    /// What has become of its packets so far.
    ///
    /// # Errors
    /// A counter can't be read.
    pub fn report(&self) -> Result<PortReport, TapError> {
        // Before the program's counters: what is counted here must have been seen there.
        let queues = self.queues.iter().map(Queue::report).collect::<io::Result<Vec<_>>>();
        let queues = queues.map_err(|source| TapError::Interface {
            interface: self.nic.name.clone(),
            doing: "reading its sockets' counters",
            source,
        })?;
        let tallies = self.program.tallies()?.since(&self.passed);
        let mut dropped = [0; DropReason::ALL.len()];
        dropped[DropReason::NoSocket as usize] = tallies.of(Outcome::NoSocket).packets;
        for queue in &queues {
            dropped[DropReason::RxRingFull as usize] += queue.socket.rx_ring_full;
            dropped[DropReason::NoFrame as usize] += queue.socket.rx_dropped;
        }
        // An interface that has gone has no counters any more.
        let nic = self.nic.counters().unwrap_or(self.before).since(&self.before);
        Ok(PortReport {
            seen: tallies.seen(),
            seen_bytes: tallies.seen_bytes(),
            filtered: tallies.of(Outcome::Filtered).packets,
            filtered_tagged: tallies.of(Outcome::FilteredTagged).packets,
            related: tallies.of(Outcome::Related).packets,
            dropped,
            queues,
            nic,
            nic_clock_steps: self.nic_time.as_ref().map(|time| time.follower.shared().steps()),
        })
    }
}

/// Of the program that the driver runs: the capture program, or the one in front of it.
fn attached_id(program: &Capture, nic_time: Option<&NicTime>) -> Option<u32> {
    let described = match nic_time {
        Some(time) => bpf::describe(time.program()),
        None => bpf::describe(program.as_fd()),
    };
    described.ok().map(|described| described.id)
}

/// How it captures, in words; also goes into every capture file.
impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copy = if self.zero_copy { "zero-copy" } else { "copy mode" };
        let (mode, driver, queues) = (mode_name(self.mode), &self.driver, self.queues.len());
        let pages = if self.huge_pages { ", huge pages" } else { "" };
        let jumbo = if self.jumbo { ", jumbo frames" } else { "" };
        let plural = if queues == 1 { "" } else { "s" };
        let clock = if self.nic_time.is_some() { "the NIC's clock" } else { "the kernel's clock at XDP" };
        write!(
            f,
            "AF_XDP {copy}, {mode} XDP, driver {driver}, {queues} queue{plural}{pages}{jumbo}, time by {clock}"
        )
    }
}

impl Queue {
    fn report(&self) -> io::Result<QueueReport> {
        let shared = &self.shared;
        let (after_silence, woken_late) = shared.wakings.counted();
        Ok(QueueReport {
            socket: self.observer.statistics()?,
            zero_copy: self.observer.zero_copy()?,
            taken: shared.taken.load(Ordering::Acquire),
            unstamped: shared.unstamped.load(Ordering::Relaxed),
            busy_polls: shared.busy_polls.load(Ordering::Relaxed),
            coalesced: 0,
            after_silence,
            woken_late,
            unstamped_by_nic: shared.unstamped_by_nic.load(Ordering::Relaxed),
            frames: self.frames,
            frames_with_kernel: shared.frames_with_kernel.load(Ordering::Relaxed),
            frames_in_hand: shared.frames_in_hand.load(Ordering::Relaxed),
        })
    }
}
