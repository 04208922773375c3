//! Traces, lock shares, and what only some workloads tell.

use super::*;

#[test]
fn results_of_some_workloads_have_tables_of_their_own() {
    let workers = directory();
    let more =
        |script: String| script.replace("p99_ns\": 5.5", "p99_ns\": 7, \"rss_bytes\": 1048576");
    add(&workers, "spanmalloc", &more(answer(20, 1 << 20)));
    add(&workers, "failing", "exit 3");
    let output = tool_on(&workers, &["--quick", "--workloads", "one"]);
    let shown = text(&output.stdout);
    let (_, table) = shown.split_once("\n\none ").expect(&shown);
    let words: Vec<&str> = table.split_whitespace().take(7).collect();
    assert_eq!(
        words,
        ["p99", "ns", "rss", "spanmalloc", "7.00", "1.0", "MiB"],
        "{shown}"
    );
    assert!(
        shown.contains("s of CPU time with all set-up: spanmalloc 0."),
        "{shown}"
    );
}

#[test]
fn traces_are_replayed_on_all_allocators() {
    let workers = directory();
    let of_replay = answer(20, 1 << 20).replace("$1", "replay:$(basename \"$2\")");
    let script = format!("echo \"$*\" >> \"$0.calls.so\"\n{of_replay}");
    add(&workers, "spanmalloc", &script);
    add(&workers, "system", &script);
    let [first, second] = ["a.trace", "b.trace"].map(|name| workers.path().join(name));
    fs::write(&first, "").unwrap();
    fs::write(&second, "").unwrap();
    let [first, second] = [&first, &second].map(|path| path.to_str().unwrap());
    let json_path = workers.path().join("results.json");
    let charts = workers.path().join("charts");
    let [json_option, svg_option] = [&json_path, &charts].map(|path| path.to_str().unwrap());
    let arguments = ["--quick", "--replay", first, "--replay", second];
    let files = ["--json", json_option, "--svg", svg_option];
    let output = tool_on(&workers, &[&arguments[..], &files].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "replay:a.trace 2 spanmalloc 20.0 7.00 0.00 1.0 MiB 1.00 1.00 -";
    assert_eq!(line(&output, "spanmalloc"), expected);
    let calls = fs::read_to_string(workers.path().join("system.calls.so")).unwrap();
    let expected = format!("--replay {first} --scale quick\n--replay {second} --scale quick\n");
    assert_eq!(calls, expected);
    let records = json(&json_path);
    assert_eq!(records.len(), 4);
    assert_eq!(records[3]["workload"], "replay:b.trace");
    assert_eq!(records[3]["threads"], 2);
    assert!(charts.join("replay-a-trace.svg").exists());

    let output = tool_on(&workers, &["--replay", first, "--replay", first]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "spanmalloc-rate: --replay: two of the files are named a.trace\n";
    assert_eq!(text(&output.stderr), expected);
    let output = tool_on(&workers, &["--replay", "/nonexistent/trace"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn lock_shares_are_of_the_worker_with_clocks() {
    let workers = directory();
    let calls = "echo \"$*\" >> \"$0.calls.so\"\n";
    let locks = r#""lock_mcentral_held_share": 0.25, "lock_mcentral_waited_share": 1.5, "lock_mcentral_acquisitions": 20, "lock_mcentral_saturation_cores": 4.5"#;
    let with_locks = answer(30, 1).replace("\"p99_ns\": 5.5", locks);
    add(&workers, "lock_share", &format!("{calls}{with_locks}"));
    for name in ["spanmalloc", "system", "another"] {
        add(&workers, name, &format!("{calls}{}", answer(10, 1)));
    }
    let json_path = workers.path().join("results.json");
    let path = json_path.to_str().unwrap();
    let arguments = ["--quick", "--threads", "3", "--allocators", "system"];
    let arguments = [&["--lock-share", "--json", path], &arguments[..]].concat();
    let output = tool_on(&workers, &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "many 3 mcentral 2.00 25.0 % 150 % 4.50 hottest: mcentral, 4.50 cores";
    assert_eq!(line(&output, "mcentral"), expected);
    let shown = text(&output.stdout);
    let (_, curves) = shown.split_once("\nworkload  allocator").expect(&shown);
    let lines: Vec<String> = curves
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(lines[1], "many spanmalloc 10.0 10.0 10.0 10.0 10.0 1.00");
    assert_eq!(lines[2], "system 10.0 10.0 10.0 10.0 10.0 1.00");
    assert!(!shown.contains("another"), "{shown}");

    let calls = |name: &str| fs::read_to_string(workers.path().join(name)).unwrap();
    let with_clocks = calls("lock_share.calls.so");
    assert_eq!(with_clocks, "many --scale quick --threads 3\n");
    let expected = [1, 2, 4, 8, 16].map(|it| format!("many --scale quick --threads {it}\n"));
    assert_eq!(calls("spanmalloc.calls.so"), expected.concat());
    let records = json(&json_path);
    assert_eq!(records.len(), 11);
    assert_eq!(records[0]["hottest_lock"], "mcentral");
    assert_eq!(records[0]["locks"][0]["waited_share"], 1.5);
    assert_eq!(records[10]["allocator"], "system");
    assert_eq!(records[10]["threads"], 16);

    // It is no allocator of the other table, and there is nothing to say of one thread.
    let output = tool_on(&workers, &["--quick"]);
    assert!(!text(&output.stdout).contains("lock_share"));
    let output = tool_on(&workers, &["--lock-share", "--workloads", "one"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    fs::remove_file(workers.path().join("lock_share")).unwrap();
    let output = tool_on(&workers, &["--lock-share"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).ends_with("/lock_share: No such file or directory\n"));
}

#[test]
fn the_worker_with_clocks_is_built_as_the_others_are() {
    let place = directory();
    let path = place.path().display();
    add(&place, "ready", &answer(20, 1 << 20));
    let cargo = format!(
        r#"#!/bin/sh
echo "$*" >> {path}/cargo.calls
case "$1" in
metadata) echo '{{"workspace_root": "{path}", "target_directory": "{path}/target"}}';;
*) mkdir -p {path}/target/rate/release; cp {path}/ready {path}/target/rate/release/rate-worker;;
esac
"#
    );
    let script = place.path().join("cargo");
    fs::write(&script, cargo).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spanmalloc-rate"))
        .args(["--lock-share", "--quick", "--allocators", "spanmalloc"])
        .env("CARGO", &script)
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("no lock was held"));
    let calls = fs::read_to_string(place.path().join("cargo.calls")).unwrap();
    for (call, name) in calls.lines().skip(1).zip(["lock_share", "spanmalloc"]) {
        assert!(
            call.contains(&format!("--features {name} ")),
            "{name}: {calls}"
        );
        let workers = place.path().join("target/rate/workers");
        assert!(workers.join(name).exists());
    }
    assert_eq!(calls.lines().count(), 3);
}
