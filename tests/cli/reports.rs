//! The options of `run` that have the library write reports.

use std::fs;

use super::*;

/// The tool with options and a program, in a directory of the test's own.
fn run_in(directory: &Path, options: &[&str], program: &[&str]) -> Output {
    let mut tool = tool_on("run", options, program);
    tool.current_dir(directory).output().unwrap()
}

/// The names of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn statistics_are_those_of_the_programs_own_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // A process of its own allocates more than the shell does.
    let script = "dd if=/dev/zero of=/dev/null bs=50M count=1 2>/dev/null; exit 3";
    let script = ["bash", "-c", script];
    let output = run_in(path, &["--stats", "stats.json"], &script);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(names(path), ["stats.json"]);
    let statistics = json(&path.join("stats.json"));
    assert!(statistics["allocated_bytes"].as_u64().unwrap() < 40_000_000);
    // The report has them as well.
    let text = stderr(&output);
    assert!(text.contains("\nallocations "), "{text}");
    assert!(text.contains("\npeak RSS "), "{text}");
}

#[test]
fn statistics_as_a_table_are_not_in_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_in(directory.path(), &["--stats", "stats.txt"], &["true"]);
    assert!(output.status.success());
    let table = fs::read_to_string(directory.path().join("stats.txt")).unwrap();
    assert!(table.contains("\nlive "), "{table}");
    let text = stderr(&output);
    let note = "\nspanmalloc: the allocator's figures are in stats.txt\n";
    assert!(text.ends_with(note), "{text}");

    let quiet = ["--quiet", "--stats", "stats.txt"];
    let output = run_in(directory.path(), &quiet, &["true"]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn each_process_writes_its_own_if_the_name_has_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let script = ["bash", "-c", "ls >&2; true"];
    for options in [
        ["--quiet", "--stats", "%p.json"],
        ["--quiet", "--profile", "%p.gz"],
    ] {
        let output = run_in(path, &options, &script);
        assert!(output.status.success());
    }
    let of = |end: &str| {
        names(path)
            .iter()
            .filter(|name| name.ends_with(end))
            .count()
    };
    assert_eq!([".json", ".gz"].map(of), [2, 2]);
}

#[test]
fn profile_is_written_beside_the_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let options = [
        "--quiet",
        "--profile",
        "heap.pb.gz",
        "--stats",
        "stats.json",
    ];
    let output = run_in(directory.path(), &options, &["ls"]);
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
    assert_eq!(names(directory.path()), ["heap.pb.gz", "stats.json"]);
}

#[test]
fn report_that_the_program_did_not_leave_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let killed = ["sh", "-c", "kill -KILL $$"];
    for (option, what) in [("--stats", "statistics"), ("--profile", "heap profile")] {
        let output = run_in(directory.path(), &["--quiet", option, "file"], &killed);
        let told = stderr(&output);
        let start = format!("spanmalloc: the allocator left no {what}: ");
        assert!(told.starts_with(&start), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert_eq!(names(directory.path()), [""; 0]);
    }
}

#[test]
fn file_that_cannot_be_written_stops_the_tool_before_the_program() {
    let directory = tempfile::tempdir().unwrap();
    for option in ["--stats", "--profile"] {
        let output = run_in(directory.path(), &[option, "no/such"], &["echo", "ran"]);
        assert_eq!(output.status.code(), Some(125));
        assert_eq!(stdout(&output), "");
        let told = "spanmalloc: no/such: No such file or directory\n";
        assert_eq!(stderr(&output), told);
    }
}

#[test]
fn options_go_over_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let mut tool = tool_on("run", &["--quiet", "--stats", "here.json"], &["true"]);
    let elsewhere = directory.path().join("elsewhere");
    tool.env("SPANMALLOC_STATS", "none")
        .env("SPANMALLOC_STATS_FILE", &elsewhere)
        .current_dir(&directory);
    assert!(tool.output().unwrap().status.success());
    assert_eq!(names(directory.path()), ["here.json"]);
}
