//! The store's side of a run: the writer's thread, the wait for it, and the incidents kept with the packets.
//!
//! Main thread; the writer runs on its own. Replay waits for free chunks instead of dropping packets, so that
//! how fast the disk is leaves no trace in what is written. A live run doesn't wait.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::judge::Incident;
use dataplane::ledger::UnwrittenReason;
use dataplane::record::{
    IncidentLog, RealDisk, RecordConfig, Recorder, Store, StoreError, Writer, WriterAccount, WriterHandle,
    recorder, spawn,
};
use dataplane::source::Nanos;

use crate::error::Failure;
use crate::index::Follower;
use crate::term;

/// How long the writer may take for one chunk before replay goes on without waiting, and packets are dropped
/// and counted.
const PATIENCE: Duration = Duration::from_secs(120);

/// Incident reports that may wait for the disk.
const WAITING: usize = 10_000;

/// A store being written to.
pub struct Recording {
    writer: WriterHandle,
    log: IncidentLog,
    /// Incidents that the disk refused, as JSON, and how many more there were than may wait.
    waiting: VecDeque<String>,
    forgotten: u64,
    /// Why the first of them could not be kept.
    log_error: Option<StoreError>,
    /// People were told that the disk refuses.
    failing: bool,
    /// Packets in deleted segments that people were told of.
    deleted: u64,
    /// Free chunks to wait for.
    wanted: usize,
    stalled: bool,
    folder: String,
    /// Keeps the store's index, in a live run.
    index: Option<Follower>,
    /// What people were told of the index, and of the incidents' bound.
    index_trouble: Option<String>,
    bound_trouble: Option<String>,
}

/// How the recording ended.
#[derive(Debug)]
pub struct Recorded {
    pub account: WriterAccount,
    /// Replay once went on without waiting.
    pub stalled: bool,
    pub failures: Vec<Failure>,
}

/// A store that can be written to, before its writer has a thread.
pub struct Prepared {
    writer: Writer,
    log: IncidentLog,
    wanted: usize,
    folder: String,
}

impl Prepared {
    /// Opens or makes the store; the recorders are for the workers, one each.
    ///
    /// # Errors
    /// Failed: the store can't be written to.
    pub fn new(
        folder: &Path,
        config: &RecordConfig,
        workers: u16,
    ) -> Result<(Prepared, Vec<Recorder>), Failure> {
        let failed = |error: StoreError| refused(folder, error);
        let store = Store::create(folder).map_err(failed)?;
        let age = (config.store_age > 0).then(|| Duration::from_nanos(config.store_age));
        let log = IncidentLog::open(&store).map_err(failed)?.bounded(config.incidents_bytes, age);
        let (recorders, ports) = (0..workers).map(|worker| recorder(config, worker)).unzip();
        let disk = Box::new(RealDisk::new(&store.segments()));
        let writer = Writer::new(disk, config.clone(), ports).map_err(|error| unwritable(folder, &error))?;
        // One chunk is being filled, however idle the writer.
        let wanted = (config.chunks * 3 / 4).min(config.chunks - 1);
        Ok((Prepared { writer, log, wanted, folder: folder.display().to_string() }, recorders))
    }

    /// Tries once more whether the store can be written to, now that this thread has fewer privileges.
    ///
    /// # Errors
    /// Failed: it can't.
    pub fn probe(&self) -> Result<(), Failure> {
        let folder = Path::new(&self.folder);
        Store::create(folder).map(drop).map_err(|error| refused(folder, error))
    }

    /// Starts the writer's thread.
    ///
    /// # Errors
    /// Failed: no thread can be made.
    pub fn start(self) -> Result<Recording, Failure> {
        let Prepared { writer, log, wanted, folder } = self;
        let writer = spawn(writer).map_err(|error| unwritable(Path::new(&folder), &error))?;
        let (waiting, log_error) = (VecDeque::new(), None);
        Ok(Recording {
            writer,
            log,
            waiting,
            forgotten: 0,
            log_error,
            failing: false,
            deleted: 0,
            wanted,
            stalled: false,
            folder,
            index: None,
            index_trouble: None,
            bound_trouble: None,
        })
    }

    /// As [`Prepared::start`], for a live run: with a thread that keeps the store's index. A replay leaves nothing in a
    /// store but what it was given to keep.
    ///
    /// # Errors
    /// Failed: no thread can be made.
    pub fn start_live(self) -> Result<Recording, Failure> {
        let store = Store::open(Path::new(&self.folder)).map_err(Failure::failed)?;
        let index = Follower::spawn(&store);
        Ok(Recording { index: Some(index), ..self.start()? })
    }
}

/// A store that somebody else has, in part or as a whole, is no use: privileges are given up.
fn refused(folder: &Path, error: StoreError) -> Failure {
    let denied = match &error {
        StoreError::Create { source, .. } | StoreError::Unwritable { source, .. } => {
            source.kind() == io::ErrorKind::PermissionDenied
        }
        _ => false,
    };
    let failure = Failure::failed(error);
    match denied {
        true => failure.help(format!(
            "all of a store belongs to the user that writes it; to give it back to the owner of its folder: \
             chown -R --reference={0} {0}",
            folder.display()
        )),
        false => failure,
    }
}

/// Nanoseconds since 1970.
fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

fn unwritable(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("the store {} can't be written to: {error}", folder.display()))
}

/// What is new of packets that went with a segment.
fn deleted(account: &WriterAccount, told: &mut u64) -> Option<String> {
    let all = account.unwritten(UnwrittenReason::SegmentDeleted);
    let more = all - std::mem::replace(told, all).min(all);
    (more > 0).then(|| {
        let packets = term::plural(more, "packet");
        format!(
            "a segment was deleted while it was written, and {packets} with it; a new one takes what comes"
        )
    })
}

impl Recording {
    /// Waits until most chunks are free: more than one step of the worker can fill.
    pub fn wait(&mut self, recorder: &Recorder) {
        if recorder.free_chunks() >= self.wanted || self.stalled {
            return;
        }
        let (mut since, mut most) = (Instant::now(), 0);
        loop {
            let free = recorder.free_chunks();
            if free >= self.wanted {
                return;
            }
            if free > most {
                (since, most) = (Instant::now(), free);
            } else if since.elapsed() > PATIENCE {
                self.stalled = true;
                term::note(&format!(
                    "the store {} has taken nothing for {} s; replay goes on, and packets it can't take are \
                     counted as unwritten",
                    self.folder,
                    PATIENCE.as_secs()
                ));
                return;
            }
            self.writer.wake();
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Keeps an incident, at once: a run that is killed leaves it behind. One that the disk refuses waits for the
    /// next try.
    pub fn keep(&mut self, incident: &Incident) {
        match serde_json::to_string(incident) {
            Ok(line) => self.keep_record(line),
            Err(error) => term::note(&format!("incident {} can't be kept: {error}", incident.id)),
        }
    }

    /// The same for what is recorded as incidents are: a JSON object.
    pub fn keep_record(&mut self, record: String) {
        self.waiting.push_back(record);
        if self.waiting.len() > WAITING {
            self.waiting.pop_front();
            self.forgotten += 1;
        }
        self.retry();
    }

    /// Writes the incidents that wait, as far as the disk takes them.
    fn retry(&mut self) {
        while let Some(record) = self.waiting.front() {
            if let Err(error) = self.log.append(record) {
                self.log_error = Some(error);
                return;
            }
            self.waiting.pop_front();
        }
        self.log_error = None;
    }

    /// Once a second of a live run: lets captures age and tries again what was refused. Says in words when the disk
    /// begins to refuse or to take again what it is given.
    pub fn look(&mut self) -> Option<String> {
        self.writer.advance(now());
        self.log.grow_old(SystemTime::now());
        self.retry();
        let account = self.writer.account();
        if let Some(what) = deleted(&account, &mut self.deleted) {
            return Some(format!("the store {}: {what}", self.folder));
        }
        let failing = account.failing || self.log_error.is_some();
        if failing == self.failing {
            return self.look_at_bound().or_else(|| self.look_at_index());
        }
        self.failing = failing;
        let store = &self.folder;
        if !failing {
            return Some(format!("the store {store} can be written to again"));
        }
        let cause = self.log_error.as_ref().map(ToString::to_string).or(account.last_error);
        let cause = cause.unwrap_or_else(|| "the disk refuses".to_owned());
        Some(format!(
            "the store {store} can't be written to: {cause}; analysis goes on, packets that can't be kept are counted"
        ))
    }

    /// Says in words when more incidents are kept than should be.
    fn look_at_bound(&mut self) -> Option<String> {
        let trouble = self.log.trouble().map(str::to_owned);
        if trouble == self.bound_trouble {
            return None;
        }
        self.bound_trouble.clone_from(&trouble);
        trouble.map(|what| {
            format!("the incidents of the store {} are more than they should be: {what}", self.folder)
        })
    }

    /// Says in words when the index begins to be refused, or for another reason.
    fn look_at_index(&mut self) -> Option<String> {
        let trouble = self.index.as_ref().and_then(Follower::trouble);
        if trouble.is_none() || trouble == self.index_trouble {
            return None;
        }
        self.index_trouble.clone_from(&trouble);
        trouble.map(|what| {
            let store = &self.folder;
            format!("the index of the store {store} is not kept: {what}; captures are found by reading the segments")
        })
    }

    /// What was written so far, and what the disk refused.
    pub fn account(&self) -> WriterAccount {
        WriterAccount { incident_bytes_deleted: self.log.deleted(), ..self.writer.account() }
    }

    /// Packets that the disk refused so far.
    pub fn unwritten(&self) -> u64 {
        self.account().unwritten_packets.iter().sum()
    }

    /// After the recorder has flushed: closes the segments and ends the thread.
    pub fn finish(mut self) -> Recorded {
        self.retry();
        let incident_bytes_deleted = self.log.deleted();
        let account = WriterAccount { incident_bytes_deleted, ..self.writer.stop() };
        drop(self.index);
        // Whoever deletes a segment knows what he does; the books have it.
        let deleted = account.unwritten(UnwrittenReason::SegmentDeleted);
        let lost = account.unwritten_packets.iter().sum::<u64>() - deleted;
        let mut failures = Vec::new();
        let lines = self.waiting.len() as u64 + self.forgotten;
        if lines > 0 {
            let lines = term::plural(lines, "incident report");
            let cause = self.log_error.map_or_else(|| "the disk refused them".to_owned(), |e| e.to_string());
            failures.push(Failure::failed(format!("{lines} could not be kept in the store: {cause}")));
        }
        if lost > 0 || account.failing {
            let cause = account.last_error.as_deref().unwrap_or("the disk refused them");
            let lost = term::plural(lost, "packet");
            let what = format!("the store {}: {lost} could not be written: {cause}", self.folder);
            failures.push(Failure::failed(what).help("make room, or name a store on another disk"));
        }
        Recorded { account, stalled: self.stalled, failures }
    }
}
