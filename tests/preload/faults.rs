//! Faults that have been fixed stay away.

use std::fs;

use super::workshop::{Heap, Program, Run, Workshop, library};
use super::{agrees, one_line_with_the_address};

/// A run that passed and complained of nothing.
fn quiet(run: Run) -> Run {
    run.passed();
    assert_eq!(run.stderr, "", "{run}");
    run
}

/// Runs with these arguments on both heaps, with the same output.
fn agrees_with(program: &Program, args: &[&str]) {
    let [system, ours] =
        [Heap::System, Heap::Ours].map(|heap| quiet(program.on(heap).args(args).run()));
    assert_eq!(ours.stdout, system.stdout);
}

#[test]
fn operators_replaced_in_part_are_what_the_others_call() {
    agrees(&Workshop::new().program("replaced.cpp"));
}

#[test]
fn library_in_cpp_that_a_program_in_c_opens() {
    let shop = Workshop::new();
    let opened = shop.shared("local_lib.cpp", "opened", &[]);
    agrees_with(&shop.program("local.c"), &[&opened]);
}

#[test]
fn fork_waits_for_no_stream_with_the_heap_locked() {
    agrees_with(&Workshop::new().program("forks.c"), &["streams"]);
}

#[test]
fn handlers_of_fork_may_allocate() {
    let shop = Workshop::new();
    let program = shop.program("forks.c");
    let ours = library().to_str().unwrap().to_owned();
    for handlers in ["1", "100"] {
        let flag = format!("-DHANDLERS={handlers}");
        let other = shop.shared("forks_lib.c", &format!("handlers{handlers}"), &[&flag]);
        // Of two libraries that need nothing of each other, the last is started first.
        let preloads = [
            other.clone(),
            format!("{ours}:{other}"),
            format!("{other}:{ours}"),
        ];
        let [system, first, second] = preloads.map(|preload| {
            let plan = program.on(Heap::System).args(&["handlers"]);
            quiet(plan.env("LD_PRELOAD", &preload).run())
        });
        assert_eq!(first.stdout, system.stdout);
        assert_eq!(second.stdout, system.stdout);
    }
}

#[test]
fn handlers_of_fork_are_registered_before_anything_is_allocated() {
    agrees_with(&Workshop::new().program("forks.c"), &["register"]);
}

#[test]
fn objects_of_no_bytes_at_huge_alignments_are_apart() {
    agrees_with(&Workshop::new().program("edges.c"), &["aligned"]);
}

#[test]
fn realloc_to_less_needs_no_memory() {
    agrees_with(&Workshop::new().program("edges.c"), &["shrink"]);
}

#[test]
fn first_call_may_ask_for_more_than_there_is() {
    let program = Workshop::new().program("edges.c");
    for tib in ["1", "13", "60", "100", "127", "1000"] {
        agrees_with(&program, &["first", tib]);
    }
}

#[test]
fn threads_leave_nothing_behind_without_a_key() {
    agrees_with(&Workshop::new().program("edges.c"), &["keys"]);
}

#[test]
fn handler_of_the_abort_may_allocate() {
    let program = Workshop::new().program("edges.c");
    for how in ["twice-exit", "twice-jump"] {
        let run = program.on(Heap::Ours).args(&[how]).run();
        assert_eq!(run.status.code(), Some(43), "{run}");
        let line = one_line_with_the_address(&run);
        assert!(line.contains("double free of"), "{run}");
    }
}

#[test]
fn statistics_go_where_the_environment_said_at_the_start() {
    let shop = Workshop::new();
    let program = shop.program("ends.c");
    for mode in ["clearenv", "overwrite"] {
        for (name, starts, end) in [
            ("stats.json", "{\"", "]}\n"),
            ("stats.prom", "# TYPE spanmalloc_", "\n# EOF\n"),
            ("stats.xml", "<malloc version=\"1\">\n", "</malloc>\n"),
            ("stats.txt", "spanmalloc: ", "\n"),
        ] {
            let path = shop.path(&format!("{mode}-{name}"));
            let plan = program.on(Heap::Ours).args(&[mode]);
            quiet(
                plan.env("SPANMALLOC_STATS", "exit")
                    .env("SPANMALLOC_STATS_FILE", &path)
                    .run(),
            );
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(starts), "{mode}, {name}: {text}");
            assert!(text.ends_with(end), "{mode}, {name}: {text}");
        }
    }
}

#[test]
fn statistics_reach_standard_error_or_no_file() {
    let shop = Workshop::new();
    let program = shop.program("ends.c");
    let run = |args: &[&str]| {
        let plan = program.on(Heap::Ours).args(args);
        plan.env("SPANMALLOC_STATS", "exit").run()
    };
    let closed = run(&["close"]);
    closed.passed();
    assert!(closed.stderr.starts_with("spanmalloc: "), "{closed}");
    assert!(closed.stderr.contains("\n  committed "), "{closed}");
    assert!(closed.stderr.ends_with('\n'), "{closed}");

    let data = shop.path("data");
    fs::write(&data, "precious").unwrap();
    quiet(run(&["data", &data]));
    assert_eq!(fs::read_to_string(&data).unwrap(), "precious");
}
