//! The workloads.
//!
//! Each is written from the published description of a benchmark of the field, or is a piece of an
//! ordinary program. Numbers are the same on every run.

mod batch;
mod bulk;
mod churn;
mod growth;
mod large;
mod larson;
mod latency;
mod memory;
mod mstress;
pub mod object;
mod pingpong;
mod pipeline;
mod replace;
mod rust_code;
mod shared;
mod sharing;
mod syntax_trees;
mod trees;

use spanmalloc_rate::Scale;

use crate::measure::Meter;

/// How large a run of a workload is.
pub struct Size {
    pub scale: Scale,
    pub threads: usize,
}

impl Size {
    /// One number for a full run, a twentieth of it for a quick one.
    pub fn of(&self, full: u64) -> u64 {
        match self.scale {
            Scale::Full => full,
            Scale::Quick => (full / 20).max(1),
        }
    }
}

/// One workload.
pub struct Workload {
    pub name: &'static str,
    /// One line: what it does, and after what.
    pub about: &'static str,
    /// What an operation is.
    pub operation: &'static str,
    pub threads: usize,
    pub threads_can_be_chosen: bool,
    /// Sets up, and has the meter run the part that counts, once.
    pub run: fn(&Size, &mut Meter),
}

impl Workload {
    /// A workload of one thread.
    const fn in_one_thread(
        name: &'static str,
        about: &'static str,
        operation: &'static str,
        run: fn(&Size, &mut Meter),
    ) -> Self {
        Self {
            name,
            about,
            operation,
            threads: 1,
            threads_can_be_chosen: false,
            run,
        }
    }
}

/// All workloads, in the order of the table.
pub const WORKLOADS: &[&Workload] = &[
    &pingpong::PING_PONG,
    &pingpong::TINY,
    &pingpong::FIFO,
    &replace::RANDOM_10K,
    &replace::RANDOM_100K,
    &replace::RANDOM_1M,
    &bulk::BULK_IN_ORDER,
    &bulk::BULK_REVERSED,
    &bulk::BULK_RANDOM,
    &bulk::BULK_RANDOM_TOUCHED,
    &batch::SH6BENCH,
    &batch::SH8BENCH,
    &large::LARGE,
    &large::LARGE_UNTOUCHED,
    &large::HUGE,
    &growth::REALLOC_GROWTH,
    &growth::REALLOC_SMALL,
    &large::ZEROED,
    &large::OVER_ALIGNED,
    &trees::BINARY_TREES,
    &trees::BTREE_MAP,
    &memory::PEAK_AND_FREE,
    &memory::FRAGMENTATION,
    &pipeline::PAIRS_1,
    &pipeline::PAIRS_8,
    &pipeline::ONE_TO_MANY,
    &pipeline::MANY_TO_ONE,
    &pipeline::XMALLOC_TEST,
    &larson::LARSON_2,
    &larson::LARSON_16,
    &mstress::MSTRESS_2,
    &mstress::MSTRESS_16,
    &sharing::CACHE_SCRATCH,
    &sharing::CACHE_THRASH,
    &churn::THREAD_CHURN,
    &latency::LATENCY_2,
    &latency::LATENCY_16,
    &rust_code::JSON,
    &rust_code::HASH_MAPS,
    &rust_code::TEXT_SEARCH,
    &rust_code::ASYNC_TASKS,
    &syntax_trees::SYNTAX_TREES,
];
