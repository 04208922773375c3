//! `GlobalAlloc` with a [`Config`]: the face for Rust programs that say what they want.
//!
//! The heap is the same. What the program wants is handed to `config` before the first object is made,
//! which is a slow call: so the fast paths are those of [`SpanMalloc`], and only allocations that take
//! longer anyway look whether that was done. An object that is freed or resized was made before.

#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};

use super::SpanMalloc;
use crate::base::size_class::SizeClass;
use crate::config::{self, Config};
use crate::malloc;

/// [`SpanMalloc`] with a [`Config`], made by [`SpanMalloc::with`].
///
/// The heap is that of all values of both types; of several values, the first one that is used for an
/// allocation is heard. What the environment or [`set_config`](crate::set_config) says goes over it.
///
/// ```
/// use spanmalloc::{Config, Configured, MemoryLimit, SpanMalloc};
///
/// #[global_allocator]
/// static GLOBAL: Configured =
///     SpanMalloc::with(Config::new().memory_limit(MemoryLimit::Bytes(512 << 20)));
///
/// fn main() {
///     assert_eq!(spanmalloc::config().limit(), MemoryLimit::Bytes(512 << 20));
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    config: Config,
}

impl SpanMalloc {
    /// The allocator, with a choice of how it works.
    pub const fn with(config: Config) -> Configured {
        Configured { config }
    }
}

// Out of line, so that the fast path ends in a jump to them and needs no stack.
impl Configured {
    #[inline(never)]
    fn alloc_rest(&self, size: usize, align: usize) -> *mut u8 {
        config::begin(&self.config);
        // SAFETY: no precondition.
        unsafe { malloc::alloc_rest(size, align) }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, class: SizeClass, size: usize, align: usize) -> *mut u8 {
        config::begin(&self.config);
        // SAFETY: no precondition.
        unsafe { malloc::alloc_slow(class, size, align) }
    }
}

// SAFETY: as for `SpanMalloc`; what is handed to `config` changes nothing about objects.
unsafe impl GlobalAlloc for Configured {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        malloc::alloc_by(
            layout.size(),
            layout.align(),
            |size, align| self.alloc_rest(size, align),
            |class, size, align| self.alloc_slow(class, size, align),
        )
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { malloc::free(object, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        config::begin(&self.config);
        malloc::alloc_zeroed(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { malloc::realloc(object, layout.size(), layout.align(), new_size) }
    }
}
