//! What the runs cost, so that one knows which workloads to leave out.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::rows::{Row, allocators};

/// How many of the costliest workloads are told.
const COSTLIEST: usize = 5;

/// CPU time of all processes that were run, by allocator, and of the costliest workloads.
pub fn text(rows: &[Row], wall: Duration) -> String {
    let total = |rows: &mut dyn Iterator<Item = &Row>| -> f64 {
        rows.map(|row| row.cpu.as_secs_f64()).sum()
    };
    let shares = |of: fn(&Row) -> &str, names: Vec<&str>| -> Vec<(String, f64)> {
        let seconds = |name: &str| total(&mut rows.iter().filter(|row| of(row) == name));
        let pair = |name: &str| (name.to_owned(), seconds(name));
        names.into_iter().map(pair).collect()
    };
    let by_allocator = shares(|row| &row.allocator, allocators(rows));
    let names: BTreeSet<&str> = rows.iter().map(|row| row.workload.as_str()).collect();
    let names = names.into_iter().collect();
    let mut by_workload = shares(|row| &row.workload, names);
    by_workload.sort_by(|one, other| other.1.total_cmp(&one.1));
    let more = by_workload.len() > COSTLIEST;
    by_workload.truncate(COSTLIEST);
    format!(
        "\nThe runs took {:.1} s, and {:.1} s of CPU time with all set-up: {}.\n{}: {}.\n",
        wall.as_secs_f64(),
        total(&mut rows.iter()),
        listed(&by_allocator),
        if more { "Most of it by" } else { "By workload" },
        listed(&by_workload),
    )
}

fn listed(shares: &[(String, f64)]) -> String {
    let shares = shares.iter();
    let texts: Vec<String> = shares.map(|(name, it)| format!("{name} {it:.1}")).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::example::row;

    #[test]
    fn the_costliest_come_first() {
        let of = |workload: &str, allocator: &str, seconds| Row {
            cpu: Duration::from_secs(seconds),
            ..row(workload, allocator, &[])
        };
        let mut rows = vec![
            of("a", "x", 1),
            of("a", "y", 2),
            of("b", "x", 3),
            of("b", "y", 4),
        ];
        let expected = "\nThe runs took 9.5 s, and 10.0 s of CPU time with all set-up: x 4.0, y 6.0.\n\
                        By workload: b 7.0, a 3.0.\n";
        assert_eq!(text(&rows, Duration::from_millis(9500)), expected);
        for name in ["c", "d", "e", "f"] {
            rows.push(of(name, "x", 5));
        }
        let text = text(&rows, Duration::ZERO);
        assert!(
            text.ends_with("Most of it by: b 7.0, c 5.0, d 5.0, e 5.0, f 5.0.\n"),
            "{text}"
        );
    }
}
