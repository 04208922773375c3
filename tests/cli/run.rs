//! `spanmalloc run`: exit codes, what is handed through, the report.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use super::*;

fn run(options: &[&str], program: &[&str]) -> Output {
    tool_on("run", options, program).output().unwrap()
}

fn run_on_fake(options: &[&str], program: &[&str]) -> Output {
    tool_on_fake("run", options, program).output().unwrap()
}

#[test]
fn the_exit_code_is_the_programs() {
    for code in [0, 1, 3, 255] {
        let output = run(&["--quiet"], &["sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code));
    }
}

#[test]
fn the_tool_ends_by_the_signal_that_ended_the_program() {
    for (name, number) in [
        ("KILL", libc::SIGKILL),
        ("TERM", libc::SIGTERM),
        ("INT", libc::SIGINT),
        ("SEGV", libc::SIGSEGV),
        ("USR1", libc::SIGUSR1),
    ] {
        let output = run(&[], &["sh", "-c", &format!("kill -{name} $$")]);
        assert_eq!(output.status.signal(), Some(number), "{name}");
        assert!(!output.status.core_dumped(), "{name}");
        let told = format!("spanmalloc: sh: signal: {number} (SIG{name})");
        assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    }
}

#[test]
fn a_program_that_is_not_found_gives_127() {
    let output = run(&[], &["no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        stderr(&output),
        "spanmalloc: no-such-program: No such file or directory\n"
    );
}

#[test]
fn a_program_that_cannot_be_executed_gives_126() {
    let output = run(&[], &["/"]);
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(stderr(&output), "spanmalloc: /: Permission denied\n");
}

#[test]
fn usage_errors_give_125_and_help_gives_0() {
    for line in [
        ["run"].as_slice(),
        &["run", "--no-such-option", "true"],
        &["compare", "-n", "0", "true"],
        &["compare", "--with", "name", "true"],
        &["no-such-command"],
    ] {
        let output = clean(&mut Command::new(TOOL)).args(line).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{line:?}");
        assert!(stderr(&output).starts_with("spanmalloc: "), "{line:?}");
        assert_eq!(stdout(&output), "", "{line:?}");
    }
    for line in [
        ["--help"].as_slice(),
        &["run", "--help"],
        &["compare", "--help"],
        &["env", "--help"],
    ] {
        let output = clean(&mut Command::new(TOOL)).args(line).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert!(stdout(&output).contains("Examples:\n"), "{line:?}");
    }
    let output = tool("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let version = concat!("spanmalloc ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(stdout(&output), version);
}

#[test]
fn a_file_for_json_that_cannot_be_written_stops_the_tool_before_the_program() {
    let output = run(&["--json", "/no/such/directory/x"], &["echo", "ran"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "spanmalloc: /no/such/directory/x: No such file or directory\n"
    );
}

#[test]
fn input_and_output_pass_through_byte_for_byte() {
    let input: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let output = with_input(&mut tool_on("run", &["--quiet"], &["cat"]), &input);
    assert!(output.status.success());
    assert!(output.stdout == input);

    let script = ["sh", "-c", "cat >&2"];
    let output = with_input(&mut tool_on("run", &["--quiet"], &script), &input);
    assert!(output.stderr == input);
    assert_eq!(stdout(&output), "");
}

#[test]
fn arguments_and_the_working_directory_pass_through() {
    let script = "pwd -P; printf '<%s>' \"$@\"";
    let directory = tempfile::tempdir().unwrap();
    let mut tool = tool("run");
    tool.arg("--lib").arg(fake()).arg("--quiet");
    // Without `--`: what follows the program is the program's.
    tool.args(["sh", "-c", script, "sh", "--quiet", "", "a b", "--", "*"]);
    let output = tool.current_dir(&directory).output().unwrap();
    let place = fs::canonicalize(&directory).unwrap();
    let expected = format!("{}\n<--quiet><><a b><--><*>", place.display());
    assert_eq!(stdout(&output), expected);
    assert_eq!(stderr(&output), "");
}

#[test]
fn the_library_comes_before_what_is_preloaded_already() {
    let other = fake_without_malloc();
    let mut tool = tool_on_fake("run", &["-q"], &["sh", "-c", "printf %s \"$LD_PRELOAD\""]);
    let output = tool.env("LD_PRELOAD", other).output().unwrap();
    let expected = format!("{}:{}", fake().display(), other.display());
    assert_eq!(stdout(&output), expected);
}

#[test]
fn quiet_prints_nothing_and_asks_for_nothing() {
    let output = run_on_fake(&["--quiet"], &["env"]);
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    assert!(text.contains("LD_PRELOAD="), "{text}");
    assert!(!text.contains("SPANMALLOC_"), "{text}");
}

#[test]
fn the_report_has_what_the_system_and_the_library_tell() {
    let output = run_on_fake(&[], &["false"]);
    let text = stderr(&output);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "spanmalloc: false: exit status: 1");
    for (line, name) in [
        (1, "wall time "),
        (2, "user time "),
        (3, "system time "),
        (4, "peak RSS "),
    ] {
        assert!(lines[line].starts_with(name), "{text}");
    }
    assert_eq!(lines[5], "allocations         1,234,567");
    assert_eq!(lines[6], "peak of live bytes    3.0 MiB");
    assert_eq!(lines.len(), 7, "{text}");
}

#[test]
fn the_times_and_memory_are_the_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures");
    // Dirties 64 MiB, in one read of that size.
    let memory = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    let options = ["--quiet", "--json", file.to_str().unwrap()];
    assert!(run_on_fake(&options, &memory).status.success());
    let large = json(&file)["peak_rss_bytes"].as_u64().unwrap();
    assert!((64 << 20..80 << 20).contains(&large), "{large}");
    run_on_fake(&options, &["true"]);
    let small = json(&file)["peak_rss_bytes"].as_u64().unwrap();
    assert!((100_000..16 << 20).contains(&small), "{small}");

    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
    run_on_fake(&options, &["sh", "-c", work]);
    let record = json(&file);
    let seconds = |key: &str| record[key].as_f64().unwrap();
    assert!(seconds("user_seconds") > 0.0, "{record}");
    assert!(
        seconds("wall_seconds") > seconds("user_seconds") / 2.0,
        "{record}"
    );
}

#[test]
fn json_is_written_with_and_without_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures");
    let path = file.to_str().unwrap();
    for (options, reports) in [
        (["--json", path].as_slice(), true),
        (&["--quiet", "--json", path], false),
    ] {
        let output = run_on_fake(options, &["false"]);
        assert_eq!(!output.stderr.is_empty(), reports);
        let record = json(&file);
        assert_eq!(record["program"], "false");
        assert_eq!(record["exit_code"], 1);
        assert!(record["signal"].is_null());
        assert!(record["wall_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(record["allocator"]["allocations"], 1_234_567);
    }
    run_on_fake(&["--json", path], &["sh", "-c", "kill -KILL $$"]);
    let record = json(&file);
    assert!(record["exit_code"].is_null());
    assert_eq!(record["signal"], libc::SIGKILL);
    assert!(record["allocator"].is_null());
}

#[test]
fn missing_figures_are_told() {
    let output = run_on_fake(&[], &["sh", "-c", "kill -KILL $$"]);
    let text = stderr(&output);
    assert!(
        text.contains("spanmalloc: the allocator left no figures: "),
        "{text}"
    );
    assert!(!text.contains("allocations"), "{text}");
}

#[test]
fn what_the_user_asked_the_library_for_stays() {
    let mut tool = tool_on_fake("run", &[], &["env"]);
    let output = tool.env("SPANMALLOC_STATS", "mine").output().unwrap();
    let variables: Vec<_> = stdout(&output)
        .lines()
        .filter(|line| line.starts_with("SPANMALLOC_"))
        .map(str::to_string)
        .collect();
    assert_eq!(variables, ["SPANMALLOC_STATS=mine"]);
    let text = stderr(&output);
    let sentence = "spanmalloc: the allocator's figures go where SPANMALLOC_STATS and \
                    SPANMALLOC_STATS_FILE say\n";
    assert!(text.ends_with(sentence), "{text}");
}

#[test]
fn the_directory_for_figures_is_private_and_removed() {
    let place = tempfile::tempdir().unwrap();
    let script = "ls -lA \"$TMPDIR\"";
    for program in [["sh", "-c", script], ["sh", "-c", "kill -KILL $$"]] {
        let mut tool = tool_on_fake("run", &[], &program);
        let output = tool.env("TMPDIR", place.path()).output().unwrap();
        if output.status.success() {
            assert!(
                stdout(&output).contains("drwx------"),
                "{}",
                stdout(&output)
            );
        }
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}

#[test]
fn this_crates_library_tells_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures");
    let output = run(&["--json", file.to_str().unwrap()], &["ls", "-l", "/"]);
    assert!(output.status.success());
    let record = json(&file);
    let figure = |key: &str| record["allocator"][key].as_u64().unwrap_or(0);
    assert!(figure("allocations") > 10, "{record}");
    assert!(figure("allocated_bytes") > 1000, "{record}");
    assert!(figure("peak_live_bytes") > 1000, "{record}");
    let figures = serde_json::from_str(include_str!("../stats.schema.json")).unwrap();
    assert_eq!(schema::fault(&record["allocator"], &figures, "$"), None);
    let text = stderr(&output);
    for name in [
        "allocations",
        "bytes allocated",
        "frees",
        "peak of live bytes",
        "objects from current spans",
        "objects to the depot",
        "spans made",
        "free, in magazines",
        "free, in partial spans",
        "free, given back",
    ] {
        assert!(text.contains(&format!("\n{name} ")), "{name} in {text}");
    }
}
