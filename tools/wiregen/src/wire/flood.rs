//! One packet many times, each copy of another flow, at the speed of the kernel: sent out of an interface, or run
//! through the XDP program on it as if the interface had received them.
//!
//! A thread of its own makes the kernel do it (BPF_PROG_TEST_RUN, live frames) in bursts, and between bursts
//! looks at the clock, the count and the stop. No copy passes through this process.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane_sys::bpf::{self, Arrival, Ready};
use rustix::io::Errno;

use super::{Error, Interface, Summary, pace};
use crate::packet::{self, Ethernet, Ip, TcpHeader};

/// Shortest frame without FCS: 64 bytes on the wire.
pub const LEAST_BYTES: usize = 60;
/// A live frame is one page, less headroom and what the kernel keeps beside it.
pub const MOST_BYTES: usize = 3000;
/// Copies of one call: the kernel takes them in batches of this.
const BATCH: u64 = 64;
const MOST_IN_A_CALL: u64 = 1 << 18;
/// How long a call may take, so that a stop or the time is not missed by more.
const CALL: f64 = 0.005;
/// Copies of a paced call at most: as many as the ring of a veth holds, and what a program takes as they come.
const PACED: u64 = 256;
const PACED_DIRECT: u64 = 4096;
const PRIVILEGE: &str = "CAP_SYS_ADMIN, CAP_BPF and CAP_NET_ADMIN";

/// What to flood, with what.
#[derive(Clone, Debug)]
pub struct Options {
    pub interface: String,
    /// Not out of the interface, but into the program on it.
    pub direct: bool,
    /// The receive queue they pretend to come from, if direct.
    pub queue: u32,
    /// Bytes of a frame, without FCS.
    pub size: usize,
    pub flows: u32,
    /// TCP segments, not UDP datagrams.
    pub tcp: bool,
    /// As many and no more.
    pub packets: Option<u64>,
    pub seconds: Option<f64>,
    pub pps: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            interface: String::new(),
            direct: false,
            queue: 0,
            size: LEAST_BYTES,
            flows: 4096,
            tcp: false,
            packets: None,
            seconds: None,
            pps: None,
        }
    }
}

/// A program to run, and on what.
pub struct Flood {
    options: Options,
    interface: Interface,
    program: Program,
    frame: Vec<u8>,
    from: Arrival,
    ran: u64,
    dropped: u64,
    seconds: f64,
}

enum Program {
    /// Ready for as long as it is run.
    Ours { flood: xdp_prog::Flood, _ready: Ready },
    /// The attached one itself, where there is but one flow.
    Theirs(OwnedFd),
}

impl Program {
    fn ours(flood: xdp_prog::Flood, interface: &Interface) -> Result<Program, Error> {
        let ready = bpf::ready(flood.as_fd()).map_err(|error| interface.refused(&error, PRIVILEGE))?;
        Ok(Program::Ours { flood, _ready: ready })
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Program::Ours { flood, .. } => flood.as_fd(),
            Program::Theirs(program) => program.as_fd(),
        }
    }
}

impl Flood {
    /// Loads what is needed; sends nothing yet.
    ///
    /// # Errors
    /// No such interface, no privilege, nothing that would take the frames, or options that can't be met.
    pub fn open(options: Options) -> Result<Flood, Error> {
        check(&options)?;
        let interface = Interface::find(&options.interface)?;
        let state = bpf::xdp_state(interface.index).map_err(|error| interface.refused(&error, PRIVILEGE))?;
        let (program, from) = if options.direct {
            let id = state.native.or(state.generic).ok_or_else(|| no_program(&interface.name))?;
            let from = Arrival { ifindex: interface.index, queue: options.queue };
            (attached(&interface, id, options.flows)?, from)
        } else {
            if state.sends_redirected == Some(false) {
                return Err(Error::Unavailable(no_redirects(&interface.name)));
            }
            let flood = xdp_prog::Flood::load(interface.index, options.flows);
            let flood = flood.map_err(|error| unloadable(&error))?;
            (Program::ours(flood, &interface)?, Arrival::default())
        };
        let frame = template(options.size, options.tcp);
        Ok(Flood { options, interface, program, frame, from, ran: 0, dropped: 0, seconds: 0.0 })
    }

    /// Floods until there were as many, as long, or `stop` is set.
    ///
    /// # Errors
    /// The kernel refuses to run the program.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        let done = std::thread::scope(|scope| scope.spawn(|| self.bursts(stop)).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What has been sent so far.
    pub fn summary(&self) -> Summary {
        let (sent, errors) = (self.ran - self.dropped, self.dropped);
        let mut notes = Vec::new();
        if errors > 0 {
            let name = &self.interface.name;
            notes.push(format!("no room in the queue of {name} or of who receives: {errors} frames"));
        }
        let bytes = sent * self.frame.len() as u64;
        Summary { sent, errors, bytes, notes, ..Summary::default() }.timed(self.seconds)
    }

    fn bursts(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        let failed = |error: &io::Error| Error::Failed(format!("signals can't be blocked: {error}"));
        bpf::block_signals().map_err(|error| failed(&error))?;
        pace::exact_timers();
        let before = self.interface.drops();
        let started = Instant::now();
        let end = self.options.seconds.map(|seconds| pace::after(started, seconds));
        let mut pacer =
            Bursts { paced: self.options.pps.map(|pps| paced(pps, self.options.direct)), next: BATCH };
        let mut done = Ok(());
        while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
            let left = self.options.packets.map_or(u64::MAX, |packets| packets - self.ran);
            if left == 0 {
                break;
            }
            if let Some(pps) = self.options.pps {
                let due = pace::at_rate(started, self.ran, pps);
                if !pace::wait_until(end.map_or(due, |end| due.min(end)), stop)
                    || end.is_some_and(|end| end <= due)
                {
                    break;
                }
            }
            let times = pacer.size().min(left);
            let begun = Instant::now();
            done = self.burst(times);
            if done.is_err() {
                break;
            }
            self.ran += times;
            pacer.took(times, begun.elapsed());
        }
        self.seconds = started.elapsed().as_secs_f64();
        // What a program takes is not the interface's to drop.
        if !self.options.direct {
            self.dropped = (self.interface.drops() - before).min(self.ran);
        }
        done
    }

    fn burst(&self, times: u64) -> Result<(), Error> {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let ran = bpf::run_live(self.program.as_fd(), &self.frame, self.from, times);
        ran.map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::INTR) => Error::Failed(format!(
                "the process was stopped or traced; how many of the last {times} copies went is not known"
            )),
            Some(Errno::INVAL) => Error::Failed(format!(
                "the kernel refuses these frames ({error}): {} has no queue {}, or {} bytes are too many for it",
                self.interface.name,
                self.from.queue,
                self.frame.len()
            )),
            _ => self.interface.refused(&error, PRIVILEGE),
        })
    }
}

/// How many copies the next call makes.
struct Bursts {
    paced: Option<u64>,
    next: u64,
}

/// A tenth of a millisecond's worth onto a wire; a whole one, after which the sender can sleep, to a program.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn paced(pps: f64, direct: bool) -> u64 {
    let (worth, most) = if direct { (1e-3, PACED_DIRECT) } else { (1e-4, PACED) };
    ((pps * worth) as u64).clamp(1, most)
}

impl Bursts {
    fn size(&self) -> u64 {
        self.paced.unwrap_or(self.next)
    }

    /// Makes the next call as long as one may be.
    #[allow(clippy::cast_precision_loss, reason = "a guess at the next burst")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    fn took(&mut self, times: u64, time: Duration) {
        let wanted = times as f64 * CALL / time.as_secs_f64().max(1e-6);
        // No more than twice as many at once: the first calls say little.
        let most = (times * 2).clamp(BATCH, MOST_IN_A_CALL);
        self.next = (wanted as u64 / BATCH * BATCH).clamp(BATCH, most);
    }
}

fn check(options: &Options) -> Result<(), Error> {
    let usage = |text: String| Err(Error::Usage(text));
    if !(LEAST_BYTES..=MOST_BYTES).contains(&options.size) {
        return usage(format!("frames of {LEAST_BYTES} to {MOST_BYTES} bytes can be sent, without FCS"));
    }
    if options.flows == 0 || options.flows > xdp_prog::Flood::MOST_FLOWS {
        return usage(format!("1 to {} flows there can be", xdp_prog::Flood::MOST_FLOWS));
    }
    let positive = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value > 0.0);
    if !positive(options.seconds) || !positive(options.pps) {
        return usage("a time and a rate are numbers above 0".to_owned());
    }
    Ok(())
}

fn no_program(name: &str) -> Error {
    Error::Unavailable(format!(
        "no XDP program is attached to {name}, so nothing there would take the frames; start what captures from it first"
    ))
}

fn no_redirects(name: &str) -> String {
    format!(
        "{name} sends nothing that an XDP program redirects to it. A veth does only if XDP or GRO is on at its other \
         end: start what captures there first, or ethtool -K PEER gro on"
    )
}

fn unloadable(error: &xdp_prog::LoadError) -> Error {
    if error.is_privilege() {
        return Error::Unavailable(format!("a flood needs privilege: run it as root, or with {PRIVILEGE}"));
    }
    Error::Failed(error.to_string())
}

/// The attached program, behind one of ours that makes the flows if there are several.
fn attached(interface: &Interface, id: u32, flows: u32) -> Result<Program, Error> {
    let program = bpf::program_by_id(id).map_err(|error| interface.refused(&error, PRIVILEGE))?;
    if flows == 1 {
        return Ok(Program::Theirs(program));
    }
    match xdp_prog::Flood::load_into(program.as_fd(), flows) {
        Ok(flood) => Program::ours(flood, interface),
        Err(error) if error.is_privilege() => Err(unloadable(&error)),
        Err(error) => Err(Error::Failed(format!(
            "the program on {} can't be given several flows ({error}); --flows 1 runs it alone",
            interface.name
        ))),
    }
}

/// The first flow's packet; what the program changes in it is set to what that expects.
pub fn template(size: usize, tcp: bool) -> Vec<u8> {
    let (src, sport) = xdp_prog::Flood::SOURCE;
    let (src, dst) = (IpAddr::V4(Ipv4Addr::from(src)), IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)));
    let ip = Ip { src, dst, ttl: 64, id: xdp_prog::Flood::ID, dont_fragment: true };
    let eth = Ethernet { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2], vlan: [0; 2] };
    let balance = xdp_prog::Flood::BALANCE;
    let mut frame = Vec::new();
    if tcp {
        let ack = u32::from(balance) << 16;
        let flags = packet::PSH | packet::ACK;
        let header = TcpHeader { sport, dport: 9000, seq: 1, ack, flags, window: 0xffff, options: &[] };
        packet::tcp(&mut frame, &eth, &ip, &header, &vec![b'x'; size - 54]);
    } else {
        let mut payload = vec![b'x'; size - 42];
        payload[..2].copy_from_slice(&balance.to_be_bytes());
        packet::udp(&mut frame, &eth, &ip, sport, 9000, &payload);
    }
    frame
}

impl Interface {
    /// Frames that it could not send so far, by its own count; 0 if it has none.
    fn drops(&self) -> u64 {
        let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let line =
            table.lines().find_map(|line| line.trim_start().strip_prefix(&self.name)?.strip_prefix(':'));
        // Behind the name: eight numbers of receiving, then bytes, packets, errs and drop of sending.
        line.and_then(|line| line.split_whitespace().nth(11)?.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn a_template_is_a_valid_packet_of_its_size() {
        for (size, tcp) in
            [(60, false), (60, true), (61, true), (1514, false), (1514, true), (MOST_BYTES, true)]
        {
            let frame = template(size, tcp);
            assert_eq!(frame.len(), size);
            let seen = check::read(&frame).unwrap();
            assert_eq!((seen.sport, seen.protocol), (1024, if tcp { 6 } else { 17 }));
            assert_eq!(frame[42..44], [0x80, 0]);
        }
    }

    #[test]
    fn bursts_grow_to_what_a_call_may_take_and_no_further() {
        let mut bursts = Bursts { paced: None, next: BATCH };
        for _ in 0..40 {
            let times = bursts.size();
            bursts.took(times, Duration::from_secs_f64(times as f64 / 1e6));
        }
        assert_eq!(bursts.size(), 4992, "5 ms at 1 Mpps, in whole batches");
        bursts.took(20_000, Duration::from_secs(10));
        assert_eq!(bursts.size(), BATCH);
        for (pps, wire, direct) in [(10.0, 1, 1), (500_000.0, 50, 500), (5e6, PACED, PACED_DIRECT)] {
            assert_eq!((paced(pps, false), paced(pps, true)), (wire, direct));
            assert_eq!(Bursts { paced: Some(7), next: 9 }.size(), 7);
        }
    }

    #[test]
    fn options_that_cannot_be_met_are_refused() {
        let good = Options { interface: "lo".to_owned(), ..Options::default() };
        assert!(super::check(&good).is_ok());
        let bad = [
            Options { size: 59, ..good.clone() },
            Options { size: 9000, ..good.clone() },
            Options { flows: 0, ..good.clone() },
            Options { flows: (1 << 24) + 1, ..good.clone() },
            Options { pps: Some(0.0), ..good.clone() },
            Options { seconds: Some(f64::NAN), ..good.clone() },
        ];
        for options in bad {
            assert!(matches!(super::check(&options), Err(Error::Usage(_))), "{options:?}");
        }
    }
}
