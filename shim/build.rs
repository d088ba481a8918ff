//! Keeps the tables for unwinding out of the release build: see `runtime/no-unwind-tables.ld`.

use std::env;

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/no-unwind-tables.ld");
    println!("cargo::rerun-if-changed={script}");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Tests unwind out of the ones that fail; `cargo build` of a developer shows a backtrace.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}
