//! Calls that the system refuses: a layer below the library (`refuse_lib.c`) fails what it asks the
//! kernel for, at random, or from the n-th call on. The answer is null or a clean end.

use std::env;
use std::os::unix::process::ExitStatusExt;

use super::workshop::{Heap, Plan, Program, Run, Workshop, library};

/// Modes of the allocator in which these tests may run: what the environment says holds here too.
const PASSED_ON: [&str; 2] = ["SPANMALLOC_SECURE", "SPANMALLOC_GUARDED"];

fn in_mode(plan: Plan<'_>) -> Plan<'_> {
    PASSED_ON
        .iter()
        .fold(plan, |plan, name| match env::var(name) {
            Ok(value) => plan.env(name, &value),
            Err(_) => plan,
        })
}

/// Runs on the library, on top of the layer.
fn refused<'a>(program: &'a Program, layer: &str, settings: &[(&'static str, &str)]) -> Plan<'a> {
    let preload = format!("{layer}:{}", library().display());
    settings.iter().fold(
        in_mode(program.on(Heap::System).env("LD_PRELOAD", &preload)),
        |plan, (name, value)| plan.env(name, value),
    )
}

/// A number that a program told.
fn number(run: &Run, name: &str) -> u64 {
    run.told(name).parse().unwrap()
}

/// Settings of the layer and the library, and what the program is to do besides.
type Mode = (&'static [(&'static str, &'static str)], &'static str);

const MODES: [Mode; 7] = [
    (&[("REFUSE_ONE_IN", "3")], ""),
    (
        &[
            ("REFUSE_ONE_IN", "20"),
            ("SPANMALLOC_MEMLIMIT", "48MiB"),
            ("SPANMALLOC_MEMLIMIT_HARD", "1"),
        ],
        "",
    ),
    (
        &[
            ("REFUSE_ONE_IN", "5"),
            ("SPANMALLOC_BACKGROUND", "1"),
            ("SPANMALLOC_MEMLIMIT", "100MiB"),
        ],
        "limits",
    ),
    (
        &[
            ("REFUSE_FROM", "9"),
            ("REFUSE_COUNT", "40"),
            ("SPANMALLOC_RELEASE", "at-once"),
        ],
        "",
    ),
    (
        &[
            ("REFUSE_ONE_IN", "2"),
            ("REFUSE_AFTER", "20"),
            ("REFUSE_CALLS", "wait membarrier munmap madvise"),
        ],
        "",
    ),
    (
        &[("REFUSE_ONE_IN", "4"), ("SPANMALLOC_PROFILE_RATE", "65536")],
        "",
    ),
    // No memory for the library itself, from the first call on: every allocation is refused.
    (
        &[("REFUSE_ONE_IN", "1"), ("REFUSE_CALLS", "mmap")],
        "no-forks",
    ),
];

#[test]
fn calls_that_the_system_refuses_are_no_memory_and_no_crash() {
    let shop = Workshop::new();
    let layer = shop.shared("refuse_lib.c", "refuse", &[]);
    let program = shop.program("stress.c");
    let nulls_of = |(settings, more): Mode, seed: u32| {
        let seed = seed.to_string();
        let plan = refused(&program, &layer, settings).env("REFUSE_SEED", &seed);
        let run = plan.args(&["0.3", &seed, more]).run();
        run.passed();
        assert_eq!(run.stderr, "", "{run}");
        assert!(number(&run, "refused") > 0, "{settings:?}: {run}");
        number(&run, "nulls")
    };
    let runs = MODES
        .iter()
        .flat_map(|mode| (1..=3).map(|seed| (*mode, seed)));
    let mut nulls: u64 = runs.map(|(mode, seed)| nulls_of(mode, seed)).sum();
    // On a machine that is busy, a run does little.
    for seed in 4..100 {
        if nulls > 0 {
            break;
        }
        nulls += nulls_of(MODES[0], seed);
    }
    assert!(nulls > 0, "no allocation was refused");
}

/// For `SPANMALLOC_TEST_STRESS_SECONDS`: as `tests/stress.rs`, over C's interface.
#[test]
fn everything_at_once_leaves_every_byte_where_it_was() {
    let variable = |name, otherwise: &str| env::var(name).unwrap_or(otherwise.to_owned());
    let seconds = variable("SPANMALLOC_TEST_STRESS_SECONDS", "3");
    let seed = variable("SPANMALLOC_TEST_STRESS_SEED", "1");
    let program = Workshop::new().program("stress.c");
    let plan = in_mode(program.on(Heap::Ours)).env("SPANMALLOC_PROFILE_RATE", "65536");
    let run = plan.args(&[&seconds, &seed, "limits"]).run();
    run.passed();
    assert!(number(&run, "forks") > 0, "{run}");
}

#[test]
fn each_of_the_first_calls_may_be_refused() {
    let shop = Workshop::new();
    let layer = shop.shared("refuse_lib.c", "refuse", &[]);
    let program = shop.program("stress.c");
    for from in 1..25 {
        for count in ["1", "1000000000"] {
            let settings = [("REFUSE_FROM", &*from.to_string()), ("REFUSE_COUNT", count)];
            let run = refused(&program, &layer, &settings)
                .args(&["0.02", "1", "no-forks"])
                .run();
            run.passed();
            assert_eq!(run.stderr, "", "{from}, {count}: {run}");
        }
    }
}

#[test]
fn memory_that_the_system_does_not_unmap_goes_back_all_the_same() {
    let shop = Workshop::new();
    let layer = shop.shared("refuse_lib.c", "refuse", &[]);
    let settings = [("REFUSE_ONE_IN", "1"), ("REFUSE_CALLS", "munmap")];
    let program = shop.program("refused.c");
    refused(&program, &layer, &settings).run().passed();
}

#[test]
fn a_thread_that_the_system_does_not_wake_ends_the_process() {
    let shop = Workshop::new();
    let layer = shop.shared("refuse_lib.c", "refuse", &[]);
    let settings = [("REFUSE_ONE_IN", "1"), ("REFUSE_CALLS", "wake")];
    let program = shop.program("stress.c");
    // Until two threads meet at a lock.
    let run = refused(&program, &layer, &settings)
        .args(&["100", "1", "no-forks"])
        .run();
    assert_eq!(run.status.signal(), Some(libc::SIGABRT), "{run}");
    // Several threads may meet it in the same moment.
    let line = "spanmalloc: the system refuses to wake a thread (futex)\n";
    assert!(run.stderr.starts_with(line), "{run}");
    assert_eq!(run.stderr.replace(line, ""), "", "{run}");
}
