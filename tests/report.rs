//! Reports that a Rust program makes when the environment says so.

// Starts processes. With C's interface in the program, the reports begin before it does.
#![cfg(not(any(miri, feature = "preload")))]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::{assert_passed, is_alone, run_alone_with};
use spanmalloc::SpanMalloc;

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

/// Signals that the program's own handler got.
static OWN: AtomicU32 = AtomicU32::new(0);

extern "C" fn own_handler(_: libc::c_int) {
    OWN.fetch_add(1, Relaxed);
}

fn file(test: &str, number: u32) -> PathBuf {
    let name = format!("report-{test}-{number}.json");
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs `body` in a process of its own, which is asked for reports; the numbers of those there are.
fn reports<F: FnOnce()>(test: &str, triggers: &str, body: F) -> Vec<u32> {
    if is_alone() {
        body();
        return Vec::new();
    }
    let numbers = 1..10;
    for number in numbers.clone() {
        let _ = fs::remove_file(file(test, number));
    }
    let pattern = file(test, 0).to_str().unwrap().replace("-0.", "-%n.");
    let variables = [
        ("SPANMALLOC_STATS", triggers),
        ("SPANMALLOC_STATS_FILE", &pattern),
    ];
    assert_passed(&run_alone_with(&variables, &body));
    numbers
        .filter(|number| file(test, *number).exists())
        .collect()
}

/// Waits until a report is there, whole.
fn wait_for(test: &str, number: u32) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !fs::read_to_string(file(test, number)).is_ok_and(|text| text.ends_with("}\n")) {
        assert!(Instant::now() < deadline, "there is no report {number}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn raise_usr2() {
    // SAFETY: a signal that has a handler, which is async-signal-safe.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
}

fn install_own_handler() {
    let handler: extern "C" fn(libc::c_int) = own_handler;
    // SAFETY: the handler is async-signal-safe.
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
}

#[test]
fn programs_handler_of_before_is_called_as_well() {
    let there = reports("before", "SIGUSR2,exit", || {
        install_own_handler();
        assert!(spanmalloc::report::from_environment());
        // A second time changes nothing.
        assert!(spanmalloc::report::from_environment());
        for number in 1..=3 {
            raise_usr2();
            assert_eq!(OWN.load(Relaxed), number);
            wait_for("before", number);
        }
    });
    assert!(is_alone() || there == [1, 2, 3, 4]);
}

#[test]
fn background_thread_that_sleeps_learns_of_it() {
    let there = reports("asleep", "every=1s", || {
        assert!(spanmalloc::background::start());
        assert!(spanmalloc::report::from_environment());
        wait_for("asleep", 1);
    });
    assert!(is_alone() || there.first() == Some(&1));
}

#[test]
fn nothing_happens_unless_the_program_asks() {
    let there = reports("unasked", "SIGUSR2,exit,every=1s", || {
        install_own_handler();
        raise_usr2();
        assert_eq!(OWN.load(Relaxed), 1);
    });
    assert!(is_alone() || there.is_empty());
}

#[test]
fn environment_that_says_nothing_is_nothing_to_do() {
    let there = reports("nothing", "none", || {
        assert!(!spanmalloc::report::from_environment());
    });
    assert!(is_alone() || there.is_empty());
}
