//! `GlobalAlloc`: the face for Rust programs.

#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};

use crate::malloc;

/// The allocator. All values of this type are the same heap.
///
/// Every size up to `isize::MAX` and every alignment is honoured, or the result is null. Objects of
/// up to 32 KiB take constant time but for the rare visit to a shared floor; larger ones O(log n) in
/// the pages of the heap.
///
/// ```
/// #[global_allocator]
/// static GLOBAL: spanmalloc::SpanMalloc = spanmalloc::SpanMalloc;
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanMalloc;

// SAFETY: the objects handed out are distinct, aligned, as large as asked and valid until freed
// (mspan, Invariants 1 and 4; arena, Invariant 2); no method panics or unwinds.
unsafe impl GlobalAlloc for SpanMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        malloc::alloc(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { malloc::free(object, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        malloc::alloc_zeroed(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { malloc::realloc(object, layout.size(), layout.align(), new_size) }
    }
}
