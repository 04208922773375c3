//! Guarded objects: what is done with them wrongly is reported with stacks, and all else is as ever.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use addr2line::Loader;

use super::workshop::{Heap, Program, Run, Workshop, library};

/// Runs with each slow call guarded.
fn guarded(program: &Program, args: &[&str]) -> Run {
    let plan = program.on(Heap::Ours).args(args);
    plan.env("SPANMALLOC_GUARDED", "1").run()
}

/// The names of the functions on the stack of what was `done`, the innermost first, as far as the program has
/// them.
fn stack(run: &Run, done: &str) -> Vec<String> {
    let head = format!("    {done} by thread ");
    let mut lines = run.stderr.lines();
    let found = lines.find(|line| line.starts_with(&head));
    assert!(found.is_some(), "nobody {done}: {run}");
    let frames = lines.take_while(|line| line.starts_with("      #"));
    let names = frames.enumerate().filter_map(|(index, line)| {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some(&*format!("#{index}")), "{run}");
        let address = words.next().unwrap();
        assert!(address.starts_with("0x"), "{run}");
        let (file, offset) = words.next()?.rsplit_once("+0x")?;
        let offset = u64::from_str_radix(offset, 16).unwrap();
        let file = Path::new(file);
        if !file.ends_with("program") {
            return None;
        }
        let loader = Loader::new(file).unwrap();
        loader.find_symbol(offset).map(str::to_owned)
    });
    let names: Vec<_> = names.collect();
    // What is below `main` has no frame pointers, and is not asked for.
    let last = names.last().map_or("", String::as_str);
    assert!(["_start", "main"].contains(&last), "{run}");
    names
}

/// The program ended by this signal, after a first line that says this of the address and the object that it
/// told, and stacks that begin with these functions. All further lines begin with four spaces.
fn reported(run: &Run, signal: i32, sentence: &str, stacks: &[(&str, &str)]) {
    assert_eq!(run.status.signal(), Some(signal), "{run}");
    let (address, object) = (run.told("address"), run.told("object"));
    let sentence = sentence
        .replace("ADDRESS", address)
        .replace("OBJECT", object);
    let mut lines = run.stderr.lines();
    assert_eq!(
        lines.next(),
        Some(&*format!("spanmalloc: {sentence}")),
        "{run}"
    );
    assert!(lines.all(|line| line.starts_with("    ")), "{run}");
    for (done, function) in stacks {
        let names = stack(run, done);
        assert_eq!(names.first().map(String::as_str), Some(*function), "{run}");
        assert!(
            names.contains(&"main".to_owned()) || names.len() > 1,
            "{run}"
        );
    }
    let count = run
        .stderr
        .lines()
        .filter(|line| line.contains(" by thread "));
    assert_eq!(count.count(), stacks.len(), "{run}");
}

const ALLOCATED: (&str, &str) = ("allocated", "allocates");
const FREED: (&str, &str) = ("freed", "frees");
const FREED_WRONGLY: (&str, &str) = ("wrongly freed", "frees");
const ACCESSED: (&str, &str) = ("accessed", "writes");

#[test]
fn access_that_fails_is_reported_with_stacks() {
    let program = Workshop::new().program("guarded.c");
    let of_freed = "use after free at ADDRESS, byte 16 of an object of 1000 bytes at OBJECT";
    let live = [ALLOCATED, ACCESSED];
    let freed = [ALLOCATED, FREED, ACCESSED];
    for (what, sentence, stacks) in [
        (
            "overflow",
            "overflow at ADDRESS, byte 1008 of an object of 1008 bytes at OBJECT",
            &live[..],
        ),
        (
            "underflow",
            "underflow at ADDRESS, byte -1 of an object of 1000 bytes at OBJECT",
            &live,
        ),
        ("use-after-free", of_freed, &freed),
        ("use-after-free-in-child", of_freed, &freed),
    ] {
        reported(&guarded(&program, &[what]), libc::SIGSEGV, sentence, stacks);
    }
    // Of another thread, which does not come from `_start`.
    let run = guarded(&program, &["use-after-free-in-thread"]);
    assert_eq!(run.status.signal(), Some(libc::SIGSEGV), "{run}");
    assert_eq!(stack(&run, "freed")[0], "frees");
    let threads: Vec<_> = run
        .stderr
        .lines()
        .filter_map(|line| line.split_once(" by thread "))
        .map(|(_, thread)| thread)
        .collect();
    assert_eq!(threads.len(), 3, "{run}");
    assert!(
        threads[0] == threads[1] && threads[1] != threads[2],
        "{run}"
    );
}

#[test]
fn bytes_beside_an_object_are_looked_at_when_it_is_freed() {
    let program = Workshop::new().program("guarded.c");
    for (what, sentence) in [
        (
            "overflow-seen-late",
            "overflow at ADDRESS, byte 1000 of an object of 1000 bytes at OBJECT, seen when that was freed",
        ),
        (
            "underflow-seen-late",
            "underflow at ADDRESS, byte -3 of an object of 1008 bytes at OBJECT, seen when that was freed",
        ),
    ] {
        let run = guarded(&program, &[what]);
        // An object that ends with its page is beside one without access.
        let signal = run.status.signal();
        let is_at_once = what.starts_with("overflow") && signal == Some(libc::SIGSEGV);
        if !is_at_once {
            reported(&run, libc::SIGABRT, sentence, &[ALLOCATED, FREED]);
        }
    }
}

#[test]
fn wrong_free_is_reported_with_stacks() {
    let program = Workshop::new().program("guarded.c");
    let freed = [ALLOCATED, FREED, FREED_WRONGLY];
    let live = [ALLOCATED, FREED_WRONGLY];
    for (what, sentence, stacks) in [
        ("twice", "double free of ADDRESS", &freed[..]),
        (
            "middle",
            "free of a pointer into the middle of an object: ADDRESS",
            &live,
        ),
        (
            "resized",
            "free of memory that is free already: ADDRESS",
            &[ALLOCATED, FREED, ("used", "main")],
        ),
        (
            "wrong-size",
            "free with a wrong size or alignment: ADDRESS",
            &[ALLOCATED],
        ),
    ] {
        reported(&guarded(&program, &[what]), libc::SIGABRT, sentence, stacks);
    }
}

#[test]
fn handlers_of_the_program_are_called_as_ever() {
    let program = Workshop::new().program("guarded.c");
    let before = guarded(&program, &["handler", "before"]);
    assert_eq!(before.status.code(), Some(44), "{before}");
    assert!(
        before.stderr.starts_with("spanmalloc: use after free at "),
        "{before}"
    );
    let after = guarded(&program, &["handler", "after"]);
    assert_eq!(after.status.code(), Some(44), "{after}");
    assert_eq!(after.stderr, "");
    for run in [&before, &after] {
        assert_eq!(run.told("handler"), run.told("address"), "{run}");
    }
    for how in ["", "nodefer"] {
        let run = guarded(&program, &["recovers", how]);
        run.passed();
        assert_eq!(run.stderr.matches("spanmalloc: ").count(), 2, "{run}");
        assert_eq!(run.stderr.matches("use after free at ").count(), 2, "{run}");
    }
    for what in ["once", "ignored"] {
        let run = guarded(&program, &[what]);
        run.passed();
        assert_eq!(run.stderr, "", "{run}");
    }
}

#[test]
fn faults_elsewhere_end_the_process_without_a_word() {
    let program = Workshop::new().program("guarded.c");
    for how in ["null", "sent"] {
        let run = guarded(&program, &["other", how]);
        assert_eq!(run.status.signal(), Some(libc::SIGSEGV), "{run}");
        assert_eq!(run.stderr, "", "{run}");
    }
}

#[test]
fn programs_without_fault_run_as_ever() {
    let shop = Workshop::new();
    let program = shop.program("guarded.c");
    for what in ["correct", "threads"] {
        let run = guarded(&program, &[what]);
        run.passed();
        assert_eq!(run.stderr, "", "{run}");
    }
    for source in ["fork.c", "exit.c"] {
        let program = shop.program(source);
        let system = program.on(Heap::System).run();
        let ours = guarded(&program, &[]);
        ours.passed();
        assert_eq!(ours.stderr, "", "{ours}");
        assert_eq!(ours.stdout, system.stdout);
    }
}

#[test]
fn nobody_waits_for_who_installs_the_handler() {
    let program = Workshop::new().program("installs.c");
    guarded(&program, &[]).passed();
}

#[test]
fn nothing_is_guarded_if_the_environment_says_so() {
    let program = Workshop::new().program("guarded.c");
    let plan = program.on(Heap::Ours).args(&["use-after-free"]);
    let run = plan.env("SPANMALLOC_GUARDED", "0").run();
    assert_eq!(run.status.code(), Some(1), "{run}");
    assert!(run.stdout.contains("FAILED: nothing is guarded"), "{run}");
}

/// Set in the process of which a thread overflows its stack.
const OVERFLOWS: &str = "SPANMALLOC_TEST_OVERFLOWS";

#[test]
fn rust_still_tells_that_a_stack_has_overflowed() {
    #[expect(unconditional_recursion, reason = "that is the point")]
    fn descend(depth: &mut [u8; 1024]) -> u8 {
        let mut deeper = [depth[0]; 1024];
        std::hint::black_box(descend)(std::hint::black_box(&mut deeper)) + deeper[7]
    }
    if env::var_os(OVERFLOWS).is_some() {
        let objects: Vec<_> = (0..100_usize).map(|size| vec![1_u8; size * 7]).collect();
        std::hint::black_box(objects);
        std::hint::black_box(descend(&mut [1; 1024]));
        return;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "guarded::rust_still_tells_that_a_stack_has_overflowed",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(OVERFLOWS, "1")
        .env("LD_PRELOAD", library())
        .env("SPANMALLOC_GUARDED", "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("has overflowed its stack"), "{stderr}");
    assert!(!stderr.contains("spanmalloc"), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
}
