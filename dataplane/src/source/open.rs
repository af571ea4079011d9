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

#[cfg(test)]
mod tests {
    use super::super::file::testfiles::{gzip, plain_pcap};
    use super::super::{Batch, Poll, Source};
    use super::*;

    #[test]
    fn files_are_merged_and_each_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = ["a.pcap", "b.pcap.gz"].iter().map(|name| dir.path().join(name)).collect();
        let whole = plain_pcap(200, 40);
        std::fs::write(&paths[0], &whole[..whole.len() - 1]).unwrap();
        std::fs::write(&paths[1], gzip(&whole)).unwrap();
        let mut merge = open_all(&paths).unwrap();
        let mut batch = Batch::new();
        let mut seen = Vec::new();
        while merge.poll(&mut batch) == Poll::Packets {
            for packet in &batch.packets {
                assert_eq!(merge.bytes(packet), [(packet.ts / 1_000_000 % 1000) as u8; 40]);
                seen.push((packet.ts, packet.interface));
            }
            merge.release(&mut batch);
        }
        assert_eq!(seen.len(), 399);
        assert!(seen.is_sorted());
        let [a, b] = &merge.reports()[..] else { panic!("two reports") };
        assert_eq!((a.packets, a.complete, b.packets, b.complete), (199, false, 200, true));
        let (read, size) = merge.progress();
        assert_eq!(Some(read), size);
    }

    #[test]
    fn the_first_input_that_is_no_capture_is_named() {
        let error = open_all(&["-", "-"]).err().expect("an error");
        assert!(matches!(error, OpenError::StandardInputTwice));
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good");
        std::fs::write(&good, plain_pcap(1, 1)).unwrap();
        let error = open_all(&[good, dir.path().join("missing")]).err().expect("an error");
        assert!(error.to_string().contains("missing: no such file"), "{error}");
    }
}
