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

/// Gives memory back to the system, now: what the calling thread's mcache and all depots hold goes
/// to the spans, empty spans to the page heap, and all of its free pages to the system. Returns the
/// bytes that went to the system by this call.
///
/// Other threads keep their magazines. Objects are untouched. Takes time in proportion to what there
/// is to give back; needs no exclusive access, and other threads may allocate and free meanwhile.
///
/// ```
/// let _ = spanmalloc::trim();
/// ```
pub fn trim() -> usize {
    crate::scavenge::trim()
}
