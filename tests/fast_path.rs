//! The fast paths as the compiler made them: disassembles the release build of an example, of this
//! test, which has a configured allocator, and, with the feature `preload`, of the library.
//!
//! Runs in release builds on x86-64 where `objdump` is installed; elsewhere there is nothing to
//! check. The bounds are those of ARCHITECTURE.md.

#![cfg(all(target_arch = "x86_64", not(debug_assertions)))]

use std::path::{Path, PathBuf};
use std::process::Command;

use spanmalloc::{Config, Configured, Release, SpanMalloc};

#[global_allocator]
static GLOBAL: Configured = SpanMalloc::with(Config::new().release(Release::AtOnce));

/// The directory of the test's own executable: `deps`, with the libraries.
fn deps() -> PathBuf {
    let tests = std::env::current_exe().expect("the test's own path");
    tests.parent().expect("target/release/deps").to_owned()
}

/// Whether a symbol is this one: of C, or the end of a mangled name.
fn is_named(name: &str, symbol: &str) -> bool {
    let mangled = |head: &str| head.starts_with("_R");
    name == symbol || name.strip_suffix(symbol).is_some_and(mangled)
}

/// Instructions of a function of `file` up to its first `ret`, in the order of the code, or `None`
/// without a disassembler. The compiler lays the fast path out first and ends it there.
fn fast_path_of(file: &Path, symbol: &str) -> Option<Vec<String>> {
    let objdump = Command::new("objdump")
        .args(["-t", "-d", "--no-show-raw-insn", "-M", "intel"])
        .arg(file)
        .output();
    let Ok(output) = objdump else {
        eprintln!("objdump is not installed: nothing checked");
        return None;
    };
    assert!(
        output.status.success(),
        "objdump can't read {}",
        file.display()
    );
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = listing.lines();
    // By its address: of several functions that are the same code, the listing names one.
    let address = lines
        .find(|line| is_named(line.rsplit(' ').next().unwrap_or(""), symbol))
        .and_then(|line| line.split(' ').next())
        .unwrap_or_else(|| panic!("{symbol} is not in {}", file.display()));
    lines
        .find(|line| line.starts_with(address) && line.ends_with(">:"))
        .unwrap_or_else(|| panic!("{symbol} is not disassembled"));
    let mut instructions = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let text = line.split_once(":\t").map_or("", |(_, text)| text).trim();
        instructions.push(text.to_owned());
        if text.starts_with("ret") {
            return Some(instructions);
        }
    }
    panic!("{symbol} has no ret");
}

fn assert_fast(file: &Path, symbol: &str, most: usize) {
    let Some(path) = fast_path_of(file, symbol) else {
        return;
    };
    assert!(
        path.len() <= most,
        "{} instructions, at most {most}:\n{}",
        path.len(),
        path.join("\n")
    );
    for instruction in &path {
        let slow = ["call", "lock", "xchg", "push"];
        assert!(
            !slow.iter().any(|word| instruction.starts_with(word)),
            "`{instruction}` on the fast path:\n{}",
            path.join("\n")
        );
    }
}

/// What the heap profile adds to an allocation: bytes are counted down, the end is seen, and the size is kept
/// for that.
const SAMPLING: usize = if cfg!(feature = "profile") { 3 } else { 0 };

/// What guarded objects add to a free in Rust: the address is compared.
const GUARDED: usize = if cfg!(feature = "guarded") { 5 } else { 0 };

#[test]
fn alloc_is_short_and_has_no_call_and_no_locked_instruction() {
    let example = deps().with_file_name("examples").join("wordcount");
    assert_fast(&example, "12___rust_alloc", 17 + SAMPLING);
}

#[test]
fn dealloc_is_short_and_has_no_call_and_no_locked_instruction() {
    let example = deps().with_file_name("examples").join("wordcount");
    assert_fast(&example, "14___rust_dealloc", 24 + GUARDED);
}

#[test]
fn configured_allocator_is_as_fast() {
    let this = std::env::current_exe().expect("the test's own path");
    assert_fast(&this, "12___rust_alloc", 17 + SAMPLING);
    assert_fast(&this, "14___rust_dealloc", 24 + GUARDED);
}

#[cfg(feature = "preload")]
#[test]
fn malloc_and_free_of_c_are_short_and_have_no_call_and_no_locked_instruction() {
    let library = deps().join("libspanmalloc.so");
    assert_fast(&library, "malloc", 15 + SAMPLING);
    assert_fast(&library, "free", 44);
}
