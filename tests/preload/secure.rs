//! The secure mode under programs in C.

use super::workshop::{Heap, Workshop};
use super::{died, one_line_with_the_address};

const SIZES: [&str; 8] = ["1", "16", "24", "1000", "5000", "32768", "40000", "1000000"];

#[test]
fn crimes_end_the_process_with_their_sentence() {
    let program = Workshop::new().program("secure.c");
    for (crime, sentence) in [
        ("overflow", "bytes were written behind the object"),
        ("overflow-realloc", "bytes were written behind the object"),
        ("overflow-aligned", "bytes were written behind the object"),
        ("overflow-zeroed", "bytes were written behind the object"),
        ("twice", "double free of"),
        ("inside", "into the middle of an object"),
        ("wrong-size", "wrong size"),
    ] {
        // 16 bytes behind an object of one byte there is the next one.
        let first = usize::from(crime == "inside");
        for size in &SIZES[first..] {
            let run = program.on(Heap::Ours).args(&[crime, size]);
            // A guarded object would have a sentence of its own.
            let run = run.env("SPANMALLOC_GUARDED", "0");
            let run = run.env("SPANMALLOC_SECURE", "1").run();
            died(&run, &[sentence]);
        }
    }
}

#[test]
fn write_after_free_is_seen_when_the_memory_is_used_again() {
    let program = Workshop::new().program("secure.c");
    for size in ["1", "16", "24", "1000", "5000", "30000", "40000"] {
        let run = program.on(Heap::Ours).args(&["write", size]);
        let run = run.env("SPANMALLOC_GUARDED", "0"); // As above.
        let run = run.env("SPANMALLOC_SECURE", "1").run();
        died(&run, &["write after free"]);
    }
}

#[test]
fn program_without_crimes_runs_in_each_mode() {
    let program = Workshop::new().program("secure.c");
    for mode in [
        "checks",
        "canary",
        "fill",
        "quarantine",
        "random",
        "retire",
        "protect",
        "guards",
        "zero",
        "all",
        "1",
    ] {
        let run = program.on(Heap::Ours).args(&["none"]);
        let run = run.env("SPANMALLOC_SECURE", mode).run();
        run.passed();
        assert_eq!(run.stderr, "", "{mode}");
    }
}

#[test]
fn counting_and_the_foreign_pointers_are_as_without_it() {
    let program = Workshop::new().program("misuse.c");
    let run = program.on(Heap::Ours).args(&["foreign"]);
    let run = run
        .env("SPANMALLOC_SECURE", "1")
        .env("SPANMALLOC_COUNT", "1")
        .run();
    run.passed();
    assert!(one_line_with_the_address(&run).contains("not from this heap"));
}

/// The checks of the standards hold as well.
#[test]
fn programs_of_the_standards_pass() {
    for source in ["entry.c", "aligned.c", "fork.c", "threads.c"] {
        let program = Workshop::new().program(source);
        for mode in ["1", "all"] {
            let run = program.on(Heap::Ours).env("SPANMALLOC_SECURE", mode).run();
            run.passed();
            assert_eq!(run.stderr, "", "{source}");
        }
    }
}
