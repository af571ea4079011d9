//! Plays capture files onto an interface, with their own timing, another speed, or at a rate.
//!
//! One thread: reads with the source that replay reads with, waits, and writes each frame to a packet socket.
//! Frames go as they are in the file; what the interface won't take is counted, and sending goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::source::file::FileSource;
use dataplane::source::merge::Merge;
use dataplane::source::open::open_all;
use dataplane::source::{Batch, Descriptor, LinkType, Nanos, Poll, Source};
use rustix::io::Errno;

use super::{Error, Interface, Summary, pace};

/// How long a frame is offered to an interface whose queue is full.
const PATIENCE: Duration = Duration::from_millis(20);
/// As many frames in a row find no room before the interface counts as dead: a second's worth.
const DEAD_AFTER: u32 = 50;

/// When frames go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When they did in the file, so many times as fast.
    File { speed: f64 },
    /// Evenly, so many a second.
    Rate { pps: f64 },
    /// One after the other.
    Full,
}

/// What to send where.
#[derive(Clone, Debug)]
pub struct Options {
    pub interface: String,
    pub files: Vec<PathBuf>,
    pub pace: Pace,
    /// How often all of it; each time begins when the one before has ended.
    pub loops: u64,
}

/// How far it is: bytes read of the files, their size if it is known, frames dealt with.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>, u64);

/// Opened files and an interface to play them onto.
pub struct Replay {
    options: Options,
    interface: Interface,
    socket: File,
    /// Opened ahead, so that a file that is none is found before anything is sent.
    first: Option<Merge<FileSource>>,
    clock: Clock,
    counted: Counted,
    seconds: f64,
}

#[derive(Debug, Default)]
struct Counted {
    sent: u64,
    bytes: u64,
    too_long: u64,
    /// The longest of those.
    longest: usize,
    no_room: u64,
    refused: u64,
    last_refusal: Option<io::Error>,
    /// Were cut when captured, and sent as short as they are.
    cut: u64,
    no_room_in_a_row: u32,
    notes: Vec<String>,
}

/// Says when a packet is due.
#[derive(Debug)]
struct Clock {
    pace: Pace,
    started: Instant,
    /// When the first packet of this loop is due, and its time in the file.
    origin: Instant,
    first: Option<Nanos>,
    count: u64,
    /// When the latest packet was due, and by how much any was late.
    last: Instant,
    latest: Duration,
}

impl Clock {
    fn start(pace: Pace) -> Clock {
        let now = Instant::now();
        let (started, origin, last) = (now, now, now);
        Clock { pace, started, origin, first: None, count: 0, last, latest: Duration::ZERO }
    }

    /// The next packet is the first of a loop.
    fn again(&mut self) {
        self.first = None;
        self.origin = self.last.max(Instant::now());
    }

    #[allow(clippy::cast_precision_loss, reason = "exact to less than a ns for days")]
    fn due(&mut self, ts: Nanos) -> Option<Instant> {
        let due = match self.pace {
            Pace::File { speed } => {
                let first = *self.first.get_or_insert(ts);
                pace::after(self.origin, ts.saturating_sub(first) as f64 / 1e9 / speed)
            }
            Pace::Rate { pps } => pace::at_rate(self.started, self.count, pps),
            Pace::Full => return None,
        };
        self.count += 1;
        self.last = self.last.max(due);
        Some(due)
    }
}

impl Replay {
    /// Opens the files and the interface; sends nothing yet.
    ///
    /// # Errors
    /// Whatever can be found out before the first frame is sent.
    pub fn open(options: Options) -> Result<Replay, Error> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        match options.pace {
            Pace::File { speed } if !positive(speed) => {
                return Err(Error::Usage("a speed is a number above 0".to_owned()));
            }
            Pace::Rate { pps } if !positive(pps) => {
                return Err(Error::Usage("a rate is a number above 0".to_owned()));
            }
            _ => {}
        }
        if options.loops > 1 && options.files.iter().any(|file| file == Path::new("-")) {
            return Err(Error::Usage(
                "standard input can be sent only once; give a file to --loops".to_owned(),
            ));
        }
        let interface = Interface::find(&options.interface)?;
        let socket = dataplane_sys::packet::sender(interface.index)
            .map_err(|error| interface.refused(&error, "CAP_NET_RAW"))?;
        let first = Some(open(&options.files)?);
        let clock = Clock::start(options.pace);
        let counted = Counted::default();
        Ok(Replay { options, interface, socket: socket.into(), first, clock, counted, seconds: 0.0 })
    }

    /// Sends until all is sent or `stop` is set.
    ///
    /// # Errors
    /// The interface went away or takes nothing any more; an input can't be sent at all.
    pub fn run(&mut self, stop: &AtomicBool, progress: Progress<'_>) -> Result<(), Error> {
        pace::exact_timers();
        self.clock = Clock::start(self.options.pace);
        let mut done = Ok(());
        for round in 0..self.options.loops {
            let source = match self.first.take() {
                Some(source) => Ok(source),
                None => open(&self.options.files),
            };
            done = source.and_then(|source| self.play(source, round, stop, progress));
            if done.is_err() || stop.load(Ordering::Relaxed) {
                break;
            }
            self.clock.again();
        }
        self.seconds = self.clock.started.elapsed().as_secs_f64();
        done
    }

    /// What has been sent so far.
    pub fn summary(&self) -> Summary {
        let c = &self.counted;
        let mut notes = c.notes.clone();
        let name = &self.interface.name;
        let mut note = |count: u64, text: String| {
            if count > 0 {
                notes.push(text);
            }
        };
        let (long, longest) = (c.too_long, c.longest);
        let mtu = longest.saturating_sub(14);
        note(
            long,
            format!(
                "too long for {name}: {long} frames of up to {longest} bytes; ip link set {name} mtu {mtu}"
            ),
        );
        note(c.no_room, format!("no room in the queue of {name}: {} frames", c.no_room));
        let refusal = c.last_refusal.as_ref().map(ToString::to_string).unwrap_or_default();
        note(c.refused, format!("refused by {name}: {} frames; {refusal}", c.refused));
        note(c.cut, format!("cut when captured, and sent as short as they are: {} frames", c.cut));
        let late = self.clock.latest;
        note(
            u64::from(late > Duration::from_millis(1)),
            format!("the latest frame was sent {late:.1?} after its time"),
        );
        let errors = c.too_long + c.no_room + c.refused;
        let summary = Summary {
            sent: c.sent,
            errors,
            bytes: c.bytes,
            too_long: Some(long),
            notes,
            ..Summary::default()
        };
        summary.timed(self.seconds)
    }

    fn play(
        &mut self,
        mut source: Merge<FileSource>,
        round: u64,
        stop: &AtomicBool,
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        let mut done = Ok(());
        while done.is_ok() && !stop.load(Ordering::Relaxed) {
            match source.poll(&mut batch) {
                Poll::Packets => {}
                Poll::Idle(_) => continue,
                Poll::End => break,
            }
            for packet in &batch.packets {
                done = self.packet(&source, packet, stop);
                let (read, size) = source.progress();
                progress(read, size, self.clock.count);
                if done.is_err() || stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            source.release(&mut batch);
        }
        if round == 0 {
            let damaged = source.reports().into_iter().filter(|report| report.damage.is_some());
            self.counted.notes.extend(damaged.map(|report| report.to_string()));
        }
        done
    }

    fn packet(
        &mut self,
        source: &Merge<FileSource>,
        packet: &Descriptor,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        if packet.link != LinkType::Ethernet {
            let interface = &source.interfaces()[usize::from(packet.interface)];
            return Err(Error::Failed(format!(
                "{}: its packets have no Ethernet header (link type {}), so no interface can send them",
                interface.name, interface.link_number
            )));
        }
        if let Some(due) = self.clock.due(packet.ts) {
            if !pace::wait_until(due, stop) {
                return Ok(());
            }
            self.clock.latest = self.clock.latest.max(due.elapsed());
        }
        self.counted.cut += u64::from(packet.cap_len < packet.orig_len);
        self.frame(source.bytes(packet))
    }

    /// Sends one frame, or counts why not.
    fn frame(&mut self, frame: &[u8]) -> Result<(), Error> {
        let mut since = None;
        let counted = &mut self.counted;
        loop {
            let Err(error) = self.socket.write(frame) else {
                counted.sent += 1;
                counted.bytes += frame.len() as u64;
                counted.no_room_in_a_row = 0;
                return Ok(());
            };
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::INTR) => {}
                Some(Errno::NOBUFS | Errno::AGAIN) => {
                    let since = *since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE {
                        counted.no_room += 1;
                        counted.no_room_in_a_row += 1;
                        break;
                    }
                    std::thread::yield_now();
                }
                Some(Errno::MSGSIZE) => {
                    counted.too_long += 1;
                    counted.longest = counted.longest.max(frame.len());
                    return Ok(());
                }
                Some(Errno::NETDOWN | Errno::NODEV | Errno::NXIO) => {
                    return Err(self.interface.refused(&error, "CAP_NET_RAW"));
                }
                _ => {
                    counted.refused += 1;
                    counted.last_refusal = Some(error);
                    return Ok(());
                }
            }
        }
        if counted.no_room_in_a_row < DEAD_AFTER {
            return Ok(());
        }
        let name = &self.interface.name;
        Err(Error::Unavailable(format!(
            "{name} has taken no frame for a second; is its other end up? ip link show {name}"
        )))
    }
}

fn open(files: &[PathBuf]) -> Result<Merge<FileSource>, Error> {
    open_all(files).map_err(|error| Error::Failed(error.to_string()))
}
