//! The objects that a thread freed last, which nobody gets yet.
//!
//! An array, in no order: a freed object is added at its end, and while there are too many, one by chance
//! makes room. So an object stays for a random time, and an attacker can't tell when its slot is used again.
//!
//! Bounded by objects and bytes of a thread, and by bytes of all threads together.

use core::cell::Cell;

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
    /// Adds an object of `class`. There is room for one, as [`Self::evict_excess`] leaves it.
    #[inline]
    pub(crate) fn add(&self, class: SizeClass, object: *mut u8) {
        let len = self.len();
        if let Some(entry) = self.entries.get(len) {
            entry.store(
                object.map_addr(|address| address | class.index() << CLASS_SHIFT),
                Relaxed,
            );
            self.len.store(len as u32 + 1, Relaxed);
            self.bytes.set(self.bytes.get() + class.object_bytes());
        }
    }

    /// Takes an object out by chance, but not the one that was added last, if there are too many.
    #[inline]
    pub(crate) fn evict_excess(&self, random: &Random) -> Option<(SizeClass, *mut u8)> {
        let (len, bytes) = (self.len(), self.bytes.get());
        let is_excess = len == OBJECTS_MAX
            || bytes > BYTES_MAX
            || bytes.saturating_mul(runtime::attached()) > BYTES_MAX_OF_ALL;
        if !is_excess || len < 2 {
            return None;
        }
        self.take(random.below(len - 1))
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
    #[inline]
    fn take(&self, index: usize) -> Option<(SizeClass, *mut u8)> {
        let last = self.len() - 1;
        let entry = self.entries[index].load(Relaxed);
        // First out of sight: nobody finds it here who finds it where it goes.
        self.entries[index].store(self.entries[last].load(Relaxed), Relaxed);
        self.len.store(last as u32, Relaxed);
        let class = SizeClass::new((entry.addr() >> CLASS_SHIFT) % MAGAZINES);
        self.bytes.set(self.bytes.get() - class.object_bytes());
        let object = entry.map_addr(|address| address & !(0xff << CLASS_SHIFT));
        Some((class, object))
    }
}
