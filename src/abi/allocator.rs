//! `Allocator` of the crate `allocator-api2`: collections that name their allocator, on stable Rust.
//!
//! The same heap as `GlobalAlloc`'s, and the same operations below it: memory that one face handed
//! out may be given back through the other, with the same Layout. What this face adds:
//!
//! * A Layout of no bytes has no object: its pointer dangles, at the Layout's alignment.
//! * The slices returned are as long as was asked for, not as long as the slot.
//! * Resizing may change the alignment. The object stays if the old and the new Layout have the same
//!   size class, whose slots have both alignments (size classes, Invariant 1). With the alignment
//!   unchanged, `malloc::realloc` decides.
//!
//! Not here: skipping the zeroing of what `grow_zeroed` adds. Whether pages behind an object are
//! fresh is known to the page heap only, so the new bytes are written.

#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator};

use super::SpanMalloc;
use crate::base::size_class::{SizeClass, class_for};
use crate::{guarded, malloc, secure};

/// Collections on this heap, whatever the global allocator is. Needs the feature `allocator-api2`;
/// the collections are behind that crate's feature `alloc`.
///
/// ```
/// use allocator_api2::vec::Vec;
/// use spanmalloc::SpanMalloc;
///
/// let mut squares = Vec::new_in(SpanMalloc);
/// squares.extend((0..1000_u64).map(|n| n * n));
/// assert_eq!(squares[999], 998_001);
/// ```
// SAFETY: a block is an object of the heap that all values of `SpanMalloc` are, so it stays valid
// until it is freed and through any copy or move of the allocator; zero-size blocks are never used.
unsafe impl Allocator for SpanMalloc {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        block(malloc::alloc(layout.size(), layout.align()), layout)
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(no_bytes(layout));
        }
        block(malloc::alloc_zeroed(layout.size(), layout.align()), layout)
    }

    #[inline]
    unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller's contract; a block of that many bytes is an object of the heap.
            unsafe { malloc::free(object.as_ptr(), layout.size(), layout.align()) }
        }
    }

    #[inline]
    unsafe fn grow(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() == 0 {
            return self.allocate(new);
        }
        // SAFETY: the caller's contract; `new` is at least as large as `old`, so neither is empty.
        unsafe { resize(object, old, new) }
    }

    #[inline]
    unsafe fn grow_zeroed(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() == 0 {
            return self.allocate_zeroed(new);
        }
        // SAFETY: as in `grow`. The bytes from the old size on are inside the new block and nobody
        // else's.
        unsafe {
            let grown = resize(object, old, new)?;
            let added = grown.cast::<u8>().add(old.size());
            added.write_bytes(0, new.size() - old.size());
            Ok(grown)
        }
    }

    #[inline]
    unsafe fn shrink(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if new.size() == 0 {
            // SAFETY: the caller's contract.
            unsafe { self.deallocate(object, old) };
            return Ok(no_bytes(new));
        }
        // SAFETY: the caller's contract; `old` is at least as large as `new`, so neither is empty.
        unsafe { resize(object, old, new) }
    }
}

/// The block for a Layout of no bytes.
fn no_bytes(layout: Layout) -> NonNull<[u8]> {
    let address = ptr::without_provenance_mut(layout.align());
    // SAFETY: an alignment is a power of two, so not zero.
    NonNull::slice_from_raw_parts(unsafe { NonNull::new_unchecked(address) }, 0)
}

/// The block of an object, or the error if there is none.
#[inline]
fn block(object: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let object = NonNull::new(object).ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(object, layout.size()))
}

/// Changes the Layout of an object. The error, and the object is as before, if the system has no
/// memory.
///
/// # Safety
/// * `object` was allocated here with the Layout `old`, or last resized to it, and not freed since.
/// * Neither Layout is of no bytes.
/// * If the result is a block, the object is the block.
#[inline]
unsafe fn resize(
    object: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    if new.align() == old.align() {
        // SAFETY: the caller's contract.
        let resized =
            unsafe { malloc::realloc(object.as_ptr(), old.size(), old.align(), new.size()) };
        return block(resized, new);
    }
    let class = class_for(old.size(), old.align());
    let stays = class == class_for(new.size(), new.align()) && class != SizeClass::NONE;
    if stays && !secure::is_on() && !guarded::contains(object.as_ptr().addr()) {
        return block(object.as_ptr(), new);
    }
    // SAFETY: the caller's contract.
    unsafe { realign(object, old, new) }
}

/// Moves an object to one of another alignment.
///
/// # Safety
/// As for [`resize`].
#[cold]
#[inline(never)]
unsafe fn realign(
    object: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    let moved = block(malloc::alloc(new.size(), new.align()), new)?;
    // SAFETY: two different objects, of at least `old.size()` and `new.size()` bytes; the caller's
    // contract for the free.
    unsafe {
        object.copy_to_nonoverlapping(moved.cast(), old.size().min(new.size()));
        malloc::free(object.as_ptr(), old.size(), old.align());
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// The bytes of a block that a test holds.
    fn bytes<'a>(block: NonNull<[u8]>) -> &'a mut [u8] {
        // SAFETY: the tests write a block's bytes before they read them, and use one result at a time.
        unsafe { &mut *block.as_ptr() }
    }

    fn fill(block: NonNull<[u8]>) {
        for (index, byte) in bytes(block).iter_mut().enumerate() {
            *byte = pattern(index);
        }
    }

    fn pattern(index: usize) -> u8 {
        (index % 251) as u8 + 1
    }

    fn is_filled(block: NonNull<[u8]>, len: usize) -> bool {
        bytes(block)[..len]
            .iter()
            .enumerate()
            .all(|(index, byte)| *byte == pattern(index))
    }

    fn is_aligned(block: NonNull<[u8]>, layout: Layout) -> bool {
        block
            .cast::<u8>()
            .addr()
            .get()
            .is_multiple_of(layout.align())
    }

    /// Sizes around the borders: tiny, small, the largest class, large.
    const SIZES: [usize; 10] = [
        1,
        3,
        8,
        24,
        100,
        2048,
        5000,
        32 << 10,
        (32 << 10) + 1,
        300_000,
    ];
    /// So large that a growing object gets a mapping of its own.
    const MAPPED: usize = 17 << 20;
    const ALIGNS: [usize; 6] = [1, 8, 64, 4096, 16 << 10, 2 << 20];

    #[test]
    fn block_of_no_bytes_dangles_at_its_alignment() {
        for align in ALIGNS {
            let none = layout(0, align);
            let blocks = [SpanMalloc.allocate(none), SpanMalloc.allocate_zeroed(none)];
            for block in blocks.map(Result::unwrap) {
                assert_eq!(block.len(), 0);
                assert_eq!(block.cast::<u8>().addr().get(), align);
                // SAFETY: the block is of this Layout.
                unsafe { SpanMalloc.deallocate(block.cast(), none) };
            }
        }
    }

    #[test]
    fn block_grows_from_no_bytes_and_shrinks_to_none() {
        for size in SIZES {
            let (none, some) = (layout(0, 8), layout(size, 8));
            let block = SpanMalloc.allocate(none).unwrap();
            // SAFETY: the block has the Layout that the last call gave it, here and below.
            let block = unsafe { SpanMalloc.grow(block.cast(), none, some) }.unwrap();
            assert_eq!(block.len(), size);
            fill(block);
            assert!(is_filled(block, size));
            // SAFETY: as above.
            let block = unsafe { SpanMalloc.shrink(block.cast(), some, none) }.unwrap();
            assert_eq!(block.len(), 0);
            // SAFETY: as above.
            let block = unsafe { SpanMalloc.grow_zeroed(block.cast(), none, some) }.unwrap();
            assert!(bytes(block).iter().all(|byte| *byte == 0));
            // SAFETY: as above.
            unsafe { SpanMalloc.deallocate(block.cast(), some) };
        }
    }

    #[test]
    fn blocks_have_the_length_and_alignment_asked_for() {
        for size in SIZES {
            for align in ALIGNS {
                let asked = layout(size, align);
                let block = SpanMalloc.allocate(asked).unwrap();
                assert_eq!(block.len(), size);
                assert!(is_aligned(block, asked));
                fill(block);
                // SAFETY: the block is of this Layout, here and below.
                unsafe { SpanMalloc.deallocate(block.cast(), asked) };
                let block = SpanMalloc.allocate_zeroed(asked).unwrap();
                assert_eq!(block.len(), size);
                assert!(is_aligned(block, asked) && bytes(block).iter().all(|byte| *byte == 0));
                // SAFETY: as above.
                unsafe { SpanMalloc.deallocate(block.cast(), asked) };
            }
        }
    }

    #[test]
    fn growth_keeps_contents_and_zeroes_the_rest() {
        for (step, old_size) in SIZES.into_iter().enumerate() {
            let larger = SIZES[step..].iter().copied();
            for new_size in larger.chain([old_size + 1]) {
                let (old, new) = (layout(old_size, 8), layout(new_size, 8));
                leave_dirty_memory(new);
                let block = SpanMalloc.allocate(old).unwrap();
                fill(block);
                // SAFETY: the block has the Layout that the last call gave it, here and below.
                let block = unsafe { SpanMalloc.grow_zeroed(block.cast(), old, new) }.unwrap();
                assert_eq!(block.len(), new_size);
                assert!(is_filled(block, old_size), "{old_size} to {new_size}");
                let added = &bytes(block)[old_size..];
                assert!(
                    added.iter().all(|byte| *byte == 0),
                    "{old_size} to {new_size}"
                );
                // SAFETY: as above.
                let block = unsafe { SpanMalloc.shrink(block.cast(), new, old) }.unwrap();
                assert_eq!(block.len(), old_size);
                assert!(is_filled(block, old_size), "{new_size} to {old_size}");
                // SAFETY: as above.
                unsafe { SpanMalloc.deallocate(block.cast(), old) };
            }
        }
    }

    #[test]
    fn growth_into_a_mapping_of_its_own_keeps_contents_and_zeroes_the_rest() {
        let (old, new) = (layout(100_000, 8), layout(MAPPED, 8));
        let block = SpanMalloc.allocate(old).unwrap();
        fill(block);
        // SAFETY: the block has the Layout that the last call gave it, here and below.
        let block = unsafe { SpanMalloc.grow_zeroed(block.cast(), old, new) }.unwrap();
        assert_eq!(block.len(), MAPPED);
        assert!(is_filled(block, old.size()));
        assert!(bytes(block)[old.size()..].iter().all(|byte| *byte == 0));
        // SAFETY: as above.
        unsafe { SpanMalloc.deallocate(block.cast(), new) };
    }

    /// Frees an object full of other bytes, so that the next of its class or length is not fresh.
    fn leave_dirty_memory(layout: Layout) {
        let block = SpanMalloc.allocate(layout).unwrap();
        bytes(block).fill(0xa5);
        // SAFETY: the block is of this Layout.
        unsafe { SpanMalloc.deallocate(block.cast(), layout) };
    }

    #[test]
    fn resizing_to_any_alignment_keeps_contents() {
        for size in SIZES {
            for old_align in ALIGNS {
                for new_align in ALIGNS {
                    let (old, new) = (layout(size, old_align), layout(size + size / 3, new_align));
                    let block = SpanMalloc.allocate(old).unwrap();
                    fill(block);
                    // SAFETY: the block has the Layout that the last call gave it, here and below.
                    let block = unsafe { SpanMalloc.grow(block.cast(), old, new) }.unwrap();
                    assert_eq!(block.len(), new.size());
                    assert!(is_aligned(block, new) && is_filled(block, size));
                    // SAFETY: as above.
                    let block = unsafe { SpanMalloc.shrink(block.cast(), new, old) }.unwrap();
                    assert_eq!(block.len(), size);
                    assert!(is_aligned(block, old) && is_filled(block, size));
                    // SAFETY: as above.
                    unsafe { SpanMalloc.deallocate(block.cast(), old) };
                }
            }
        }
    }

    #[test]
    fn alignment_that_the_class_has_already_does_not_move_the_object() {
        let (old, new) = (layout(64, 8), layout(64, 64));
        let block = SpanMalloc.allocate(old).unwrap();
        // SAFETY: the block is of this Layout.
        let grown = unsafe { SpanMalloc.grow(block.cast(), old, new) }.unwrap();
        assert_eq!(grown.cast::<u8>(), block.cast::<u8>());
        // SAFETY: as above.
        unsafe { SpanMalloc.deallocate(grown.cast(), new) };
    }

    #[test]
    fn what_the_system_cannot_give_is_an_error() {
        let absurd = layout(isize::MAX as usize - 4095, 4096);
        assert_eq!(SpanMalloc.allocate(absurd), Err(AllocError));
        assert_eq!(SpanMalloc.allocate_zeroed(absurd), Err(AllocError));
        for old in [layout(100, 8), layout(100_000, 8), layout(100, 4096)] {
            let block = SpanMalloc.allocate(old).unwrap();
            fill(block);
            // SAFETY: the block is of the Layout `old`, and stays so when a call fails.
            unsafe {
                assert_eq!(SpanMalloc.grow(block.cast(), old, absurd), Err(AllocError));
                assert_eq!(
                    SpanMalloc.grow_zeroed(block.cast(), old, absurd),
                    Err(AllocError)
                );
            }
            assert!(is_filled(block, old.size()));
            // SAFETY: as above.
            unsafe { SpanMalloc.deallocate(block.cast(), old) };
        }
    }

    #[test]
    fn vector_and_box_work_on_it() {
        let mut numbers = allocator_api2::vec::Vec::new_in(SpanMalloc);
        numbers.extend(0..100_000_u32);
        numbers.truncate(10);
        numbers.shrink_to_fit();
        assert_eq!(numbers.iter().sum::<u32>(), 45);
        let unit = allocator_api2::boxed::Box::new_in((), SpanMalloc);
        assert_eq!(*unit, ());
    }
}
