//! Memory over time: the tool on scripts, and the worker in short runs.

use super::*;

/// A script that answers with a course of three samples.
fn course(after: u32) -> String {
    format!(
        r#"[ "$1" = --over-time ] || exit 1
echo "$*" >> "$0.calls.so"
cat <<END
{{"scenario": "$2", "figures": [{{"name": "live_bytes", "value": 1048576}}, {{"name": "cpu_s", "value": {after}}}], "series": {{"at_ms": [0, 100, 200], "need_bytes": [0, 2097152, 1048576], "rss_bytes": [1, 4194304, {after}]}}}}
END"#
    )
}

#[test]
fn scenarios_run_on_all_allocators() {
    let workers = directory();
    add(&workers, "spanmalloc", &course(2));
    add(&workers, "system", &course(4));
    add(&workers, "failing", "echo 'out of paper' >&2; exit 3");
    let of_another = course(1).replace("$2", "another");
    add(&workers, "wrong", &of_another);
    add(
        &workers,
        "short",
        &course(1).replace("[0, 100, 200]", "[0, 100]"),
    );
    let json_path = workers.path().join("results.json");
    let charts = workers.path().join("charts");
    let [json_option, svg_option] = [&json_path, &charts].map(|path| path.to_str().unwrap());
    let files = ["--json", json_option, "--svg", svg_option];
    let arguments = ["--over-time", "growth,burst*", "--quick", "--reps", "2"];
    let output = tool_on(&workers, &[&arguments[..], &files].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let shown = text(&output.stdout);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = shown.lines().map(words).collect();
    let start = lines.iter().position(|line| line == "growth live cpu s");
    let start = start.expect(&shown);
    let expected = [
        "spanmalloc 1.0 MiB 2.00",
        "system 1.0 MiB 4.00",
        "failing - - failed: exit status 3: out of paper",
        "short - - no answer: it tells of no course of this scenario",
        "wrong - - no answer: it tells of no course of this scenario",
    ];
    assert_eq!(lines[start + 1..start + 6], expected, "{shown}");

    let calls = fs::read_to_string(workers.path().join("system.calls.so")).unwrap();
    let call = |name: &str| format!("--over-time {name} --scale quick\n").repeat(2);
    let expected = ["burst", "burst-calls", "growth"].map(call).concat();
    assert_eq!(calls, expected);
    let calls = fs::read_to_string(workers.path().join("wrong.calls.so")).unwrap();
    assert_eq!(calls.lines().count(), 3, "what failed is not run again");

    let records = json(&json_path);
    assert_eq!(records.len(), 15);
    assert_eq!(records[0]["scenario"], "burst");
    assert_eq!(records[0]["figures"]["cpu_s"], 2.0);
    assert_eq!(records[0]["series"][1]["rss_bytes"][2], 2);
    assert_eq!(records[2]["error"], "failed: exit status 3: out of paper");
    for name in ["burst", "burst-calls", "growth"] {
        let text = fs::read_to_string(charts.join(format!("{name}.svg"))).unwrap();
        roxmltree::Document::parse(&text).unwrap();
        assert!(text.contains("spanmalloc") && text.contains("needed by the program"));
    }
    assert_eq!(fs::read_dir(&charts).unwrap().count(), 3);
}

#[test]
fn ours_has_to_be_measured() {
    let workers = directory();
    add(&workers, "spanmalloc", "kill -SEGV $$");
    add(&workers, "system", &course(1));
    let arguments = ["--over-time", "burst", "--timeout", "60"];
    assert_eq!(tool_on(&workers, &arguments).status.code(), Some(1));
    let of_system = [&arguments[..], &["--allocators", "system"]].concat();
    assert_eq!(tool_on(&workers, &of_system).status.code(), Some(0));
}

/// The real worker, in which a second takes 50 ms and a GiB is 20 MiB.
#[test]
fn workers_run_the_scenarios() {
    let workers = directory();
    let worker = env!("CARGO_BIN_EXE_rate-worker");
    let script = format!("exec '{worker}' \"$@\" --speed 20 --shrink 50");
    add(&workers, "system", &script);
    let json_path = workers.path().join("results.json");
    let path = json_path.to_str().unwrap();
    let output = tool_on(&workers, &["--over-time", "--quick", "--json", path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let records = json(&json_path);
    assert_eq!(records.len(), 6);
    for (record, expected) in records.iter().zip([
        &[
            "live_bytes",
            "rss_after_frees_bytes",
            "rss_after_10_s_bytes",
        ][..],
        &[
            "live_bytes",
            "rss_after_2_s_bytes",
            "rss_per_live_after_10_s",
        ],
        &[
            "cpu_s",
            "faults_per_cycle",
            "mean_rss_bytes",
            "peak_rss_bytes",
        ],
        &["mean_need_bytes", "peak_rss_bytes"],
        &["rss_before_threads_bytes", "rss_after_10_s_bytes"],
        &["operations_per_s", "peak_rss_bytes"],
    ]) {
        for name in expected {
            let value = record["figures"][name].as_f64();
            assert!(value.is_some_and(|it| it > 0.0), "{name}: {record}");
        }
        let values = |name: &str| -> Vec<u64> {
            let values = record["series"][0][name].as_array().unwrap();
            values.iter().map(|it| it.as_u64().unwrap()).collect()
        };
        let [times, need, rss] = ["at_ms", "need_bytes", "rss_bytes"].map(values);
        assert!(times.len() > 5 && times.is_sorted(), "{record}");
        // Idle threads may be done before the first sample.
        let needs = record["scenario"] != "idle-threads";
        assert!(!needs || need.iter().any(|it| *it > 500_000), "{record}");
        assert!(rss.iter().all(|it| *it > 100_000), "{record}");
    }
}

#[test]
fn a_worker_says_what_it_does_not_understand() {
    let worker = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rate-worker"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr)
    };
    let errors = worker(&["--over-time", "none"]);
    let expected = "rate-worker: there is no scenario none; there are burst, burst-calls,";
    assert!(errors.starts_with(expected), "{errors}");
    let errors = worker(&["--over-time", "burst", "--speed", "x"]);
    assert_eq!(errors, "rate-worker: x is no speed, 0.01 to 1000\n");
}
