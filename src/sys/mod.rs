//! The system: the only floor that names `libc` or a system call.
//!
//! One file per platform behind one contract. Above this floor there is no errno, no flag of
//! `mmap` and no file descriptor: a call succeeds or returns `None` / `false`, and memory is in one
//! of four states.
//!
//! * *reserved*: address space without access and without commit charge ([`reserve`]);
//! * *committed*: readable and writable, zero until first written ([`commit`], [`map`]);
//! * *released*: still committed, but its pages went back to the system and read as zero
//!   ([`release`]);
//! * *unmapped*: gone ([`unmap`]).
//!
//! Invariants:
//!
//! 1. Nothing here allocates, panics, unwinds, or prints through `std`.
//! 2. `errno` is the same after each call as before it, because `free` must preserve it (POSIX
//!    2024) and any call of this floor may happen inside a `free`.
//! 3. Under `cfg(test)` every call that asks the system for memory first asks `fault`, so that
//!    tests can make the n-th one fail.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
compile_error!(
    "spanmalloc runs on Linux (x86-64 and aarch64); other systems need a file in src/sys/"
);

#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
pub(crate) use slot::{SlotOfThread, set_thread_slot, thread_slot};

#[cfg(all(target_os = "linux", not(loom)))]
mod file;
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use file::*;
#[cfg(all(target_os = "linux", not(loom)))]
mod signal;
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use signal::*;
#[cfg(all(target_os = "linux", not(loom)))]
mod fork;
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use fork::*;
#[cfg(all(target_os = "linux", not(loom)))]
mod thread;
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use thread::*;
#[cfg(all(feature = "guarded", target_os = "linux", not(loom)))]
mod access;
#[cfg(not(loom))]
mod weak;
#[cfg(all(feature = "guarded", target_os = "linux", not(loom)))]
pub(crate) use access::*;
#[cfg(all(feature = "profile", target_os = "linux", not(loom)))]
mod mappings;
#[cfg(all(feature = "profile", target_os = "linux", not(loom)))]
pub(crate) use mappings::*;

#[cfg(not(loom))]
pub(crate) mod caller;
#[cfg(not(loom))]
mod environment;
#[cfg(not(loom))]
pub(crate) use environment::*;
#[cfg(all(target_os = "linux", not(loom)))]
mod cgroup;
#[cfg(all(feature = "guarded", target_os = "linux", not(loom)))]
pub(crate) use cgroup::address_space_bytes;
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use cgroup::memory_allowed_bytes;
#[cfg(all(target_os = "linux", not(loom)))]
mod usage;
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use usage::{page_faults, resident_bytes};

#[cfg(feature = "preload")]
pub(crate) mod cxx;
#[cfg(feature = "preload")]
mod process;
#[cfg(feature = "preload")]
pub(crate) use process::*;

#[cfg(test)]
pub(crate) mod fault;

/// Whether the next request for memory is to fail. Always false outside tests.
#[inline]
fn fails() -> bool {
    #[cfg(test)]
    {
        fault::due()
    }
    #[cfg(not(test))]
    {
        false
    }
}
