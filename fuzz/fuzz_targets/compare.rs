//! Two capture files, or a conversation and what became of it on its way, compared; the books must balance.
//! Runs on libFuzzer's thread; what is done and checked is in `fuzz::compare`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::compare(data));
