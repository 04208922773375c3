//! Where the objects of a full or idle magazine go: to the depot as a batch, or to their spans.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use super::MCache;
use super::magazine::Slot;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::depot::{BATCH_MAX, BatchRef};
use crate::{backed, mcentral, meta, sys};

impl MCache {
    /// Moves the `count` oldest objects out: as batches into the depot of a shard, else to their spans.
    pub(super) fn flush_oldest(&self, class: SizeClass, count: usize, here: usize) {
        let len = self.len(class);
        let slots = self.slots_of(class);
        // SAFETY: `count` is at most `len`, and slots are the cells of plain pointers that only this
        // thread touches, and nobody during the borrow.
        let oldest = unsafe { core::slice::from_raw_parts_mut(objects_of(&slots[1..]), count) };
        // First the magazine: nobody who looks at it finds what is in a depot or a span already.
        self.magazines.get(class).set_top(self.place(class, 0));
        for batch in oldest.chunks_mut(class.magazine_max() / 2) {
            if !self.flush_to_depot(class, batch, here) {
                self.flush_to_spans(class, batch);
            }
        }
        // SAFETY: slots of this magazine; the ranges may overlap.
        unsafe {
            let first = slots[1..].as_ptr().cast_mut();
            ptr::copy(first.add(count), first, len - count);
        }
        self.magazines
            .get(class)
            .set_top(self.place(class, len - count));
        self.note_newest(class);
        self.counters.flushed[class.index()].add(count);
    }

    /// Frees objects to their spans.
    pub(super) fn flush_to_spans(&self, class: SizeClass, objects: &mut [*mut u8]) {
        self.counters.to_spans.add(objects.len());
        mcentral::put(class, objects);
    }

    /// Leaves objects as a batch in the depot of the first one's home, whose threads allocate it most likely; false if that
    /// is full. A batch is at least a quarter of a full-grown magazine: smaller ones are not worth their place.
    fn flush_to_depot(&self, class: SizeClass, objects: &[*mut u8], here: usize) -> bool {
        let fits = class.magazine_max() / 4..=BATCH_MAX;
        let Some(object) = objects.first().filter(|_| fits.contains(&objects.len())) else {
            return false;
        };
        let home = mcentral::home_of(class, *object).unwrap_or(here);
        if !mcentral::has_room_for_batch(class, home)
            || (!self.last[class.index()].get().are_a_trend() && mcentral::is_sparse(class, home))
        {
            return false;
        }
        let Some(mut batch) = self.spare.take().or_else(new_batch) else {
            return false;
        };
        batch.get().fill(objects);
        match mcentral::put_batch(class, home, batch) {
            Ok(spare) => {
                self.counters.to_depot.add(objects.len());
                self.spare.set(spare);
                true
            }
            Err(batch) => {
                self.spare.set(Some(batch));
                false
            }
        }
    }

    /// Gives everything back: all objects to their spans, all current spans to their shards,
    /// all large objects to the run cache.
    pub(crate) fn flush_all(&self) {
        #[cfg(feature = "secure")]
        self.end_quarantine();
        for index in 1..MAGAZINES {
            self.flush_class(SizeClass::new(index));
        }
        self.flush_large();
    }

    /// Gives the memory of the slots and of the notes back, of which none is in use: fresh slots are null as
    /// well, and fresh notes say nothing.
    pub(crate) fn release_slots(&self) {
        let start = core::mem::offset_of!(Self, slots);
        let bytes = core::mem::offset_of!(Self, filter) + size_of_val(&self.filter) - start;
        // SAFETY: inside the record, of which all is the caller's.
        let first = unsafe { NonNull::from(self).cast::<u8>().add(start) };
        let whole = whole_units(first.addr().get(), bytes, sys::page_bytes());
        let Some((head, bytes)) = whole else { return };
        // SAFETY: whole pages inside the record, which nobody refers to: each magazine's top and limit
        // are elsewhere (`flush_all`), and the caller has the mcache.
        backed::releasing(bytes, || unsafe {
            sys::release(first.add(head), bytes, false)
        });
    }

    /// Empties the magazine of a class and makes it unused, and puts its current span back.
    pub(super) fn flush_class(&self, class: SizeClass) {
        let len = self.len(class);
        if len > 0 {
            let slots = self.slots_of(class);
            self.counters.flushed[class.index()].add(len);
            // As in `flush_oldest`.
            self.magazines.get(class).set_top(self.place(class, 0));
            // SAFETY: as in `flush_oldest`.
            self.flush_to_spans(class, unsafe {
                core::slice::from_raw_parts_mut(objects_of(&slots[1..]), len)
            });
        }
        self.resize(class, 0);
        self.magazines.get(class).end_use();
        mcentral::put_back(
            class.span_class(),
            &self.current[class.span_class().index()],
        );
    }
}

/// Where the objects of slots begin.
fn objects_of(slots: &[Slot]) -> *mut *mut u8 {
    slots.as_ptr().cast_mut().cast()
}

/// The part of `bytes` from `start` on that is whole units: its offset and length, if there is any.
fn whole_units(start: usize, bytes: usize, unit: usize) -> Option<(usize, usize)> {
    let head = start.wrapping_neg() % unit;
    let whole = bytes.saturating_sub(head) / unit * unit;
    (whole > 0).then_some((head, whole))
}

/// A fresh batch record. `None` if the system has no memory.
fn new_batch() -> Option<BatchRef> {
    // SAFETY: records are zeroed memory, a valid empty batch, live for ever, and this one is new.
    meta::alloc().map(|record| unsafe { BatchRef::new(record) })
}

#[cfg(test)]
mod tests {
    use super::whole_units;

    #[test]
    fn whole_units_lie_inside_and_may_be_none() {
        let kib = 1 << 10;
        assert_eq!(whole_units(0, 30 * kib, 4 * kib), Some((0, 28 * kib)));
        assert_eq!(
            whole_units(64, 30 * kib, 4 * kib),
            Some((4 * kib - 64, 24 * kib))
        );
        // Pages of 64 KiB are larger than all slots.
        assert_eq!(whole_units(64, 30 * kib, 64 * kib), None);
        assert_eq!(whole_units(60 * kib, 30 * kib, 64 * kib), None);
    }
}
