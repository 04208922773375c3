//! What others see of guarded objects in a build without them: there are none.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use crate::base::size_class::SizeClass;
use crate::sys::caller::Caller;

#[inline(always)] // Nothing is left of the fast paths' test.
pub(crate) fn contains(_: usize) -> bool {
    false
}

#[inline]
pub(crate) fn alloc_if_due(_: SizeClass, _: usize, _: usize, _: Caller) -> Option<NonNull<u8>> {
    None
}

pub(crate) fn free(_: *mut u8, _: Option<usize>, _: Caller) {}

pub(crate) fn locks_come_free(_: u64) -> bool {
    true
}

pub(crate) fn lock_for_fork() {}

/// For `fork`: gives the lock back.
///
/// # Safety
/// None.
pub(crate) unsafe fn unlock_after_fork() {}
