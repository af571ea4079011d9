//! What is being recorded, as it comes: the growing segments of all workers, put in order as far as two seconds allow, as
//! one pcapng.
//!
//! Runs on a reader's own thread, in the recording process or another, and reads the store as anybody could: whoever
//! records knows nothing of it. Memory is a decoder for each worker and the packets held back. A lead-up is older than what
//! was shown before it. The bytes go to the caller's output.

mod tail;

use std::cmp::{Ordering as Compared, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::source::{Interface, Nanos};

use super::export::ExportError;
use super::pcapng::{self, PacketBlock};
use super::read::Recorded;
use super::store::{SegmentFile, Store};
use tail::{Tail, reading};

/// How long to sleep when nothing has come.
const NAP: Duration = Duration::from_millis(100);

/// How long a packet is held back for older ones of other workers, in packet time, and by the clock when nothing
/// follows.
const HELD: Nanos = 2_000_000_000;

/// Bytes held back at most.
const HELD_BYTES: usize = 8 << 20;

/// What is shown.
pub struct Following {
    /// Described at once, before there is a packet of them; others when their first comes.
    pub interfaces: Vec<Interface>,
    /// Which packets.
    pub wants: Box<dyn Fn(&Recorded<'_>) -> bool + Send>,
    /// Segments that were written to after this are shown from their beginning; without it, only what comes from now on.
    pub since: Option<SystemTime>,
}

impl Following {
    /// Every packet that comes.
    pub fn all() -> Following {
        Following { interfaces: Vec::new(), wants: Box::new(|_| true), since: None }
    }
}

/// By which another thread says how it goes on.
#[derive(Debug, Default)]
pub struct Reins {
    hold: AtomicBool,
    stop: AtomicBool,
}

impl Reins {
    /// Whether packets are held back, as far as there is room, because much older ones are on their way.
    pub fn hold(&self, hold: bool) {
        self.hold.store(hold, Ordering::Relaxed);
    }

    /// Has it end with what is recorded by now.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    pub packets: u64,
    /// Retention deleted what was not read yet: the output was too slow.
    pub overtaken: bool,
}

/// Writes what is recorded to `out`, until told to stop, or overtaken by retention. A store whose recorder ended is waited
/// for: the next run goes on.
///
/// # Errors
/// The store can't be read, or the output not written; that is also found out while nothing comes, by flushing it.
pub fn live(
    store: &Store,
    following: Following,
    reins: &Reins,
    out: &mut dyn Write,
) -> Result<Followed, ExportError> {
    let mut live = Live::begin(store, following, out)?;
    while !reins.stop.load(Ordering::Relaxed) && !live.overtaken {
        live.holding = reins.hold.load(Ordering::Relaxed);
        if !live.look(out)? {
            thread::sleep(NAP);
        }
    }
    let last: Vec<SegmentFile> =
        by_worker(store.segment_files()?).into_values().filter_map(|mut all| all.pop()).collect();
    while !live.overtaken && live.look(out)? && live.is_behind(&last) {}
    if !live.overtaken {
        live.look(out)?;
    }
    live.end(out)
}

/// A packet held back, as a finished block.
struct Held {
    order: (Nanos, u64),
    interface: u32,
    block: Vec<u8>,
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.order == other.order
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Compared> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> Compared {
        self.order.cmp(&other.order)
    }
}

/// All workers' segments, and what is held back of them.
struct Live {
    store: Store,
    wants: Box<dyn Fn(&Recorded<'_>) -> bool + Send>,
    tails: BTreeMap<u16, Tail>,
    interfaces: Vec<Interface>,
    /// Interfaces that are described in the output.
    described: usize,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    /// Nothing is written that there is room to hold back.
    holding: bool,
    newest: Nanos,
    last_came: Instant,
    /// What was written last: a packet that was kept twice comes once.
    last: Option<(Nanos, u64)>,
    packets: u64,
    overtaken: bool,
}

impl Live {
    /// Writes the section's header and the interfaces known; what is not wanted of the segments is passed over.
    fn begin(store: &Store, following: Following, out: &mut dyn Write) -> Result<Live, ExportError> {
        let Following { interfaces, wants, since } = following;
        // What is recorded once the header is out is shown.
        let mut tails = BTreeMap::new();
        for (worker, segments) in by_worker(store.segment_files()?) {
            let fresh = segments.iter().find(|segment| written_after(segment, since));
            let Some(segment) = fresh.or(segments.last()) else { continue };
            let Some(mut tail) = Tail::open(segment)? else { continue };
            if fresh.is_none() {
                tail.pass_over().map_err(reading(&segment.path))?;
            }
            tails.insert(worker, tail);
        }
        let mut header = Vec::new();
        pcapng::put_section(&mut header, "kept by Referee: live");
        interfaces.iter().for_each(|interface| pcapng::put_interface(&mut header, interface));
        out.write_all(&header).and_then(|()| out.flush()).map_err(ExportError::Output)?;
        Ok(Live {
            store: store.clone(),
            wants,
            tails,
            described: interfaces.len(),
            interfaces,
            held: BinaryHeap::new(),
            held_bytes: 0,
            holding: false,
            newest: 0,
            last_came: Instant::now(),
            last: None,
            packets: 0,
            overtaken: false,
        })
    }

    /// Takes what has come, writes what need not wait any more. Says whether anything came.
    fn look(&mut self, out: &mut dyn Write) -> Result<bool, ExportError> {
        let mut came = false;
        for (worker, segments) in by_worker(self.store.segment_files()?) {
            let next = match self.tails.get(&worker) {
                None => segments.first(),
                Some(tail) => {
                    let next = segments.iter().find(|segment| segment.sequence > tail.sequence);
                    // The oldest go first: of those between, what is read now would be left, too.
                    self.overtaken |= next.is_some_and(|next| next.sequence > tail.sequence + 1)
                        && segments.iter().all(|segment| segment.sequence > tail.sequence);
                    next
                }
            };
            let mut tail = self.tails.remove(&worker);
            if let Some(tail) = &mut tail {
                came |= self.drain(tail, out)?;
            }
            // All that will ever be in it has been read: there is a next one.
            if let Some(next) = next {
                tail = Tail::open(next)?.or(tail);
                came = true;
            }
            self.tails.extend(tail.map(|tail| (worker, tail)));
        }
        if came {
            self.last_came = Instant::now();
        }
        let idle = self.last_came.elapsed() >= Duration::from_nanos(HELD);
        if !self.holding {
            self.release(out, if idle { Nanos::MAX } else { self.newest.saturating_sub(HELD) })?;
        }
        out.flush().map_err(ExportError::Output)?;
        Ok(came)
    }

    /// Has yet to come to one of these.
    fn is_behind(&self, last: &[SegmentFile]) -> bool {
        let before = |segment: &SegmentFile| {
            self.tails.get(&segment.worker).is_none_or(|tail| tail.sequence < segment.sequence)
        };
        last.iter().any(before)
    }

    fn end(mut self, out: &mut dyn Write) -> Result<Followed, ExportError> {
        self.release(out, Nanos::MAX)?;
        out.flush().map_err(ExportError::Output)?;
        Ok(Followed { packets: self.packets, overtaken: self.overtaken })
    }

    /// Takes all that is in a segment by now.
    fn drain(&mut self, tail: &mut Tail, out: &mut dyn Write) -> Result<bool, ExportError> {
        let mut came = false;
        loop {
            let folder = self.store.segments();
            let more = tail.advance(&mut |tail, block| self.take(tail, block)).map_err(reading(&folder))?;
            if self.held_bytes > HELD_BYTES && !self.holding {
                self.release(out, self.newest.saturating_sub(HELD))?;
            }
            while self.held_bytes > HELD_BYTES {
                self.write_oldest(out)?;
            }
            if !more {
                return Ok(came);
            }
            came = true;
        }
    }

    fn take(&mut self, tail: &Tail, body: &[u8]) {
        let Some(packet) = tail.packet(body) else { return };
        self.newest = self.newest.max(packet.ts);
        if !(self.wants)(&packet) {
            return;
        }
        let known = self.interfaces.iter().position(|known| known == packet.interface);
        let number = known.unwrap_or_else(|| {
            self.interfaces.push(packet.interface.clone());
            self.interfaces.len() - 1
        });
        let interface = u32::try_from(number).unwrap_or(u32::MAX);
        let mut block = Vec::new();
        pcapng::put_packet(&mut block, &PacketBlock { interface, ..packet.block() });
        self.held_bytes += block.len();
        self.held.push(Reverse(Held { order: (packet.ts, packet.packet_id), interface, block }));
    }

    /// Writes what is not newer than `until`.
    fn release(&mut self, out: &mut dyn Write, until: Nanos) -> Result<(), ExportError> {
        while self.held.peek().is_some_and(|Reverse(held)| held.order.0 <= until) {
            self.write_oldest(out)?;
        }
        Ok(())
    }

    fn write_oldest(&mut self, out: &mut dyn Write) -> Result<(), ExportError> {
        let Some(Reverse(held)) = self.held.pop() else { return Ok(()) };
        self.held_bytes -= held.block.len();
        if self.last.replace(held.order) == Some(held.order) {
            return Ok(());
        }
        let mut descriptions = Vec::new();
        let wanted = (held.interface as usize + 1).max(self.described);
        for interface in self.interfaces.get(self.described..wanted).unwrap_or_default() {
            pcapng::put_interface(&mut descriptions, interface);
        }
        self.described = wanted;
        self.packets += 1;
        out.write_all(&descriptions).and_then(|()| out.write_all(&held.block)).map_err(ExportError::Output)
    }
}

fn by_worker(segments: Vec<SegmentFile>) -> BTreeMap<u16, Vec<SegmentFile>> {
    let mut workers: BTreeMap<u16, Vec<SegmentFile>> = BTreeMap::new();
    for segment in segments {
        workers.entry(segment.worker).or_default().push(segment);
    }
    workers
}

/// One that can't be looked at may have been.
fn written_after(segment: &SegmentFile, since: Option<SystemTime>) -> bool {
    let written = || segment.path.metadata().and_then(|meta| meta.modified());
    since.is_some_and(|since| written().map_or(true, |written| written >= since))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::read::SegmentReader;
    use super::super::testing::*;
    use super::super::{RealDisk, RecordConfig, Recorder, StoredPacket, Writer, recorder};
    use super::tail::u32_at;
    use super::*;

    struct Recording {
        _folder: tempfile::TempDir,
        store: Store,
        recorders: Vec<Recorder>,
        writer: Writer,
    }

    impl Recording {
        fn new(workers: u16) -> Recording {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::create(&folder.path().join("store")).unwrap();
            let (recorders, writer) = Recording::begin(&store, workers);
            Recording { _folder: folder, store, recorders, writer }
        }

        fn begin(store: &Store, workers: u16) -> (Vec<Recorder>, Writer) {
            let config = RecordConfig { segment_bytes: 20_000, ..small() };
            let (mut recorders, ports): (Vec<_>, Vec<_>) = (0..workers).map(|w| recorder(&config, w)).unzip();
            recorders.iter_mut().for_each(|recorder| recorder.announce(&interface("eth0")));
            let disk = Box::new(RealDisk::new(&store.segments()));
            (recorders, Writer::new(disk, config, ports).unwrap())
        }

        fn record(&mut self, numbers: std::ops::Range<u64>) {
            for number in numbers {
                let recorder = number as usize % self.recorders.len();
                let bytes = unlike(number, 700);
                self.recorders[recorder].write(&packet(number, 7, &bytes)).unwrap();
                while self.writer.pump() {}
            }
        }

        fn flush(&mut self) {
            self.recorders.iter_mut().for_each(Recorder::flush);
            while self.writer.pump() {}
        }
    }

    fn begin(store: &Store, out: &mut Vec<u8>) -> Result<Live, ExportError> {
        Live::begin(store, Following::all(), out)
    }

    fn shown(out: &[u8]) -> Vec<u64> {
        let mut reader = SegmentReader::new(io::Cursor::new(out.to_vec())).unwrap();
        let mut numbers = Vec::new();
        while let Some(packet) = reader.next_packet() {
            numbers.push(packet.packet_id << 8 >> 8);
        }
        assert_eq!(reader.ending(), Some(&super::super::Ending::Complete));
        numbers
    }

    #[test]
    fn what_comes_after_the_beginning_is_shown_in_order_over_many_segments() {
        let mut recording = Recording::new(3);
        recording.record(0..100);
        recording.flush();
        let mut out = Vec::new();
        let mut live = begin(&recording.store, &mut out).unwrap();
        for step in 1..9u64 {
            recording.record(step * 100..step * 100 + 100);
            recording.flush();
            while live.look(&mut out).unwrap() {}
        }
        assert!(recording.store.segment_files().unwrap().len() > 9);
        assert_eq!(live.end(&mut out).unwrap(), Followed { packets: 800, overtaken: false });
        assert_eq!(shown(&out), (100..900).collect::<Vec<_>>());
    }

    #[test]
    fn it_begins_before_there_is_a_segment_and_outlives_a_run() {
        let mut recording = Recording::new(2);
        let mut out = Vec::new();
        let mut live = begin(&recording.store, &mut out).unwrap();
        recording.record(0..50);
        recording.flush();
        while live.look(&mut out).unwrap() {}
        recording.writer.close();
        (recording.recorders, recording.writer) = Recording::begin(&recording.store, 2);
        recording.record(50..90);
        recording.flush();
        while live.look(&mut out).unwrap() {}
        live.end(&mut out).unwrap();
        assert_eq!(shown(&out), (0..90).collect::<Vec<_>>());
    }

    #[test]
    fn a_segment_left_without_an_end_is_gone_on_from() {
        let mut recording = Recording::new(1);
        let mut out = Vec::new();
        let mut live = begin(&recording.store, &mut out).unwrap();
        recording.record(0..10);
        recording.flush();
        while live.look(&mut out).unwrap() {}
        // As after a crash: no end, and the next run begins a segment of its own.
        std::mem::forget(std::mem::replace(&mut recording.writer, Recording::begin(&recording.store, 1).1));
        let (recorders, writer) = Recording::begin(&recording.store, 1);
        (recording.recorders, recording.writer) = (recorders, writer);
        recording.record(10..20);
        recording.flush();
        while live.look(&mut out).unwrap() {}
        live.end(&mut out).unwrap();
        assert_eq!(shown(&out), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_late_lead_up_is_shown_though_it_is_old() {
        let mut recording = Recording::new(1);
        let mut out = Vec::new();
        let mut live = begin(&recording.store, &mut out).unwrap();
        let bytes = unlike(1, 100);
        for (number, at) in [(1, 0), (2, 10), (3, 5), (4, 20), (5, 9)] {
            let ts = T0 + at * SECOND;
            recording.recorders[0].write(&StoredPacket { ts, ..packet(number, 7, &bytes) }).unwrap();
            recording.flush();
            while live.look(&mut out).unwrap() {}
        }
        live.end(&mut out).unwrap();
        let numbers = shown(&out);
        assert_eq!(numbers, [1, 3, 2, 5, 4]);
    }

    #[test]
    fn a_thread_follows_while_another_records() {
        let mut recording = Recording::new(2);
        let store = recording.store.clone();
        let (reins, out) = (Reins::default(), std::sync::Mutex::new(Vec::new()));
        struct Shared<'a>(&'a std::sync::Mutex<Vec<u8>>);
        impl Write for Shared<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let packets = thread::scope(|scope| {
            let follower = scope.spawn(|| live(&store, Following::all(), &reins, &mut Shared(&out)).unwrap());
            while out.lock().unwrap().is_empty() {
                thread::yield_now();
            }
            // What is there when it begins is passed over; how much that is, is the threads' affair.
            let mut number = 0;
            while shown(&out.lock().unwrap()).len() < 300 {
                recording.record(number..number + 20);
                recording.flush();
                number += 20;
                thread::yield_now();
            }
            reins.stop();
            follower.join().unwrap().packets
        });
        let numbers = shown(&out.into_inner().unwrap());
        assert_eq!(numbers.len() as u64, packets);
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_beginning_names_the_interfaces_though_nothing_comes() {
        let recording = Recording::new(1);
        let mut out = Vec::new();
        let following =
            Following { interfaces: vec![interface("eth0"), interface("eth1")], ..Following::all() };
        let live = Live::begin(&recording.store, following, &mut out).unwrap();
        let kinds = |out: &[u8]| {
            let (mut at, mut kinds) = (0, Vec::new());
            while let (Some(kind), Some(len)) = (u32_at(out, at), u32_at(out, at + 4)) {
                kinds.push(kind);
                at += len as usize;
            }
            kinds
        };
        assert_eq!(kinds(&out), [pcapng::SECTION, pcapng::INTERFACE, pcapng::INTERFACE]);
        assert_eq!(live.end(&mut out).unwrap(), Followed::default());
        assert_eq!(kinds(&out).len(), 3);
    }

    #[test]
    fn only_what_is_wanted_also_of_segments_written_since() {
        let mut recording = Recording::new(1);
        let bytes = unlike(1, 100);
        let mut keep = |number, flow| {
            recording.recorders[0].write(&packet(number, flow, &bytes)).unwrap();
            recording.flush();
        };
        (0..10).for_each(|number| keep(number, number % 2));
        let of_one = |since| Following {
            wants: Box::new(|packet| packet.flow_id == 1),
            since: Some(since),
            ..Following::all()
        };
        let (mut out, mut later) = (Vec::new(), Vec::new());
        let mut live = Live::begin(&recording.store, of_one(SystemTime::UNIX_EPOCH), &mut out).unwrap();
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        let mut last = Live::begin(&recording.store, of_one(ahead), &mut later).unwrap();
        (10..14).for_each(|number| {
            recording.recorders[0].write(&packet(number, number % 2, &bytes)).unwrap();
            recording.flush();
        });
        while live.look(&mut out).unwrap() {}
        while last.look(&mut later).unwrap() {}
        live.end(&mut out).unwrap();
        last.end(&mut later).unwrap();
        assert_eq!(shown(&out), [1, 3, 5, 7, 9, 11, 13]);
        assert_eq!(shown(&later), [11, 13]);
    }

    #[test]
    fn while_it_holds_back_old_packets_come_before_new_ones_and_each_once() {
        let mut recording = Recording::new(1);
        let mut out = Vec::new();
        let mut live = begin(&recording.store, &mut out).unwrap();
        live.holding = true;
        let bytes = unlike(1, 100);
        for (number, at) in [(9, 90), (1, 10), (2, 20), (9, 90), (3, 30)] {
            let ts = T0 + at * SECOND;
            recording.recorders[0].write(&StoredPacket { ts, ..packet(number, 7, &bytes) }).unwrap();
            recording.flush();
            while live.look(&mut out).unwrap() {}
        }
        assert_eq!(shown(&out), [0; 0]);
        live.end(&mut out).unwrap();
        assert_eq!(shown(&out), [1, 2, 3, 9]);
    }

    #[test]
    fn retention_that_is_faster_ends_it() {
        let mut recording = Recording::new(1);
        let mut out = Vec::new();
        recording.record(0..10);
        recording.flush();
        let mut live = begin(&recording.store, &mut out).unwrap();
        recording.record(10..300);
        recording.flush();
        let segments = recording.store.segment_files().unwrap();
        assert!(segments.len() > 3);
        std::fs::remove_file(&segments[0].path).unwrap();
        live.look(&mut out).unwrap();
        assert!(!live.overtaken, "the next one is there");
        segments[1..3].iter().for_each(|segment| std::fs::remove_file(&segment.path).unwrap());
        live.look(&mut out).unwrap();
        live.look(&mut out).unwrap();
        assert!(live.end(&mut out).unwrap().overtaken);
        shown(&out);
    }

    #[test]
    fn told_to_stop_it_first_comes_to_the_end() {
        let mut recording = Recording::new(2);
        recording.record(0..300);
        recording.flush();
        assert!(recording.store.segment_files().unwrap().len() > 6);
        let (reins, mut out) = (Reins::default(), Vec::new());
        reins.hold(true);
        reins.stop();
        let following = Following { since: Some(SystemTime::UNIX_EPOCH), ..Following::all() };
        let followed = live(&recording.store, following, &reins, &mut out).unwrap();
        assert_eq!(followed, Followed { packets: 300, overtaken: false });
        assert_eq!(shown(&out), (0..300).collect::<Vec<_>>());
    }
}
