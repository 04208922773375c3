//! What the tool and its workers tell each other.
//!
//! A worker is a process that runs one workload on one allocator. It is told by arguments, and
//! answers with one line of JSON on standard output ([`Answer`]).

pub mod over_time;
pub mod trace;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How large a workload is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// About a tenth of a second.
    Quick,
    /// About a second.
    Full,
}

/// One workload, as the worker's `--list` tells it, in a JSON array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    /// One line: what it does, and after which program or paper.
    pub about: String,
    /// What an operation is.
    pub operation: String,
    /// Threads that it has, but for `--threads`, which some allow.
    pub threads: usize,
    pub threads_can_be_chosen: bool,
}

/// What a worker measured. The set-up of a workload is not in it, but for the peak of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub workload: String,
    pub threads: usize,
    pub operations: u64,
    pub wall_ns: u64,
    /// CPU time of all threads.
    pub user_ns: u64,
    pub system_ns: u64,
    /// `None` where the kernel does not permit to count, or the machine cannot.
    pub user_cycles: Option<u64>,
    pub user_instructions: Option<u64>,
    pub kernel_cycles: Option<u64>,
    /// The most memory that was resident, in bytes, of the whole process.
    pub peak_rss_bytes: u64,
    /// Other results of the workload by name, with the unit at its end: `p99_alloc_ns`,
    /// `rss_after_free_bytes`.
    pub more: BTreeMap<String, f64>,
}
