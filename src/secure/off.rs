//! What the rest of the allocator sees of the secure mode in a build without it: it is off.

#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::counters::PageObjects;
use crate::mspan::MSpan;
use crate::sys::caller::Caller;

#[inline(always)] // Nothing is left of what it is asked for.
pub(crate) const fn is_on() -> bool {
    false
}

pub(crate) const fn is_decided() -> bool {
    true
}

pub(crate) fn decide() -> bool {
    false
}

pub(crate) fn alloc(_: usize, _: usize, _: bool, _: Caller) -> *mut u8 {
    core::ptr::null_mut()
}

pub(crate) fn free_with_layout(_: *mut u8, _: usize, _: usize) {}

#[allow(dead_code)] // Nobody looks at it.
pub(crate) enum Told {
    Layout(usize, usize),
}

pub(crate) fn realloc(_: *mut u8, _: Told, _: usize, _: usize, _: Caller) -> Option<*mut u8> {
    None
}

pub(crate) fn span_is_made(_: &MSpan) {}

pub(crate) fn span_ends(_: &MSpan) {}

pub(crate) fn pages_are_used(_: &Arena, _: u32, _: u32) {}

pub(crate) fn pages_are_released(_: &Arena, _: u32, _: u32) {}

pub(crate) fn released_slots(_: &MSpan, _: usize, _: usize) {}

pub(crate) fn drain_waiting() {}

pub(crate) fn guard_bytes() -> usize {
    0
}

pub(crate) fn set_guard(_: &MSpan, _: usize) {}

pub(crate) fn clear_guard(_: &MSpan) {}

pub(crate) fn guard_pages() -> usize {
    0
}

pub(crate) fn arena_offset(_: usize) -> usize {
    0
}

pub(crate) fn locks_come_free(_: u64) -> bool {
    true
}

pub(crate) fn lock_for_fork() {}

/// For `fork`: gives the locks back.
///
/// # Safety
/// None.
pub(crate) unsafe fn unlock_after_fork() {}

/// The large objects that wait, as freed, and their pages, with and without memory.
///
/// # Safety
/// None.
pub(crate) unsafe fn waiting() -> (PageObjects, usize, usize) {
    (PageObjects::NONE, 0, 0)
}
