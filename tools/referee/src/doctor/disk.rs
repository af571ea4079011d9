//! Checks of the store's disk: that it can be written, how fast, and whether what is to be kept fits. Main thread; writes
//! one file and removes it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD};

use super::check::Check;

/// Written at most, where there is room, and for how long at most.
const BYTES: u64 = 256 << 20;
const TIME: Duration = Duration::from_secs(1);
const PIECE: usize = 4 << 20;
/// Bytes a second that a gigabit brings.
const GIGABIT: f64 = 125e6;

/// `wanted`: bytes that the store may grow to. `who` writes it; the caller is that user.
pub fn checks(store: &Path, wanted: u64, who: Option<&str>) -> Vec<Check> {
    let Some(folder) = nearest(store) else {
        let missing =
            Check::new("store", format!("{} and the folder it would be in are missing", store.display()));
        let parent = store.parent().unwrap_or(store);
        return vec![missing.bad("nothing can be kept").command(format!("mkdir -p {}", parent.display()))];
    };
    let free = rustix::fs::statvfs(&folder).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    let name = match who {
        Some(who) => format!("{} (as {who})", store.display()),
        None => store.display().to_string(),
    };
    let mut all = vec![match out_of_reach(store) {
        Some(check) => check,
        None => speed(&name, store, measure(&folder, most(free))),
    }];
    all.extend(free.map(|free| room(free, wanted.saturating_sub(used(store)))));
    all
}

/// Bytes to write: a tenth of what is free at most, in whole pieces.
fn most(free: Option<u64>) -> u64 {
    let tenth = free.map_or(BYTES, |free| (free / 10).min(BYTES));
    tenth - tenth % PIECE as u64
}

/// What is in the store and can't be written to: a run by another user may have left it.
fn out_of_reach(store: &Path) -> Option<Check> {
    let refused = |name: &&&str| {
        let path = store.join(name);
        let mode = Access::EXISTS | Access::WRITE_OK;
        path.exists() && rustix::fs::accessat(CWD, path, mode, AtFlags::EACCESS).is_err()
    };
    let name = ["segments", "incidents.jsonl", "index.db"].iter().find(refused)?;
    let whose = fs::metadata(store.join(name)).map_or(String::new(), |meta| format!(" (uid {})", meta.uid()));
    let found = format!("{} belongs to another user{whose}", store.join(name).display());
    let check = Check::new("store", found).bad("a run that is this store's owner's can't go on with it");
    Some(check.command(format!("chown -R --reference={0} {0}", store.display())))
}

/// The store if it is there, else the folder it would be made in.
fn nearest(store: &Path) -> Option<PathBuf> {
    let parent =
        store.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    [Some(store), parent].into_iter().flatten().find(|folder| folder.is_dir()).map(Path::to_path_buf)
}

/// Bytes of the segments there are.
fn used(store: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(store.join("segments")) else { return 0 };
    entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Bytes and seconds.
fn measure(folder: &Path, most: u64) -> io::Result<(u64, f64)> {
    let path = folder.join(format!(".referee-doctor-{}", std::process::id()));
    let measured = write(&path, most);
    let _ = fs::remove_file(&path);
    measured
}

fn write(path: &Path, most: u64) -> io::Result<(u64, f64)> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Nothing that a file system could make smaller.
    let mut state = 1_u64;
    let piece: Vec<u8> = (0..PIECE / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()
        })
        .collect();
    let (began, mut bytes) = (Instant::now(), 0);
    while bytes < most && began.elapsed() < TIME {
        file.write_all(&piece)?;
        bytes += PIECE as u64;
    }
    file.sync_data()?;
    Ok((bytes, began.elapsed().as_secs_f64()))
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn speed(name: &str, store: &Path, written: io::Result<(u64, f64)>) -> Check {
    let (bytes, seconds) = match written {
        Ok(written) => written,
        Err(error) => {
            let check = Check::new("store", format!("{name} can't be written: {error}"));
            return check.bad("nothing can be kept").command(format!("ls -ld {0}; df {0}", store.display()));
        }
    };
    if bytes == 0 {
        return Check::new(
            "store",
            format!("{name}: can be written; too little is free to measure how fast"),
        );
    }
    let rate = bytes as f64 / seconds.max(1e-9);
    let check = Check::new("store", format!("{name}: {:.0} MB/s", rate / 1e6));
    match rate < GIGABIT {
        true => check.warn(
            "a full gigabit, all of it kept, brings 125 MB/s before compression; what the disk can't take is \
                            counted as unwritten",
        ),
        false => check,
    }
}

fn room(free: u64, wanted: u64) -> Check {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let check = Check::new("store_room", format!("{} free, {} more may be kept", gib(free), gib(wanted)));
    match free < wanted {
        true => check
            .warn("the disk is full before the store's limit is reached, and the oldest captures are not yet deleted then")
            .command("lower [store] max_mib in /etc/referee/referee.toml"),
        false => check,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn disks() {
        let folder = tempfile::tempdir().unwrap();
        let all = checks(&folder.path().join("store"), 0, None);
        assert_eq!((all[0].name, all[1].state), ("store", State::Ok), "{all:?}");
        assert!(all[0].found.contains(" MB/s"), "{all:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
        assert_eq!(checks(&folder.path().join("a/b"), 0, None)[0].state, State::Bad);
        let told = checks(folder.path(), 0, Some("referee")).remove(0).found;
        assert!(told.contains(" (as referee): "), "{told}");
        let store = Path::new("s");
        let speed = |written| speed("s", store, written);
        assert_eq!(speed(Ok((BYTES, 0.1))).state, State::Ok);
        assert_eq!(speed(Ok((BYTES, 10.0))).state, State::Warn);
        assert_eq!(speed(Err(io::Error::from_raw_os_error(28))).state, State::Bad);
        assert!(speed(Ok((0, 0.0))).found.ends_with("too little is free to measure how fast"));
        assert_eq!((room(2, 1).state, room(1, 2).state), (State::Ok, State::Warn));
    }

    #[test]
    fn a_small_disk_is_not_filled() {
        let mib = |mib: u64| mib << 20;
        assert_eq!((most(None), most(Some(u64::MAX))), (BYTES, BYTES));
        assert_eq!((most(Some(mib(1000))), most(Some(mib(39)))), (mib(100), 0));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(measure(folder.path(), 0).unwrap().0, 0);
        assert_eq!(measure(folder.path(), PIECE as u64).unwrap().0, PIECE as u64);
    }
}
