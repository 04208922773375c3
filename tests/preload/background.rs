//! The background thread in programs that know nothing of it.

use std::os::unix::process::ExitStatusExt;

use super::workshop::{Heap, Program, Run, Workshop};

fn program() -> Program {
    Workshop::new().program("background.c")
}

/// A run that passed and complained of nothing.
fn passes(program: &Program, args: &[&str], env: &[(&'static str, &str)]) -> Run {
    let plan = program.on(Heap::Ours).args(args);
    let plan = env
        .iter()
        .fold(plan, |plan, (name, value)| plan.env(name, value));
    let run = plan.run();
    run.passed();
    assert_eq!(run.stderr, "", "{run}");
    run
}

#[test]
fn only_a_process_with_a_large_heap_has_the_thread() {
    let program = program();
    passes(&program, &["much"], &[]);
    passes(&program, &["much"], &[("SPANMALLOC_BACKGROUND", "1")]);
    passes(&program, &["little"], &[]);
    passes(&program, &["none"], &[("SPANMALLOC_BACKGROUND", "0")]);
}

#[test]
fn signals_go_to_the_threads_of_the_program() {
    let program = program();
    passes(&program, &["signals"], &[]);
    passes(&program, &["sigwait"], &[]);
    let ended = program.on(Heap::Ours).args(&["term"]).run();
    assert_eq!(ended.status.signal(), Some(libc::SIGTERM), "{ended}");
    assert_eq!(ended.stdout, "end: 0 failures\n", "{ended}");
}

#[test]
fn thread_that_starts_it_keeps_its_mask_of_signals() {
    let program = program();
    passes(&program, &["mask"], &[]);
    passes(&program, &["full-mask"], &[]);
}

#[test]
fn child_of_a_fork_starts_its_own() {
    passes(&program(), &["fork"], &[]);
}

#[test]
fn processes_end_as_without_it() {
    let run = passes(&program(), &["ends"], &[]);
    // All but those that end by `_exit` and `abort`.
    let at_exit = run.stdout.matches("function of atexit: ok\n").count();
    assert_eq!(at_exit, 10, "{run}");
}

#[test]
fn burst_of_a_process_that_idles_goes_back() {
    passes(&Workshop::new().program("idle.c"), &["burst"], &[]);
}

#[test]
fn threads_that_sleep_keep_little() {
    passes(&Workshop::new().program("idle.c"), &["threads"], &[]);
}

#[test]
fn trim_releases_what_is_free() {
    let program = Workshop::new().program("idle.c");
    // Nothing else releases, however long the frees take on a machine that is busy.
    passes(&program, &["trim"], &[("SPANMALLOC_RELEASE", "never")]);
}
