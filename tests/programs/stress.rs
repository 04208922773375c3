//! stress-ng, whose stressors check what they do.

use crate::harness::{both, program};

/// The secure mode for `malloc`, which now and then has a `calloc` of fewer than eight bytes, and writes eight: what
/// canaries see (and valgrind).
const WITHOUT_CANARY: &str = "checks,fill,quarantine,random,retire";

/// Runs one stressor with two workers until it has done so many operations. They report errors, and
/// success if the time is up, but that is later than the limit of all programs.
fn stress(stressor: &str, operations: u32, more: &[&str]) {
    let Some(path) = program("stress-ng") else {
        return;
    };
    both(|stage| {
        let mut command = stage.command(&path);
        command.args([&format!("--{stressor}"), "2"]);
        command
            .arg(format!("--{stressor}-ops"))
            .arg(operations.to_string());
        command
            .args(["--verify", "--timeout", "150", "--temp-path", "."])
            .args(more);
        if stage.is_secure && stressor == "malloc" {
            command.env("SPANMALLOC_SECURE", WITHOUT_CANARY);
        }
        stage.run(&mut command);
        b"passed".into()
    });
}

#[test]
fn stress_malloc() {
    let sizes = ["--malloc-bytes", "256k", "--malloc-max", "1000"];
    let more = ["--malloc-pthreads", "2", "--malloc-touch"];
    stress("malloc", 100_000, &[&sizes[..], &more[..]].concat());
}

#[test]
fn stress_fork() {
    stress("fork", 1000, &["--fork-max", "4"]);
}

#[test]
fn stress_vfork() {
    stress("vfork", 1000, &["--vfork-max", "4"]);
}

#[test]
fn stress_pthread() {
    stress("pthread", 3000, &["--pthread-max", "64"]);
}
