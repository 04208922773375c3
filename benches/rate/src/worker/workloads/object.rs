//! Objects of the allocator under test, and arrays that are not.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr;

/// An object, or none.
///
/// Its stamp is its first and last byte, which hold the lowest byte of its size, but for objects that
/// were made by [`Object::untouched`] or filled since.
#[derive(Clone, Copy)]
pub struct Object {
    address: *mut u8,
    size: usize,
}

// SAFETY: an object is plain memory, which belongs to whoever has the `Object`.
unsafe impl Send for Object {}

/// Alignment of all objects for which no other is asked: what collections of words ask for.
const ALIGN: usize = 8;

/// Bytes of a page of the system.
const PAGE: usize = 4096;

fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: alignments here are powers of two, and sizes are far below the limit.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

impl Object {
    pub const NONE: Self = Self {
        address: ptr::null_mut(),
        size: 0,
    };

    /// Allocates `size` bytes, at least one, and writes the stamp.
    #[inline]
    pub fn new(size: usize) -> Self {
        Self::aligned(size, ALIGN)
    }

    /// The same, with another alignment, for [`Self::free_aligned`].
    #[inline]
    pub fn aligned(size: usize, align: usize) -> Self {
        let object = Self::bare(size, align);
        object.stamp();
        object
    }

    /// Allocates without a write.
    #[inline]
    pub fn untouched(size: usize) -> Self {
        Self::bare(size, ALIGN)
    }

    #[inline]
    fn bare(size: usize, align: usize) -> Self {
        // SAFETY: `size` is not zero.
        let address = unsafe { alloc(layout(size, align)) };
        if address.is_null() {
            handle_alloc_error(layout(size, align));
        }
        Self { address, size }
    }

    /// Allocates zeroed bytes, looks at one of each page, and writes the stamp.
    #[inline]
    pub fn zeroed(size: usize) -> Self {
        // SAFETY: `size` is not zero.
        let address = unsafe { alloc_zeroed(layout(size, ALIGN)) };
        if address.is_null() {
            handle_alloc_error(layout(size, ALIGN));
        }
        // SAFETY: these bytes are in the object, all of which is initialised.
        let bits = unsafe {
            (0..size)
                .step_by(PAGE)
                .fold(address.add(size - 1).read(), |bits, offset| {
                    bits | address.add(offset).read()
                })
        };
        assert!(bits == 0, "a zeroed object is not zero");
        let object = Self { address, size };
        object.stamp();
        object
    }

    /// Reallocates a stamped object, checks that its bytes came along, and writes the new stamp.
    #[inline]
    pub fn resize(&mut self, size: usize) {
        // SAFETY: made by `new`, `zeroed` or `resize`; `size` is not zero. The bytes that are read are in
        // the object, old and new, and were written.
        unsafe {
            self.check();
            let address = realloc(self.address, layout(self.size, ALIGN), size);
            if address.is_null() {
                handle_alloc_error(layout(size, ALIGN));
            }
            let mut kept = address.read() == self.size as u8;
            if size >= self.size {
                kept &= address.add(self.size - 1).read() == self.size as u8;
            }
            assert!(kept, "a reallocated object lost its bytes");
            *self = Self { address, size };
        }
        self.stamp();
    }

    /// Frees the object, if there is one, after a look at its stamp: another value means that the
    /// allocator gave the memory to someone else too.
    #[inline]
    pub fn free(self) {
        self.free_aligned(ALIGN);
    }

    /// The same for an object that was made with this alignment.
    #[inline]
    pub fn free_aligned(self, align: usize) {
        if self.address.is_null() {
            return;
        }
        self.check();
        // SAFETY: made by this type with `align`, and freed once by each of its users.
        unsafe { dealloc(self.address, layout(self.size, align)) };
    }

    /// Frees the object, if there is one, without a look at it.
    #[inline]
    pub fn free_unread(self) {
        if self.address.is_null() {
            return;
        }
        // SAFETY: made by this type with `ALIGN`, and freed once by each of its users.
        unsafe { dealloc(self.address, layout(self.size, ALIGN)) };
    }

    #[inline]
    pub fn size(self) -> usize {
        self.size
    }

    #[inline]
    pub fn is_aligned(self, align: usize) -> bool {
        self.address.addr().is_multiple_of(align)
    }

    #[inline]
    fn stamp(self) {
        // SAFETY: both bytes are in the object.
        unsafe {
            self.address.write(self.size as u8);
            self.address.add(self.size - 1).write(self.size as u8);
        }
    }

    #[inline]
    fn check(self) {
        // SAFETY: the byte is in the object, and was written with the stamp.
        let last = unsafe { self.address.add(self.size - 1).read() };
        assert!(last == self.size as u8, "an object was overwritten");
    }

    /// Writes a byte of each page from that of byte `from` on, and the stamp, so that the pages are
    /// resident.
    #[inline]
    pub fn touch_pages(self, from: usize) {
        for offset in (from..self.size).step_by(PAGE) {
            // SAFETY: in the object.
            unsafe { self.address.add(offset).write_volatile(self.size as u8) };
        }
        self.stamp();
    }

    /// Writes all bytes.
    #[inline]
    pub fn fill(self, byte: u8) {
        // SAFETY: in the object.
        unsafe { self.address.write_bytes(byte, self.size) };
    }

    /// Reads all bytes of a filled object, and checks them.
    #[inline]
    pub fn check_filled(self, byte: u8) {
        // SAFETY: the bytes of the object, all of which `fill` wrote.
        let bytes = unsafe { std::slice::from_raw_parts(self.address, self.size) };
        let differing = bytes.iter().fold(0, |all, other| all | (other ^ byte));
        assert!(differing == 0, "an object was overwritten");
    }

    /// Checks that no two of the objects share a byte. Puts them in order of address, without memory of
    /// the allocator.
    pub fn check_apart(objects: &mut [Self]) {
        objects.sort_unstable_by_key(|object| object.address);
        for pair in objects.windows(2) {
            let end = pair[0].address.addr() + pair[0].size;
            let apart = end <= pair[1].address.addr();
            assert!(apart || pair[0].address.is_null(), "two objects overlap");
        }
    }

    /// Frees stamped objects, with all checks.
    pub fn free_all(objects: &mut [Self]) {
        Self::check_apart(objects);
        for object in objects {
            object.free();
            *object = Self::NONE;
        }
    }
}

/// An array that does not come from the allocator under test and is resident from the start, so that
/// it is the same part of every allocator's figures.
pub fn array<T: Copy>(len: usize, value: T) -> &'static mut [T] {
    let bytes = len * size_of::<T>();
    // SAFETY: a fresh anonymous mapping, page-aligned, of that many bytes, never unmapped; all values are
    // written before the slice is made.
    unsafe {
        let start = libc::mmap(
            ptr::null_mut(),
            bytes.max(1),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert!(start != libc::MAP_FAILED, "no memory for an array");
        let first: *mut T = start.cast();
        for index in 0..len {
            first.add(index).write(value);
        }
        std::slice::from_raw_parts_mut(first, len)
    }
}
