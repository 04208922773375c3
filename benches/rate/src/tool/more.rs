//! Results that only some workloads have, as small tables.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::{Row, workloads};
use crate::table::{aligned, mebibytes, number};

/// A table for each workload that has such results: a line for each allocator, a column for each
/// result.
pub fn tables(rows: &[Row]) -> String {
    let tables = workloads(rows).filter_map(table);
    tables.map(|table| format!("\n{table}")).collect()
}

fn table(rows: &[Row]) -> Option<String> {
    let results: Vec<BTreeMap<&str, f64>> = rows.iter().map(Row::more).collect();
    let names: BTreeSet<&str> = results.iter().flat_map(|it| it.keys().copied()).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return None;
    }
    names.sort_by_cached_key(|name| place(name));
    let workload = rows.first().map_or("", |row| row.workload.as_str());
    let mut lines = vec![vec![workload.to_owned()]];
    lines[0].extend(names.iter().map(|name| head(name)));
    for (row, results) in rows
        .iter()
        .zip(&results)
        .filter(|(row, _)| row.is_measured())
    {
        let mut line = vec![row.allocator.clone()];
        line.extend(
            names
                .iter()
                .map(|name| shown(name, results.get(name).copied())),
        );
        lines.push(line);
    }
    Some(aligned(lines, &[0], false))
}

/// Percentiles in their order, the longest last: without units, `p99` is before `p999`.
fn place(name: &str) -> String {
    without_unit(name).replace("_max", "_p~")
}

fn without_unit(name: &str) -> &str {
    let name = name.strip_suffix("_bytes").unwrap_or(name);
    name.strip_suffix("_ns").unwrap_or(name)
}

/// The head of a result's column. The unit of bytes is in the cells.
pub fn head(name: &str) -> String {
    name.strip_suffix("_bytes")
        .unwrap_or(name)
        .replace('_', " ")
}

/// A result in its unit.
pub fn shown(name: &str, value: Option<f64>) -> String {
    if name.ends_with("_bytes") {
        mebibytes(value)
    } else {
        number(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::example::{failed, row, run};

    #[test]
    fn a_workload_without_such_results_has_no_table() {
        let mut plain = run(1, 1);
        plain.more.clear();
        assert_eq!(tables(&[row("a", "system", &[plain])]), "");
        assert_eq!(tables(&[failed("a", "system")]), "");
    }

    #[test]
    fn each_result_has_a_column_in_its_unit() {
        let with = |results: &[(&str, f64)]| {
            let mut run = run(1, 1);
            let named = results
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value));
            run.more = named.collect();
            run
        };
        let rows = [
            row(
                "a",
                "one",
                &[with(&[
                    ("alloc_max_ns", 123_456.0),
                    ("alloc_p50_ns", 20.0),
                    ("alloc_p9999_ns", 900.0),
                    ("alloc_p99_ns", 50.0),
                    ("rss_after_free_bytes", 1_572_864.0),
                    ("rss_per_live", 1.25),
                ])],
            ),
            failed("a", "other"),
            row("a", "two", &[with(&[("alloc_p50_ns", 7.0)])]),
        ];
        let text = tables(&rows);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        let head =
            "a alloc p50 ns alloc p99 ns alloc p9999 ns alloc max ns rss after free rss per live";
        let one = "one 20.0 50.0 900 123456 1.5 MiB 1.25";
        assert_eq!(lines, ["", head, one, "two 7.00 - - - - -"]);
    }
}
