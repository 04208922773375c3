//! Which run counts, and the overview.

use super::*;

/// A script that takes another time and other memory in each run: the second run is the least, and the
/// median is none of the table's times.
fn uneven() -> String {
    let run = |ns, rss| answer(ns, rss).replace("5.5", &ns.to_string());
    let runs = [(40, 1 << 20), (20, 3 << 20), (30, 2 << 20)].map(|(ns, rss)| run(ns, rss));
    let [first, second, third] = runs;
    format!(
        "echo >> \"$0.$1.runs.so\"\ncase $(wc -l < \"$0.$1.runs.so\") in\n1) {first}\n;;\n\
         2) {second}\n;;\n*) {third}\n;;\nesac"
    )
}

#[test]
fn the_least_time_counts_and_the_median_of_the_rest() {
    let workers = directory();
    add(&workers, "spanmalloc", &uneven());
    add(&workers, "system", &answer(40, 1 << 20));
    let json_path = workers.path().join("results.json");
    let path = json_path.to_str().unwrap();
    let output = tool_on(&workers, &["--workloads", "one", "--json", path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "one 1 spanmalloc 20.0 7.00 0.00 2.0 MiB 0.50 2.00 67 %";
    assert_eq!(line(&output, "spanmalloc"), expected);
    let shown = text(&output.stdout);
    let heading = "Time is that of the run that took the least";
    assert!(shown.contains(heading), "{shown}");
    let records = json(&json_path);
    assert_eq!(records[0]["cpu_ns_per_op"], 20.0);
    assert_eq!(records[0]["peak_rss_bytes"], 2 << 20);
    assert_eq!(records[0]["more"]["p99_ns"], 30.0);
    assert_eq!(records[0]["reps"], 3);
}

#[test]
fn the_overview_is_written_for_a_readme() {
    let workers = directory();
    add(&workers, "spanmalloc", &uneven());
    add(&workers, "system", &answer(10, 1 << 20));
    add(&workers, "another", &answer(40, 4 << 20));
    add(&workers, "failing", "exit 3");
    let path = workers.path().join("o.md");
    let option = format!("--overview={}", path.display());
    let output = tool_on(&workers, &[&option, "--workloads", "o*"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let overview = fs::read_to_string(&path).unwrap();
    let date = overview.split(':').next().unwrap();
    let digits: String = date.chars().filter(|it| it.is_ascii_digit()).collect();
    assert!(date.starts_with("20") && digits.len() == 8, "{overview}");
    for expected in [
        "3 runs each: the least time, and the median of peak RSS. Time is in ns of CPU time",
        "\n| `one` | 20.0 | **2.00** `system` | 2.0 MiB | **2.00** `system` |\n",
        "\n* `failing` on all workloads: `failed: exit status 3`\n",
        "\n| `system` | ready-made worker; it is system | **2.00** | **2.00** | 1 |\n",
        "\n| `another` | ready-made worker; it is another | 0.50 | 0.50 | 1 |\n",
        "\n| the best peer of each workload |  | **2.00** | **2.00** | 1 |\n",
        "\ncargo run --release -p spanmalloc-rate -- --workers ",
        " --workloads 'o*'\n```\n",
    ] {
        assert!(overview.contains(expected), "{expected}: {overview}");
    }
    assert!(!text(&output.stdout).contains("Made by"));
}

#[test]
fn an_overview_is_of_ours_on_workloads() {
    let workers = directory();
    add(&workers, "spanmalloc", &answer(1, 1));
    add(&workers, "system", &answer(1, 1));
    let path = workers.path().join("o.md");
    let overview = ["--overview", path.to_str().unwrap()];
    let others: [(&[&str], &str); 4] = [
        (
            &["--allocators", "system"],
            "--overview: spanmalloc is none of the allocators",
        ),
        (&["--list"], "the argument '--overview <FILE>' cannot be"),
        (&["--lock-share"], "the argument '--overview <FILE>' cannot"),
        (&["--", "ls"], "the argument '--overview <FILE>' cannot be"),
    ];
    for (other, expected) in others {
        let output = tool_on(&workers, &[&overview, other].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let errors = text(&output.stderr);
        let sentence = format!("spanmalloc-rate: {expected}");
        assert!(errors.starts_with(&sentence), "{errors}");
        assert_eq!(errors.lines().count(), 1);
        assert!(!path.exists());
    }
    let output = tool_on(&workers, &["--overview", "/nonexistent/file"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "spanmalloc-rate: /nonexistent/file: No such file or directory\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn of_a_command_the_median_counts() {
    let place = directory();
    let json_path = place.path().join("results.json");
    let runs = place.path().join("runs");
    // The second run does much more than the first one, and the third one more than half as much.
    let script = format!(
        "echo >> {0}; case $(wc -l < {0}) in 1) n=0;; 2) n=400000;; *) n=200000;; esac; \
         while [ $n -gt 0 ]; do n=$((n - 1)); done",
        runs.display()
    );
    let path = json_path.to_str().unwrap();
    let options = ["--allocators", "system", "--reps", "3", "--json", path];
    let command = ["--", "sh", "-c", script.as_str()];
    let output = tool(&[&options[..], &command].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    assert!(
        shown.contains("median") && shown.contains("spread"),
        "{shown}"
    );
    let records = json(&json_path);
    let spread = records[0]["spread"].as_f64().unwrap();
    let time = records[0]["cpu_ns_per_op"].as_f64().unwrap();
    // The first run takes some milliseconds only, and loops take tens of them.
    assert!(time > 10e6 && spread > 0.5, "{time} {spread}");
}
