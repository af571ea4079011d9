//! The store's side of a replay: the writer's thread, the wait for it, and the incidents kept with the packets.
//!
//! Main thread; the writer runs on its own. Replay waits for free chunks instead of dropping packets, so that
//! how fast the disk is leaves no trace in what is written.

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
pub struct Recorded {
    pub account: WriterAccount,
    /// Replay once went on without waiting.
    pub stalled: bool,
    pub failures: Vec<Failure>,
}

impl Recording {
    /// Opens or makes the store and starts its writer; the recorder is for the worker.
    ///
    /// # Errors
    /// Failed: the store can't be written to.
    pub fn begin(folder: &Path, config: &RecordConfig) -> Result<(Recording, Recorder), Failure> {
        let failed = |error: StoreError| Failure::failed(error);
        let store = Store::create(folder).map_err(failed)?;
        let log = IncidentLog::open(&store).map_err(failed)?;
        let (recorder, port) = recorder(config, 0);
        let disk = Box::new(RealDisk::new(&store.segments()));
        let writer = Writer::new(disk, config.clone(), vec![port]).and_then(spawn).map_err(|error| {
            Failure::failed(format!("the store {} can't be written to: {error}", folder.display()))
        })?;
        // One chunk is being filled, however idle the writer.
        let wanted = (config.chunks * 3 / 4).min(config.chunks - 1);
        let folder = folder.display().to_string();
        Ok((Recording { writer, log, log_error: None, wanted, stalled: false, folder }, recorder))
    }

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
