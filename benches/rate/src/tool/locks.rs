//! How hot the locks of spanmalloc are: what the worker with clocks in its locks answers.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::figures::median;
use crate::rows::Row;
use crate::table::{aligned, number, or_dash};

const HELD: &str = "held_share";

/// One kind of lock in one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lock {
    pub name: String,
    /// The part of the CPU time for which a lock of this kind was held.
    pub held_share: f64,
    /// The time for which threads waited for one, as a part of the CPU time.
    pub waited_share: f64,
    pub acquisitions: f64,
    pub acquisitions_per_op: f64,
    /// From how many cores on the hottest lock of this kind limits the workload. `None` if no number
    /// of cores is too many.
    pub saturation_cores: Option<f64>,
}

/// The locks of a row, the hottest first, which has the fewest cores.
pub fn locks(row: &Row) -> Vec<Lock> {
    let names: BTreeSet<&str> = row
        .runs
        .iter()
        .flat_map(|run| run.more.keys())
        .filter_map(|key| {
            key.strip_prefix("lock_")?
                .strip_suffix(HELD)?
                .strip_suffix('_')
        })
        .collect();
    let mut locks: Vec<Lock> = names
        .into_iter()
        .filter_map(|name| lock(row, name))
        .collect();
    let cores = |lock: &Lock| lock.saturation_cores.unwrap_or(f64::INFINITY);
    locks.sort_by(|one, other| {
        let by_cores = cores(one).total_cmp(&cores(other));
        by_cores.then(other.held_share.total_cmp(&one.held_share))
    });
    locks
}

fn lock(row: &Row, name: &str) -> Option<Lock> {
    let key = |result: &str| format!("lock_{name}_{result}");
    let middle = |result: &str| {
        let key = key(result);
        median(row.values(|run| run.more.get(&key).copied())?)
    };
    let acquisitions = key("acquisitions");
    let per_op = row.values(|run| Some(run.more.get(&acquisitions)? / run.operations as f64));
    // A run in which the lock was not held does not tell of it.
    let cores = key("saturation_cores");
    let cores = row.values(|run| Some(run.more.get(&cores).copied().unwrap_or(f64::INFINITY)));
    Some(Lock {
        name: name.to_owned(),
        held_share: middle(HELD)?,
        waited_share: middle("waited_share")?,
        acquisitions: middle("acquisitions")?,
        acquisitions_per_op: median(per_op?)?,
        saturation_cores: median(cores?).filter(|cores| cores.is_finite()),
    })
}

/// The lock that limits a row first, of those that [`locks`] returns, with its cores.
pub fn hottest(locks: &[Lock]) -> Option<(&Lock, f64)> {
    let lock = locks.first()?;
    Some((lock, lock.saturation_cores?))
}

const HEADING: &str = "\
Locks of spanmalloc with clocks in them, which cost time themselves. Medians of all runs, the hottest lock
first. Held and waited are parts of the CPU time of all threads. Waiting is wall time: with more threads
than cores it can exceed 100 %. Cores are where the hottest lock of a kind would be held all the time.";

/// A line for each workload and each lock that was taken.
pub fn table(rows: &[Row]) -> String {
    let heads = [
        "workload",
        "threads",
        "lock",
        "taken per op",
        "held",
        "waited",
        "cores",
        "",
    ];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for row in rows {
        let mut locks = locks(row);
        let remark = match (&row.failure, hottest(&locks)) {
            (Some(failure), _) => failure.clone(),
            (None, Some((lock, cores))) => {
                format!("hottest: {}, {} cores", lock.name, of_cores(cores))
            }
            (None, None) => "no lock was held".to_owned(),
        };
        locks.retain(|lock| lock.acquisitions > 0.0);
        let mut all: Vec<[String; 5]> = locks.iter().map(cells).collect();
        if all.is_empty() {
            all.push(std::array::from_fn(|_| or_dash(None)));
        }
        let threads = or_dash(row.threads.map(|it| it.to_string()));
        let mut of_row = Some((row.workload.clone(), threads, remark));
        for cells in all {
            let (workload, threads, remark) = of_row.take().unwrap_or_default();
            let mut line = vec![workload, threads];
            line.extend(cells);
            line.push(remark);
            lines.push(line);
        }
    }
    format!("{HEADING}\n\n{}", aligned(lines, &[0, 2], true))
}

fn cells(lock: &Lock) -> [String; 5] {
    let share = |part: f64| format!("{} %", number(Some(part * 100.0)));
    [
        lock.name.clone(),
        rate(lock.acquisitions_per_op),
        share(lock.held_share),
        share(lock.waited_share),
        or_dash(lock.saturation_cores.map(of_cores)),
    ]
}

/// Most are far below one.
fn rate(value: f64) -> String {
    match value {
        ..=0.0 => "0".to_owned(),
        ..0.0001 => "< 0.0001".to_owned(),
        ..0.1 => format!("{value:.4}"),
        _ => number(Some(value)),
    }
}

/// Nobody has more of them than that.
fn of_cores(cores: f64) -> String {
    match cores {
        9999.5.. => "> 9999".to_owned(),
        _ => number(Some(cores)),
    }
}

#[cfg(test)]
pub mod example {
    use spanmalloc_rate::Answer;

    use crate::rows::example::run;

    /// A run of ten operations in which these locks were held for this part of its time.
    pub fn run_with(locks: &[(&str, f64)]) -> Answer {
        let mut run = run(100, 1);
        for (name, held) in locks {
            let mut put = |result: &str, value| {
                run.more.insert(format!("lock_{name}_{result}"), value);
            };
            put("held_share", *held);
            put("waited_share", 3.0 * held);
            put("acquisitions", if *held > 0.0 { 50.0 } else { 0.0 });
            if *held > 0.0 {
                put("saturation_cores", 1.0 / held);
            }
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::example::run_with;
    use super::*;
    use crate::rows::example::{failed, row};

    #[test]
    fn the_hottest_lock_saturates_at_the_fewest_cores() {
        let runs = [
            run_with(&[("mcentral", 0.25), ("page_heap", 0.5), ("records", 0.0)]),
            run_with(&[("mcentral", 0.25), ("page_heap", 0.125), ("records", 0.0)]),
            run_with(&[("mcentral", 0.25), ("page_heap", 0.0), ("records", 0.5)]),
        ];
        let locks = locks(&row("w", "lock_share", &runs));
        let seen: Vec<_> = locks
            .iter()
            .map(|it| (it.name.as_str(), it.held_share, it.saturation_cores))
            .collect();
        let expected = [
            ("mcentral", 0.25, Some(4.0)),
            ("page_heap", 0.125, Some(8.0)),
            ("records", 0.0, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(locks[0].waited_share, 0.75);
        assert_eq!(locks[0].acquisitions_per_op, 5.0);
        let (lock, cores) = hottest(&locks).unwrap();
        assert_eq!((lock.name.as_str(), cores), ("mcentral", 4.0));
    }

    #[test]
    fn every_workload_is_in_the_table() {
        let rows = [
            row(
                "busy",
                "lock_share",
                &[run_with(&[
                    ("mcentral", 0.0001),
                    ("page_heap", 0.5),
                    ("records", 0.0),
                ])],
            ),
            row("idle", "lock_share", &[run_with(&[("records", 0.0)])]),
            failed("bad", "lock_share"),
        ];
        let text = table(&rows);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().skip(5).map(words).collect();
        let expected = [
            "busy 2 page_heap 5.00 50.0 % 150 % 2.00 hottest: page_heap, 2.00 cores",
            "mcentral 5.00 0.01 % 0.03 % > 9999",
            "idle 2 - - - - - no lock was held",
            "bad 2 - - - - - crashed: signal 6 (SIGABRT)",
        ];
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn small_rates_are_told() {
        for (value, expected) in [
            (0.0, "0"),
            (0.00001, "< 0.0001"),
            (0.00123, "0.0012"),
            (1.5, "1.50"),
        ] {
            assert_eq!(rate(value), expected);
        }
    }
}
