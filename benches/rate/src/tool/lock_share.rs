//! `--lock-share`: how hot the locks of spanmalloc are, and how allocators take more threads.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;
use spanmalloc_rate::Listed;

use crate::allocators::{self, Allocator};
use crate::args::Args;
use crate::bench::{abouts, chosen, how, workspace};
use crate::build::Workspace;
use crate::child::Children;
use crate::curves;
use crate::failure::Failure;
use crate::locks::{self, Lock, hottest};
use crate::measure::{Job, measure};
use crate::outputs::{Outputs, status};
use crate::progress;
use crate::rows::{Clock, Row};
use crate::spent;
use crate::workers::{self, Worker};

/// Measures, and shows both tables.
pub fn run(args: &Args, children: &Children) -> Result<ExitCode, Failure> {
    let allocators = allocators::chosen(args)?;
    let with_clocks = allocators::with_clocks(args)?;
    let outputs = Outputs::create(args)?;
    let workspace = workspace(args, children)?;
    let with_clocks = ready(vec![with_clocks], args, &workspace, children)?;
    let listed = with_threads(args, chosen(args, &with_clocks, children)?)?;
    let curve_jobs = curves::jobs(args, &listed);
    let workers = match curve_jobs[..] {
        [] => Vec::new(),
        _ => ready(allocators, args, &workspace, children)?,
    };
    for workers in [&with_clocks, &workers] {
        if !workers.is_empty() {
            let abouts = abouts(args, workers, children)?;
            say(&how(args, workers, &abouts, &workspace));
        }
    }

    let start = Instant::now();
    let job = |workload| Job::workload(args, workload, args.threads);
    let jobs: Vec<Job> = listed.iter().map(job).collect();
    let shares = measure(args, &with_clocks, &jobs, children)?;
    say(&format!("\n{}", locks::table(&shares)));
    let curves = measure(args, &workers, &curve_jobs, children)?;
    if !curves.is_empty() {
        say(&format!("\n{}", curves::table(&curves)));
    }
    say(&spent::text(
        &[&shares[..], &curves].concat(),
        start.elapsed(),
    ));

    outputs.write_json(&records(&shares, &curves))?;
    if !shares.iter().all(Row::is_measured) {
        return Ok(ExitCode::FAILURE);
    }
    Ok(if curves.is_empty() {
        ExitCode::SUCCESS
    } else {
        status(&curves, workers.iter().map(|it| it.allocator.name.as_str()))
    })
}

/// Nobody to tell if standard output is closed.
fn say(text: &str) {
    let _ = write!(io::stdout(), "{text}");
}

fn ready(
    allocators: Vec<Allocator>,
    args: &Args,
    workspace: &Workspace,
    children: &Children,
) -> Result<Vec<Worker>, Failure> {
    let bar = progress::bar(allocators.len() as u64);
    let ready = args.workers.as_deref();
    let workers = workers::make_ready(allocators, ready, workspace, children, &bar)?;
    bar.finish_and_clear();
    Ok(workers)
}

/// Those with several threads: a lock of one thread alone is never waited for.
fn with_threads(args: &Args, mut listed: Vec<Listed>) -> Result<Vec<Listed>, Failure> {
    listed.retain(|it| it.threads > 1 || it.threads_can_be_chosen);
    if listed.is_empty() {
        let names = args.workloads.join(",");
        return Err(Failure::usage(format!(
            "--lock-share: no workload of {names} has more than one thread"
        )));
    }
    Ok(listed)
}

/// What `--json` writes: both tables.
#[derive(Serialize)]
#[serde(tag = "table", rename_all = "snake_case")]
enum Record<'a> {
    /// A workload, on spanmalloc with clocks in its locks.
    LockShare {
        #[serde(flatten)]
        costs: Costs<'a>,
        locks: Vec<Lock>,
        hottest_lock: Option<String>,
        saturation_cores: Option<f64>,
    },
    /// A workload with a number of threads, on an allocator.
    Curve {
        allocator: &'a str,
        #[serde(flatten)]
        costs: Costs<'a>,
    },
}

/// What is told of any row: the times of the run that took the least, and the median of memory.
#[derive(Serialize)]
struct Costs<'a> {
    workload: &'a str,
    threads: Option<usize>,
    /// User and kernel.
    cycles_per_op: Option<f64>,
    cpu_ns_per_op: Option<f64>,
    wall_ns_per_op: Option<f64>,
    peak_rss_bytes: Option<f64>,
    reps: usize,
    /// Of the cycles, or the CPU time.
    spread: Option<f64>,
    error: Option<&'a str>,
}

fn records<'a>(shares: &'a [Row], curves: &'a [Row]) -> Vec<Record<'a>> {
    let of_shares = |row: &'a Row| {
        let locks = locks::locks(row);
        let (hottest_lock, saturation_cores) = hottest(&locks)
            .map(|(lock, cores)| (lock.name.clone(), cores))
            .unzip();
        Record::LockShare {
            costs: costs(row, Clock::of(shares)),
            locks,
            hottest_lock,
            saturation_cores,
        }
    };
    let of_curves = |row: &'a Row| Record::Curve {
        allocator: &row.allocator,
        costs: costs(row, Clock::of(curves)),
    };
    let shares = shares.iter().map(of_shares);
    shares.chain(curves.iter().map(of_curves)).collect()
}

fn costs(row: &Row, clock: Clock) -> Costs<'_> {
    Costs {
        workload: &row.workload,
        threads: row.threads,
        cycles_per_op: Clock::Cycles.time(row),
        cpu_ns_per_op: Clock::CpuTime.time(row),
        wall_ns_per_op: row.per_operation(clock, |run| Some(run.wall_ns)),
        peak_rss_bytes: row.peak_rss_bytes(),
        reps: if row.is_measured() { row.runs.len() } else { 0 },
        spread: clock.spread(row),
        error: row.failure.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::example::run_with;
    use crate::rows::example::{failed, row, run};

    #[test]
    fn both_tables_are_in_the_json() {
        let shares = [row("w", "lock_share", &[run_with(&[("records", 0.5)])])];
        let curves = [row("w", "spanmalloc", &[run(90, 8)]), failed("w", "other")];
        let value = serde_json::to_value(records(&shares, &curves)).unwrap();
        let expected = serde_json::json!([
            {
                "table": "lock_share", "workload": "w", "threads": 2, "cycles_per_op": null,
                "cpu_ns_per_op": 11.0, "wall_ns_per_op": 10.0, "peak_rss_bytes": 1.0, "reps": 1,
                "spread": null, "error": null, "hottest_lock": "records", "saturation_cores": 2.0,
                "locks": [{
                    "name": "records", "held_share": 0.5, "waited_share": 1.5, "acquisitions": 50.0,
                    "acquisitions_per_op": 5.0, "saturation_cores": 2.0,
                }],
            },
            {
                "table": "curve", "workload": "w", "allocator": "spanmalloc", "threads": 2,
                "cycles_per_op": null, "cpu_ns_per_op": 10.0, "wall_ns_per_op": 9.0,
                "peak_rss_bytes": 8.0, "reps": 1, "spread": null, "error": null,
            },
            {
                "table": "curve", "workload": "w", "allocator": "other", "threads": 2,
                "cycles_per_op": null, "cpu_ns_per_op": null, "wall_ns_per_op": null,
                "peak_rss_bytes": null, "reps": 0, "spread": null,
                "error": "crashed: signal 6 (SIGABRT)",
            },
        ]);
        assert_eq!(value, expected);
    }
}
