//! What several runs of one program tell together.

use std::time::Duration;

use serde::Serialize;

use crate::child::Usage;
use crate::units;

/// A quantity that is compared.
pub(crate) struct Quantity {
    /// In tables.
    pub(crate) name: &'static str,
    /// In JSON objects.
    pub(crate) key: &'static str,
    /// In seconds or bytes.
    pub(crate) of: fn(&Usage) -> f64,
    pub(crate) show: fn(f64) -> String,
}

fn show_time(seconds: f64) -> String {
    units::time(Duration::from_secs_f64(seconds))
}

fn show_bytes(bytes: f64) -> String {
    units::bytes(bytes as u64)
}

pub(crate) const QUANTITIES: [Quantity; 5] = [
    Quantity {
        name: "wall",
        key: "wall_seconds",
        show: show_time,
        of: |usage| usage.wall.as_secs_f64(),
    },
    Quantity {
        name: "user",
        key: "user_seconds",
        show: show_time,
        of: |usage| usage.user.as_secs_f64(),
    },
    Quantity {
        name: "system",
        key: "system_seconds",
        show: show_time,
        of: |usage| usage.system.as_secs_f64(),
    },
    Quantity {
        name: "user and system",
        key: "user_and_system_seconds",
        show: show_time,
        of: |usage| (usage.user + usage.system).as_secs_f64(),
    },
    Quantity {
        name: "peak RSS",
        key: "peak_rss_bytes",
        show: show_bytes,
        of: |usage| usage.peak_rss_bytes as f64,
    },
];

/// One quantity over the runs of one allocator, in seconds or bytes.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The width of the values in parts of the median; null if that is zero.
    pub(crate) spread: Option<f64>,
    /// The median in parts of the system allocator's; null if that is zero.
    pub(crate) to_system: Option<f64>,
}

impl Summary {
    /// `values` are those of at least one run; `system` the median of the system's allocator, `None`
    /// if these are its values.
    pub(crate) fn new(mut values: Vec<f64>, system: Option<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        let min = values.first().copied().unwrap_or(0.0);
        let max = values.last().copied().unwrap_or(0.0);
        Self {
            median,
            min,
            max,
            spread: ratio(max - min, median),
            to_system: ratio(median, system.unwrap_or(median)),
        }
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_is_the_middle_value() {
        let summary = Summary::new(vec![9.0, 1.0, 4.0], Some(2.0));
        let expected = Summary {
            median: 4.0,
            min: 1.0,
            max: 9.0,
            spread: Some(2.0),
            to_system: Some(2.0),
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_values() {
        let summary = Summary::new(vec![4.0, 1.0, 2.0, 100.0], None);
        assert_eq!(summary.median, 3.0);
        assert_eq!(summary.to_system, Some(1.0));
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let summary = Summary::new(vec![0.0], None);
        assert_eq!((summary.spread, summary.to_system), (None, None));
        assert_eq!(Summary::new(vec![1.0], Some(0.0)).to_system, None);
    }
}
