//! What `--json` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::rows::{Clock, Row};

/// A row; what was not measured is null.
///
/// Cycles, instructions and CPU time are those of the run that took the least time, as other work on the
/// machine only adds to it; what is in bytes or under `more` is a median of all runs, and `spread` is of
/// the time of all of them. Of a command the time is a median too.
#[derive(Serialize)]
struct Record<'a> {
    workload: &'a str,
    allocator: &'a str,
    threads: Option<usize>,
    cycles_per_op: Option<f64>,
    instructions_per_op: Option<f64>,
    kernel_cycles_per_op: Option<f64>,
    cpu_ns_per_op: Option<f64>,
    peak_rss_bytes: Option<u64>,
    reps: usize,
    spread: Option<f64>,
    /// Other results of the workload, and why a row failed, as `error`.
    more: BTreeMap<&'a str, Value>,
}

fn record(row: &Row, clock: Clock) -> Record<'_> {
    let mut more: BTreeMap<&str, Value> = row
        .more()
        .into_iter()
        .map(|(name, value)| (name, Value::from(value)))
        .collect();
    if let Some(failure) = &row.failure {
        more.insert("error", Value::from(failure.as_str()));
    }
    Record {
        workload: &row.workload,
        allocator: &row.allocator,
        threads: row.threads,
        cycles_per_op: row.per_operation(clock, |run| run.user_cycles),
        instructions_per_op: row.per_operation(clock, |run| run.user_instructions),
        kernel_cycles_per_op: row.per_operation(clock, |run| run.kernel_cycles),
        cpu_ns_per_op: row.per_operation(clock, |run| Some(run.user_ns + run.system_ns)),
        peak_rss_bytes: row.peak_rss_bytes().map(|bytes| bytes.round() as u64),
        reps: if row.is_measured() { row.runs.len() } else { 0 },
        spread: clock.spread(row),
        more,
    }
}

/// Writes all rows.
pub fn write(file: &File, rows: &[Row]) -> io::Result<()> {
    let clock = Clock::of(rows);
    let records: Vec<Record> = rows.iter().map(|row| record(row, clock)).collect();
    write_records(file, &records)
}

/// Writes an array, which is closed by a newline.
pub fn write_records(mut file: &File, records: &[impl Serialize]) -> io::Result<()> {
    let text = serde_json::to_string_pretty(records)?;
    writeln!(file, "{text}")
}

/// The same with a line for each record, for those that have long arrays.
pub fn write_lines(mut file: &File, records: &[impl Serialize]) -> io::Result<()> {
    let lines: Result<Vec<String>, _> = records.iter().map(serde_json::to_string).collect();
    writeln!(file, "[\n{}\n]", lines?.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::example::rows;

    #[test]
    fn rows_have_exactly_these_fields() {
        let rows = rows();
        let records: Vec<Record> = rows.iter().map(|row| record(row, Clock::CpuTime)).collect();
        let value = serde_json::to_value(&records[1]).unwrap();
        let expected = serde_json::json!({
            "workload": "a",
            "allocator": "system",
            "threads": 2,
            "cycles_per_op": null,
            "instructions_per_op": 36.0,
            "kernel_cycles_per_op": null,
            "cpu_ns_per_op": 10.0,
            "peak_rss_bytes": 8388608,
            "reps": 3,
            "spread": 0.4,
            "more": {"p99_ns": 115.0},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_failed_row_has_nulls_and_says_why() {
        let rows = rows();
        let value = serde_json::to_value(record(&rows[2], Clock::CpuTime)).unwrap();
        assert_eq!(value["cpu_ns_per_op"], Value::Null);
        assert_eq!(value["reps"], 0);
        assert_eq!(value["more"]["error"], "crashed: signal 6 (SIGABRT)");
    }
}
