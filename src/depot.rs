//! The depot: magazines of one class on their way from threads that free to threads that allocate.
//!
//! Handing over a batch of objects is a pointer swap under the shard's lock, without a look at the
//! objects (Bonwick's magazine layer, USENIX 2001; TCMalloc's transfer cache): 114 to 83
//! instructions a pair from producer to consumer. Empty records go back the other way, so that the
//! traffic settles without new records.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use crate::base::size_class::{MAGAZINE_MAX, MAGAZINES, SizeClass};

/// Most objects of a batch: half the largest magazine.
pub(crate) const BATCH_MAX: usize = MAGAZINE_MAX / 2;
/// Bytes of objects that one shard's depot holds at most for a class, apart from the first batch.
/// They keep their spans from going back, so the bound is a matter of memory: with 128 KiB and 16
/// batches, several producers and one consumer had a fifth more, and took 4 % fewer instructions.
const DEPOT_BYTES: usize = 64 << 10;
/// Most batches in one depot.
const DEPOT_BATCHES: u32 = 8;

/// A full magazine outside any mcache: pointers to free objects of one class.
///
/// All-zero bytes are a valid, empty one.
pub(crate) struct Batch {
    next: Option<NonNull<Batch>>,
    len: usize,
    objects: [*mut u8; BATCH_MAX],
}

impl Batch {
    /// Replaces the contents.
    pub(crate) fn fill(&mut self, objects: &[*mut u8]) {
        debug_assert!(objects.len() <= BATCH_MAX);
        self.len = objects.len();
        self.objects[..objects.len()].copy_from_slice(objects);
    }

    /// The objects.
    pub(crate) fn objects(&self) -> &[*mut u8] {
        &self.objects[..self.len]
    }

    /// The same, for who empties the batch.
    pub(crate) fn objects_mut(&mut self) -> &mut [*mut u8] {
        &mut self.objects[..self.len]
    }
}

/// The sole right to use a batch record, which lives for ever.
pub(crate) struct BatchRef(NonNull<Batch>);

// SAFETY: the record belongs to whoever holds the `BatchRef`; its objects are free objects, which
// any thread may hold.
unsafe impl Send for BatchRef {}

impl BatchRef {
    /// Takes charge of a record.
    ///
    /// # Safety
    /// `record` points to a valid batch that lives for ever, and there is no other `BatchRef` of it.
    pub(crate) unsafe fn new(record: NonNull<Batch>) -> Self {
        Self(record)
    }

    /// The contents.
    pub(crate) fn get(&mut self) -> &mut Batch {
        // SAFETY: the contract of `new`; the borrow is exclusive.
        unsafe { self.0.as_mut() }
    }
}

/// A stack of batches.
struct Stack(Option<NonNull<Batch>>);

impl Stack {
    fn push(&mut self, mut batch: BatchRef) {
        batch.get().next = self.0;
        self.0 = Some(batch.0);
    }

    fn pop(&mut self) -> Option<BatchRef> {
        let mut batch = BatchRef(self.0?);
        self.0 = batch.get().next.take();
        Some(batch)
    }
}

/// Batches of one class in one shard. All-zero bytes are a valid, empty one.
pub(crate) struct Depot {
    full: Stack,
    full_batches: u32,
    /// Objects in them.
    objects: usize,
    /// Fewest full batches since [`Depot::idle_batches`].
    least_batches: u32,
    empty: Stack,
}

// SAFETY: the stacks hold records and free objects that belong to the depot alone.
unsafe impl Send for Depot {}

impl Depot {
    pub(crate) const fn new() -> Self {
        Self {
            full: Stack(None),
            full_batches: 0,
            objects: 0,
            least_batches: 0,
            empty: Stack(None),
        }
    }

    /// Full batches here.
    pub(crate) fn full_batches(&self) -> u32 {
        self.full_batches
    }

    /// Objects in the batches here.
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    /// Leaves a full batch, in exchange for an empty record if there is one. Gives the batch back
    /// if the depot has as many as it may.
    pub(crate) fn put(
        &mut self,
        mut batch: BatchRef,
        class: SizeClass,
    ) -> Result<Option<BatchRef>, BatchRef> {
        if self.full_batches >= capacity(class) {
            return Err(batch);
        }
        self.objects += batch.get().objects().len();
        self.full.push(batch);
        self.full_batches += 1;
        Ok(self.empty.pop())
    }

    /// Takes a full batch, in exchange for an empty record if the caller has one.
    pub(crate) fn take(&mut self, spare: &mut Option<BatchRef>) -> Option<BatchRef> {
        let mut batch = self.full.pop()?;
        self.full_batches -= 1;
        self.objects -= batch.get().objects().len();
        self.least_batches = self.least_batches.min(self.full_batches);
        if let Some(empty) = spare.take() {
            self.empty.push(empty);
        }
        Some(batch)
    }

    /// Looks at all objects here.
    #[cfg(feature = "profile")]
    pub(crate) fn for_each(&mut self, look: &mut impl FnMut(*mut u8)) {
        let mut next = self.full.0;
        while let Some(batch) = next {
            let mut batch = BatchRef(batch);
            let batch = batch.get();
            batch.objects().iter().for_each(|object| look(*object));
            next = batch.next;
        }
    }

    /// Full batches that nobody needed since the last call.
    pub(crate) fn idle_batches(&mut self) -> u32 {
        core::mem::replace(&mut self.least_batches, self.full_batches)
    }

    /// Leaves an empty record.
    pub(crate) fn put_empty(&mut self, empty: BatchRef) {
        self.empty.push(empty);
    }
}

/// Most full batches that a depot of `class` keeps.
#[inline]
pub(crate) fn capacity(class: SizeClass) -> u32 {
    CAPACITY[class.index()]
}

const CAPACITY: [u32; MAGAZINES] = {
    let mut table = [0; MAGAZINES];
    let mut index = 1;
    while index < MAGAZINES {
        let class = SizeClass::new(index);
        let fit = (DEPOT_BYTES / (class.object_bytes() * (class.magazine_max() / 2))) as u32;
        table[index] = if fit < 1 {
            1
        } else if fit > DEPOT_BATCHES {
            DEPOT_BATCHES
        } else {
            fit
        };
        index += 1;
    }
    table
};
