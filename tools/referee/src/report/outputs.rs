//! The machine-readable outputs of a run: flows, incidents and the ledger, a JSON object a line; and metrics.
//!
//! Main thread, between two batches of a replay. An output that fails is given up alone and named at the end; the others
//! go on. All that goes to standard output shares one buffer, so that lines never tear.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::OutputArgs;
use crate::error::Failure;
use crate::report::page::Page;

const BUFFER: usize = 256 << 10;

/// Which of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Flows,
    Incidents,
    Ledger,
    /// Incidents as they open and close, and the ledger at the end: a live run's `--json`.
    Live,
    /// Not lines: a page, written anew each time.
    Metrics,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Flows, Kind::Incidents, Kind::Ledger, Kind::Live, Kind::Metrics];

    const fn flag(self) -> &'static str {
        match self {
            Kind::Flows => "--flows",
            Kind::Incidents => "--incidents",
            Kind::Ledger => "--ledger",
            Kind::Live => "--json",
            Kind::Metrics => "--metrics",
        }
    }
}

/// One place lines go to; after an error nothing more does.
struct Sink {
    name: String,
    out: Option<BufWriter<Box<dyn Write>>>,
    /// Why there is no `out`; `None` if its reader just went away.
    error: Option<io::Error>,
    /// People were told that there is none.
    told: bool,
}

impl Sink {
    fn new(name: String, out: Box<dyn Write>) -> Sink {
        Sink { name, out: Some(BufWriter::with_capacity(BUFFER, out)), error: None, told: false }
    }

    fn with(&mut self, write: impl FnOnce(&mut BufWriter<Box<dyn Write>>) -> io::Result<()>) {
        let Some(out) = &mut self.out else { return };
        if let Err(error) = write(out) {
            // What is still buffered can't be written either; dropping the buffer would try once more.
            let _ = self.out.take().map(BufWriter::into_parts);
            self.error = (error.kind() != io::ErrorKind::BrokenPipe).then_some(error);
        }
    }

    fn failure(&self) -> Option<Failure> {
        let error = self.error.as_ref()?;
        let what = format!("{} can't be written: {error}; what was written before is there", self.name);
        Some(Failure::failed(what).help("make room, or name a path on another disk"))
    }
}

/// Where each kind goes.
pub struct Outputs {
    sinks: Vec<Sink>,
    /// For each kind, which sink.
    targets: [Option<usize>; Kind::ALL.len()],
    to_stdout: bool,
    line: Vec<u8>,
    /// Metrics, if they go to a file that can be replaced.
    page: Option<Page>,
}

impl Outputs {
    /// Makes the files that `wanted` names, and with `live` the lines of a live run on standard output. None of
    /// `inputs` may be among the files.
    ///
    /// # Errors
    /// Usage: one file for two purposes. Failed: a file that can't be made.
    pub fn open(wanted: &OutputArgs, live: bool, inputs: &[PathBuf]) -> Result<Outputs, Failure> {
        let paths: [(Kind, Option<&Path>); Kind::ALL.len()] = [
            (Kind::Flows, wanted.flows.as_deref()),
            (Kind::Incidents, wanted.incidents.as_deref()),
            (Kind::Ledger, wanted.ledger.as_deref()),
            (Kind::Live, live.then_some(Path::new("-"))),
            (Kind::Metrics, wanted.metrics.as_deref()),
        ];
        let mut used: BTreeSet<(u64, u64)> =
            inputs.iter().filter_map(|path| identity(&fs::metadata(path).ok()?)).collect();
        let mut outputs = Outputs {
            sinks: Vec::new(),
            targets: [None; Kind::ALL.len()],
            to_stdout: false,
            line: Vec::new(),
            page: None,
        };
        let mut stdout = None;
        for (kind, path) in paths {
            let Some(path) = path else { continue };
            let target = if path == Path::new("-") {
                *stdout.get_or_insert_with(|| {
                    outputs.to_stdout = true;
                    outputs.add(Sink::new("standard output".to_owned(), Box::new(io::stdout())))
                })
            } else if kind == Kind::Metrics && Page::suits(path) {
                unused(kind, path, &used)?;
                outputs.page = Some(Page::open(path)?);
                continue;
            } else {
                let file = create(kind, path, &mut used)?;
                outputs.add(Sink::new(path.display().to_string(), Box::new(file)))
            };
            outputs.targets[kind as usize] = Some(target);
        }
        Ok(outputs)
    }

    fn add(&mut self, sink: Sink) -> usize {
        self.sinks.push(sink);
        self.sinks.len() - 1
    }

    /// Some of them go to standard output, so nothing else may.
    pub fn to_stdout(&self) -> bool {
        self.to_stdout
    }

    pub fn wants(&self, kind: Kind) -> bool {
        self.targets[kind as usize].is_some() || kind == Kind::Metrics && self.page.is_some()
    }

    /// Tries whether the metrics can be written, now that this thread has fewer privileges.
    ///
    /// # Errors
    /// Failed: they can't.
    pub fn probe(&self) -> Result<(), Failure> {
        self.page.as_ref().map_or(Ok(()), Page::probe)
    }

    /// Writes the metrics, if anybody wants them: a file each time, anything else only when it is the last time.
    pub fn metrics(&mut self, last: bool, text: impl FnOnce() -> String) {
        if let Some(page) = &mut self.page {
            page.write(&text());
        } else if let Some(target) = self.targets[Kind::Metrics as usize].filter(|_| last) {
            self.sinks[target].with(|out| out.write_all(text().as_bytes()));
        }
    }

    /// The outputs given up since the last call, in words.
    pub fn lost(&mut self) -> Vec<String> {
        let newly = self.sinks.iter_mut().filter(|sink| sink.out.is_none() && !sink.told);
        newly
            .map(|sink| {
                sink.told = true;
                match &sink.error {
                    Some(error) => format!("{} can't be written any more: {error}", sink.name),
                    None => format!("nobody reads {} any more; nothing more is written to it", sink.name),
                }
            })
            .chain(self.page.as_mut().and_then(Page::news))
            .collect()
    }

    /// There were outputs, and the readers of all of them have gone.
    pub fn all_gone(&self) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(|sink| sink.out.is_none() && sink.error.is_none())
    }

    /// Writes one object as one line, if anybody wants it. Incidents go out at once, the rest is buffered.
    pub fn line(&mut self, kind: Kind, object: &impl Serialize) {
        let Some(target) = self.targets[kind as usize] else { return };
        let (sink, line) = (&mut self.sinks[target], &mut self.line);
        line.clear();
        sink.with(|out| {
            serde_json::to_writer(&mut *line, object)?;
            line.push(b'\n');
            out.write_all(line)?;
            if matches!(kind, Kind::Incidents | Kind::Live) { out.flush() } else { Ok(()) }
        });
    }

    /// Writes out what is buffered and says what failed.
    pub fn finish(mut self) -> Vec<Failure> {
        self.sinks.iter_mut().for_each(|sink| sink.with(Write::flush));
        let page = self.page.as_ref().and_then(Page::failure);
        self.sinks.iter().filter_map(Sink::failure).chain(page).collect()
    }
}

/// What makes a regular file the same as another; none for a device or a pipe.
fn identity(meta: &Metadata) -> Option<(u64, u64)> {
    meta.is_file().then(|| (meta.dev(), meta.ino()))
}

fn named(kind: Kind, path: &Path) -> String {
    format!("{} {}", kind.flag(), path.display())
}

/// # Errors
/// Usage: the file has another purpose already.
fn unused(kind: Kind, path: &Path, used: &BTreeSet<(u64, u64)>) -> Result<(), Failure> {
    let existing = fs::metadata(path).ok().and_then(|meta| identity(&meta));
    if existing.is_some_and(|id| used.contains(&id)) {
        let what = format!("{}: this file is an input or another output already", named(kind, path));
        return Err(Failure::usage(what).help("give every output a file of its own"));
    }
    Ok(())
}

fn create(kind: Kind, path: &Path, used: &mut BTreeSet<(u64, u64)>) -> Result<File, Failure> {
    // Before it is opened, which empties it.
    unused(kind, path, used)?;
    let named = named(kind, path);
    let made = File::create(path).and_then(|file| file.metadata().map(|meta| (file, meta)));
    let (file, meta) = made.map_err(|error| {
        Failure::failed(format!("{named}: can't be made: {error}"))
            .help("name a path in a folder that exists and that this user may write to")
    })?;
    used.extend(identity(&meta));
    Ok(file)
}
