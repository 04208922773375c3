//! What was measured: a row for each workload and allocator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spanmalloc_rate::Answer;

use crate::allocators::OURS;
use crate::figures::{geometric_mean, least, median, ratio, spread};

/// One workload on one allocator.
#[derive(Clone, Debug)]
pub struct Row {
    pub workload: String,
    pub allocator: String,
    /// `None` where nobody knows.
    pub threads: Option<usize>,
    pub runs: Vec<Answer>,
    /// Of the processes of all runs.
    pub cpu: Duration,
    /// Why there is nothing to show, in a few words.
    pub failure: Option<String>,
}

impl Row {
    pub fn is_measured(&self) -> bool {
        self.failure.is_none() && !self.runs.is_empty()
    }

    pub fn is_ours(&self) -> bool {
        self.allocator == OURS
    }

    /// Values of all runs; `None` if one lacks it or the row failed.
    pub fn values(&self, of: impl Fn(&Answer) -> Option<f64>) -> Option<Vec<f64>> {
        let values: Option<Vec<f64>> = self.runs.iter().map(of).collect();
        values.filter(|_| self.is_measured())
    }

    /// The median of something that is counted, per operation.
    pub fn per_operation(&self, count: impl Fn(&Answer) -> Option<u64>) -> Option<f64> {
        median(self.values(|run| ratio(count(run)? as f64, run.operations as f64))?)
    }

    pub fn peak_rss_bytes(&self) -> Option<f64> {
        median(self.values(|run| Some(run.peak_rss_bytes as f64))?)
    }

    /// What all runs have under the same name, as medians.
    pub fn more(&self) -> BTreeMap<&str, f64> {
        let names: BTreeSet<&str> = self
            .runs
            .iter()
            .flat_map(|run| run.more.keys().map(String::as_str))
            .collect();
        let value = |name| median(self.values(|run| run.more.get(name).copied())?);
        names
            .into_iter()
            .filter_map(|name| Some((name, value(name)?)))
            .collect()
    }
}

/// How time is measured, in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Cycles, user's and kernel's.
    Cycles,
    /// CPU time, for machines that do not count cycles, or not for everybody.
    CpuTime,
}

impl Clock {
    /// Cycles if all that was measured has them.
    pub fn of(rows: &[Row]) -> Self {
        let mut measured = rows.iter().filter(|row| row.is_measured()).peekable();
        let counted = |row: &Row| row.per_operation(|run| Self::Cycles.count(run)).is_some();
        if measured.peek().is_some() && measured.all(counted) {
            Self::Cycles
        } else {
            Self::CpuTime
        }
    }

    /// User and kernel together.
    fn count(self, run: &Answer) -> Option<u64> {
        match self {
            Self::Cycles => Some(run.user_cycles? + run.kernel_cycles?),
            Self::CpuTime => Some(run.user_ns + run.system_ns),
        }
    }

    /// User and kernel together, per operation.
    pub fn time(self, row: &Row) -> Option<f64> {
        row.per_operation(|run| self.count(run))
    }

    /// Of the time per operation.
    pub fn spread(self, row: &Row) -> Option<f64> {
        let time = |run: &Answer| ratio(self.count(run)? as f64, run.operations as f64);
        spread(&row.values(time)?)
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Cycles => "cycles",
            Self::CpuTime => "ns",
        }
    }
}

/// Time and memory, of a row or a mean, relative to something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratios {
    pub time: Option<f64>,
    pub rss: Option<f64>,
}

impl Ratios {
    /// The geometric means of many.
    fn mean(all: &[Self]) -> Self {
        Self {
            time: geometric_mean(all.iter().filter_map(|it| it.time)),
            rss: geometric_mean(all.iter().filter_map(|it| it.rss)),
        }
    }
}

/// The rows of one workload, together, in the order of the allocators.
pub fn workloads(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|one, next| one.workload == next.workload)
}

/// A row to the best of others: the one with the least time, and the one with the least memory.
pub fn to_best<'a>(row: &Row, others: impl Iterator<Item = &'a Row>, clock: Clock) -> Ratios {
    let others: Vec<&Row> = others.collect();
    let to_least = |of: &dyn Fn(&Row) -> Option<f64>| {
        let above_zero = |value: &f64| *value > 0.0;
        let least = least(others.iter().filter_map(|row| of(row)).filter(above_zero))?;
        ratio(of(row)?, least)
    };
    Ratios {
        time: to_least(&|row| clock.time(row)),
        rss: to_least(&Row::peak_rss_bytes),
    }
}

/// A row to the best peers of its workload. All allocators but ours are peers.
pub fn to_best_peer(row: &Row, workload: &[Row], clock: Clock) -> Ratios {
    to_best(row, workload.iter().filter(|row| !row.is_ours()), clock)
}

/// A geometric mean over the workloads that were measured on both sides.
#[derive(Clone, Debug)]
pub struct Mean {
    /// What ours, or this allocator, is compared with.
    pub name: String,
    pub ratios: Ratios,
    /// How many workloads are in it.
    pub workloads: usize,
}

fn mean(name: &str, all: &[Ratios]) -> Mean {
    Mean {
        name: name.to_owned(),
        ratios: Ratios::mean(all),
        workloads: all.iter().filter(|it| it.rss.is_some()).count(),
    }
}

/// Names of allocators in the order of their rows.
pub fn allocators(rows: &[Row]) -> Vec<&str> {
    let mut names = Vec::new();
    for row in rows {
        if !names.contains(&row.allocator.as_str()) {
            names.push(row.allocator.as_str());
        }
    }
    names
}

/// Ours to each peer, and last to the best peer of each workload; nothing if there is no such pair.
pub fn means(rows: &[Row], clock: Clock) -> Vec<Mean> {
    let ours_to = |is_other: &dyn Fn(&Row) -> bool| -> Vec<Ratios> {
        workloads(rows)
            .filter_map(|workload| {
                let ours = workload.iter().find(|row| row.is_ours())?;
                Some(to_best(
                    ours,
                    workload.iter().filter(|row| is_other(row)),
                    clock,
                ))
            })
            .collect()
    };
    let mut means: Vec<Mean> = allocators(rows)
        .into_iter()
        .filter(|name| *name != OURS)
        .map(|name| mean(name, &ours_to(&|row| row.allocator == name)))
        .collect();
    if !means.is_empty() {
        means.push(mean("the best peer", &ours_to(&|row| !row.is_ours())));
    }
    means.retain(|mean| mean.workloads > 0);
    means
}

/// Each allocator to the best peer of each workload.
pub fn means_to_best_peer(rows: &[Row], clock: Clock) -> Vec<Mean> {
    let to_best_peers = |name: &str| -> Vec<Ratios> {
        workloads(rows)
            .filter_map(|workload| {
                let row = workload.iter().find(|row| row.allocator == name)?;
                Some(to_best_peer(row, workload, clock))
            })
            .collect()
    };
    allocators(rows)
        .into_iter()
        .map(|name| mean(name, &to_best_peers(name)))
        .collect()
}

/// Rows for tests.
#[cfg(test)]
pub mod example {
    use super::*;

    /// A run of ten operations.
    pub fn run(user_ns: u64, peak_rss_bytes: u64) -> Answer {
        Answer {
            workload: "w".to_owned(),
            threads: 2,
            operations: 10,
            wall_ns: user_ns,
            user_ns,
            system_ns: 10,
            user_cycles: None,
            user_instructions: Some(4 * user_ns),
            kernel_cycles: None,
            peak_rss_bytes,
            more: BTreeMap::from([("p99_ns".to_owned(), user_ns as f64)]),
        }
    }

    pub fn row(workload: &str, allocator: &str, runs: &[Answer]) -> Row {
        Row {
            workload: workload.to_owned(),
            allocator: allocator.to_owned(),
            threads: Some(2),
            runs: runs.to_vec(),
            cpu: Duration::ZERO,
            failure: None,
        }
    }

    pub fn failed(workload: &str, allocator: &str) -> Row {
        Row {
            failure: Some("crashed: signal 6 (SIGABRT)".to_owned()),
            ..row(workload, allocator, &[])
        }
    }

    /// Two workloads: in the first ours takes twice the time of the best peer, in the second half.
    pub fn rows() -> Vec<Row> {
        vec![
            row("a", OURS, &[run(190, 4 << 20)]),
            row(
                "a",
                "system",
                &[run(90, 8 << 20), run(100, 8 << 20), run(80, 8 << 20)],
            ),
            failed("a", "other"),
            row("b", OURS, &[run(40, 4 << 20)]),
            row("b", "system", &[run(90, 4 << 20)]),
            row("b", "other", &[run(390, 1 << 20)]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::example::{row, rows, run};
    use super::*;

    const CPU: Clock = Clock::CpuTime;

    #[test]
    fn rows_have_medians_per_operation() {
        let rows = rows();
        assert_eq!(CPU.time(&rows[1]), Some(10.0));
        assert_eq!(CPU.spread(&rows[1]), Some(0.2));
        assert_eq!(
            rows[1].per_operation(|run| run.user_instructions),
            Some(36.0)
        );
        assert_eq!(rows[1].more()["p99_ns"], 90.0);
        assert_eq!(CPU.time(&rows[2]), None);
        assert_eq!(rows[2].peak_rss_bytes(), None);
        assert!(rows[2].more().is_empty());
    }

    #[test]
    fn cycles_are_the_clock_if_all_rows_have_them() {
        let mut counted = run(1, 1);
        (counted.user_cycles, counted.kernel_cycles) = (Some(70), Some(30));
        let all = [row("a", OURS, &[counted.clone()])];
        assert_eq!(Clock::of(&all), Clock::Cycles);
        assert_eq!(Clock::Cycles.time(&all[0]), Some(10.0));
        let some = [row("a", OURS, &[counted, run(1, 1)])];
        assert_eq!(Clock::of(&some), Clock::CpuTime);
        assert_eq!(Clock::of(&[]), Clock::CpuTime);
    }

    #[test]
    fn ours_is_nobodys_peer() {
        let rows = rows();
        let workload = |index: usize| workloads(&rows).nth(index).unwrap();
        let ratios = |row, index| to_best_peer(row, workload(index), CPU);
        assert_eq!(ratios(&rows[0], 0).time, Some(2.0));
        assert_eq!(ratios(&rows[0], 0).rss, Some(0.5));
        assert_eq!(ratios(&rows[1], 0).time, Some(1.0));
        assert_eq!(ratios(&rows[2], 0), Ratios::default());
        assert_eq!(ratios(&rows[3], 1).time, Some(0.5));
        assert_eq!(ratios(&rows[3], 1).rss, Some(4.0));
    }

    #[test]
    fn means_are_over_what_both_sides_have() {
        let means = means(&rows(), CPU);
        let seen: Vec<_> = means
            .iter()
            .map(|it| (it.name.as_str(), it.workloads))
            .collect();
        assert_eq!(seen, [("system", 2), ("other", 1), ("the best peer", 2)]);
        let close = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-12;
        assert!(close(means[0].ratios.time, 1.0));
        assert!(close(means[1].ratios.time, 0.125));
        assert!(close(means[2].ratios.time, 1.0));
        assert!(close(means[2].ratios.rss, 2.0_f64.sqrt()));
    }

    #[test]
    fn there_are_no_means_without_ours() {
        let rows = [row("a", "system", &[run(1, 1)])];
        assert!(means(&rows, CPU).is_empty());
        assert_eq!(means_to_best_peer(&rows, CPU)[0].ratios.time, Some(1.0));
    }
}
