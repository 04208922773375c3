//! What was measured over time, as a table and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use spanmalloc_rate::over_time::{Course, Series};

use crate::figures::median;
use crate::more::{head, shown};
use crate::table::aligned;

/// What all tables have in common.
pub const HEADING: &str = "\
Need is what the program holds, RSS what is resident, without the arrays of the scenario itself. All figures
are medians of the runs; less is better in all of them but operations per second.";

/// A scenario on an allocator.
#[derive(Clone, Debug)]
pub struct OverTime {
    pub scenario: String,
    pub allocator: String,
    pub runs: Vec<Course>,
    /// Why there is nothing to show, in a few words.
    pub failure: Option<String>,
}

impl OverTime {
    pub fn new(scenario: &str, allocator: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            allocator: allocator.to_owned(),
            runs: Vec::new(),
            failure: None,
        }
    }

    pub fn is_measured(&self) -> bool {
        self.failure.is_none() && !self.runs.is_empty()
    }

    /// What a chart shows: the first run, as a mean of several would show what none was like.
    pub fn series(&self) -> Option<&Series> {
        let run = self.runs.first().filter(|_| self.is_measured())?;
        Some(&run.series)
    }

    /// The median of a figure, over the runs that have it.
    fn figure(&self, name: &str) -> Option<f64> {
        let figures = self.runs.iter().flat_map(|run| &run.figures);
        let values = figures.filter(|it| it.name == name).map(|it| it.value);
        median(values).filter(|_| self.is_measured())
    }
}

/// The names of all figures, in the order in which workers tell them.
fn names(rows: &[OverTime]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let runs = rows.iter().flat_map(|row| &row.runs);
    for figure in runs.flat_map(|run| &run.figures) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    names
}

/// A line for each allocator, a column for each figure.
pub fn table(rows: &[OverTime]) -> String {
    let names = names(rows);
    let scenario = rows.first().map_or("", |row| row.scenario.as_str());
    let mut heads = vec![scenario.to_owned()];
    heads.extend(names.iter().map(|name| head(name)));
    heads.push(String::new());
    let mut lines = vec![heads];
    for row in rows {
        let mut line = vec![row.allocator.clone()];
        line.extend(names.iter().map(|name| shown(name, row.figure(name))));
        line.push(row.failure.clone().unwrap_or_default());
        lines.push(line);
    }
    aligned(lines, &[0], true)
}

/// What `--json` writes of a row.
#[derive(Serialize)]
pub struct Record<'a> {
    scenario: &'a str,
    allocator: &'a str,
    reps: usize,
    /// Medians.
    figures: BTreeMap<&'a str, f64>,
    /// Of each run.
    series: Vec<&'a Series>,
    error: Option<&'a str>,
}

/// All rows of all scenarios.
pub fn records(scenarios: &[Vec<OverTime>]) -> Vec<Record<'_>> {
    let record = |row| -> Record<'_> { record(row) };
    scenarios.iter().flatten().map(record).collect()
}

fn record(row: &OverTime) -> Record<'_> {
    let runs = if row.is_measured() {
        &row.runs[..]
    } else {
        &[]
    };
    let names = names(std::slice::from_ref(row));
    let figure = |name| Some((name, row.figure(name)?));
    Record {
        scenario: &row.scenario,
        allocator: &row.allocator,
        reps: runs.len(),
        figures: names.into_iter().filter_map(figure).collect(),
        series: runs.iter().map(|run| &run.series).collect(),
        error: row.failure.as_deref(),
    }
}

/// Rows for tests.
#[cfg(test)]
pub mod example {
    use spanmalloc_rate::over_time::Figure;

    use super::*;

    /// A run with a sample for each value of RSS, in MiB, one each 100 ms.
    pub fn course(figures: &[(&str, f64)], rss: &[u64]) -> Course {
        let figure = |(name, value): &(&str, f64)| Figure {
            name: (*name).to_owned(),
            value: *value,
        };
        Course {
            scenario: "burst".to_owned(),
            figures: figures.iter().map(figure).collect(),
            series: Series {
                at_ms: (0..rss.len() as u64).map(|it| it * 100).collect(),
                need_bytes: rss.iter().map(|it| it << 19).collect(),
                rss_bytes: rss.iter().map(|it| it << 20).collect(),
            },
        }
    }

    /// A row of such runs; one without any failed.
    pub fn row(allocator: &str, runs: &[Course]) -> OverTime {
        OverTime {
            runs: runs.to_vec(),
            failure: runs.is_empty().then(|| "hangs".to_owned()),
            ..OverTime::new("burst", allocator)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::example::{course, row};
    use super::*;

    fn rows() -> Vec<OverTime> {
        let run = |mib: f64| course(&[("z_bytes", mib * 1048576.0), ("a_s", mib)], &[1, 2]);
        vec![
            row("spanmalloc", &[run(9.0), run(1.0), run(2.0)]),
            row("other", &[]),
            row(
                "system",
                &[course(&[("a_s", 4.0), ("null_returns", 1.0)], &[3])],
            ),
        ]
    }

    #[test]
    fn a_table_has_medians_in_the_order_of_the_worker() {
        let text = table(&rows());
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        let expected = [
            "burst z a s null returns",
            "spanmalloc 2.0 MiB 2.00 -",
            "other - - - hangs",
            "system - 4.00 1.00",
        ];
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn records_have_the_series_of_all_runs() {
        let rows = [rows()];
        let value = serde_json::to_value(records(&rows)).unwrap();
        assert_eq!(value[0]["figures"]["a_s"], 2.0);
        assert_eq!(value[0]["reps"], 3);
        assert_eq!(value[0]["series"][2]["at_ms"], serde_json::json!([0, 100]));
        let failed = serde_json::json!({
            "scenario": "burst", "allocator": "other", "reps": 0, "figures": {}, "series": [],
            "error": "hangs",
        });
        assert_eq!(value[1], failed);
        assert_eq!(value[2]["error"], serde_json::Value::Null);
    }
}
