//! Takes chunks from the workers and puts them on the disk: compress, append, rotate, delete the oldest.
//!
//! Runs on the writer's thread, which alone touches `segments/`; it may block on the disk and never sees a
//! rule. Whatever the disk does, every packet taken ends in the account as written or unwritten, and
//! recording goes on with the next chunk the disk accepts.

use std::io;

use crate::ledger::UnwrittenReason;
use crate::source::{Interface, Nanos};

use super::chunk::{Chunk, WriterPort};
use super::disk::Disk;
use super::fate::Fates;
use super::retention::{Doomed, Shelf};
use super::segment::{Segment, SegmentName};
use super::{LossCounters, RecordConfig, pcapng};

/// What became of everything handed over, since the start of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterAccount {
    /// Packets in chunks that were flushed and appended to a file that was there until it was closed, as far as is known.
    pub written_packets: u64,
    /// Packets that were not, by [`UnwrittenReason`] as index; see [`WriterAccount::unwritten`].
    pub unwritten_packets: [u64; UnwrittenReason::ALL.len()],
    /// Chunks taken from workers.
    pub chunks: u64,
    /// Segments begun.
    pub segments: u64,
    /// Segments left at their last good flush because the disk failed.
    pub segments_abandoned: u64,
    /// Segments deleted by retention, and their bytes.
    pub segments_deleted: u64,
    pub bytes_deleted: u64,
    /// Bytes of incidents deleted to make room or for their age; for whoever appends them to add.
    pub incident_bytes_deleted: u64,
    /// Compressed bytes appended.
    pub bytes_written: u64,
    /// Segments whose fsync failed: written, but a power cut might lose them.
    pub sync_failures: u64,
    /// The newest packet's capture time, 0 if there is none.
    pub newest_ns: u64,
    /// The last chunk could not be written; cleared by the next that can.
    pub failing: bool,
    /// What the disk said last, with the file it was about.
    pub last_error: Option<String>,
    /// Chunks with nobody, once the writer has closed.
    pub chunks_free: u64,
}

impl WriterAccount {
    pub fn unwritten(&self, reason: UnwrittenReason) -> u64 {
        self.unwritten_packets[reason as usize]
    }
}

/// What all lanes share.
struct Desk {
    disk: Box<dyn Disk>,
    config: RecordConfig,
    account: WriterAccount,
    shelf: Shelf,
    /// Packet time of the newest chunk.
    packet_time: Nanos,
    /// What [`Writer::advance`] was told last; 0: nothing.
    clock: Nanos,
}

impl Desk {
    fn note(&mut self, doing: &str, name: &str, error: &io::Error) {
        self.account.last_error = Some(format!("{doing} segments/{name}: {error}"));
    }

    fn doomed(&self, open: impl Fn(SegmentName) -> bool) -> Option<Doomed> {
        let RecordConfig { store_bytes, store_age, segment_age, .. } = self.config;
        let outdated = || {
            let now = if self.clock > 0 { self.clock } else { self.packet_time };
            let horizon = now.checked_sub(store_age).filter(|_| store_age > 0)?;
            self.shelf.outdated(horizon, segment_age, &open)
        };
        self.shelf.surplus(store_bytes, &open).or_else(outdated)
    }

    fn append_all(&mut self, name: &str, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.disk.append(name, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).ok_or(io::ErrorKind::InvalidData)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Leaves a segment at its last good flush, so that it can be read up to there.
    fn abandon(&mut self, segment: SegmentName, name: &str, flushed: u64) {
        self.account.segments_abandoned += 1;
        if let Err(e) = self.disk.truncate(name, flushed) {
            // The partial block that stays behind ends the file like a crash would: readers stop there.
            self.note("cannot cut", name, &e);
        }
        if flushed > 0 && self.disk.sync(name).is_err() {
            self.account.sync_failures += 1;
        }
        self.disk.close(name);
        if flushed == 0 {
            self.shelf.forget(segment);
            if let Err(e) = self.disk.remove(name) {
                self.note("cannot remove", name, &e);
            }
        }
    }
}

/// One worker's way to the disk.
struct Lane {
    port: WriterPort,
    interfaces: Vec<Interface>,
    losses: Vec<LossCounters>,
    /// Packets written, by interface.
    delivered: Vec<u64>,
    segment: Option<Segment>,
    next_sequence: u64,
    fates: Fates,
}

impl Lane {
    fn new(port: WriterPort, files: &[(String, u64)]) -> Lane {
        let used = files.iter().filter_map(|(name, _)| SegmentName::parse(name));
        let last = used.filter(|n| n.worker == port.worker).map(|n| n.sequence).max();
        Lane {
            port,
            interfaces: Vec::new(),
            losses: Vec::new(),
            delivered: Vec::new(),
            segment: None,
            next_sequence: last.map_or(0, |n| n.saturating_add(1)),
            fates: Fates::default(),
        }
    }

    fn store(&mut self, chunk: &Chunk, desk: &mut Desk) {
        desk.account.chunks += 1;
        desk.packet_time = desk.packet_time.max(chunk.opened);
        // Not more than the chunk has seen: what else is waiting would land differently from run to run.
        while self.interfaces.len() < chunk.interfaces
            && let Some(interface) = self.port.next_interface()
        {
            self.interfaces.push(interface);
        }
        if chunk.packets > 0 {
            self.miss_segment(desk);
            if self.segment.as_ref().is_some_and(|s| is_due(s, chunk, &desk.config)) {
                self.finish_segment(desk);
            }
            match self.append(chunk, desk) {
                Ok(()) => self.count_written(chunk, desk),
                Err(e) => self.give_up(chunk, &e, desk),
            }
        }
        self.losses.clear();
        self.losses.extend_from_slice(&chunk.losses);
    }

    fn append(&mut self, chunk: &Chunk, desk: &mut Desk) -> io::Result<()> {
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => none.insert(open_segment(self.port.worker, &mut self.next_sequence, chunk, desk)?),
        };
        let bytes = segment.encode(&self.interfaces, chunk)?;
        desk.append_all(&segment.file, &bytes)?;
        if segment.flushed == 0 {
            desk.account.segments += 1;
        }
        segment.flushed += bytes.len() as u64;
        segment.packets += chunk.packets;
        self.fates.written(&chunk.blocks);
        desk.account.bytes_written += bytes.len() as u64;
        desk.shelf.set(segment.name, segment.flushed);
        Ok(())
    }

    fn count_written(&mut self, chunk: &Chunk, desk: &mut Desk) {
        desk.account.written_packets += chunk.packets;
        desk.account.newest_ns = desk.account.newest_ns.max(chunk.last_ts);
        desk.account.failing = false;
        self.delivered.resize(self.interfaces.len(), 0);
        for interface in pcapng::packet_interfaces(&chunk.blocks) {
            if let Some(count) = self.delivered.get_mut(interface as usize) {
                *count += 1;
            }
        }
    }

    fn give_up(&mut self, chunk: &Chunk, error: &io::Error, desk: &mut Desk) {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UnwrittenReason::DiskFull,
            _ => UnwrittenReason::WriteFailed,
        };
        desk.account.unwritten_packets[reason as usize] += chunk.packets;
        desk.account.failing = true;
        self.fates.lost(&chunk.blocks, reason);
        self.fates.closed();
        match self.segment.take() {
            Some(segment) => {
                desk.abandon(segment.name, &segment.file, segment.flushed);
                desk.note("cannot write", &segment.file, error);
            }
            None => desk.note("cannot create a file in", "", error),
        }
    }

    /// Lets go of a segment that somebody has deleted. What was in it is lost; the next packets begin another.
    fn miss_segment(&mut self, desk: &mut Desk) -> bool {
        let Some(gone) = self.segment.take_if(|segment| !desk.disk.is_there(&segment.file)) else {
            return false;
        };
        desk.disk.close(&gone.file);
        desk.shelf.forget(gone.name);
        desk.account.written_packets = desk.account.written_packets.saturating_sub(gone.packets);
        desk.account.unwritten_packets[UnwrittenReason::SegmentDeleted as usize] += gone.packets;
        desk.account.last_error = Some(format!("segments/{} was deleted while it was written", gone.file));
        self.fates.deleted();
        true
    }

    fn finish_segment(&mut self, desk: &mut Desk) {
        let Some(segment) = self.segment.take() else { return };
        self.fates.closed();
        let (segment_name, name, flushed) = (segment.name, segment.file.clone(), segment.flushed);
        let end = segment.finish(&self.losses, &self.delivered);
        match end.and_then(|bytes| desk.append_all(&name, &bytes).map(|()| bytes.len() as u64)) {
            Ok(len) => {
                desk.account.bytes_written += len;
                desk.shelf.set(segment_name, flushed + len);
                if let Err(e) = desk.disk.sync(&name) {
                    desk.account.sync_failures += 1;
                    desk.note("cannot sync", &name, &e);
                }
                desk.disk.close(&name);
            }
            Err(e) => {
                desk.abandon(segment_name, &name, flushed);
                desk.note("cannot finish", &name, &e);
            }
        }
    }
}

/// Rotation looks at sizes and packet time only: the clock on the wall differs from run to run.
fn is_due(segment: &Segment, chunk: &Chunk, config: &RecordConfig) -> bool {
    segment.flushed >= config.segment_bytes
        || chunk.opened.saturating_sub(segment.opened) >= config.segment_age
}

fn open_segment(worker: u16, next: &mut u64, chunk: &Chunk, desk: &mut Desk) -> io::Result<Segment> {
    loop {
        let name = SegmentName { worker, first_ns: chunk.first_ts, sequence: *next };
        let segment = Segment::begin(name, chunk.opened, desk.config.compression_level)?;
        match desk.disk.create(&segment.file) {
            Ok(()) => {
                *next += 1;
                return Ok(segment);
            }
            // Never overwrite; a number that is taken was taken by a file we could not remove.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && *next < u64::MAX => *next += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Puts the chunks of its ports on one disk. One writer to a store.
pub struct Writer {
    desk: Desk,
    lanes: Vec<Lane>,
}

impl Writer {
    /// Takes stock of what the disk already holds; new segments are numbered after it. Fails only if the
    /// disk cannot be listed.
    pub fn new(disk: Box<dyn Disk>, config: RecordConfig, ports: Vec<WriterPort>) -> io::Result<Writer> {
        let mut disk = disk;
        let files = disk.list()?;
        let lanes = ports.into_iter().map(|port| Lane::new(port, &files)).collect();
        let shelf = Shelf::new(&files);
        let mut writer = Writer {
            desk: Desk { disk, config, account: WriterAccount::default(), shelf, packet_time: 0, clock: 0 },
            lanes,
        };
        writer.retain();
        Ok(writer)
    }

    /// Deals with at most one chunk of each port. Says whether there was any.
    pub fn pump(&mut self) -> bool {
        let mut busy = false;
        for lane in &mut self.lanes {
            let chunk = lane.port.take();
            // After the chunk, so that none comes before those who wait for it.
            while let Some(fate) = lane.port.next_fate() {
                lane.fates.follow(fate);
            }
            if let Some(chunk) = chunk {
                lane.store(&chunk, &mut self.desk);
                lane.port.give_back(chunk);
                busy = true;
            }
        }
        if busy {
            self.retain();
        }
        busy
    }

    /// What time it is, ns since the epoch: a live run's captures age also while nothing is recorded, and one packet
    /// with a wrong time dooms none. A replay never says so, and its segments age by packet time. Says whether an open
    /// segment was found to be deleted.
    pub fn advance(&mut self, now: Nanos) -> bool {
        if now == self.desk.clock {
            return false;
        }
        self.desk.clock = now;
        let missed =
            self.lanes.iter_mut().filter_map(|lane| lane.miss_segment(&mut self.desk).then_some(())).count();
        // If it can't be, the next segment says why.
        let _ = self.desk.disk.restore();
        self.retain();
        missed > 0
    }

    /// Deals with everything handed over and closes the open segments. The recorders must have flushed.
    pub fn close(&mut self) {
        while self.pump() {}
        for lane in &mut self.lanes {
            lane.miss_segment(&mut self.desk);
            lane.finish_segment(&mut self.desk);
        }
        self.retain();
        self.desk.account.chunks_free = self.lanes.iter().map(|lane| lane.port.free_chunks() as u64).sum();
    }

    pub fn account(&self) -> &WriterAccount {
        &self.desk.account
    }

    /// Deletes what is too much or too old, never a segment that is being written.
    fn retain(&mut self) {
        let Writer { desk, lanes } = self;
        let open =
            |name: SegmentName| lanes.iter().any(|l| l.segment.as_ref().is_some_and(|s| s.name == name));
        while let Some(doomed) = desk.doomed(open) {
            let name = doomed.segment.to_string();
            match desk.disk.remove(&name) {
                Ok(()) => {
                    desk.account.segments_deleted += 1;
                    desk.account.bytes_deleted += doomed.bytes;
                }
                // Somebody else was faster: that is as good.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    desk.note("cannot delete", &name, &e);
                    return;
                }
            }
            desk.shelf.forget(doomed.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::super::fate::Fate;
    use super::super::read::{Ending, SegmentReader};
    use super::super::testing::*;
    use super::super::{RealDisk, Recorder, Store, StoredPacket, recorder, spawn};
    use super::*;

    fn total(account: &WriterAccount) -> u64 {
        account.written_packets + account.unwritten_packets.iter().sum::<u64>()
    }

    /// Writes packets `numbers`, letting the writer keep up.
    fn feed(recorder: &mut Recorder, writer: &mut Writer, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let bytes = unlike(number, 600);
            recorder.advance(T0 + number * 1_000_000);
            recorder.write(&packet(number, 7, &bytes)).unwrap();
            while writer.pump() {}
        }
    }

    #[test]
    fn segments_rotate_by_size() {
        let disk = MemDisk::default();
        let config = RecordConfig { segment_bytes: 10_000, ..small() };
        let (mut recorder, mut writer) = pair(&config, disk.clone());
        feed(&mut recorder, &mut writer, 0..100);
        recorder.flush();
        writer.close();
        let files = disk.files();
        assert!(files.len() > 4, "{} segments", files.len());
        assert_eq!(files.keys().next().unwrap(), "w3-01700000000000000000-000000.pcapng.zst");
        for bytes in files.values() {
            assert!(bytes.len() < 10_000 + 2 * 4096, "{} bytes", bytes.len());
        }
        let all: Vec<u64> = files.values().flat_map(|b| numbers(b)).collect();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        let account = writer.account();
        assert_eq!((account.segments, account.written_packets), (files.len() as u64, 100));
        assert_eq!(account.bytes_written, files.values().map(|b| b.len() as u64).sum::<u64>());
        assert_eq!(disk.with(|c| c.syncs), account.segments);
    }

    #[test]
    fn segments_rotate_by_packet_time_and_a_lead_up_is_not_old() {
        let disk = MemDisk::default();
        let config = RecordConfig { segment_age: 10 * SECOND, ..small() };
        let (mut recorder, mut writer) = pair(&config, disk.clone());
        let bytes = frame(1, 2, 10);
        let mut at = |second: u64, old: u64, number| {
            recorder.advance(T0 + second * SECOND);
            while writer.pump() {}
            recorder.write(&StoredPacket { ts: T0 + (second - old) * SECOND, ..packet(number, 1, &bytes) })
        };
        at(100, 0, 1).unwrap();
        at(105, 90, 2).unwrap();
        at(109, 0, 3).unwrap();
        at(110, 0, 4).unwrap();
        recorder.flush();
        writer.close();
        let contents: Vec<_> = disk.files().values().map(|b| numbers(b)).collect();
        assert_eq!(contents, [vec![1, 2, 3], vec![4]]);
    }

    #[test]
    fn a_chunk_goes_out_by_age() {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        recorder.advance(T0);
        recorder.write(&packet(0, 1, &frame(1, 2, 0))).unwrap();
        recorder.advance(T0 + SECOND - 1);
        assert!(!writer.pump());
        recorder.advance(T0 + SECOND);
        assert!(writer.pump());
        assert_eq!(writer.account().written_packets, 1);
    }

    #[test]
    fn the_oldest_segments_go_first_and_the_open_one_stays() {
        let disk = MemDisk::default();
        disk.with(|c| {
            c.files.insert("w3-00000000000000000005-000041.pcapng.zst".to_owned(), vec![0; 50_000]);
            c.files.insert("not-ours.txt".to_owned(), vec![0; 90_000]);
        });
        let config = RecordConfig { segment_bytes: 10_000, store_bytes: 30_000, ..small() };
        let (mut recorder, mut writer) = pair(&config, disk.clone());
        assert_eq!(writer.account().segments_deleted, 1, "more than allowed was there at the start");
        feed(&mut recorder, &mut writer, 0..200);
        recorder.flush();
        writer.close();
        let files = disk.files();
        let ours = files.iter().filter(|(n, _)| n.starts_with('w'));
        assert!(ours.map(|(_, b)| b.len()).sum::<usize>() <= 30_000);
        assert!(files.contains_key("not-ours.txt"));
        let removed = disk.with(|c| c.removed.clone());
        assert!(removed.is_sorted() && removed.len() > 3, "{removed:?}");
        assert_eq!(removed[1], "w3-01700000000000000000-000042.pcapng.zst", "numbering goes on");
        assert_eq!(writer.account().segments_deleted, removed.len() as u64);
    }

    #[test]
    fn an_old_handshake_does_not_doom_the_segment_it_came_in() {
        let disk = MemDisk::default();
        let config = RecordConfig { segment_age: 10 * SECOND, store_bytes: 1 << 30, ..small() };
        let (mut recorder, mut writer) = pair(&config, disk.clone());
        let bytes = frame(1, 2, 10);
        for (number, (second, old)) in [(100, 0), (200, 0), (300, 299), (400, 0)].into_iter().enumerate() {
            recorder.advance(T0 + second * SECOND);
            let ts = T0 + (second - old) * SECOND;
            recorder.write(&StoredPacket { ts, ..packet(number as u64, 1, &bytes) }).unwrap();
            recorder.flush();
            while writer.pump() {}
        }
        assert!(
            disk.files().keys().next().unwrap().ends_with("-000002.pcapng.zst"),
            "the oldest by its name"
        );
        let all: u64 = disk.files().values().map(|b| b.len() as u64).sum();
        let (_, port) = super::super::recorder(&config, 0);
        let config = RecordConfig { store_bytes: all - 1, ..config };
        writer.close();
        drop(Writer::new(Box::new(disk.clone()), config, vec![port]).unwrap());
        let first = disk.with(|c| c.removed[0].clone());
        assert!(first.ends_with("-000000.pcapng.zst"), "{first}");
    }

    #[test]
    fn segments_go_by_age_in_packet_time_or_by_the_clock() {
        let disk = MemDisk::default();
        let config = RecordConfig { segment_age: 10 * SECOND, store_age: 100 * SECOND, ..small() };
        let (mut recorder, mut writer) = pair(&config, disk.clone());
        let bytes = frame(1, 2, 10);
        for number in 0..30u64 {
            recorder.advance(T0 + number * 10 * SECOND);
            recorder
                .write(&StoredPacket { ts: T0 + number * 10 * SECOND, ..packet(number, 1, &bytes) })
                .unwrap();
            recorder.flush();
            while writer.pump() {}
        }
        let held = |disk: &MemDisk| -> Vec<u64> { disk.files().values().flat_map(|b| numbers(b)).collect() };
        // The newest is of second 290, so all that ended before second 190 is gone.
        assert_eq!(held(&disk), (18..30).collect::<Vec<_>>());
        writer.advance(T0 + 1000 * SECOND);
        assert_eq!(held(&disk), [29], "the open one stays");
        writer.close();
        assert!(disk.files().is_empty());
        assert_eq!(writer.account().segments_deleted, 30);
    }

    #[test]
    fn a_store_too_small_for_one_segment_keeps_the_open_one() {
        let disk = MemDisk::default();
        let config = RecordConfig { store_bytes: 1, ..small() };
        let (mut recorder, mut writer) = pair(&config, disk.clone());
        feed(&mut recorder, &mut writer, 0..50);
        assert_eq!(disk.files().len(), 1);
    }

    #[test]
    fn a_full_disk_stops_recording_and_recovers() {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        feed(&mut recorder, &mut writer, 0..20);
        disk.with(|c| c.room = Some(100));
        feed(&mut recorder, &mut writer, 20..40);
        let account = writer.account().clone();
        assert!(account.failing && account.unwritten(UnwrittenReason::DiskFull) > 0);
        assert!(account.last_error.as_ref().is_some_and(|e| e.contains("segments")), "{account:?}");
        assert_eq!(disk.files().len(), 1, "attempts leave nothing behind");
        disk.with(|c| c.room = None);
        feed(&mut recorder, &mut writer, 40..60);
        recorder.flush();
        writer.close();
        let account = writer.account();
        assert!(!account.failing);
        assert_eq!(total(account), 60);
        assert_eq!(account.unwritten(UnwrittenReason::WriteFailed), 0);
        let files = disk.files();
        assert_eq!(files.len(), 2);
        let read: Vec<u64> = files.values().flat_map(|b| numbers(b)).collect();
        assert_eq!(read.len() as u64, account.written_packets);
        assert!(read.contains(&0) && read.contains(&59) && !read.contains(&30));
    }

    /// Counted as written only while it is there: when the next chunk comes, when time goes on, or at the end.
    #[test]
    fn what_went_with_a_deleted_segment_is_counted() {
        for way in ["chunk", "clock", "end"] {
            let disk = MemDisk::default();
            let (mut recorder, mut writer) = pair(&small(), disk.clone());
            writer.advance(T0);
            feed(&mut recorder, &mut writer, 0..20);
            let before = writer.account().written_packets;
            assert!(before > 0 && !writer.advance(T0 + SECOND), "it is there");
            disk.with(|c| c.files.clear());
            match way {
                "chunk" => feed(&mut recorder, &mut writer, 20..40),
                "clock" => assert!(writer.advance(T0 + 2 * SECOND) && !writer.advance(T0 + 3 * SECOND)),
                _ => {}
            }
            if way != "end" {
                assert_eq!(writer.account().unwritten(UnwrittenReason::SegmentDeleted), before, "{way}");
            }
            feed(&mut recorder, &mut writer, 40..60);
            recorder.flush();
            writer.close();
            let account = writer.account();
            assert_eq!(total(account), if way == "chunk" { 60 } else { 40 }, "{way}");
            let read: Vec<u64> = disk.files().values().flat_map(|b| numbers(b)).collect();
            assert_eq!(read.len() as u64, account.written_packets, "{way}");
            assert!(read.contains(&59) && !account.failing, "{way}");
            assert!(account.last_error.as_ref().is_some_and(|e| e.contains("was deleted")), "{account:?}");
        }
    }

    #[test]
    fn a_removed_folder_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::create(&root.path().join("store")).unwrap();
        let (mut recorder, mut writer) = pair(&small(), RealDisk::new(&store.segments()));
        feed(&mut recorder, &mut writer, 0..20);
        std::fs::remove_dir_all(store.segments()).unwrap();
        feed(&mut recorder, &mut writer, 20..40);
        std::fs::remove_dir_all(store.segments()).unwrap();
        assert!(writer.advance(T0));
        assert!(Store::open(store.root()).is_ok(), "also while nothing comes");
        feed(&mut recorder, &mut writer, 40..60);
        recorder.flush();
        writer.close();
        let account = writer.account();
        assert_eq!((total(account), account.unwritten(UnwrittenReason::WriteFailed)), (60, 0));
        let files = store.segment_paths().unwrap();
        let read: u64 = files.iter().map(|path| numbers(&std::fs::read(path).unwrap()).len() as u64).sum();
        assert!(read > 10 && read == account.written_packets, "{read}, {account:?}");
    }

    #[test]
    fn who_waits_for_packets_learns_what_became_of_them() {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        let (mine, other) = (Arc::new(Fate::new(7)), Arc::new(Fate::new(8)));
        [&mine, &other].into_iter().for_each(|fate| recorder.follow(fate));
        feed(&mut recorder, &mut writer, 0..20);
        disk.with(|c| c.full = true);
        feed(&mut recorder, &mut writer, 20..40);
        disk.with(|c| c.full = false);
        feed(&mut recorder, &mut writer, 40..60);
        disk.with(|c| c.files.pop_last());
        recorder.flush();
        writer.close();
        assert_eq!(mine.unwritten(), writer.account().unwritten_packets);
        assert!(mine.unwritten()[UnwrittenReason::DiskFull as usize] > 10);
        assert!(mine.unwritten()[UnwrittenReason::SegmentDeleted as usize] > 10);
        assert_eq!(mine.unwritten_bytes(), mine.unwritten().iter().sum::<u64>() * 654);
        assert_eq!((other.unwritten().iter().sum::<u64>(), other.unwritten_bytes()), (0, 0));
    }

    #[test]
    fn other_failures_have_their_own_account() {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        disk.with(|c| c.broken = true);
        feed(&mut recorder, &mut writer, 0..10);
        recorder.flush();
        writer.close();
        assert_eq!(writer.account().unwritten(UnwrittenReason::WriteFailed), 10);
        assert!(disk.files().is_empty());
    }

    /// Accepted = written + unwritten whatever the disk does, and what is written can be read.
    #[test]
    fn the_books_balance_on_a_faulty_disk() {
        for seed in 1..=150u64 {
            let disk = MemDisk::default();
            disk.with(|c| c.faults = Some(Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))));
            let config = RecordConfig { segment_bytes: 8_000, segment_age: SECOND / 20, ..small() };
            let (mut recorder, mut writer) = pair(&config, disk.clone());
            let mut dice = Dice(seed);
            let (mut accepted, mut refused) = (0, 0);
            for number in 0..300 {
                let bytes = frame(1, 2, dice.roll(1500) as usize);
                recorder.advance(T0 + number * 1_000_000);
                match recorder.write(&packet(number, number % 5, &bytes)) {
                    Ok(()) => accepted += 1,
                    Err(reason) => {
                        assert_eq!(reason, UnwrittenReason::NoChunk);
                        refused += 1;
                    }
                }
                if dice.roll(3) > 0 {
                    writer.pump();
                }
                disk.with(|c| c.full = number % 100 > 80);
            }
            disk.with(|c| c.full = false);
            recorder.flush();
            writer.close();
            let account = writer.account();
            assert_eq!(accepted + refused, 300);
            assert_eq!(total(account), accepted, "seed {seed}: {account:?}");
            assert_eq!(recorder.free_chunks(), 4, "seed {seed}: every chunk is back");
            let read: u64 = disk.files().values().map(|b| numbers(b).len() as u64).sum();
            assert_eq!(read, account.written_packets, "seed {seed}");
        }
    }

    #[test]
    fn no_free_chunk_refuses_and_does_not_wait() {
        let (mut recorder, mut writer) = pair(&small(), MemDisk::default());
        let bytes = frame(1, 2, 3000);
        for number in 0..4 {
            recorder.write(&packet(number, 1, &bytes)).unwrap();
        }
        assert_eq!(recorder.free_chunks(), 0);
        assert_eq!(recorder.write(&packet(4, 1, &bytes)), Err(UnwrittenReason::NoChunk));
        writer.close();
        assert!(recorder.free_chunks() > 0);
        recorder.write(&packet(5, 1, &bytes)).unwrap();
        drop(recorder);
        writer.close();
        assert_eq!(writer.account().written_packets, 5);
    }

    #[test]
    fn a_late_interface_is_described_before_its_packets_and_losses_come_last() {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        feed(&mut recorder, &mut writer, 0..10);
        recorder.announce(&interface("eth1"));
        let bytes = frame(3, 4, 100);
        recorder.write(&StoredPacket { interface: 1, ..packet(10, 8, &bytes) }).unwrap();
        recorder.flush();
        recorder.losses(1, LossCounters { received: Some(500), dropped: Some(40) });
        recorder.flush();
        writer.close();
        let files = disk.files();
        let segment = files.values().next().unwrap();
        let mut reader = SegmentReader::new(io::Cursor::new(segment.clone())).unwrap();
        let mut names = Vec::new();
        while let Some(p) = reader.next_packet() {
            names.push(p.interface.name.clone());
        }
        assert_eq!(reader.ending(), Some(&Ending::Complete));
        assert_eq!((names.len(), names[9].as_str(), names[10].as_str()), (11, "eth0", "eth1"));
        let plain = zstd::decode_all(segment.as_slice()).unwrap();
        let mut expected = Vec::new();
        let at = T0 + 10 * 1_000_000;
        pcapng::put_statistics(&mut expected, 0, at, LossCounters::default(), 10);
        let losses = LossCounters { received: Some(500), dropped: Some(40) };
        pcapng::put_statistics(&mut expected, 1, at, losses, 1);
        assert!(plain.ends_with(&expected), "the statistics blocks end the segment");
    }

    #[test]
    fn an_unannounced_interface_is_refused() {
        let (mut recorder, _port) = recorder(&small(), 0);
        let bytes = frame(1, 2, 0);
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| recorder.write(&packet(0, 1, &bytes))));
        assert!(result.is_err() || result.is_ok_and(|r| r == Err(UnwrittenReason::WriteFailed)));
    }

    #[test]
    fn two_runs_write_the_same_bytes() {
        let run = |threaded: bool| {
            let disk = MemDisk::default();
            let config = RecordConfig { segment_bytes: 20_000, ..small() };
            let (mut recorder, writer) = pair(&config, disk.clone());
            let mut inline = None;
            let mut handle = None;
            if threaded {
                handle = Some(spawn(writer).unwrap());
            } else {
                inline = Some(writer);
            }
            for number in 0..200 {
                if number == 77 {
                    recorder.announce(&interface("eth1"));
                }
                while recorder.free_chunks() < 2 {
                    match &mut inline {
                        Some(writer) => assert!(writer.pump()),
                        None => thread::yield_now(),
                    }
                }
                recorder.advance(T0 + number * 1_000_000);
                recorder.write(&packet(number, 1, &unlike(number, 700))).unwrap();
            }
            recorder.flush();
            if let Some(mut writer) = inline {
                writer.close();
            }
            if let Some(handle) = handle {
                assert_eq!(handle.stop().written_packets, 200);
            }
            disk.files()
        };
        let first = run(false);
        assert!(first.len() > 2);
        assert_eq!(first, run(false));
        assert_eq!(first, run(true), "the writer's own pace leaves no trace");
    }

    #[test]
    fn a_packet_longer_than_a_chunk_is_cut_and_keeps_its_length() {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        let bytes = frame(1, 2, 9000);
        let long = "ü".repeat(2000);
        recorder.write(&StoredPacket { comment: Some(&long), ..packet(1, 1, &bytes) }).unwrap();
        recorder.flush();
        writer.close();
        let segment = disk.files().into_values().next().unwrap();
        let mut reader = SegmentReader::new(io::Cursor::new(segment)).unwrap();
        let p = reader.next_packet().unwrap();
        assert!(p.bytes.len() > 2500 && bytes.starts_with(p.bytes));
        assert_eq!((p.orig_len as usize, p.comments[0].len()), (bytes.len(), 1024));
    }
}
