//! `spanmalloc compare`: agreement, differences, and the order of the runs.

use std::fs;

use super::*;

const AGREEMENT: &str = "The exit status and the output were the same in all measured runs.\n";

fn compare(options: &[&str], script: &str) -> Output {
    tool_on_fake("compare", options, &["sh", "-c", script])
        .output()
        .unwrap()
}

#[test]
fn a_deterministic_program_agrees() {
    let program = ["sh", "-c", "echo word; echo word >&2"];
    let output = tool_on("compare", &["-n", "2"], &program).output().unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.ends_with(AGREEMENT), "{text}");
    let names: Vec<_> = text
        .lines()
        .filter_map(|it| it.get(..17))
        .map(str::trim_end)
        .collect();
    for name in ["wall", "user", "system", "user and system", "peak RSS"] {
        assert!(names.contains(&name), "{name} in {text}");
    }
    assert!(!text.contains("word"), "{text}");
}

#[test]
fn a_difference_in_the_output_is_found() {
    for (stream, redirection) in [("output", ""), ("error", ">&2")] {
        let script = format!("{{ echo a; echo \"<${{LD_PRELOAD##*/}}>\"; }} {redirection}");
        let output = compare(&["-n", "2"], &script);
        assert_eq!(output.status.code(), Some(1));
        let expected = format!(
            "spanmalloc: the standard {stream} is not the same on the system's malloc and on \
             spanmalloc at byte 3, line 2: \"<>\\n\" and \"<fake_malloc.so>\\n\"\n"
        );
        assert_eq!(stderr(&output), expected);
        assert!(!stdout(&output).contains(AGREEMENT));
    }
}

#[test]
fn a_difference_in_the_exit_status_is_found() {
    let output = compare(&["-n", "1"], "test -z \"$LD_PRELOAD\"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "spanmalloc: the exit status is not the same on the system's malloc and on spanmalloc: \
         exit status: 0 and exit status: 1\n"
    );
}

#[test]
fn a_program_that_is_not_deterministic_is_not_a_difference() {
    for runs in ["1", "3"] {
        let output = compare(&["-n", runs], "echo $$");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stderr(&output);
        let start = "spanmalloc: the program is not deterministic: its standard output is not the \
                     same in two runs on the system's malloc at byte ";
        assert!(text.starts_with(start), "{text}");
    }
}

#[test]
fn a_crash_is_found_though_the_output_is_not_deterministic() {
    let output = compare(&["-n", "2"], "echo $$; test -z \"$LD_PRELOAD\"");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the exit status is not the same"));
}

#[test]
fn a_failing_program_is_reported_and_counts() {
    let output = compare(&["-n", "2"], "exit 3");
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let expected = "On the system's malloc the program failed: exit status: 3.\n";
    assert!(text.ends_with(&format!("{expected}{AGREEMENT}")), "{text}");
}

#[test]
fn the_allocators_take_turns_after_a_warm_up() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let other = directory.path().join("other.so");
    fs::copy(fake(), &other).unwrap();
    let with = format!("other={}", other.display());
    let script = format!("echo \"<${{LD_PRELOAD##*/}}>\" >> {}", log.display());
    let output = compare(&["-n", "2", "--with", &with], &script);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let turn = "<>\n<fake_malloc.so>\n<other.so>\n";
    assert_eq!(fs::read_to_string(log).unwrap(), turn.repeat(3));
}

#[test]
fn json_has_all_allocators() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures");
    let with = format!("other={}", fake().display());
    let options = ["-n", "3", "--json", file.to_str().unwrap(), "--with", &with];
    assert_eq!(compare(&options, "true").status.code(), Some(0));
    let record = json(&file);
    assert_eq!(record["program"], "sh");
    assert_eq!(record["runs"], 3);
    assert_eq!(record["agree"], true);
    assert_eq!(record["deterministic"], true);
    let allocators = record["allocators"].as_array().unwrap();
    let names: Vec<_> = allocators
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["system", "spanmalloc", "other"]);
    assert!(allocators[0]["library"].is_null());
    assert_eq!(allocators[1]["library"], fake().to_str().unwrap());
    for allocator in allocators {
        let figure = |name: &str| allocator["wall_seconds"][name].as_f64().unwrap();
        assert!(figure("min") > 0.0);
        assert!(figure("min") <= figure("median") && figure("median") <= figure("max"));
        assert!(allocator["peak_rss_bytes"]["median"].as_f64().unwrap() > 100_000.0);
    }
    assert_eq!(allocators[0]["wall_seconds"]["to_system"], 1.0);
}

#[test]
fn each_run_reads_the_same_input() {
    let input: Vec<u8> = b"some words\n".repeat(20_000);
    let script = format!("test \"$(wc -c)\" -eq {}", input.len());
    let mut tool = tool_on_fake("compare", &["-n", "2"], &["sh", "-c", &script]);
    let output = with_input(&mut tool, &input);
    let text = stdout(&output);
    assert!(text.ends_with(AGREEMENT), "{text}");
    assert!(!text.contains("failed"), "{text}");
}

#[test]
fn the_runs_do_not_count_and_have_no_other_preloaded_library() {
    let script = "test -z \"$SPANMALLOC_STATS$SPANMALLOC_STATS_FILE$SPANMALLOC_COUNT\" && \
                  case $LD_PRELOAD in *:*|*other*) exit 1;; esac";
    let mut tool = tool_on_fake("compare", &["-n", "1"], &["sh", "-c", script]);
    let output = tool
        .env("LD_PRELOAD", fake_without_malloc())
        .env("SPANMALLOC_STATS", "exit")
        .env("SPANMALLOC_COUNT", "1")
        .output()
        .unwrap();
    let text = stdout(&output);
    assert!(text.ends_with(AGREEMENT), "{text}{}", stderr(&output));
    assert!(!text.contains("failed"), "{text}");
}

#[test]
fn what_cannot_be_run_ends_the_tool() {
    for (program, code) in [("no-such-program", 127), ("/", 126)] {
        let mut tool = tool_on_fake("compare", &[], &[program]);
        assert_eq!(tool.output().unwrap().status.code(), Some(code));
    }
    for with in ["other=/no/such/library.so", "system=/x", "spanmalloc=/x"] {
        let output = compare(&["--with", with], "true");
        assert_eq!(output.status.code(), Some(125), "{with}");
        assert!(stderr(&output).starts_with("spanmalloc: "), "{with}");
    }
}
