//! Bytes as a capture file, read to its end: at once and in crumbs, which must give the same.
//! Runs on libFuzzer's thread; what is done and checked is in `fuzz::file_reader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::file_reader(data));
