//! Memory over time: the scenarios, and what a worker answers to `--over-time`.

use serde::{Deserialize, Serialize};

/// A program that says how much memory it needs over time.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// One line: what it does.
    pub about: &'static str,
}

/// All scenarios, in the order of the tables.
pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "burst",
        about: "4 threads allocate 1 GiB, free 95 % of it at random, and sleep for 12 s",
    },
    Scenario {
        name: "burst-calls",
        about: "The same, but 100 small calls of the allocator are spread over the sleep",
    },
    Scenario {
        name: "sawtooth",
        about: "One thread swings between 100 MiB and 1 GiB, up and down in 2 s, for 60 s",
    },
    Scenario {
        name: "growth",
        about: "One thread grows to 512 MiB in 10 s, and shrinks to nothing in 10 s",
    },
    Scenario {
        name: "idle-threads",
        about: "1,000 threads use 10 MiB each in small steps, free it all, and sleep for 12 s",
    },
    Scenario {
        name: "limited",
        about: "8 threads hold 200 MiB and replace objects of all sizes for 60 s",
    },
];

/// How a scenario went on an allocator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    pub scenario: String,
    /// In the order of the table.
    pub figures: Vec<Figure>,
    pub series: Series,
}

/// A result, with the unit at the end of its name: `rss_after_2_s_bytes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
}

/// Samples, in the order of their times. All three have the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Since the start of the scenario.
    pub at_ms: Vec<u64>,
    /// What the scenario held.
    pub need_bytes: Vec<u64>,
    /// What was resident of the process, without the scenario's own arrays.
    pub rss_bytes: Vec<u64>,
}

impl Series {
    /// Whether there are samples, all of them with three values.
    pub fn is_whole(&self) -> bool {
        let len = self.at_ms.len();
        len > 0 && self.need_bytes.len() == len && self.rss_bytes.len() == len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_three_values() {
        let series = |need: &[u64]| Series {
            at_ms: vec![1, 2],
            need_bytes: need.to_vec(),
            rss_bytes: vec![3, 4],
        };
        assert!(series(&[5, 6]).is_whole());
        assert!(!series(&[5]).is_whole());
        assert!(!Series::default().is_whole());
    }
}
