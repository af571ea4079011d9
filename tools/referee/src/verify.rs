//! `referee store verify`: reads every segment through and says how each is.
//!
//! Main thread, possibly while a recorder writes to the same store. Changes nothing. A segment that is cut is
//! still being written, or was left so by a crash or a full disk; all before the cut can be read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dataplane::record::{Ending, SegmentReader, Store};
use serde::Serialize;

use crate::access;
use crate::captures::store_folder;
use crate::cli::StoreArgs;
use crate::error::Failure;
use crate::index::{self, Known};
use crate::term::{self, count, plural};

/// How one segment is.
#[derive(Debug, Serialize)]
struct Segment {
    file: String,
    /// Bytes of the file.
    size: u64,
    packets: u64,
    /// Packet bytes in it.
    bytes: u64,
    /// "complete", "cut" or "damaged".
    ending: &'static str,
    /// Where in the uncompressed segment it is cut or damaged.
    offset: Option<u64>,
    what: Option<String>,
}

/// Reads a store through.
///
/// # Errors
/// Usage: no store is named. Failed: it can't be read, or something in it is damaged.
pub fn run(args: &StoreArgs) -> Result<(), Failure> {
    verify(&store_folder(args.store.as_deref(), args.config.as_deref())?, args.json)
}

fn verify(folder: &Path, json: bool) -> Result<(), Failure> {
    let store = access::store(folder)?;
    let (incidents, unreadable) = store.count_incidents().map_err(Failure::failed)?;
    if unreadable > 0 {
        let lines = plural(unreadable, "line");
        term::note(&format!(
            "{lines} of incidents.jsonl can't be read; their captures are found by flow or host"
        ));
    }
    let mut segments = Vec::new();
    for path in segment_files(&store.segments())? {
        segments.extend(read_through(&path)?);
    }
    let damaged = segments.iter().filter(|segment| segment.ending == "damaged").count() as u64;
    let index = index::known(&store);
    term::show(|out| tell(out, &segments, incidents, json))?;
    if !json {
        term::show(|out| writeln!(out, "{}", index_in_words(&store, index.as_ref())))?;
    }
    if damaged > 0 {
        let what = format!("{} of {} damaged", plural(damaged, "segment"), folder.display());
        return Err(Failure::failed(what).help("what came before the damage can still be read"));
    }
    match index.and_then(|index| wrong(&index, &segments)) {
        None => Ok(()),
        Some(what) => Err(Failure::failed(format!("the index of {} is wrong: {what}", folder.display()))
            .help("`referee store rebuild-index` makes it anew; the segments are as said above")),
    }
}

fn index_in_words(store: &Store, index: Option<&Known>) -> String {
    let Some(Known { counts, .. }) = index else {
        let what = if index::path(store).exists() { "an index that can't be used" } else { "no index" };
        return format!("{what}: captures are found by reading every segment");
    };
    let segments = plural(counts.segments, "segment");
    format!("index: {segments}, {} flows, {}", count(counts.flows), plural(counts.incidents, "incident"))
}

/// What the index says that isn't so. What it does not know (yet) is no fault.
fn wrong(index: &Known, segments: &[Segment]) -> Option<String> {
    index.damage.clone().or_else(|| {
        let differs = |segment: &Segment| {
            let known = index.segments.iter().find(|known| known.name == segment.file)?;
            let same = known.size != segment.size || known.packets == segment.packets;
            (!same).then(|| format!("it has {} packets of {}", known.packets, segment.file))
        };
        segments.iter().find_map(differs)
    })
}

fn cannot_read(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::failed(format!("{} can't be read: {error}", path.display()))
}

fn segment_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_read(folder))? {
        let path = entry.map_err(cannot_read(folder))?.path();
        if path.to_string_lossy().ends_with(".pcapng.zst") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `None` if retention deleted it meanwhile.
fn read_through(path: &Path) -> Result<Option<Segment>, Failure> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(cannot_read(path))?,
    };
    let size = file.metadata().map_err(cannot_read(path))?.len();
    let mut reader = SegmentReader::new(file).map_err(cannot_read(path))?;
    let (mut packets, mut bytes) = (0, 0);
    while let Some(packet) = reader.next_packet() {
        packets += 1;
        bytes += packet.bytes.len() as u64;
    }
    let (ending, offset, what) = match reader.ending() {
        None | Some(Ending::Complete) => ("complete", None, None),
        Some(Ending::Cut { offset }) => ("cut", Some(*offset), None),
        Some(Ending::Damaged { offset, what }) => ("damaged", Some(*offset), Some(what.clone())),
    };
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Some(Segment { file, size, packets, bytes, ending, offset, what }))
}

fn tell(out: &mut dyn Write, segments: &[Segment], incidents: u64, json: bool) -> io::Result<()> {
    for segment in segments {
        if json {
            serde_json::to_writer(&mut *out, segment)?;
            writeln!(out)?;
            continue;
        }
        write!(out, "{}: {}, {}", segment.file, plural(segment.packets, "packet"), segment.ending)?;
        if let Some(offset) = segment.offset {
            write!(out, " at uncompressed byte {}", count(offset))?;
        }
        if let Some(what) = &segment.what {
            write!(out, ": {what}")?;
        }
        writeln!(out)?;
    }
    if json {
        return Ok(());
    }
    let of = |ending| segments.iter().filter(|segment| segment.ending == ending).count();
    let packets = segments.iter().map(|segment| segment.packets).sum();
    writeln!(
        out,
        "{}: {} complete, {} cut, {} damaged; {}, {}",
        plural(segments.len() as u64, "segment"),
        of("complete"),
        of("cut"),
        of("damaged"),
        plural(packets, "packet"),
        plural(incidents, "incident")
    )
}
