//! Guarded objects: a few allocations, chosen at random, that lie alone between pages without access. Feature
//! `guarded`.
//!
//! The idea is that of GWP-ASan (Serebryany et al., arXiv 2311.09394): what one run of a program meets with a
//! chance of one in a thousand, a thousand runs meet. One in about 1000 slow calls that allocate
//! (`SPANMALLOC_GUARDED`) gets such an object, if it is of a page of the system at most; a sample point of the
//! heap profile counts as a slow call. So the fast paths of an allocation do not know of it. What is done with
//! the object afterwards:
//!
//! * It begins at the first byte of its page or ends at the last one (but for its alignment), by chance. An
//!   access beyond fails. The other bytes of the page are filled, and looked at when the object is freed.
//! * When it is freed its page loses its memory and may not be accessed. The place is used again as late as
//!   can be: after all others that are free.
//! * A second free, or one of a pointer into the object, is seen by the record of the place.
//!
//! In each case a report says what was done, and has the stacks of the allocation, of the free, and of what is
//! wrong (`report`). An access that fails goes on to the program's handler of SIGSEGV, or ends the process.
//!
//! A free has to tell these objects from others. C's `free` finds no class at their address, as they lie in no
//! arena, and looks here in its slow call. Rust's gets a size instead, and compares the address: five
//! instructions, in builds with the feature.
//!
//! Nothing is guarded before the environment was read, nor before the program runs: the runtime of Rust
//! installs a handler of SIGSEGV at the start of `main` if nobody else has done so, and has to find none.
//!
//! Invariants (of `pool`):
//!
//! 1. A place is in the queue exactly while no object is in it and no call is about to put one there.
//! 2. A page has access from before its object is handed out until after it was noted as freed.

#![allow(unsafe_code)]

#[cfg(feature = "guarded")]
mod object;
#[cfg(not(feature = "guarded"))]
mod off;
#[cfg(feature = "guarded")]
mod pool;
#[cfg(feature = "guarded")]
mod report;

#[cfg(feature = "guarded")]
pub(crate) use object::*;
#[cfg(not(feature = "guarded"))]
pub(crate) use off::*;
#[cfg(feature = "guarded")]
pub(crate) use pool::{contains, lock_for_fork, locks_come_free, unlock_after_fork};
#[cfg(feature = "guarded")]
pub(crate) use report::tell_of;
