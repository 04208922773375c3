//! What the floors below see of the profile in a build without it: nothing is sampled.

#![allow(unsafe_code)]

use crate::base::size_class::SizeClass;
use crate::sys::caller::Caller;

pub(crate) fn count(object: *mut u8, _: SizeClass, _: usize, _: Caller) -> *mut u8 {
    object
}

pub(crate) fn sampled(object: *mut u8, _: SizeClass, _: usize, _: Caller) -> *mut u8 {
    object
}

pub(crate) fn keeps(_: SizeClass, _: *mut u8) -> bool {
    false
}

pub(crate) fn freed(_: *mut u8) {}

pub(crate) fn freed_to_span(_: &[*mut u8]) {}

pub(crate) fn resized(_: *mut u8, _: *mut u8, _: usize) {}

pub(crate) fn empty_stash() -> bool {
    false
}

pub(crate) fn gives_room() -> bool {
    false
}

pub(crate) fn stashed(_: SizeClass) -> u64 {
    0
}

pub(crate) fn locks_come_free(_: u64) -> bool {
    true
}

pub(crate) fn lock_for_fork() {}

/// For `fork`: gives the lock back.
///
/// # Safety
/// None.
pub(crate) unsafe fn unlock_after_fork() {}
