//! `--overview`: how ours stands to its peers, as Markdown for the project's README.

use std::ffi::OsString;

use crate::allocators::OURS;
use crate::rows::{BEST_PEER, Best, Clock, Mean, Row, best_peers, means, workloads};
use crate::table::{mebibytes, number, or_dash};

/// How the figures came about.
pub struct Made {
    pub date: String,
    pub machine: String,
    pub reps: u32,
    /// What each allocator is, by name.
    pub versions: Vec<(String, String)>,
    /// Of the command line, without the program.
    pub arguments: Vec<OsString>,
}

/// The whole file.
pub fn text(rows: &[Row], made: &Made) -> String {
    let clock = Clock::of(rows);
    [
        heading(clock, made),
        of_workloads(rows, clock),
        failures(rows),
        of_means(&means(rows, clock), made),
        command(&made.arguments),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
}

fn heading(clock: Clock, made: &Made) -> String {
    let how = match made.reps {
        1 => "One run each".to_owned(),
        reps => format!("{reps} runs each: the least time, and the median of peak RSS"),
    };
    format!(
        "{}: {}. {how}. Time is in {}, per operation. Ratios above 1.05, where {OURS} takes more, are \
         bold.\n",
        made.date,
        made.machine,
        clock.about()
    )
}

/// A line for each workload.
fn of_workloads(rows: &[Row], clock: Clock) -> String {
    let unit = clock.unit();
    let mut text = format!(
        "| workload | {unit} of {OURS} | to the best peer | peak RSS of {OURS} | to the least peer |\n\
         |---|--:|---|--:|---|\n"
    );
    for workload in workloads(rows) {
        let Some(ours) = workload.iter().find(|row| row.is_ours()) else {
            continue;
        };
        let best = best_peers(ours, workload, clock);
        let time = match ours.failure {
            Some(_) => "failed".to_owned(),
            None => number(clock.time(ours)),
        };
        text += &line(&[
            code(&ours.workload),
            time,
            or_dash(best.time.map(|it| to_best(&it))),
            mebibytes(ours.peak_rss_bytes()),
            or_dash(best.rss.map(|it| to_best(&it))),
        ]);
    }
    text
}

fn to_best(best: &Best) -> String {
    format!("{} {}", ratio(best.ratio), code(best.name))
}

/// Bold where ours takes more than a twentieth more, by what is shown.
fn ratio(ratio: f64) -> String {
    let text = format!("{ratio:.2}");
    match text.parse::<f64>() {
        Ok(shown) if shown > 1.05 => format!("**{text}**"),
        _ => text,
    }
}

/// The workloads that failed, by allocator and reason; nothing if none did.
fn failures(rows: &[Row]) -> String {
    let all = workloads(rows).count();
    let mut found: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for row in rows {
        let Some(failure) = row.failure.as_deref() else {
            continue;
        };
        let same = |it: &&mut (&str, &str, _)| it.0 == row.allocator && it.1 == failure;
        match found.iter_mut().find(same) {
            Some(it) => it.2.push(code(&row.workload)),
            None => found.push((&row.allocator, failure, vec![code(&row.workload)])),
        }
    }
    if found.is_empty() {
        return String::new();
    }
    let mut text = "Not measured:\n\n".to_owned();
    for (allocator, failure, names) in found {
        let names = match names.len() {
            count if count == all => "all workloads".to_owned(),
            _ => names.join(", "),
        };
        text += &format!("* {} on {names}: {}\n", code(allocator), code(failure));
    }
    text
}

/// A line for each peer, and last the best one of each workload; nothing without peers.
fn of_means(means: &[Mean], made: &Made) -> String {
    if means.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "Geometric means of {OURS}'s ratios, over the workloads that both have:\n\n\
         | {OURS} to | which is | time ratio | RSS ratio | workloads |\n\
         |---|---|--:|--:|--:|\n"
    );
    for mean in means {
        let version = made.versions.iter().find(|it| it.0 == mean.name);
        let name = match mean.name.as_str() {
            BEST_PEER => format!("{BEST_PEER} of each workload"),
            name => code(name),
        };
        text += &line(&[
            name,
            version.map_or(String::new(), |it| escaped(&it.1)),
            or_dash(mean.ratios.time.map(ratio)),
            or_dash(mean.ratios.rss.map(ratio)),
            mean.workloads.to_string(),
        ]);
    }
    text
}

fn command(arguments: &[OsString]) -> String {
    let words: Vec<String> = arguments
        .iter()
        .map(|it| quoted(&it.to_string_lossy()))
        .collect();
    format!(
        "Made by:\n\n```sh\ncargo run --release -p spanmalloc-rate -- {}\n```\n",
        words.join(" ")
    )
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./=,:@%+".contains(it);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn code(text: &str) -> String {
    // Nothing quotes a backtick in code of one.
    format!("`{}`", escaped(&text.replace('`', "'")))
}

/// Without what would end a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', r"\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::example::{failed, rows};

    fn made(arguments: &[&str]) -> Made {
        Made {
            date: "2026-11-21".to_owned(),
            machine: "Abacus 9, 2 CPUs".to_owned(),
            reps: 3,
            versions: vec![("system".to_owned(), "glibc | 2.36".to_owned())],
            arguments: arguments.iter().map(OsString::from).collect(),
        }
    }

    #[test]
    fn the_file_is_exactly_this() {
        let mut rows = rows();
        rows[5].runs[0].user_ns = 490;
        rows.push(failed("c", OURS));
        rows.push(failed("c", "other"));
        let arguments = ["--overview", "o.md", "--workloads", "random-*"];
        let expected = "\
2026-11-21: Abacus 9, 2 CPUs. 3 runs each: the least time, and the median of peak RSS. Time is in ns of CPU time, user and system, per operation. Ratios above 1.05, where spanmalloc takes more, are bold.

| workload | ns of spanmalloc | to the best peer | peak RSS of spanmalloc | to the least peer |
|---|--:|---|--:|---|
| `a` | 20.0 | **2.00** `system` | 4.0 MiB | 0.50 `system` |
| `b` | 5.00 | 0.50 `system` | 4.0 MiB | **4.00** `other` |
| `c` | failed | - | - | - |

Not measured:

* `other` on `a`, `c`: `crashed: signal 6 (SIGABRT)`
* `spanmalloc` on `c`: `crashed: signal 6 (SIGABRT)`

Geometric means of spanmalloc's ratios, over the workloads that both have:

| spanmalloc to | which is | time ratio | RSS ratio | workloads |
|---|---|--:|--:|--:|
| `system` | glibc \\| 2.36 | 1.00 | 0.71 | 2 |
| `other` |  | 0.10 | **4.00** | 1 |
| the best peer of each workload |  | 1.00 | **1.41** | 2 |

Made by:

```sh
cargo run --release -p spanmalloc-rate -- --overview o.md --workloads 'random-*'
```
";
        assert_eq!(text(&rows, &made(&arguments)), expected);
    }

    #[test]
    fn what_failed_everywhere_is_told_once() {
        let rows = [failed("a", "other"), failed("b", "other")];
        let expected =
            "Not measured:\n\n* `other` on all workloads: `crashed: signal 6 (SIGABRT)`\n";
        assert_eq!(failures(&rows), expected);
        assert_eq!(failures(&[]), "");
    }

    #[test]
    fn a_loss_is_one_as_it_is_shown() {
        for (value, expected) in [
            (0.5, "0.50"),
            (1.05, "1.05"),
            (1.0549, "1.05"),
            (1.0551, "**1.06**"),
            (12.0, "**12.00**"),
        ] {
            assert_eq!(ratio(value), expected);
        }
    }

    #[test]
    fn arguments_are_as_a_shell_reads_them() {
        for (word, expected) in [
            ("--reps=9", "--reps=9"),
            ("a,b_c", "a,b_c"),
            ("random-*", "'random-*'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
        let made = command(&[]);
        assert!(made.ends_with("-p spanmalloc-rate -- \n```\n"), "{made}");
    }
}
