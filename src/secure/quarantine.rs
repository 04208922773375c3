//! The objects that a thread freed last, which nobody gets yet.
//!
//! An array, in no order: a freed object is added at its end, or takes the place of one by chance, which goes
//! on. So an object stays for a random time, and an attacker can't tell when its slot is used again.
//!
//! Bounded by objects and bytes of a thread, and by bytes of all threads together.

use core::cell::Cell;
use core::ptr;

use super::random::Random;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::runtime;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

/// Most objects of a thread. The array takes half a page.
const OBJECTS_MAX: usize = 256;
/// Most bytes of a thread: larger ones would leave the second level of the processor's caches.
const BYTES_MAX: usize = 256 << 10;
/// Most bytes of all threads, about.
const BYTES_MAX_OF_ALL: usize = 32 << 20;
/// Where the class is in an entry; addresses end below.
const CLASS_SHIFT: u32 = 56;

/// The quarantine of an mcache. Zero bytes are valid: an empty one. **Written by the owner.**
pub(crate) struct Quarantine {
    /// Objects, with their class in the uppermost byte. Read by statistics from any thread.
    entries: [AtomicPtr<u8>; OBJECTS_MAX],
    /// Entries in use. As the entries.
    len: AtomicU32,
    /// Bytes of the objects. **Owner only.**
    bytes: Cell<usize>,
}

impl Quarantine {
    /// Adds an object of `class`, which has so many bytes. Who makes room for it, if there are too many: any by
    /// chance, and the object itself if there is no other; else null.
    #[inline(always)] // As all that a call of the secure mode is made of.
    pub(crate) fn exchange(
        &self,
        class: SizeClass,
        object: *mut u8,
        bytes: usize,
        random: &Random,
    ) -> (SizeClass, *mut u8) {
        let entry = object.map_addr(|address| address | class.index() << CLASS_SHIFT);
        let (len, bytes) = (self.len(), self.bytes.get() + bytes);
        if len < OBJECTS_MAX && !is_excess(bytes) {
            self.entries[len].store(entry, Relaxed);
            self.len.store(len as u32 + 1, Relaxed);
            self.bytes.set(bytes);
            return (class, ptr::null_mut());
        }
        if len == 0 {
            return (class, object);
        }
        let place = &self.entries[random.below(len) % OBJECTS_MAX];
        let (class, object) = untagged(place.load(Relaxed));
        place.store(entry, Relaxed);
        self.bytes.set(bytes - class.object_bytes());
        (class, object)
    }

    /// Whether the objects have too many bytes.
    #[inline]
    pub(crate) fn has_excess(&self) -> bool {
        is_excess(self.bytes.get())
    }

    /// Takes an object out by chance, if they have too many bytes.
    #[inline]
    pub(crate) fn evict_excess(&self, random: &Random) -> Option<(SizeClass, *mut u8)> {
        if !is_excess(self.bytes.get()) {
            return None;
        }
        self.take(random.below(self.len().max(1)))
    }

    /// Takes any object out.
    pub(crate) fn pop(&self) -> Option<(SizeClass, *mut u8)> {
        self.take(self.len().checked_sub(1)?)
    }

    /// Calls `look` with the class of each object, about now. Any thread may ask.
    pub(crate) fn for_each_class(&self, mut look: impl FnMut(SizeClass)) {
        for entry in &self.entries[..self.len()] {
            let class = entry.load(Relaxed).addr() >> CLASS_SHIFT;
            if class != 0 {
                look(SizeClass::new(class % MAGAZINES));
            }
        }
    }

    fn len(&self) -> usize {
        (self.len.load(Relaxed) as usize).min(OBJECTS_MAX)
    }

    /// Takes an entry out; the last one takes its place.
    fn take(&self, index: usize) -> Option<(SizeClass, *mut u8)> {
        let last = self.len().checked_sub(1)?;
        let entry = self.entries.get(index)?.load(Relaxed);
        // First out of sight: nobody finds it here who finds it where it goes.
        self.entries[index].store(self.entries[last].load(Relaxed), Relaxed);
        self.len.store(last as u32, Relaxed);
        let (class, object) = untagged(entry);
        self.bytes.set(self.bytes.get() - class.object_bytes());
        Some((class, object))
    }
}

/// Whether a thread has too much with so many bytes.
#[inline]
fn is_excess(bytes: usize) -> bool {
    bytes > BYTES_MAX || bytes * runtime::attached() > BYTES_MAX_OF_ALL
}

/// The object and class of an entry.
#[inline]
fn untagged(entry: *mut u8) -> (SizeClass, *mut u8) {
    let class = (entry.addr() >> CLASS_SHIFT).min(MAGAZINES - 1); // It is less.
    let class = SizeClass::new(class);
    (class, entry.map_addr(|address| address << 8 >> 8))
}
