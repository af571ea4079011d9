//! Opens the capture files named on a command line as one source.
//!
//! Called once by the program, before the worker's thread takes the result over. Names files in errors and
//! reports; decides nothing about what happens to them.

use std::path::Path;

use super::file::{FileSource, InputReport, OpenError};
use super::merge::Merge;

/// Opens all of `paths`; `-`, once, is standard input. Packets come merged by time.
///
/// # Errors
/// The first input that can't be read as a capture, or standard input named twice.
pub fn open_all<P: AsRef<Path>>(paths: &[P]) -> Result<Merge<FileSource>, OpenError> {
    if paths.iter().filter(|path| path.as_ref() == Path::new("-")).count() > 1 {
        return Err(OpenError::StandardInputTwice);
    }
    let sources: Result<Vec<FileSource>, OpenError> =
        paths.iter().map(|path| FileSource::open(path.as_ref())).collect();
    sources.map(Merge::new)
}

impl Merge<FileSource> {
    /// What became of each input, in the order they were opened; final after the end.
    pub fn reports(&self) -> Vec<InputReport> {
        self.sources().map(FileSource::report).collect()
    }

    /// Bytes read of all files as they lie on disk, and their size if all have one.
    pub fn progress(&self) -> (u64, Option<u64>) {
        let add = |(read, size): (u64, Option<u64>), (more, its): (u64, Option<u64>)| {
            (read + more, size.zip(its).map(|(size, its)| size + its))
        };
        self.sources().map(FileSource::progress).fold((0, Some(0)), add)
    }
}
