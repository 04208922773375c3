//! The tool, from outside: rows of workers that fail, its files, and how it ends.
//!
//! The workers are shell scripts in a directory of their own, so nothing is built here.

#![cfg(not(miri))] // Starts processes.

mod modes;
mod over_time;
mod reports;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const FIELDS: [&str; 11] = [
    "allocator",
    "cpu_ns_per_op",
    "cycles_per_op",
    "instructions_per_op",
    "kernel_cycles_per_op",
    "more",
    "peak_rss_bytes",
    "reps",
    "spread",
    "threads",
    "workload",
];

/// Two workloads; of the second one the number of threads can be chosen.
const LIST: &str = r#"[
{"name": "one", "about": "Does it once", "operation": "an allocation", "threads": 1, "threads_can_be_chosen": false},
{"name": "many", "about": "Does it often", "operation": "an allocation", "threads": 2, "threads_can_be_chosen": true}
]"#;

/// A directory for workers.
fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Adds a worker that lists the workloads and answers others by `script`, in which `$1` is the
/// workload.
fn add(directory: &TempDir, name: &str, script: &str) {
    let path = directory.path().join(name);
    let list = LIST.replace('\n', "");
    let text = format!(
        "#!/bin/sh\ncase $1 in\n--list) echo '{list}'; exit;;\n--allocator) echo 'it is {name}'; exit;;\nesac\n{script}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A script that answers with ten operations of so many nanoseconds each.
fn answer(ns: u32, peak_rss_bytes: u32) -> String {
    format!(
        r#"echo "some library says hello"
cat <<END
{{"workload": "$1", "threads": 2, "operations": 10, "wall_ns": 1, "user_ns": {ns}0, "system_ns": 0, "user_cycles": null, "user_instructions": 70, "kernel_cycles": null, "peak_rss_bytes": {peak_rss_bytes}, "more": {{"p99_ns": 5.5}}}}
END"#
    )
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spanmalloc-rate"))
        .args(arguments)
        .env_remove("LD_PRELOAD")
        // Nothing is to be built.
        .env("CARGO", "/nonexistent/cargo")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The tool with the workers of a directory.
fn tool_on(directory: &TempDir, arguments: &[&str]) -> Output {
    let workers = directory.path().to_str().unwrap();
    tool(&[&["--workers", workers], arguments].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The line of an allocator in the first workload of the table, its words with a space between.
fn line(output: &Output, allocator: &str) -> String {
    let text = text(&output.stdout);
    let (_, table) = text.split_once("\nworkload").expect(&text);
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|words| words.iter().take(3).any(|word| *word == allocator));
    found.expect(&text).join(" ")
}

fn json(path: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn rows_have_ratios_to_the_best_peer() {
    let workers = directory();
    add(&workers, "spanmalloc", &answer(20, 1 << 20));
    add(&workers, "system", &answer(40, 4 << 20));
    add(&workers, "another", &answer(10, 2 << 20));
    let output = tool_on(&workers, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        line(&output, "spanmalloc"),
        "one 1 spanmalloc 20.0 7.00 0.00 1.0 MiB 2.00 0.50 0 %"
    );
    assert_eq!(
        line(&output, "system"),
        "system 40.0 7.00 0.00 4.0 MiB 4.00 2.00 0 %"
    );
    assert_eq!(
        line(&output, "another"),
        "another 10.0 7.00 0.00 2.0 MiB 1.00 1.00 0 %"
    );
    let shown = text(&output.stdout);
    assert!(
        shown.contains("it is another") && shown.contains("does not permit"),
        "{shown}"
    );
    let means: Vec<String> = shown
        .lines()
        .rev()
        .take(3)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        means,
        [
            "the best peer 2.00 0.50 2",
            "another 2.00 0.50 2",
            "system 0.50 0.25 2"
        ]
    );
}

#[test]
fn a_worker_that_fails_has_a_row_that_says_so() {
    let workers = directory();
    add(&workers, "spanmalloc", &answer(20, 1 << 20));
    add(&workers, "crashing", "kill -SEGV $$");
    add(&workers, "failing", "echo 'out of paper' >&2; exit 3");
    add(&workers, "hanging", "sleep 1000 & sleep 1000");
    add(&workers, "silent", "");
    add(&workers, "odd", "echo 42");
    add(&workers, "wrong", &answer(1, 1).replace("$1", "other"));
    let once = format!("[ -e $0.ran ] && exit 9; touch $0.ran\n{}", answer(1, 1));
    add(&workers, "turning", &once);
    let json_path = workers.path().join("results.json");
    let start = Instant::now();
    let output = tool_on(
        &workers,
        &[
            "--workloads",
            "o*e",
            "--timeout",
            "0.5",
            "--json",
            json_path.to_str().unwrap(),
        ],
    );
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        line(&output, "spanmalloc"),
        "one 1 spanmalloc 20.0 7.00 0.00 1.0 MiB - - 0 %"
    );
    for (allocator, why) in [
        ("crashing", "crashed: signal 11 (SIGSEGV)"),
        ("failing", "failed: exit status 3: out of paper"),
        ("hanging", "hangs: killed after 0.5 s"),
        ("silent", "no answer"),
        ("turning", "failed: exit status 9"),
        ("odd", "no answer, but: 42"),
        (
            "wrong",
            "no answer: it tells of no operation of this workload",
        ),
    ] {
        let line = line(&output, allocator);
        assert!(
            line.starts_with(&format!("{allocator} - - - - - - - {why}")),
            "{line}"
        );
        let errors = text(&output.stderr);
        let sentence = format!("spanmalloc-rate: one on {allocator}: {why}");
        assert!(
            errors.lines().any(|line| line.starts_with(&sentence)),
            "{errors}"
        );
    }

    let records = json(&json_path);
    assert_eq!(records.len(), 8);
    for record in &records {
        let fields: Vec<&str> = record
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(fields, FIELDS);
    }
    let of = |name: &str| records.iter().find(|it| it["allocator"] == name).unwrap();
    assert_eq!(of("spanmalloc")["cpu_ns_per_op"], 20.0);
    assert_eq!(of("spanmalloc")["cycles_per_op"], Value::Null);
    assert_eq!(of("spanmalloc")["reps"], 3);
    assert_eq!(of("spanmalloc")["more"]["p99_ns"], 5.5);
    assert_eq!(of("silent")["peak_rss_bytes"], Value::Null);
    assert_eq!(of("silent")["more"]["error"], "no answer");
}

#[test]
fn without_a_row_of_ours_the_status_tells() {
    let workers = directory();
    add(
        &workers,
        "spanmalloc",
        &format!("[ $1 = one ] && exit 1\n{}", answer(1, 1)),
    );
    add(&workers, "system", &answer(1, 1));
    assert_eq!(tool_on(&workers, &["--quick"]).status.code(), Some(1));
    let of_system = tool_on(&workers, &["--quick", "--allocators", "system"]);
    assert_eq!(of_system.status.code(), Some(0));
}

#[test]
fn threads_are_for_the_workloads_that_allow_them() {
    let workers = directory();
    let script = format!("echo \"$*\" >> \"$0.calls.so\"\n{}", answer(1, 1));
    add(&workers, "system", &script);
    let output = tool_on(&workers, &["--quick", "--threads", "7"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let calls = fs::read_to_string(workers.path().join("system.calls.so")).unwrap();
    assert_eq!(calls, "one --scale quick\nmany --scale quick --threads 7\n");
}

#[test]
fn charts_are_well_formed() {
    let workers = directory();
    add(&workers, "spanmalloc", &answer(20, 1 << 20));
    add(&workers, "crashing", "kill -SEGV $$");
    let charts = workers.path().join("deep/charts");
    let output = tool_on(&workers, &["--quick", "--svg", charts.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for name in ["one.svg", "many.svg", "overview.svg"] {
        let text = fs::read_to_string(charts.join(name)).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        assert!(text.contains("spanmalloc"));
    }
    assert_eq!(fs::read_dir(&charts).unwrap().count(), 3);
}

#[test]
fn what_there_is_is_listed() {
    let workers = directory();
    add(&workers, "system", "");
    let output = tool_on(&workers, &["--list"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = text(&output.stdout);
    assert!(
        text.contains("Does it often; operation: an allocation, 2 threads or --threads"),
        "{text}"
    );
    assert!(text.contains("ready-made worker"));
    assert!(text.contains("burst-calls"), "scenarios are listed: {text}");
}

#[test]
fn a_wrong_command_line_is_one_sentence() {
    let workers = directory();
    add(&workers, "system", &answer(1, 1));
    for (arguments, expected) in [
        (
            &["--workloads", "none*"][..],
            "--workloads: there is no workload none*",
        ),
        (
            &["--allocators", "none"],
            "--allocators: there is no allocator none",
        ),
        (
            &["--over-time", "burst,none"],
            "--over-time: there is no scenario none",
        ),
        (&["--reps", "0"], "invalid value '0' for '--reps <N>'"),
        (
            &["--frobnicate"],
            "unexpected argument '--frobnicate' found",
        ),
        (
            &["--preload", "nonsense"],
            "invalid value 'nonsense' for '--preload <NAME=PATH>'",
        ),
    ] {
        let output = tool_on(&workers, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let errors = text(&output.stderr);
        assert!(
            errors.starts_with(&format!("spanmalloc-rate: {expected}")),
            "{errors}"
        );
        assert_eq!(errors.lines().count(), 1);
    }
    let output = tool_on(&workers, &["--json", "/nonexistent/file"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "spanmalloc-rate: /nonexistent/file: No such file or directory\n";
    assert_eq!(text(&output.stderr), expected);
}

/// The option that preloads, under this name, a file that is no library.
fn no_library(place: &TempDir, name: &str) -> String {
    let library = place.path().join("none.so");
    fs::write(&library, "nothing").unwrap();
    format!("{name}={}", library.display())
}

#[test]
fn a_library_that_is_none_is_found_out() {
    let workers = directory();
    add(&workers, "system", &answer(1, 1));
    let option = no_library(&workers, "fake");
    let output = tool_on(&workers, &["--quick", "--preload", &option]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(line(&output, "fake").ends_with("the library can't be preloaded"));
}

#[test]
fn a_library_takes_the_place_of_the_worker_of_its_name() {
    let workers = directory();
    add(&workers, "system", &answer(1, 1));
    add(&workers, "spanmalloc", &answer(1, 1));
    let option = no_library(&workers, "spanmalloc");
    let output = tool_on(&workers, &["--quick", "--preload", &option]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(line(&output, "spanmalloc").ends_with("the library can't be preloaded"));
    let twice = ["--quick", "--preload", &option, "--preload", &option];
    let output = tool_on(&workers, &twice);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let expected = "spanmalloc-rate: --preload: there is an allocator spanmalloc already\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn a_peer_that_cannot_be_built_has_rows_that_say_so() {
    let place = directory();
    let path = place.path().display();
    add(&place, "ready", &answer(20, 1 << 20));
    // Knows where its files go, fails for one feature, and has the same worker for all others.
    let cargo = format!(
        r#"#!/bin/sh
case "$*" in
metadata*) echo '{{"workspace_root": "{path}", "target_directory": "{path}/target"}}';;
*--no-default-features*--features\ snmalloc*) echo 'Compiling x'; echo 'error: no compiler' >&2; exit 101;;
*) mkdir -p {path}/target/rate/release; cp {path}/ready {path}/target/rate/release/rate-worker;;
esac
"#
    );
    let script = place.path().join("cargo");
    fs::write(&script, cargo).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spanmalloc-rate"))
        .args(["--quick", "--allocators", "spanmalloc,system,snmalloc"])
        .env("CARGO", &script)
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = format!(
        "spanmalloc-rate: snmalloc is not built: error: no compiler (log: {path}/target/rate/logs/snmalloc.log)\n"
    );
    assert_eq!(text(&output.stderr), expected);
    assert!(line(&output, "snmalloc").ends_with("not built: error: no compiler"));
    assert!(line(&output, "system").starts_with("system 20.0 7.00"));
    for worker in ["spanmalloc", "system"] {
        assert!(
            place
                .path()
                .join("target/rate/workers")
                .join(worker)
                .exists()
        );
    }
}

#[test]
fn without_cargo_there_is_nothing_to_build_with() {
    let output = tool(&["--allocators", "system"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "spanmalloc-rate: /nonexistent/cargo: No such file or directory\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn a_command_is_timed() {
    let workers = directory();
    let json_path = workers.path().join("results.json");
    let path = json_path.to_str().unwrap();
    let output = tool(&[
        "--allocators",
        "system",
        "--json",
        path,
        "--reps",
        "2",
        "--",
        "sh",
        "-c",
        "echo loud; exit 0",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    assert!(
        shown.contains("wall time") && shown.contains("to system"),
        "{shown}"
    );
    let records = json(&json_path);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["workload"], "sh -c echo loud; exit 0");
    assert_eq!(records[0]["reps"], 2);
    assert_eq!(records[0]["threads"], Value::Null);
    assert!(records[0]["more"]["wall_ns"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_command_that_fails_is_reported() {
    for (command, expected) in [
        (
            &["sh", "-c", "echo no >&2; exit 3"][..],
            "failed: exit status 3: no",
        ),
        (
            &["/nonexistent/program"],
            "not started: No such file or directory",
        ),
    ] {
        let arguments = [&["--allocators", "system", "--"], command].concat();
        let output = tool(&arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = text(&output.stderr);
        let sentence = format!("spanmalloc-rate: on system the command {expected}\n");
        assert_eq!(errors, sentence);
        assert!(text(&output.stdout).contains(expected));
    }
}
