//! The time per operation with more and more threads.

use spanmalloc_rate::Listed;

use crate::args::Args;
use crate::figures::ratio;
use crate::measure::Job;
use crate::rows::{Clock, Row, allocators, workloads};
use crate::table::{aligned, number, or_dash};

/// Of each curve.
const THREADS: [u16; 5] = [1, 2, 4, 8, 16];

/// What the curves are made of: all numbers of threads for each workload that allows a choice.
pub fn jobs(args: &Args, listed: &[Listed]) -> Vec<Job> {
    let with_choice = listed.iter().filter(|it| it.threads_can_be_chosen);
    let of = |it| THREADS.map(|threads| Job::workload(args, it, Some(threads)));
    with_choice.flat_map(of).collect()
}

/// A line for each workload and allocator.
pub fn table(rows: &[Row]) -> String {
    let clock = Clock::of(rows);
    let mut heads = vec!["workload".to_owned(), "allocator".to_owned()];
    heads.extend(THREADS.map(|threads| match threads {
        1 => "1 thread".to_owned(),
        _ => format!("{threads} threads"),
    }));
    let [least, .., most] = THREADS;
    heads.extend([format!("{most} to {least}"), String::new()]);
    let mut lines = vec![heads];
    for workload in workloads(rows) {
        for (index, allocator) in allocators(workload).into_iter().enumerate() {
            let of_allocator = || workload.iter().filter(|row| row.allocator == allocator);
            let time = |threads: u16| {
                let row = of_allocator().find(|row| row.threads == Some(threads.into()))?;
                clock.time(row)
            };
            let name = workload.first().filter(|_| index == 0);
            let mut line = vec![name.map_or(String::new(), |row| row.workload.clone())];
            line.push(allocator.to_owned());
            line.extend(THREADS.map(|threads| number(time(threads))));
            let growth = time(most)
                .zip(time(least))
                .and_then(|(most, least)| ratio(most, least));
            line.push(or_dash(growth.map(|it| format!("{it:.2}"))));
            let failure = of_allocator().find_map(|row| row.failure.clone());
            line.push(failure.unwrap_or_default());
            lines.push(line);
        }
    }
    format!("{}\n{}", heading(clock), aligned(lines, &[0, 1], true))
}

fn heading(clock: Clock) -> &'static str {
    match clock {
        Clock::Cycles => {
            "Cycles per operation of all threads together, user and kernel, by the number of threads: those \
             of the least run. What scales\nwell has the same figure everywhere. A thread that sleeps \
             takes none. The allocators are without clocks in their locks."
        }
        Clock::CpuTime => {
            "CPU time per operation of all threads together, user and system, in ns, by the number of \
             threads: that of the least run. What\nscales well has the same figure everywhere. A thread \
             that sleeps takes none. The allocators are without clocks in their locks."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::example::{failed, row, run};

    #[test]
    fn a_curve_is_a_line() {
        let with = |threads: u16, allocator: &str, ns| Row {
            threads: Some(threads.into()),
            ..row("w", allocator, &[run(ns, 1)])
        };
        let mut rows = Vec::new();
        for threads in THREADS {
            rows.push(with(threads, "spanmalloc", 90));
            rows.push(with(threads, "system", 100 * u64::from(threads) - 10));
            rows.push(Row {
                threads: Some(threads.into()),
                ..failed("w", "other")
            });
        }
        let text = table(&rows);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().skip(3).map(words).collect();
        let expected = [
            "w spanmalloc 10.0 10.0 10.0 10.0 10.0 1.00",
            "system 10.0 20.0 40.0 80.0 160 16.00",
            "other - - - - - - crashed: signal 6 (SIGABRT)",
        ];
        assert_eq!(lines, expected, "{text}");
    }
}
