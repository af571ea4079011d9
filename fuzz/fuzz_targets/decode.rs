//! A link type, a length and a packet: decoded whole and cut short, which must not contradict each other.
//! Runs on libFuzzer's thread; what is done and checked is in `fuzz::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::decode(data));
