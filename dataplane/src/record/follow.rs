//! What is being recorded, as it comes: the growing segments of all workers, put in order as far as two seconds allow, as
//! one pcapng.
//!
//! Runs on a reader's own thread, in the recording process or another, and reads the store as anybody could. Memory is a
//! decoder for each worker and the packets held back. A lead-up is older than what was shown before it. The bytes go
//! to the caller's output.

use std::cmp::{Ordering as Compared, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::source::{Interface, Nanos};

use super::export::ExportError;
use super::pcapng::{self, PacketBlock};
use super::read::{BLOCK_LIMIT, WINDOW_LOG_LIMIT, parse_interface, parse_packet};
use super::store::{SegmentFile, Store, StoreError};

/// How long to sleep when nothing has come.
const NAP: Duration = Duration::from_millis(100);

/// How long a packet is held back for older ones of other workers, in packet time, and by the clock when nothing
/// follows.
const HELD: Nanos = 2_000_000_000;

/// Bytes held back at most.
const HELD_BYTES: usize = 8 << 20;

/// Bytes read, and bytes unpacked, at a time.
const PIECE: usize = 128 << 10;

/// Writes what is recorded from now on to `out`, until `stop` is set. Returns how many packets that were. A store whose
/// recorder ended is waited for: the next run goes on.
pub fn live(store: &Store, stop: &AtomicBool, out: &mut dyn Write) -> Result<u64, ExportError> {
    let mut live = Live::begin(store, out)?;
    while !stop.load(Ordering::Relaxed) {
        if !live.look(out)? {
            thread::sleep(NAP);
        }
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
    tails: BTreeMap<u16, Tail>,
    interfaces: Vec<Interface>,
    /// Interfaces that are described in the output.
    described: usize,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    newest: Nanos,
    last_came: Instant,
    packets: u64,
}

impl Live {
    /// Writes the section's header; what is in the segments by now is passed over.
    fn begin(store: &Store, out: &mut dyn Write) -> Result<Live, ExportError> {
        let mut live = Live {
            store: store.clone(),
            tails: BTreeMap::new(),
            interfaces: Vec::new(),
            described: 0,
            held: BinaryHeap::new(),
            held_bytes: 0,
            newest: 0,
            last_came: Instant::now(),
            packets: 0,
        };
        let mut header = Vec::new();
        pcapng::put_section(&mut header, "kept by Referee: live");
        out.write_all(&header).and_then(|()| out.flush()).map_err(ExportError::Output)?;
        for segment in last_ones(store.segment_files()?) {
            if let Some(mut tail) = Tail::open(&segment)? {
                while tail.advance(&mut |_: &Tail, _: &[u8]| {}).map_err(reading(&segment.path))? {}
                live.tails.insert(segment.worker, tail);
            }
        }
        Ok(live)
    }

    /// Takes what has come, writes what need not wait any more. Says whether anything came.
    fn look(&mut self, out: &mut dyn Write) -> Result<bool, ExportError> {
        let mut came = false;
        for (worker, segments) in by_worker(self.store.segment_files()?) {
            let next = match self.tails.get(&worker) {
                None => segments.first(),
                Some(tail) => segments.iter().find(|segment| segment.sequence > tail.sequence),
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
        self.release(out, if idle { Nanos::MAX } else { self.newest.saturating_sub(HELD) })?;
        out.flush().map_err(ExportError::Output)?;
        Ok(came)
    }

    fn end(mut self, out: &mut dyn Write) -> Result<u64, ExportError> {
        self.release(out, Nanos::MAX)?;
        out.flush().map_err(ExportError::Output)?;
        Ok(self.packets)
    }

    /// Takes all that is in a segment by now.
    fn drain(&mut self, tail: &mut Tail, out: &mut dyn Write) -> Result<bool, ExportError> {
        let mut came = false;
        loop {
            let more =
                tail.advance(&mut |tail, block| self.take(tail, block)).map_err(ExportError::Output)?;
            if self.held_bytes > HELD_BYTES {
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
        let Some((index, packet)) = tail.packet(body) else { return };
        let Some(interface) = tail.interfaces.get(index) else { return };
        let known = self.interfaces.iter().position(|known| known == interface);
        let number = known.unwrap_or_else(|| {
            self.interfaces.push(interface.clone());
            self.interfaces.len() - 1
        });
        let interface = u32::try_from(number).unwrap_or(u32::MAX);
        let mut block = Vec::new();
        pcapng::put_packet(&mut block, &PacketBlock { interface, ..packet.block() });
        self.newest = self.newest.max(packet.ts);
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

fn reading(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_path_buf();
    |source| StoreError::Read { path, source }.into()
}

fn by_worker(segments: Vec<SegmentFile>) -> BTreeMap<u16, Vec<SegmentFile>> {
    let mut workers: BTreeMap<u16, Vec<SegmentFile>> = BTreeMap::new();
    for segment in segments {
        workers.entry(segment.worker).or_default().push(segment);
    }
    workers
}

fn last_ones(segments: Vec<SegmentFile>) -> impl Iterator<Item = SegmentFile> {
    by_worker(segments).into_values().filter_map(|mut of_worker| of_worker.pop())
}

/// One segment being read while it grows.
struct Tail {
    sequence: u64,
    file: File,
    decoder: Decoder<'static>,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    /// Blocks not yet whole.
    pending: Vec<u8>,
    interfaces: Vec<Interface>,
    /// With its frame's end, or with something that is not ours: nothing more is taken from it.
    over: bool,
}

impl Tail {
    /// `None` if retention was faster.
    fn open(segment: &SegmentFile) -> Result<Option<Tail>, ExportError> {
        let file = match File::open(&segment.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(reading(&segment.path))?,
        };
        let mut decoder = Decoder::new().map_err(reading(&segment.path))?;
        let limit = DParameter::WindowLogMax(WINDOW_LOG_LIMIT);
        decoder.set_parameter(limit).map_err(reading(&segment.path))?;
        Ok(Some(Tail {
            sequence: segment.sequence,
            file,
            decoder,
            packed: vec![0; PIECE],
            unpacked: vec![0; PIECE],
            pending: Vec::new(),
            interfaces: Vec::new(),
            over: false,
        }))
    }

    /// Reads on by one piece and shows each whole packet block's body. Says whether there was anything to read.
    fn advance(&mut self, take: &mut dyn FnMut(&Tail, &[u8])) -> io::Result<bool> {
        if self.over {
            return Ok(false);
        }
        let len = self.file.read(&mut self.packed)?;
        let packed = std::mem::take(&mut self.packed);
        let mut input = InBuffer::around(packed.get(..len).unwrap_or_default());
        while len > 0 && !self.over {
            let mut output = OutBuffer::around(&mut self.unpacked[..]);
            let hint = self.decoder.run(&mut input, &mut output);
            let written = output.pos();
            self.over |= !matches!(hint, Ok(1..));
            self.pending.extend_from_slice(self.unpacked.get(..written).unwrap_or_default());
            self.blocks(take);
            if input.pos() == len && written < PIECE {
                break;
            }
        }
        self.packed = packed;
        Ok(len > 0)
    }

    /// Takes the whole blocks out of `pending`.
    fn blocks(&mut self, take: &mut dyn FnMut(&Tail, &[u8])) {
        let pending = std::mem::take(&mut self.pending);
        let mut at = 0;
        while let Some(total) = u32_at(&pending, at + 4) {
            if !(12..=BLOCK_LIMIT).contains(&total) || total % 4 != 0 {
                self.over = true;
                break;
            }
            let end = at + total as usize;
            let (Some(kind), Some(body)) = (u32_at(&pending, at), pending.get(at + 8..end - 4)) else {
                break;
            };
            if end > pending.len() {
                break;
            }
            match kind {
                pcapng::SECTION => self.interfaces.clear(),
                pcapng::INTERFACE => match parse_interface(body) {
                    Some(interface) => self.interfaces.push(interface),
                    None => self.over = true,
                },
                pcapng::PACKET => take(self, body),
                _ => {}
            }
            at = end;
        }
        self.pending = pending.get(at..).unwrap_or_default().to_vec();
    }

    fn packet<'a>(&'a self, body: &'a [u8]) -> Option<(usize, super::read::Recorded<'a>)> {
        let index = u32_at(body, 0)? as usize;
        let interface = self.interfaces.get(index)?;
        Some((index, parse_packet(body.get(4..)?, index, interface)?))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::read::SegmentReader;
    use super::super::testing::*;
    use super::super::{RealDisk, RecordConfig, Recorder, StoredPacket, Writer, recorder};
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
        let mut live = Live::begin(&recording.store, &mut out).unwrap();
        for step in 1..9u64 {
            recording.record(step * 100..step * 100 + 100);
            recording.flush();
            while live.look(&mut out).unwrap() {}
        }
        assert!(recording.store.segment_files().unwrap().len() > 9);
        assert_eq!(live.end(&mut out).unwrap(), 800);
        assert_eq!(shown(&out), (100..900).collect::<Vec<_>>());
    }

    #[test]
    fn it_begins_before_there_is_a_segment_and_outlives_a_run() {
        let mut recording = Recording::new(2);
        let mut out = Vec::new();
        let mut live = Live::begin(&recording.store, &mut out).unwrap();
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
        let mut live = Live::begin(&recording.store, &mut out).unwrap();
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
        let mut live = Live::begin(&recording.store, &mut out).unwrap();
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
        let (stop, out) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
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
            let follower = scope.spawn(|| live(&store, &stop, &mut Shared(&out)).unwrap());
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
            stop.store(true, Ordering::Relaxed);
            follower.join().unwrap()
        });
        let numbers = shown(&out.into_inner().unwrap());
        assert_eq!(numbers.len() as u64, packets);
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
