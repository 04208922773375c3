//! The faces: how programs reach the allocator.

mod configured;
mod global;

#[cfg(feature = "allocator-api2")]
mod allocator;
// Not in unit tests: they make the system fail, and would have no memory themselves.
#[cfg(all(feature = "preload", not(test)))]
mod c;

pub mod background;

pub use configured::Configured;
pub use global::SpanMalloc;

/// Gives memory back to the system, now, whatever [`Release`](crate::Release) says: what the calling
/// thread's mcache, those of threads that wait in a system call, those that no thread has, and all depots
/// hold goes to the spans, empty spans to the page heap, and all of its free pages to the system; so do
/// whole pages of free slots in other spans. Returns the bytes that went to the system by this call, less
/// what other threads took meanwhile; 0 if there was nothing.
///
/// Threads that run keep their magazines. Objects are untouched. Takes time in proportion to what there
/// is to give back and to the number of threads, without the bound on time that the scavenger has; needs
/// no exclusive access, and other threads may allocate and free meanwhile. May be called from any thread,
/// and in the child of a `fork`; a second call waits for the first. Does not panic.
///
/// ```
/// let _ = spanmalloc::trim();
/// ```
pub fn trim() -> usize {
    crate::scavenge::trim()
}
