//! The shared library, preloaded into programs in C and C++.
//!
//! Each program (`preload/*.c`, `preload/*.cpp`) is compiled by the test. Where standards say what has
//! to come out it runs on the system's allocator too, and both runs must print the same: that the
//! checks ask for no more than what programs may expect is itself checked.

// Starts processes; the programs are for glibc.
#![cfg(all(not(miri), target_env = "gnu"))]

#[path = "preload/background.rs"]
mod background;
#[path = "preload/config.rs"]
mod config;
#[path = "preload/faults.rs"]
mod faults;
#[path = "preload/guarded.rs"]
mod guarded;
#[path = "preload/pressure.rs"]
mod pressure;
#[path = "preload/record.rs"]
mod record;
#[path = "preload/refusals.rs"]
mod refusals;
#[path = "preload/reports.rs"]
mod reports;
#[path = "preload/secure.rs"]
mod secure;
#[path = "preload/workshop.rs"]
mod workshop;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use workshop::{Heap, Program, Run, Workshop, library};

/// Runs on both heaps, where all cases are passed, with the same output.
fn agrees(program: &Program) {
    let system = program.on(Heap::System).run();
    system.passed();
    let ours = program.on(Heap::Ours).args(&["ours"]).run();
    ours.passed();
    assert_eq!(ours.stderr, "");
    assert_eq!(ours.stdout, system.stdout);
}

/// The line that a program wrote about what it did wrong: one, with the address that it had told. What follows is
/// its stack, if that is known.
fn one_line_with_the_address(run: &Run) -> &str {
    let address = run.told("address");
    let mut lines = run.stderr.lines();
    let line = lines.next().unwrap_or("");
    assert!(lines.all(|line| line.starts_with("    ")), "{run}");
    assert!(line.starts_with("spanmalloc: "), "{run}");
    let words: Vec<&str> = line.split([' ', ':', ';', ',']).collect();
    assert!(words.contains(&address), "{run}");
    line
}

/// The program ended at its crime, of which the line says one of these.
fn died(run: &Run, sentences: &[&str]) {
    assert_eq!(run.status.signal(), Some(libc::SIGABRT), "{run}");
    let line = one_line_with_the_address(run);
    assert!(
        sentences.iter().any(|sentence| line.contains(sentence)),
        "{run}"
    );
}

/// The lines of what a tool prints, or nothing if there is no such tool.
fn lines_of(tool: &str, args: &[&str]) -> Option<Vec<String>> {
    let Ok(output) = Command::new(tool).args(args).arg(library()).output() else {
        eprintln!("skipped: there is no `{tool}`");
        return None;
    };
    assert!(output.status.success(), "{tool}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn malloc_family_does_what_the_standards_say() {
    agrees(&Workshop::new().program("entry.c"));
}

#[test]
fn aligned_allocation_does_what_the_standards_say() {
    agrees(&Workshop::new().program("aligned.c"));
}

#[test]
fn entry_points_beyond_glibc_work() {
    // What `malloc_good_size` tells is what objects have that are not guarded.
    let program = Workshop::new().program("extras.c");
    let plan = program.on(Heap::Ours).env("SPANMALLOC_GUARDED", "0");
    let run = plan.run();
    run.passed();
    assert_eq!(run.stderr, "");
}

#[test]
fn heap_tells_about_itself_and_gives_memory_back() {
    agrees(&Workshop::new().program("info.c"));
}

#[test]
fn malloc_stats_writes_to_standard_error() {
    let program = Workshop::new().program("info.c");
    let run = program.on(Heap::Ours).args(&["stats"]).run();
    run.passed();
    for line in [
        "\nlive ",
        "\n  free objects in magazines ",
        "\n  committed ",
    ] {
        assert!(run.stderr.contains(line), "{run}");
    }
    assert!(run.stderr.starts_with("spanmalloc: "), "{run}");
    assert!(run.stderr.ends_with('\n'), "{run}");
}

#[test]
fn malloc_info_has_the_elements_of_glibcs() {
    let program = Workshop::new().program("info.c");
    let [system, ours] = [Heap::System, Heap::Ours].map(|heap| {
        let run = program.on(heap).args(&["xml"]).run();
        assert!(run.status.success(), "{run}");
        let document = roxmltree::Document::parse(&run.stdout).unwrap();
        let in_sizes = |node: &roxmltree::Node| {
            let mut above = node.ancestors().skip(1);
            above.any(|node| node.has_tag_name("sizes"))
        };
        // Each element by the names of those around it, and what it tells: not the numbers.
        let elements = document.descendants().filter(roxmltree::Node::is_element);
        let shown: Vec<String> = elements
            .filter(|node| !in_sizes(node))
            .map(|node| {
                let path: Vec<_> = node
                    .ancestors()
                    .map(|node| node.tag_name().name())
                    .collect();
                let attributes = node.attributes().map(|attribute| {
                    let is_word = ["type", "version", "nr"].contains(&attribute.name());
                    let word = if is_word { attribute.value() } else { "" };
                    format!("{}={word}", attribute.name())
                });
                format!("{path:?} {:?}", attributes.collect::<Vec<_>>())
            })
            .collect();
        let bytes_of = |kind: &str| -> usize {
            let root = document.root_element().children();
            let mut found = root.filter(|node| node.attribute("type") == Some(kind));
            found
                .next()
                .unwrap()
                .attribute("size")
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!(bytes_of("mmap") >= 100 << 20, "{run}");
        // Half of 100 MB is free.
        let free = bytes_of("rest") + bytes_of("fast");
        assert!((45 << 20..60 << 20).contains(&free), "{free} {run}");
        assert!(bytes_of("current") > 95 << 20, "{run}");
        shown
    });
    assert_eq!(ours, system);
}

#[test]
fn operators_of_cpp_do_what_the_standard_says() {
    agrees(&Workshop::new().program("operators.cpp"));
}

#[test]
fn cpp_library_works() {
    let program = Workshop::new().program("library.cpp");
    agrees(&program);
    let run = program.on(Heap::Ours).run();
    assert_eq!(
        run.stdout
            .matches("destructor of a static: 1000 names")
            .count(),
        2
    );
}

#[test]
fn threads_come_and_go() {
    agrees(&Workshop::new().program("threads.c"));
}

#[test]
fn processes_fork_among_threads() {
    agrees(&Workshop::new().program("fork.c"));
}

#[test]
fn process_exits_with_memory_in_destructors() {
    let program = Workshop::new().program("exit.c");
    agrees(&program);
    let last = "destructor that runs last: ok\n";
    for heap in [Heap::System, Heap::Ours] {
        let run = program.on(heap).args(&["pthread_exit"]).run();
        run.passed();
        assert!(
            run.stdout
                .starts_with("destructor of a key of the main thread\n"),
            "{run}"
        );
        assert!(run.stdout.contains("after the main thread: ok\n"), "{run}");
        assert!(run.stdout.ends_with(last), "{run}");
    }
    assert!(program.on(Heap::Ours).run().stdout.ends_with(last));
}

#[test]
fn little_address_space_is_no_memory_and_no_crash() {
    let program = Workshop::new().program("limits.c");
    for mib in [16, 32, 64, 256] {
        for heap in [Heap::System, Heap::Ours] {
            let run = program
                .on(heap)
                .args(&[&mib.to_string()])
                .address_space_mib(mib)
                .run();
            run.passed();
            assert_eq!(run.stdout.matches(": ok\n").count(), 8, "{run}");
            assert_eq!(run.stderr, "", "{run}");
        }
    }
}

#[test]
fn foreign_pointer_is_reported_once_and_left_alone() {
    let program = Workshop::new().program("misuse.c");
    for (crime, function) in [
        ("foreign", "free"),
        ("foreign-threads", "free"),
        ("foreign-realloc", "realloc"),
    ] {
        let run = program.on(Heap::Ours).args(&[crime]).run();
        run.passed();
        let line = one_line_with_the_address(&run);
        assert!(
            line.contains(function) && line.contains("not from this heap"),
            "{run}"
        );
    }
}

#[test]
fn foreign_pointer_is_fatal_if_the_environment_says_so() {
    let program = Workshop::new().program("misuse.c");
    for crime in ["foreign", "foreign-realloc"] {
        let run = program
            .on(Heap::Ours)
            .args(&[crime])
            .env("SPANMALLOC_FOREIGN", "abort")
            .run();
        died(&run, &["not from this heap"]);
    }
    let innocent = program
        .on(Heap::Ours)
        .args(&["none"])
        .env("SPANMALLOC_FOREIGN", "abort")
        .run();
    innocent.passed();
    assert_eq!(innocent.stderr, "");
}

#[test]
fn bad_value_in_the_environment_is_told_once() {
    let program = Workshop::new().program("misuse.c");
    for (value, told) in [
        ("banana", 1),
        ("abort ", 1),
        ("Abort", 1),
        ("aborts", 1),
        ("report", 0),
    ] {
        let run = program
            .on(Heap::Ours)
            .args(&["foreign"])
            .env("SPANMALLOC_FOREIGN", value)
            .run();
        run.passed();
        let (about_value, others): (Vec<&str>, Vec<&str>) = run
            .stderr
            .lines()
            .partition(|line| line.contains("SPANMALLOC_FOREIGN"));
        assert!(
            run.stderr
                .lines()
                .all(|line| line.starts_with("spanmalloc: ")),
            "{run}"
        );
        assert_eq!(about_value.len(), told, "{run}");
        assert!(
            about_value.iter().all(|line| line.contains("abort")),
            "{run}"
        );
        assert_eq!(others.len(), 1, "{run}");
        assert!(others[0].contains(run.told("address")), "{run}");
    }
}

#[test]
fn object_freed_twice_ends_the_process() {
    let program = Workshop::new().program("misuse.c");
    for size in ["0", "1", "16", "24", "1000", "32768"] {
        let run = program.on(Heap::Ours).args(&["twice", size]).run();
        died(&run, &["double free of"]);
    }
    for size in ["40000", "100000", "10000000"] {
        let run = program.on(Heap::Ours).args(&["twice", size]).run();
        died(&run, &["double free of", "free already"]);
    }
}

#[test]
fn objects_of_no_bytes_are_apart_and_fault() {
    let run = Workshop::new().program("zero.c").on(Heap::Ours).run();
    run.passed();
    assert_eq!(run.stderr, "");
}

#[test]
fn object_freed_twice_with_others_between_ends_the_process() {
    let program = Workshop::new().program("misuse.c");
    for size in ["1", "24", "1000", "5000", "32768"] {
        let run = program
            .on(Heap::Ours)
            .args(&["twice-with-others-between", size])
            .run();
        died(&run, &["double free of"]);
    }
}

#[test]
fn watched_object_freed_twice_ends_the_process_whatever_was_between() {
    let program = Workshop::new().program("misuse.c");
    for crime in ["twice-with-many-between", "twice-by-thread-then-main"] {
        for size in ["4097", "5000", "32768"] {
            let run = program.on(Heap::Ours).args(&[crime, size]).run();
            died(&run, &["double free of"]);
        }
    }
}

#[test]
fn delete_with_another_size_ends_the_process() {
    let program = Workshop::new().program("misuse.c");
    for (size, told) in [
        ("48", "192"),
        ("480", "48"),
        ("5000", "20000"),
        ("5000", "48"),
        ("48", "5000"),
        ("100000", "400000"),
        ("100000000", "48"),
    ] {
        let run = program.on(Heap::Ours).args(&["delete", size, told]).run();
        died(&run, &["free with a wrong size or alignment:"]);
    }
    let run = program.on(Heap::Ours).args(&["aligned-delete"]).run();
    died(&run, &["free with a wrong size or alignment:"]);
}

#[test]
fn what_is_no_object_ends_the_process_whatever_function_gets_it() {
    let program = Workshop::new().program("misuse.c");
    let crimes = [
        ("static", &["0"][..], "not from this heap"),
        ("zeros", &["0"], "not from this heap"),
        ("literal", &["0"], "not from this heap"),
        ("stack", &["0"], "not from this heap"),
        ("odd", &["0"], "not from this heap"),
        ("misaligned", &["24", "5000", "100000"], "into the middle"),
        (
            "interior",
            &["48", "5000", "30000", "100000", "100000000"],
            "into the middle",
        ),
        ("freed", &["100000"], "free already"),
    ];
    for function in ["free", "realloc", "malloc_usable_size"] {
        for (kind, sizes, sentence) in crimes {
            for size in sizes {
                let run = program
                    .on(Heap::Ours)
                    .args(&["give", function, kind, size])
                    .run();
                died(&run, &[&format!("{function} of "), sentence]);
                assert!(run.stderr.contains(sentence), "{run}");
            }
        }
        let run = program
            .on(Heap::Ours)
            .args(&["give-in-thread", function])
            .run();
        died(&run, &["not from this heap"]);
    }
    for function in ["realloc", "malloc_usable_size"] {
        for size in ["0", "24", "1000", "5000", "32768"] {
            let run = program
                .on(Heap::Ours)
                .args(&["give", function, "freed", size])
                .run();
            died(
                &run,
                &[&format!("{function} of memory that is free already")],
            );
        }
    }
}

#[test]
fn object_freed_twice_by_two_threads_ends_the_process_at_its_exit() {
    let program = Workshop::new().program("misuse.c");
    let run = program.on(Heap::Ours).args(&["twice-by-threads"]).run();
    died(&run, &["double free of"]);
}

#[test]
fn sized_free_of_a_quarter_of_the_size_ends_the_process() {
    let program = Workshop::new().program("misuse.c");
    for size in ["160", "4000", "40000"] {
        let run = program.on(Heap::Ours).args(&["wrong-class", size]).run();
        died(&run, &["size"]);
    }
}

#[test]
fn sized_free_of_twice_the_size_ends_the_process() {
    let program = Workshop::new().program("misuse.c");
    for size in ["1", "24", "1000", "40000", "1000000", "100000000"] {
        let run = program.on(Heap::Ours).args(&["wrong-size", size]).run();
        died(&run, &["size"]);
    }
    let run = program.on(Heap::Ours).args(&["wrong-aligned-size"]).run();
    died(&run, &["size"]);
}

#[test]
fn library_opened_late_works_from_threads_old_and_new() {
    let program = Workshop::new().program("late.c");
    let run = program
        .on(Heap::System)
        .args(&[library().to_str().unwrap()])
        .run();
    run.passed();
    assert_eq!(run.stderr, "");
}

#[test]
fn library_may_be_closed_while_a_thread_has_a_cache() {
    let program = Workshop::new().program("late.c");
    let run = program
        .on(Heap::System)
        .args(&[library().to_str().unwrap(), "close"])
        .run();
    run.passed();
    assert_eq!(run.stderr, "");
}

#[test]
fn library_bound_to_another_allocator_may_pass_its_memory() {
    let shop = Workshop::new();
    let (program, other) = (
        shop.program("deepbind.c"),
        shop.shared("deepbind_lib.c", "other", &[]),
    );
    let run = program.on(Heap::Ours).args(&[&other]).run();
    run.passed();
    let line = one_line_with_the_address(&run);
    assert!(line.contains("not from this heap"), "{run}");
    program.on(Heap::System).args(&[&other]).run().passed();
}

#[test]
fn allocation_before_main_works() {
    let shop = Workshop::new();
    let (program, other) = (
        shop.program("boot.c"),
        shop.shared("boot_lib.c", "boot", &[]),
    );
    let library = library().to_str().unwrap().to_owned();
    for preload in [
        other.clone(),
        format!("{library}:{other}"),
        format!("{other}:{library}"),
    ] {
        let run = program
            .on(Heap::System)
            .env("BOOT_TEST", "set")
            .env("LD_PRELOAD", &preload)
            .run();
        run.passed();
        assert!(run.stdout.starts_with("preinit: 0 failures\n"), "{run}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn thread_local_memory_of_libraries_opened_late() {
    let shop = Workshop::new();
    let program = shop.program("tls.c");
    let libraries: Vec<String> = [1, 7, 16, 33, 64, 100, 200, 300]
        .iter()
        .map(|kib| {
            shop.shared(
                "tls_lib.c",
                &format!("tls{kib}"),
                &[&format!("-DKIB={kib}")],
            )
        })
        .collect();
    let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
    for heap in [Heap::System, Heap::Ours] {
        let run = program.on(heap).args(&libraries).run();
        run.passed();
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn exported_symbols_are_those_that_are_meant() {
    let Some(lines) = lines_of("nm", &["-D", "--defined-only"]) else {
        return;
    };
    let mut names: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.split('@').next().unwrap())
        .collect();
    names.sort_unstable();
    let list = fs::read_to_string(workshop::source("symbols.txt")).unwrap();
    let meant: Vec<&str> = list.lines().collect();
    assert!(meant.is_sorted(), "symbols.txt is not sorted");
    assert_eq!(names, meant);
}

#[test]
fn library_needs_little() {
    let Some(lines) = lines_of("readelf", &["-d", "-W"]) else {
        return;
    };
    let needed: Vec<&str> = lines
        .iter()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(!needed.is_empty());
    for name in needed {
        assert!(
            ["libc.", "ld-linux", "libgcc_s."]
                .iter()
                .any(|known| name.starts_with(known)),
            "the library needs {name}"
        );
    }
}
