//! Synchronisation: atomics, and the only mutex of the allocator.
//!
//! One module chooses between the atomics of `core` and those of the model checker `loom`
//! (`--cfg loom`), so that the protocols under test are the ones that ship.
//!
//! Lock order, outermost first. A thread holds at most one lock of a row, and takes locks only
//! downwards; `fork` and [`mod@crate::stats`] take all of them in this order. `mcentral` may try a second
//! shard, without waiting.
//!
//! | lock | guards |
//! |---|---|
//! | `scavenge::SCAVENGER` | what the scavenger knows; calls only try it, but for `trim` |
//! | `runtime::REGISTRY` | the free mcaches, and who owns the others |
//! | `mcentral` shards, by shard, then class | spans and depot of a class |
//! | `secure::protect::QUEUES`, `secure::states::FREE` | freed large objects that wait, tables of states |
//! | `zero::PARTIAL` | spans of objects of no bytes |
//! | `mheap::spans::RECORDS`, `MASKS` | free records of spans and of tiny blocks |
//! | `mheap::run_cache` shards | free runs kept for reuse |
//! | `mheap::HEAP` | free pages of all arenas |
//! | `guarded::POOL` | which guarded objects there are |
//! | `profile::TABLE` | the samples of the heap profile |
//! | `meta::RECORDS` | memory for records |
//!
//! Of no row are `record::GROWING` and `profile::print::SCRATCH`, under which no lock is taken.

pub(crate) mod busy;
#[cfg(not(loom))]
pub(crate) mod fork_owner;
mod mutex;
pub(crate) mod request;
pub(crate) mod sequence;
#[cfg(feature = "lock-stats")]
pub(crate) mod usage;
#[cfg(not(loom))]
pub(crate) mod waits;

#[cfg(all(test, loom))]
pub(crate) use mutex::model::{Sleepers, sleeps};
pub(crate) use mutex::{Guard, Mutex};

#[cfg(not(loom))]
pub(crate) use core::sync::atomic;
#[cfg(loom)]
pub(crate) use loom::sync::atomic;

/// A function that is `const` except under `loom`, whose atomics can't be made in constants.
macro_rules! const_unless_loom {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $of:ty),*) -> $result:ty $body:block) => {
        $(#[$attribute])*
        #[cfg(not(loom))]
        $visibility const fn $name($($argument: $of),*) -> $result $body

        $(#[$attribute])*
        #[cfg(loom)]
        $visibility fn $name($($argument: $of),*) -> $result $body
    };
}
pub(crate) use const_unless_loom;
