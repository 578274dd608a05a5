//! One program for all targets: `TARGET` names one of `tollgate::fuzzing`.
#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        tollgate::fuzzing::target(&name).unwrap_or_else(|| panic!("no target is named {name:?}"))
    });
    target(bytes);
});
