//! Bytes as the text of a rule file: errors or rules, whose guards and bodies are then asked.
//! Runs on libFuzzer's thread; what is done and checked is in `fuzz::rules`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rules(data));
