//! What was measured: a row for each workload and allocator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spanmalloc_rate::Answer;

use crate::allocators::OURS;
use crate::figures::{geometric_mean, least_by, median, ratio, spread};

/// Which of its runs tells the time of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// The run that took the least time: what else the machine does can only add to it.
    Least,
    /// The median of all runs, for programs that need not do the same each time.
    Median,
}

/// One workload on one allocator.
#[derive(Clone, Debug)]
pub struct Row {
    pub workload: String,
    pub allocator: String,
    /// `None` where nobody knows.
    pub threads: Option<usize>,
    pub runs: Vec<Answer>,
    pub timing: Timing,
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

    /// Something that is a part of the time, per operation: that of the run that took the least by
    /// this clock, or the median of all.
    pub fn per_operation(
        &self,
        clock: Clock,
        count: impl Fn(&Answer) -> Option<u64>,
    ) -> Option<f64> {
        let values = self.values(|run| ratio(count(run)? as f64, run.operations as f64))?;
        match self.timing {
            Timing::Median => median(values),
            Timing::Least => {
                let times = self.values(|run| clock.time_of_run(run))?;
                Some(least_by(times.into_iter().zip(values), |it| it.0)?.1)
            }
        }
    }

    /// The median of all runs.
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
        let counted = |row: &Row| row.values(|run| Self::Cycles.time_of_run(run)).is_some();
        if measured.peek().is_some() && measured.all(counted) {
            Self::Cycles
        } else {
            Self::CpuTime
        }
    }

    /// User and kernel together, of one run.
    fn count(self, run: &Answer) -> Option<u64> {
        match self {
            Self::Cycles => Some(run.user_cycles? + run.kernel_cycles?),
            Self::CpuTime => Some(run.user_ns + run.system_ns),
        }
    }

    /// User and kernel together, per operation.
    pub fn time(self, row: &Row) -> Option<f64> {
        row.per_operation(self, |run| self.count(run))
    }

    /// As [`Self::time`], of one run.
    fn time_of_run(self, run: &Answer) -> Option<f64> {
        ratio(self.count(run)? as f64, run.operations as f64)
    }

    /// Of the time per operation, over all runs.
    pub fn spread(self, row: &Row) -> Option<f64> {
        spread(&row.values(|run| self.time_of_run(run))?)
    }

    /// The unit of an operation's time.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Cycles => "cycles",
            Self::CpuTime => "ns",
        }
    }

    /// What is counted, and in which unit.
    pub fn about(self) -> &'static str {
        match self {
            Self::Cycles => "cycles, user and kernel",
            Self::CpuTime => "ns of CPU time, user and system",
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

/// The best of others for a row, with the ratio to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best<'a> {
    pub name: &'a str,
    pub ratio: f64,
}

/// That with the least time, and that with the least memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bests<'a> {
    pub time: Option<Best<'a>>,
    pub rss: Option<Best<'a>>,
}

impl Bests<'_> {
    pub fn ratios(&self) -> Ratios {
        Ratios {
            time: self.time.map(|best| best.ratio),
            rss: self.rss.map(|best| best.ratio),
        }
    }
}

fn bests<'a>(row: &Row, others: impl Iterator<Item = &'a Row>, clock: Clock) -> Bests<'a> {
    let others: Vec<&Row> = others.collect();
    let best = |of: &dyn Fn(&Row) -> Option<f64>| {
        let values = others.iter().filter_map(|row| Some((*row, of(row)?)));
        let (best, least) = least_by(values.filter(|it| it.1 > 0.0), |it| it.1)?;
        Some(Best {
            name: &best.allocator,
            ratio: ratio(of(row)?, least)?,
        })
    };
    Bests {
        time: best(&|row| clock.time(row)),
        rss: best(&Row::peak_rss_bytes),
    }
}

/// The best peers of a row in its workload. All allocators but ours are peers.
pub fn best_peers<'a>(row: &Row, workload: &'a [Row], clock: Clock) -> Bests<'a> {
    bests(row, workload.iter().filter(|row| !row.is_ours()), clock)
}

/// A row to the best peers of its workload.
pub fn to_best_peer(row: &Row, workload: &[Row], clock: Clock) -> Ratios {
    best_peers(row, workload, clock).ratios()
}

/// The name of the mean of ours to the best peer of each workload.
pub const BEST_PEER: &str = "the best peer";

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
                let others = workload.iter().filter(|row| is_other(row));
                Some(bests(ours, others, clock).ratios())
            })
            .collect()
    };
    let mut means: Vec<Mean> = allocators(rows)
        .into_iter()
        .filter(|name| *name != OURS)
        .map(|name| mean(name, &ours_to(&|row| row.allocator == name)))
        .collect();
    if !means.is_empty() {
        means.push(mean(BEST_PEER, &ours_to(&|row| !row.is_ours())));
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
            timing: Timing::Least,
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
                &[run(115, 4 << 20), run(90, 16 << 20), run(140, 8 << 20)],
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
    fn time_is_of_the_least_run_and_the_rest_are_medians() {
        let rows = rows();
        assert_eq!(CPU.time(&rows[1]), Some(10.0));
        let part = |count: fn(&Answer) -> Option<u64>| rows[1].per_operation(CPU, count);
        assert_eq!(part(|run| Some(run.user_ns)), Some(9.0));
        assert_eq!(part(|run| run.user_instructions), Some(36.0));
        assert_eq!(CPU.spread(&rows[1]), Some(0.4));
        assert_eq!(rows[1].peak_rss_bytes(), Some(f64::from(8 << 20)));
        assert_eq!(rows[1].more()["p99_ns"], 115.0);
        assert_eq!(CPU.time(&rows[2]), None);
        assert_eq!(rows[2].peak_rss_bytes(), None);
        assert!(rows[2].more().is_empty());
    }

    #[test]
    fn all_parts_of_the_time_are_of_one_run() {
        let (mut one, mut other) = (run(100, 1), run(50, 1));
        (one.system_ns, other.system_ns) = (0, 90);
        let row = row("w", OURS, &[other, one]);
        let part = |count: fn(&Answer) -> Option<u64>| row.per_operation(CPU, count);
        assert_eq!(CPU.time(&row), Some(10.0));
        assert_eq!(part(|run| Some(run.user_ns)), Some(10.0));
        assert_eq!(part(|run| Some(run.system_ns)), Some(0.0));
    }

    #[test]
    fn of_a_program_the_time_is_a_median() {
        let row = Row {
            timing: Timing::Median,
            ..rows().remove(1)
        };
        assert_eq!(CPU.time(&row), Some(12.5));
        assert_eq!(CPU.spread(&row), Some(0.4));
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
        let best = best_peers(&rows[3], workload(1), CPU);
        assert_eq!(best.time.unwrap().name, "system");
        assert_eq!(best.rss.unwrap().name, "other");
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
