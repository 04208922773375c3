//! The heap profile: a sample of what the program allocates, with the stacks that did. Feature `profile`.
//!
//! Each allocated byte has the same chance to be sampled, one in 512 KiB (`SPANMALLOC_PROFILE_RATE`; `0` is no
//! samples), so an object is sampled the more likely the larger it is, and stands for the fewer. A thread that
//! allocates so fast that this would take more than about 1 % of its time samples less. Stacks have at most 62
//! frames; they are found by frame pointers, or by unwind tables where frame pointers lead nowhere.
//!
//! [`heap`] writes a profile; `SPANMALLOC_PROFILE` has the library do so at the end, at a signal or every so
//! often ([`report`](crate::report)).

#[cfg(feature = "profile")]
mod maps;
#[cfg(feature = "profile")]
pub(crate) mod output;
#[cfg(feature = "profile")]
mod pprof;
#[cfg(feature = "profile")]
pub(crate) mod print;
#[cfg(feature = "profile")]
mod proto;
#[cfg(feature = "profile")]
pub(crate) mod sampling;
#[cfg(feature = "profile")]
mod slots;
#[cfg(feature = "profile")]
mod snapshot;
#[cfg(feature = "profile")]
pub(crate) mod stack;
#[cfg(feature = "profile")]
mod table;
#[cfg(feature = "profile")]
mod take;

#[cfg(not(feature = "profile"))]
mod off;

#[cfg(not(feature = "profile"))]
pub(crate) use off::*;
#[cfg(feature = "profile")]
pub(crate) use slots::{empty_stash, gives_room, keeps, stashed};
#[cfg(feature = "profile")]
pub(crate) use take::*;

/// Writes the heap profile of this process, in the format of pprof: gzipped, with the addresses of code and the
/// files that have it, but without names (`spanmalloc symbolize` adds them).
///
/// Its values are estimates: of what was allocated since the start, of what is live, and of what was live when
/// that was the most, in objects and in bytes (those of their size classes). Labels tell the size class, the
/// name of the thread that allocated, and how long objects lived that were freed. Of bytes that were `n` times
/// the mean distance of samples (512 KiB, or `SPANMALLOC_PROFILE_RATE`), the standard error is one part in the
/// square root of `n`.
///
/// To be called from any thread, at any time, but not from a signal handler. Allocates; takes time in proportion
/// to the different stacks and to all magazines. The child of a `fork` has its parent's samples.
///
/// # Errors
/// What `out` says. Nothing panics.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let mut profile = Vec::new();
/// spanmalloc::profile::heap(&mut profile)?;
/// assert!(profile.starts_with(&[0x1f, 0x8b])); // gzip
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "profile")]
pub fn heap(out: &mut impl std::io::Write) -> std::io::Result<()> {
    pprof::write(&snapshot(), out)
}

/// Sampled objects of classes lie at multiples of 64 KiB. Less would make more objects a slow call's, more
/// would leave fewer places for them.
pub(crate) const SAMPLE_ALIGN: usize = 1 << 16;
