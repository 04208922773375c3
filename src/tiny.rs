//! Tiny objects: requests of 1, 2 and 3-4 bytes share 16-byte blocks.
//!
//! A block is a slot of a span of tiny blocks, cut into equal objects of 1, 2 or 4 bytes when a
//! magazine of such a class is refilled. The span's record has a 16-bit mask for each block, one bit
//! a byte, set where a live object starts: the block's live count, and at the same time what a
//! double free or an interior pointer is told by. A block whose mask becomes zero is free. Objects
//! are popped and pushed like all others, so a tiny one costs what a 16-byte one costs.
//!
//! Go's tiny allocator bumps a pointer through a block of mixed sizes and has a collector to free
//! it. Cutting blocks into equal parts needs no padding between sizes: on equal shares of 1, 2, 4
//! and 8 bytes it takes 0.52 of what an 8-byte class would, records included. Requests of
//! 5-8 bytes have the 8-byte size class, which needs no mask; of 9-15 bytes only one fits a block,
//! so they take a 16-byte slot. Only `GlobalAlloc` has tiny objects: C's `malloc` promises more
//! alignment than they have.
//!
//! Invariants:
//!
//! 1. A block is taken exactly while its mask is not zero.
//! 2. The mask of a block is written by its holder when it is cut, and under the home lock after.

#![allow(unsafe_code)]

use core::cell::Cell;

use crate::arena::{Place, place_of};
use crate::base::fatal::Crime;
use crate::base::size_class::{SizeClass, TINY_BLOCK_BYTES};
use crate::mcentral;
use crate::mspan::{Freed, MSpan, PrivateSlots};
use crate::sync::atomic::Ordering::Relaxed;

/// Objects of a tiny class that a block holds.
pub(crate) fn objects_a_block(class: SizeClass) -> usize {
    TINY_BLOCK_BYTES / class.object_bytes()
}

/// The mask of a block that is full of live objects of a class.
fn full_mask(class: SizeClass) -> u16 {
    match class.object_bytes() {
        1 => 0xffff,
        2 => 0x5555,
        _ => 0x1111,
    }
}

/// Cuts blocks into objects of `class` until about `wanted` fill `slots`, at least one block; the numbers of
/// blocks and objects. `slots` has room for `wanted` objects and for one block. Zero only if the system has no
/// memory.
pub(crate) fn carve(
    class: SizeClass,
    here: usize,
    private: &PrivateSlots,
    slots: &[Cell<*mut u8>],
    wanted: usize,
) -> (usize, usize) {
    let blocks = (wanted / objects_a_block(class)).max(1);
    let mut filled = 0;
    let take = |first: *mut u8, count| {
        for block in (0..count).map(|index| first.wrapping_add(index * TINY_BLOCK_BYTES)) {
            set_mask(block, full_mask(class));
            for offset in (0..TINY_BLOCK_BYTES).step_by(class.object_bytes()).rev() {
                if let Some(slot) = slots.get(filled) {
                    slot.set(block.wrapping_add(offset));
                    filled += 1;
                }
            }
        }
    };
    let taken = mcentral::take(SizeClass::TINY_BLOCKS, here, private, blocks, take);
    (taken, filled)
}

/// Makes a block hold a single live object, at its start.
pub(crate) fn set_single(block: *mut u8) {
    set_mask(block, 1);
}

fn set_mask(block: *mut u8, mask: u16) {
    let Place::Live(span) = place_of(block.addr()) else {
        return;
    };
    let index = (block.addr() - span.base().addr()) / TINY_BLOCK_BYTES;
    if let Some(slot) = span.masks().and_then(|masks| masks.get(index)) {
        // Relaxed: the block is the caller's; who frees its objects got them from the caller.
        slot.store(mask, Relaxed);
    }
}

/// Frees the first of `objects`, which lies in `span`, a span of tiny blocks; their number, how many blocks
/// are free by that, and the crime if it is no live object. A block is freed with its last object.
///
/// # Safety
/// The caller holds the lock of the span's home.
#[inline]
pub(crate) unsafe fn free_one(
    span: &MSpan,
    class: SizeClass,
    objects: &[*mut u8],
) -> (usize, u16, Option<Crime>) {
    let Some(object) = objects.first() else {
        return (0, 0, None);
    };
    let offset = object.addr().wrapping_sub(span.base().addr());
    let (block, within) = (offset / TINY_BLOCK_BYTES, offset % TINY_BLOCK_BYTES);
    let mask = span.masks().and_then(|masks| masks.get(block));
    // They are powers of two.
    let Some(mask) = mask.filter(|_| within & (class.object_bytes() - 1) == 0) else {
        return (0, 0, Some(Crime::InteriorPointer));
    };
    // Relaxed: under the home lock (Invariant 2).
    let live = mask.load(Relaxed);
    let left = live & !(1 << within);
    mask.store(left, Relaxed);
    // SAFETY: the caller's promise.
    if left == live || (left == 0 && unsafe { span.free_slot(block) } == Freed::Twice) {
        return (0, 0, Some(Crime::DoubleFree));
    }
    (1, u16::from(left == 0), None)
}
