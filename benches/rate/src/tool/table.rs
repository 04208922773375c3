//! Results as text.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::figures::{median, ratio, spread};
use crate::more;
use crate::rows::{Clock, Mean, Ratios, Row, means, to_best_peer, workloads};

/// The results of the workloads, with a heading; below are those that only some have, what the runs
/// cost, and the means.
pub fn of_workloads(rows: &[Row], spent: &str) -> String {
    let clock = Clock::of(rows);
    let instructions = rows.iter().any(|row| {
        row.per_operation(clock, |run| run.user_instructions)
            .is_some()
    });
    let mut lines = vec![heads(clock, instructions)];
    for workload in workloads(rows) {
        for (index, row) in workload.iter().enumerate() {
            let ratios = to_best_peer(row, workload, clock);
            let mut line = match index {
                0 => vec![
                    row.workload.clone(),
                    or_dash(row.threads.map(|it| it.to_string())),
                ],
                _ => vec![String::new(), String::new()],
            };
            line.push(row.allocator.clone());
            line.extend(costs(row, clock, instructions));
            line.extend(of_ratios(&ratios));
            line.push(percent(clock.spread(row)));
            line.push(row.failure.clone().unwrap_or_default());
            lines.push(line);
        }
    }
    let mut text = format!("{}\n{}", heading(clock), aligned(lines, &[0, 2], true));
    text += &more::tables(rows);
    text += spent;
    let means = means(rows, clock);
    if !means.is_empty() {
        text += "\nGeometric means of spanmalloc's ratios, over the workloads that both have:\n";
        text += &of_means(&means);
    }
    text
}

fn heading(clock: Clock) -> &'static str {
    match clock {
        Clock::Cycles => {
            "Time is that of the run that took the least, as other work on the machine only adds to it; \
             all else are medians of the runs.\nCycles and instructions are per operation; time is user \
             and kernel cycles together. Ratios are to the best peer: all\nallocators but spanmalloc \
             are peers."
        }
        Clock::CpuTime => {
            "Time is that of the run that took the least, as other work on the machine only adds to it; \
             all else are medians of the runs.\nIt is CPU time per operation, user and system together: \
             the kernel does not permit to count cycles, or the machine can't.\nRatios are to the best \
             peer: all allocators but spanmalloc are peers."
        }
    }
}

fn heads(clock: Clock, instructions: bool) -> Vec<String> {
    let costs: &[&str] = match (clock, instructions) {
        (Clock::Cycles, _) => &["user cycles", "instructions", "kernel cycles"],
        (Clock::CpuTime, true) => &["user ns", "instructions", "system ns"],
        (Clock::CpuTime, false) => &["user ns", "system ns"],
    };
    let first = ["workload", "threads", "allocator"];
    let last = ["peak RSS", "time ratio", "RSS ratio", "spread", ""];
    let all = first.iter().chain(costs).chain(&last);
    all.map(|head| (*head).to_owned()).collect()
}

fn costs(row: &Row, clock: Clock, instructions: bool) -> Vec<String> {
    let user = match clock {
        Clock::Cycles => row.per_operation(clock, |run| run.user_cycles),
        Clock::CpuTime => row.per_operation(clock, |run| Some(run.user_ns)),
    };
    let kernel = match clock {
        Clock::Cycles => row.per_operation(clock, |run| run.kernel_cycles),
        Clock::CpuTime => row.per_operation(clock, |run| Some(run.system_ns)),
    };
    let mut costs = vec![number(user)];
    if instructions || clock == Clock::Cycles {
        costs.push(number(
            row.per_operation(clock, |run| run.user_instructions),
        ));
    }
    costs.push(number(kernel));
    costs.push(mebibytes(row.peak_rss_bytes()));
    costs
}

fn of_ratios(ratios: &Ratios) -> [String; 2] {
    [ratios.time, ratios.rss].map(|ratio| or_dash(ratio.map(|it| format!("{it:.2}"))))
}

fn of_means(means: &[Mean]) -> String {
    let mut lines = vec![
        ["spanmalloc to", "time ratio", "RSS ratio", "workloads"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for mean in means {
        let mut line = vec![mean.name.clone()];
        line.extend(of_ratios(&mean.ratios));
        line.push(mean.workloads.to_string());
        lines.push(line);
    }
    aligned(lines, &[0], false)
}

/// Its name, its values in the runs of a row, and how it is shown.
type Quantity<'a> = (
    &'a str,
    &'a dyn Fn(&Row) -> Option<Vec<f64>>,
    fn(f64) -> String,
);

/// The results of a command: each quantity with its ratio to the first allocator's.
pub fn of_command(rows: &[Row]) -> String {
    let quantities: [Quantity; 3] = [
        (
            "wall time",
            &|row| row.values(|run| Some(run.wall_ns as f64)),
            time,
        ),
        (
            "user + system",
            &|row| row.values(|run| Some((run.user_ns + run.system_ns) as f64)),
            time,
        ),
        (
            "peak RSS",
            &|row| row.values(|run| Some(run.peak_rss_bytes as f64)),
            |bytes| mebibytes(Some(bytes)),
        ),
    ];
    let base = rows.first().map_or("", |row| row.allocator.as_str());
    let to_base = format!("to {base}");
    let heads = ["", "allocator", "median", to_base.as_str(), "spread", ""];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for (name, values, show) in quantities {
        let middle = |row: &Row| median(values(row)?);
        let base = rows.first().and_then(middle);
        for (index, row) in rows.iter().enumerate() {
            let to_base = middle(row).zip(base).and_then(|(it, base)| ratio(it, base));
            lines.push(vec![
                if index == 0 { name } else { "" }.to_owned(),
                row.allocator.clone(),
                or_dash(middle(row).map(show)),
                or_dash(to_base.map(|it| format!("{it:.2}"))),
                percent(values(row).and_then(|values| spread(&values))),
                row.failure.clone().unwrap_or_default(),
            ]);
        }
    }
    aligned(lines, &[0, 1], true)
}

/// Names and sentences in two columns or more, without heads.
pub fn of_texts(lines: Vec<Vec<String>>) -> String {
    let names: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).collect();
    aligned(lines, &names, false)
}

/// Lines in columns: those of `left`, and the last one if it is for remarks, begin at the left.
pub fn aligned(lines: Vec<Vec<String>>, left: &[usize], remarks: bool) -> String {
    let last = lines.first().map_or(0, Vec::len).saturating_sub(1);
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .add_rows(lines);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let is_left = left.contains(&index) || (remarks && index == last);
        if !is_left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

pub fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// With about three digits that count.
pub fn number(value: Option<f64>) -> String {
    or_dash(value.map(|value| match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }))
}

pub fn mebibytes(bytes: Option<f64>) -> String {
    or_dash(bytes.map(|bytes| format!("{:.1} MiB", bytes / f64::from(1 << 20))))
}

pub fn percent(part: Option<f64>) -> String {
    or_dash(part.map(|part| format!("{:.0} %", part * 100.0)))
}

fn time(ns: f64) -> String {
    match ns {
        ..1e6 => format!("{:.0} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.3} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::example::{failed, row, rows, run};

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, expected) in [
            (0.0, "0.00"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.5, "1234"),
        ] {
            assert_eq!(number(Some(value)), expected);
        }
        assert_eq!(number(None), "-");
        assert_eq!(mebibytes(Some(1572864.0)), "1.5 MiB");
        assert_eq!(time(61_234e6), "61.234 s");
        assert_eq!(time(1.5e6), "1.50 ms");
    }

    #[test]
    fn every_row_is_in_the_table() {
        let text = of_workloads(&rows(), "\nIt took a while.\n");
        assert!(text.contains("kernel does not permit"));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert!(text.contains("Time is that of the run that took the least"));
        let of_system = "system 9.00 36.0 1.00 8.0 MiB 1.00 1.00 40 %".to_owned();
        assert!(lines.contains(&of_system), "{text}");
        assert!(text.contains("crashed: signal 6 (SIGABRT)"));
        assert_eq!(lines.last().unwrap(), "the best peer 1.00 1.41 2");
    }

    #[test]
    fn a_command_is_compared_with_the_first_allocator() {
        let rows = [
            row(
                "ls",
                "system",
                &[1, 4, 2].map(|ms| run(1_000_000 * ms - 10, 1 << 20)),
            ),
            row("ls", "spanmalloc", &[run(999_990, 3 << 20)]),
            failed("ls", "other"),
        ];
        let text = of_command(&rows);
        assert!(text.contains("to system") && text.contains("median"));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert!(
            lines.contains(&"user + system system 2.00 ms 1.00 150 %".to_owned()),
            "{text}"
        );
        assert!(
            lines.contains(&"spanmalloc 3.0 MiB 3.00 -".to_owned()),
            "{text}"
        );
        assert!(lines.contains(&"other - - - crashed: signal 6 (SIGABRT)".to_owned()));
    }
}
