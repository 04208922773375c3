//! The fast paths as the compiler made them: disassembles the release build of an example.
//!
//! Runs in release builds on x86-64 where `objdump` is installed; elsewhere there is nothing to
//! check. The bounds are those of ARCHITECTURE.md.

#![cfg(all(target_arch = "x86_64", not(debug_assertions)))]

use std::path::PathBuf;
use std::process::Command;

/// Instructions of a function up to its first `ret`, in the order of the code, or `None` without a
/// disassembler. The compiler lays the fast path out first and ends it there.
fn fast_path_of(symbol: &str) -> Option<Vec<String>> {
    let tests = std::env::current_exe().expect("the test's own path");
    let deps = tests.parent().expect("target/release/deps");
    let example: PathBuf = deps.with_file_name("examples").join("wordcount");
    let objdump = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "-M", "intel"])
        .arg(&example)
        .output();
    let Ok(output) = objdump else {
        eprintln!("objdump is not installed: nothing checked");
        return None;
    };
    assert!(
        output.status.success(),
        "objdump can't read {}",
        example.display()
    );
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = listing.lines();
    lines
        .find(|line| line.ends_with(">:") && line.contains(symbol))
        .unwrap_or_else(|| panic!("{symbol} is not in {}", example.display()));
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

fn assert_fast(symbol: &str, most: usize) {
    let Some(path) = fast_path_of(symbol) else {
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

#[test]
fn alloc_is_short_and_has_no_call_and_no_locked_instruction() {
    assert_fast("12___rust_alloc>", 20);
}

#[test]
fn dealloc_is_short_and_has_no_call_and_no_locked_instruction() {
    assert_fast("14___rust_dealloc>", 22);
}
