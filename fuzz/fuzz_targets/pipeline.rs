//! A capture file, or a conversation made of the bytes, through worker, judge and writer; the books must balance.
//! Runs on libFuzzer's thread; what is done and checked is in `fuzz::pipeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::pipeline(data));
