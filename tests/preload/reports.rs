//! Statistics and heap profiles that the environment asks for: at signals, every so often, at the end.

use std::fs;
use std::path::Path;

use super::workshop::{Heap, Plan, Program, Run, Workshop};

fn program(shop: &Workshop) -> Program {
    shop.program("reports.c")
}

/// The run of a program that waits for reports with a pattern as their name.
fn plan<'a>(program: &'a Program, mode: &str, pattern: &str, triggers: &str) -> Plan<'a> {
    program
        .on(Heap::Ours)
        .args(&[mode, pattern])
        .env("SPANMALLOC_STATS", triggers)
        .env("SPANMALLOC_STATS_FILE", pattern)
}

fn quiet(run: &Run) {
    run.passed();
    assert_eq!(run.stderr, "", "{run}");
}

/// The files in a directory of the workshop, and what is in them.
fn files(directory: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn directory(shop: &Workshop, name: &str) -> String {
    let path = shop.path(name);
    fs::create_dir(&path).unwrap();
    path
}

/// A whole JSON object with statistics.
fn are_statistics(text: &str) -> bool {
    text.starts_with('{') && text.ends_with("}\n") && text.contains("\"live_bytes\":")
}

#[test]
fn each_signal_makes_a_report_with_the_next_number() {
    let shop = Workshop::new();
    let program = program(&shop);
    for (mode, triggers) in [("usr2", "SIGUSR2"), ("usr1", "exit,SIGUSR1,every=3600s")] {
        for background in ["0", "1"] {
            let directory = directory(&shop, &format!("{mode}{background}"));
            let pattern = format!("{directory}/%n.json");
            let plan = plan(&program, mode, &pattern, triggers);
            quiet(&plan.env("SPANMALLOC_BACKGROUND", background).run());
            let files = files(&directory);
            let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
            let at_exit: &[&str] = if triggers.contains("exit") {
                &["4.json"]
            } else {
                &[]
            };
            assert_eq!(names, [&["1.json", "2.json", "3.json"], at_exit].concat());
            assert!(files.iter().all(|(_, text)| are_statistics(text)));
        }
    }
}

#[test]
fn signal_that_comes_before_the_thread_is_not_lost() {
    let shop = Workshop::new();
    let pattern = shop.path("early.json");
    quiet(&plan(&program(&shop), "early", &pattern, "SIGUSR2").run());
}

#[test]
fn system_call_that_the_signal_interrupts_goes_on() {
    let shop = Workshop::new();
    let pattern = shop.path("restarts.json");
    quiet(&plan(&program(&shop), "restarts", &pattern, "SIGUSR2").run());
}

#[test]
fn programs_own_handler_takes_the_librarys_place() {
    let shop = Workshop::new();
    let pattern = shop.path("replaced.%n.json");
    quiet(&plan(&program(&shop), "replaced", &pattern, "SIGUSR1,SIGUSR2").run());
}

#[test]
fn reports_come_every_so_often() {
    let shop = Workshop::new();
    let pattern = shop.path("periodic.%n.json");
    let program = program(&shop);
    for background in ["0", "1"] {
        let plan = plan(&program, "periodic", &pattern, "every=1s");
        quiet(&plan.env("SPANMALLOC_BACKGROUND", background).run());
        for number in [1, 2] {
            let path = shop.path(&format!("periodic.{number}.json"));
            assert!(are_statistics(&fs::read_to_string(&path).unwrap()));
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn child_of_a_fork_makes_its_own_and_the_parent_goes_on() {
    let shop = Workshop::new();
    let directory = directory(&shop, "fork");
    let pattern = format!("{directory}/%p.%n.json");
    quiet(&plan(&program(&shop), "fork", &pattern, "SIGUSR2").run());
    // Four of the parent and three of the child.
    let files = files(&directory);
    assert_eq!(files.len(), 7);
    let of_number = |end: &str| files.iter().filter(|(name, _)| name.ends_with(end)).count();
    assert_eq!([".1.json", ".3.json", ".4.json"].map(of_number), [2, 2, 1]);
}

#[test]
fn exit_in_a_handler_in_the_middle_of_the_allocator_ends_the_process() {
    let shop = Workshop::new();
    let program = program(&shop);
    let path = shop.path("profile.%p.gz");
    let run = program
        .on(Heap::Ours)
        .args(&["handler"])
        .env("SPANMALLOC_STATS", "exit")
        .env("SPANMALLOC_PROFILE", "exit")
        .env("SPANMALLOC_PROFILE_FILE", &path)
        .run();
    run.passed();
    let lines = |start: &str| {
        run.stderr
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    let skipped = lines("spanmalloc: no report at exit: exit was called");
    let made = lines("live  ");
    // The parent's is one more.
    assert_eq!(skipped + made, 31, "{run}");
}

#[test]
fn reports_on_standard_error_say_whose_they_are() {
    let shop = Workshop::new();
    let marker = shop.path("marker");
    let run = program(&shop)
        .on(Heap::Ours)
        .args(&["stderr", &marker])
        .env("SPANMALLOC_STATS", "exit,SIGUSR2")
        .env("SPANMALLOC_PROFILE", "SIGUSR2")
        .env("SPANMALLOC_PROFILE_FILE", &marker)
        .run();
    run.passed();
    // Statistics come before the profile, for whose file the program waits.
    let header = "spanmalloc: statistics of process ";
    assert!(run.stderr.starts_with(header), "{run}");
    assert_eq!(run.stderr.matches(header).count(), 1, "{run}");
    assert_eq!(run.stderr.matches("\nlive  ").count(), 2, "{run}");
}

#[test]
fn profiles_have_triggers_and_names_of_their_own() {
    let shop = Workshop::new();
    let program = program(&shop);
    let directory = directory(&shop, "here");
    let run = program
        .on(Heap::Ours)
        .args(&["directory", &directory])
        .env("SPANMALLOC_PROFILE", "SIGUSR1")
        .run();
    quiet(&run);
    let names: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    assert_eq!(names.len(), 3);

    let pattern = shop.path("named.%n");
    let run = program
        .on(Heap::Ours)
        .args(&["usr1", &pattern])
        .env("SPANMALLOC_PROFILE", "SIGUSR1,exit")
        .env("SPANMALLOC_PROFILE_FILE", &pattern)
        .run();
    quiet(&run);
    assert!(Path::new(&shop.path("named.4")).exists());
}

#[test]
fn file_that_cannot_be_written_is_told_once() {
    let shop = Workshop::new();
    let program = program(&shop);
    let marker = shop.path("named.%n");
    // The profiles' files show that the statistics were tried three times.
    let run = plan(&program, "usr1", &marker, "SIGUSR1,exit")
        .env("SPANMALLOC_STATS_FILE", "/no/such/directory/%n")
        .env("SPANMALLOC_PROFILE", "SIGUSR1")
        .env("SPANMALLOC_PROFILE_FILE", &marker)
        .run();
    run.passed();
    let line = "spanmalloc: SPANMALLOC_STATS_FILE=/no/such/directory/%n cannot be written\n";
    assert_eq!(run.stderr, line);
}

#[test]
fn malformed_list_is_told_and_there_are_no_reports() {
    let shop = Workshop::new();
    let program = program(&shop);
    for value in ["exit,", "exit,USR2", "every=0s", "none,exit"] {
        let pattern = shop.path("never.json");
        let run = plan(&program, "none", &pattern, value).run();
        run.passed();
        assert_eq!(
            run.stderr,
            format!(
                "spanmalloc: SPANMALLOC_STATS={value} is not understood; it may be none or exit or \
                 SIGUSR1 or SIGUSR2 or every=<n>s (several with commas between); none is used\n"
            )
        );
        assert!(!Path::new(&pattern).exists());
    }
}

/// An empty page for figures.
fn page(shop: &Workshop, bytes: usize) -> String {
    let path = shop.path("page");
    fs::write(&path, vec![0; bytes]).unwrap();
    path
}

#[test]
fn figures_are_published_by_the_process_that_comes_first() {
    let shop = Workshop::new();
    let program = program(&shop);
    for background in ["0", "1"] {
        let page = page(&shop, 4096);
        let run = program
            .on(Heap::Ours)
            .args(&["publish", &page])
            .env("SPANMALLOC_PUBLISH", &page)
            .env("SPANMALLOC_COUNT", "1")
            .env("SPANMALLOC_BACKGROUND", background)
            .run();
        quiet(&run);
        let bytes = fs::read(&page).unwrap();
        assert_eq!(&bytes[..8], b"spanmpub");
        let words: Vec<u64> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word))
            .collect();
        assert_eq!(words[1], 1);
        assert!(words[3].is_multiple_of(2) && words[3] >= 8, "{}", words[3]);
        // It has ended; calls are counted; there are classes.
        assert_eq!([words[4], words[6], words[7]], [1, 1, 70]);
        let (live_objects, live_bytes, threads) = (words[8], words[9], words[19]);
        assert!(
            live_objects > 0 && live_bytes > live_objects,
            "{live_bytes}"
        );
        assert!(threads >= 1);
        let (allocations, frees) = (words[20], words[22]);
        assert!(allocations > frees && frees > 0, "{allocations} {frees}");
        // The classes have what the whole has, but for large objects.
        let classes = words[40..].as_chunks::<6>().0;
        let sum = |field: usize| classes.iter().map(|class| class[field]).sum::<u64>();
        assert!(sum(1) <= live_objects && sum(2) <= allocations && sum(3) <= frees);
        assert!(
            classes.iter().any(|class| class[..2] == [4096, 1]),
            "stdout's buffer"
        );
    }
}

#[test]
fn file_that_is_no_page_is_told_and_left_alone() {
    let shop = Workshop::new();
    let program = program(&shop);
    let short = page(&shop, 4095);
    for path in [short.as_str(), "/no/such/file", "/dev/null"] {
        let run = program
            .on(Heap::Ours)
            .args(&["none"])
            .env("SPANMALLOC_PUBLISH", path)
            .run();
        run.passed();
        let told = "is no file of 4096 bytes that can be written";
        assert_eq!(
            run.stderr,
            format!("spanmalloc: SPANMALLOC_PUBLISH={path} {told}\n")
        );
    }
    assert_eq!(fs::read(short).unwrap(), vec![0; 4095]);
}

#[test]
fn page_of_another_process_is_left_alone() {
    let shop = Workshop::new();
    let program = program(&shop);
    let page = page(&shop, 4096);
    // Of the first process there is.
    let mut words = vec![0; 4096];
    words[16] = 1;
    fs::write(&page, &words).unwrap();
    let run = program
        .on(Heap::Ours)
        .args(&["none"])
        .env("SPANMALLOC_PUBLISH", &page)
        .run();
    quiet(&run);
    assert_eq!(fs::read(&page).unwrap(), words);
}
