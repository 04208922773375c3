//! Limits of memory, set by the user or by the system.

use super::workshop::{Cgroup, Heap, Plan, Program, Run, Workshop};

/// The limit of the system, in MiB.
const MIB: u32 = 128;

fn program() -> Program {
    Workshop::new().program("pressure.c")
}

fn explicit<'a>(program: &'a Program, case: &str) -> Plan<'a> {
    let plan = program.on(Heap::Ours).args(&[case, "64"]);
    plan.env("SPANMALLOC_MEMLIMIT", "64MiB")
}

fn automatic<'a>(program: &'a Program, case: &str) -> Plan<'a> {
    let plan = program.on(Heap::Ours).args(&[case, &MIB.to_string()]);
    plan.env("SPANMALLOC_MEMLIMIT", "auto")
}

fn passes(plan: Plan<'_>) -> Run {
    let run = plan.run();
    run.passed();
    assert_eq!(run.stderr, "", "{run}");
    run
}

#[test]
fn hard_limit_is_no_memory_and_no_crash() {
    let program = program();
    passes(explicit(&program, "hard").env("SPANMALLOC_MEMLIMIT_HARD", "1"));
}

#[test]
fn soft_limit_gives_way_to_the_need() {
    passes(explicit(&program(), "soft"));
}

/// Without a limit of their own these take twice what the group has, and are killed.
#[test]
fn automatic_limit_keeps_a_process_below_that_of_its_cgroup() {
    let Some(group) = Cgroup::with_mib(MIB) else {
        return;
    };
    let program = program();
    for case in ["small", "threads"] {
        passes(automatic(&program, case).cgroup(&group));
    }
}

#[test]
fn automatic_limit_holds_memory_at_half_of_the_address_space() {
    let run = passes(automatic(&program(), "small").address_space_mib(2 * MIB));
    let peak: u32 = run
        .told("peak")
        .strip_suffix(" KiB")
        .unwrap()
        .parse()
        .unwrap();
    // It gives way where time is short; without a limit it is 220 MiB.
    assert!(peak < (MIB + MIB / 4) << 10, "{run}");
}
