//! The store's side of a run: the writer's thread, the wait for it, and the incidents kept with the packets.
//!
//! Main thread; the writer runs on its own. Replay waits for free chunks instead of dropping packets, so that
//! how fast the disk is leaves no trace in what is written. A live run doesn't wait.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::judge::Incident;
use dataplane::record::{
    IncidentLog, RealDisk, RecordConfig, Recorder, Store, StoreError, Writer, WriterAccount, WriterHandle,
    recorder, spawn,
};

use crate::error::Failure;
use crate::term;

/// How long the writer may take for one chunk before replay goes on without waiting, and packets are dropped
/// and counted.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store being written to.
pub struct Recording {
    writer: WriterHandle,
    log: IncidentLog,
    /// Why an incident could not be kept; the first.
    log_error: Option<StoreError>,
    /// Free chunks to wait for.
    wanted: usize,
    stalled: bool,
    folder: String,
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
        let failed = |error: StoreError| Failure::failed(error);
        let store = Store::create(folder).map_err(failed)?;
        let log = IncidentLog::open(&store).map_err(failed)?;
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
        Store::create(Path::new(&self.folder)).map(drop).map_err(|error| {
            Failure::failed(error).help(
                "the store's folders must belong to the user that runs referee: it gives up its privileges",
            )
        })
    }

    /// Starts the writer's thread.
    ///
    /// # Errors
    /// Failed: no thread can be made.
    pub fn start(self) -> Result<Recording, Failure> {
        let Prepared { writer, log, wanted, folder } = self;
        let writer = spawn(writer).map_err(|error| unwritable(Path::new(&folder), &error))?;
        Ok(Recording { writer, log, log_error: None, wanted, stalled: false, folder })
    }
}

fn unwritable(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("the store {} can't be written to: {error}", folder.display()))
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

    /// Keeps an incident, at once: a replay that is killed leaves it behind.
    pub fn keep(&mut self, incident: &Incident) {
        let kept = match serde_json::to_value(incident) {
            Ok(value) => self.log.append(&value),
            Err(error) => {
                term::note(&format!("incident {} can't be kept: {error}", incident.id));
                return;
            }
        };
        if let Err(error) = kept {
            self.log_error.get_or_insert(error);
        }
    }

    /// After the recorder has flushed: closes the segments and ends the thread.
    pub fn finish(self) -> Recorded {
        let account = self.writer.stop();
        let lost: u64 = account.unwritten_packets.iter().sum();
        let mut failures: Vec<Failure> = self.log_error.into_iter().map(Failure::failed).collect();
        if lost > 0 || account.failing {
            let cause = account.last_error.as_deref().unwrap_or("the disk refused them");
            let lost = term::plural(lost, "packet");
            let what = format!("the store {}: {lost} could not be written: {cause}", self.folder);
            failures.push(Failure::failed(what).help("make room, or name a store on another disk"));
        }
        Recorded { account, stalled: self.stalled, failures }
    }
}
