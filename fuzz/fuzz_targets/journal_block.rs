#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| landfall_journal::fuzzing::block(data));
