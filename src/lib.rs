//! A global memory allocator in the shape of the Go runtime's and TCMalloc's.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: spanmalloc::SpanMalloc = spanmalloc::SpanMalloc;
//!
//! fn main() {
//!     let words: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
//!     assert_eq!(words[999], "999");
//! }
//! ```
//!
//! # The nouns
//!
//! * *size class*: one of 67 slot sizes from 8 bytes to 32 KiB; a request is rounded up to one.
//! * *slot*, *object*: the memory of one request of up to 32 KiB.
//! * *page*: 8 KiB, the unit of the page heap. *Span*: a run of pages cut into slots of one class.
//! * *magazine*: a thread's stack of pointers to free objects of one class. *mcache*: all magazines
//!   of a thread, and its current spans. *Batch*, *depot*: magazines on their way between threads.
//! * *mcentral*: the spans of one class, shared by all threads, in shards by CPU.
//! * *mheap*: all free pages. *Arena*: 64 MiB of reserved address space.
//! * *backed*: with memory of the system. Free pages are *dirty* if they are, else *released*.
//! * *scavenger*: what gives free memory back to the system, when it has not been needed for a while.
//! * *tiny block*: 16 bytes that several objects of 1, 2 or 4 bytes share.
//! * *large object*: pages of its own. *Huge object*: a mapping of its own, from 64 MiB on.
//!
//! # Life of an allocation
//!
//! 1. The Layout gives the class, from a table; a constant Layout gives a constant.
//! 2. The thread's slot gives its mcache; the magazine of the class is popped. Done, nearly always.
//! 3. Empty: free slots of the thread's current span refill half a magazine, without a lock.
//! 4. That dry: one lock of mcentral brings a whole batch from the depot, or slots of the fullest
//!    partial spans, the last of which becomes the current span.
//! 5. None there: mheap makes a span of free pages, from the run cache, else first fit.
//! 6. None there: the heap commits more of an arena, or reserves another.
//!
//! # Life of a free
//!
//! 1. The Layout gives the class. No look at the object, its span or any header.
//! 2. The object is pushed to the magazine of the freeing thread, whoever allocated it, unless it waits there
//!    already as far as a small table tells: a double free. Done.
//! 3. Full: the oldest half, or all of it if the thread frees only, goes to the depot as a batch; if that is full
//!    too, object by object into the bitmaps of their spans, each bit tested first.
//! 4. A span whose last object comes back returns its pages to mheap.
//! 5. The pages stay backed. The scavenger releases what goes beyond the most that was in use in the
//!    last seconds, in a thread of its own ([`background`]) or a little at a time in slow calls.
//!
//! # Options
//!
//! What can be chosen is in [`Config`]: when and how memory goes back, a memory limit, huge pages, the
//! background thread. From the weakest to the strongest: the defaults, [`SpanMalloc::with`], environment
//! variables `SPANMALLOC_*` (the README has their table, and `SPANMALLOC_HELP=1` prints it), and calls
//! ([`set_config`], [`set_memory_limit`]). [`trim()`] gives back what can go at once; [`stats()`] tells
//! where the memory is.
//!
//! # The floors
//!
//! Each file uses only floors above it in this list; the text of each says what holds there.
//!
//! `sys` the system, behind one contract · `base` size classes, the end of the process · `sync` the
//! mutex, the lock order · `config` what the allocator was told · `backed` how much memory it has ·
//! `meta` memory for records · `shards` which shard a thread uses · `pages` which pages of an arena are
//! free · `mspan`, `span_set` spans, their bitmaps and sets · `depot` full magazines · `arena` address
//! space, address to span · `counters` what happened how often · `mheap` the page heap · `mcentral` spans
//! and batches by class · `tiny` several objects in a block · `mcache` magazines · `zero` objects of no
//! bytes · `runtime` threads, fork, idle threads · `large` objects of whole pages · `scavenge` what goes
//! back, and when · `malloc` the operations · `secure` the secure mode · `profile` samples of the heap ·
//! `guarded` objects between pages without access · `record` calls as they come · `stats` where the memory
//! is · `report` all of them on demand · `abi` the faces.
//!
//! What is optional (`secure`, `profile`, `guarded`) is also called by floors above it; ARCHITECTURE.md says
//! by which.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `secure`: the secure mode, which [`Config::secure`] or `SPANMALLOC_SECURE` turns on. Double frees, wrong
//!   Layouts and pointers, overflows, and writes after a free end the process.
//! * `guarded`: a few objects, chosen by chance, lie alone between pages without access, and misuse of one is
//!   reported with stacks ([`Config::guarded`]). Has `profile`.
//! * `profile`: samples of the heap, and profiles for pprof.
//! * `allocator-api2`: the trait `Allocator` of that crate for [`SpanMalloc`].
//! * `preload`: C's malloc family and C++'s operators, for `LD_PRELOAD`. Has `guarded` and `secure`.
//! * `cli`: the tool `spanmalloc`. Has `preload`.
//! * `lock-stats`: how long each kind of lock is held and waited for.
//!
//! # Errors, panics, safety
//!
//! Out of memory is null, and so is what a hard memory limit refuses. Nothing panics. A caller's crime that
//! is seen (a double free, a pointer that is not from here, a wrong Layout) ends the process with one
//! sentence on standard error that names the crime and the address; stacks follow where they are known. All
//! functions may be called from any thread at any time, also from destructors of thread-local values, and in
//! the child of a `fork`; but not from a signal handler that may have interrupted the allocator.

#![no_std]
// The model checker builds only the floors that have a protocol to check.
#![cfg_attr(loom, allow(dead_code, unused_imports))]
// Unit tests do without C's interface.
#![cfg_attr(all(test, feature = "preload"), allow(dead_code, unused_imports))]
#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

// For the panic runtime that a shared library needs; nothing else of it is used.
extern crate std;

mod base;
mod depot;
mod mspan;
mod pages;
mod span_set;
mod sync;

#[cfg(not(loom))]
mod abi;
#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod backed;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod counters;
#[cfg(not(loom))]
mod guarded;
#[cfg(not(loom))]
mod large;
#[cfg(not(loom))]
mod malloc;
#[cfg(not(loom))]
mod mcache;
#[cfg(not(loom))]
mod mcentral;
#[cfg(not(loom))]
mod meta;
#[cfg(not(loom))]
mod mheap;
#[cfg(all(not(feature = "profile"), not(loom)))]
mod profile;
#[cfg(all(feature = "profile", not(loom)))]
pub mod profile;
#[cfg(all(feature = "preload", not(loom)))]
mod record;
#[cfg(not(loom))]
pub mod report;
#[cfg(not(loom))]
mod runtime;
#[cfg(not(loom))]
mod scavenge;
#[cfg(not(loom))]
mod secure;
#[cfg(not(loom))]
mod shards;
#[cfg(not(loom))]
mod stats;
mod sys;
#[cfg(not(loom))]
mod tiny;
#[cfg(all(feature = "preload", not(loom)))]
mod zero;

#[cfg(all(test, not(loom)))]
#[path = "../tests/common/alone.rs"]
mod alone;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod oom_tests;

#[cfg(not(loom))]
pub use abi::{Configured, SpanMalloc, background, trim};
#[cfg(not(loom))]
pub use config::{
    Config, HugePages, MemoryLimit, Release, ReleaseBy, Secure, config, set_config,
    set_memory_limit,
};
#[cfg(not(loom))]
pub use stats::{Calls, ClassStats, Classes, Stats, stats};
#[cfg(all(feature = "lock-stats", not(loom)))]
pub use sync::usage::{LockUse, lock_uses, ticks};
