//! Tables in memory that does not come from the allocator under test.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Pages are as large or larger on all systems; mappings are aligned to them.
const PAGE_BYTES_MIN: usize = 4096;

/// A type of which a value may be all zeros.
///
/// # Safety
///
/// * A value whose bytes are all zero is valid.
pub unsafe trait Zeroed {}

// SAFETY: it is the number zero.
unsafe impl Zeroed for u32 {}

/// A slice in an anonymous mapping. What is not written takes no memory.
pub struct Table<T> {
    map: MmapMut,
    len: usize,
    values: PhantomData<[T]>,
}

impl<T: Zeroed> Table<T> {
    /// A table of that many values, all zeros.
    pub fn zeroed(len: usize) -> Result<Self, String> {
        const { assert!(align_of::<T>() <= PAGE_BYTES_MIN && !std::mem::needs_drop::<T>()) };
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or("a table is too large")?;
        let map = MmapMut::map_anon(bytes.max(1))
            .map_err(|error| format!("there is no memory for a table of {bytes} bytes: {error}"))?;
        Ok(Self {
            map,
            len,
            values: PhantomData,
        })
    }
}

impl<T> Table<T> {
    /// The memory that it takes, in bytes, when all of it was written.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T: Zeroed> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has room for `len` values and is aligned for them, as `zeroed` checked; they
        // began as zeros, which is valid as T is `Zeroed`; it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: Zeroed> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
