//! Objects of a thread, whose bytes count as the scenario's need.
//!
//! An object has a pattern in its first and in its last 8 bytes and in each of its pages, which is its
//! own, as it is made of its address and size. It is looked at when the object is freed: another one
//! means that the allocator gave the memory to someone else too.

use std::alloc::{Layout, alloc, dealloc};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::random::Random;
use crate::workloads::object;

const ALIGN: usize = 8;
const PAGE: usize = 4096;
const WORD: usize = size_of::<u64>();

/// Bytes that are held, in parts: threads with other numbers do not share cache lines.
#[repr(align(128))]
struct Part(AtomicUsize);

static NEED: [Part; 64] = [const { Part(AtomicUsize::new(0)) }; 64];

/// Bytes of arrays that are not the allocator's.
static OWN_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Allocations that returned null.
static NULLS: AtomicU64 = AtomicU64::new(0);

/// What all heaps hold.
pub fn need_bytes() -> usize {
    // A sum of unlike moments can be off by what is in flight, but each object is freed by the thread
    // that allocated it, so no part goes below zero.
    NEED.iter().map(|part| part.0.load(Ordering::Relaxed)).sum()
}

/// The scenario's own arrays.
pub fn own_bytes() -> usize {
    OWN_BYTES.load(Ordering::Relaxed)
}

/// How many allocations returned null so far.
pub fn nulls() -> u64 {
    NULLS.load(Ordering::Relaxed)
}

/// An array that does not come from the allocator, and is not in what is told as RSS.
pub fn own_array<T: Copy>(len: usize, value: T) -> &'static mut [T] {
    let bytes = (len * size_of::<T>()).next_multiple_of(PAGE);
    OWN_BYTES.fetch_add(bytes, Ordering::Relaxed);
    object::array(len, value)
}

/// An object, or none.
#[derive(Clone, Copy)]
struct Held {
    address: *mut u8,
    size: usize,
}

// SAFETY: an object is plain memory, which belongs to whoever has the `Held`.
unsafe impl Send for Held {}

impl Held {
    const NONE: Self = Self {
        address: ptr::null_mut(),
        size: 0,
    };

    /// Allocates `size` bytes, 16 or more, and writes the pattern; `None` if the allocator has no
    /// memory.
    fn new(size: usize) -> Option<Self> {
        // SAFETY: `size` is not zero.
        let address = unsafe { alloc(layout(size)) };
        if address.is_null() {
            NULLS.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let held = Self { address, size };
        let pattern = held.pattern();
        for offset in (0..=size - WORD).step_by(PAGE).chain([size - WORD]) {
            let word = pattern.to_ne_bytes();
            // SAFETY: a word from there on is in the object. The write is volatile, so that it is made even
            // where nobody reads the page again.
            unsafe {
                address
                    .add(offset)
                    .cast::<[u8; WORD]>()
                    .write_volatile(word)
            };
        }
        Some(held)
    }

    fn pattern(self) -> u64 {
        let mixed = self.address.addr() as u64 ^ (self.size as u64).rotate_left(40);
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Frees the object after a look at the pattern.
    fn free(self) {
        for offset in [0, self.size - WORD] {
            // SAFETY: a word from there on is in the object, and was written.
            let found = unsafe {
                let place: *const u64 = self.address.add(offset).cast();
                place.read_unaligned()
            };
            if found != self.pattern() {
                // A panic would leave the other threads at their barriers.
                eprintln!("rate-worker: an object was overwritten");
                process::exit(1);
            }
        }
        // SAFETY: made by `new`, and freed once by each of its users.
        unsafe { dealloc(self.address, layout(self.size)) };
    }
}

fn layout(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and sizes are far below the limit.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// Objects of one thread, in an array that the allocator does not have.
pub struct Heap {
    slots: &'static mut [Held],
    /// Slots before this one have objects.
    objects: usize,
    bytes: usize,
    need: &'static AtomicUsize,
}

impl Heap {
    /// Of a thread with a number, for so many objects.
    pub fn new(thread: usize, objects_max: usize) -> Self {
        Self {
            slots: own_array(objects_max, Held::NONE),
            objects: 0,
            bytes: 0,
            need: &NEED[thread % NEED.len()].0,
        }
    }

    pub fn objects(&self) -> usize {
        self.objects
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Allocates an object of 16 bytes or more, and writes all its pages. Not if the allocator returns
    /// null, or the array is full.
    pub fn add(&mut self, size: usize) -> bool {
        let Some(slot) = self.slots.get_mut(self.objects) else {
            return false;
        };
        let Some(held) = Held::new(size) else {
            return false;
        };
        *slot = held;
        self.objects += 1;
        self.bytes += size;
        self.need.fetch_add(size, Ordering::Relaxed);
        true
    }

    /// Frees the object that was added last, if there is one.
    pub fn remove_last(&mut self) {
        if self.objects > 0 {
            self.remove(self.objects - 1);
        }
    }

    /// Frees any object, if there is one.
    pub fn remove_random(&mut self, random: &mut Random) {
        if self.objects > 0 {
            self.remove(random.below(self.objects));
        }
    }

    fn remove(&mut self, number: usize) {
        let held = self.slots[number];
        held.free();
        self.need.fetch_sub(held.size, Ordering::Relaxed);
        self.bytes -= held.size;
        self.objects -= 1;
        self.slots[number] = self.slots[self.objects];
    }

    pub fn remove_all(&mut self) {
        while self.objects > 0 {
            self.remove_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_counts_its_bytes() {
        // Of its own number, which no other test has.
        let mut heap = Heap::new(63, 3);
        let mut random = Random::new(1);
        assert!(heap.add(16) && heap.add(5000) && heap.add(8192));
        assert!(!heap.add(16), "the array is full");
        assert_eq!((heap.objects(), heap.bytes()), (3, 13_208));
        assert!(need_bytes() >= 13_208 && own_bytes() >= PAGE);
        heap.remove_last();
        assert_eq!((heap.objects(), heap.bytes()), (2, 5016));
        heap.remove_random(&mut random);
        heap.remove_all();
        heap.remove_last();
        heap.remove_random(&mut random);
        assert_eq!((heap.objects(), heap.bytes()), (0, 0));
        assert_eq!(heap.need.load(Ordering::Relaxed), 0);
    }
}
