//! Spans: private halves, frees by others, sweeps, and who has a span.

use core::ptr::{self, NonNull};
use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool as GhostBool, AtomicUsize as GhostUsize, Ordering::SeqCst};
use std::vec::Vec;

use loom::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use loom::thread;

use super::check;
use crate::base::fatal::Crime;
use crate::base::size_class::{Geometry, SizeClass};
use crate::mspan::{Freed, FreedInPlace, MSpan, PrivateSlots, Set};
use crate::span_set::SpanSet;
use crate::sync::Mutex;

/// Bytes of a slot of the made-up spans.
const SLOT_BYTES: usize = 8;
/// Base of the made-up spans. Nobody reads or writes there.
const BASE: usize = 1 << 20;
/// Most slots of a made-up span.
const SLOTS_MAX: usize = 3;

/// The home shard of one span, and what the program holds of it.
struct Home {
    set: Mutex<SpanSet>,
    span: &'static MSpan,
    geometry: Geometry,
    /// Slots that the program holds: a ghost.
    live: [GhostBool; SLOTS_MAX],
    /// How often the span was reported empty: a ghost.
    empty: GhostUsize,
}

// SAFETY: the span in the set is reached under the lock of `set`, or by its owner.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

impl Home {
    /// A home with one span of `slots` slots, all taken.
    fn new(slots: usize) -> Arc<Self> {
        let record = NonNull::from(Box::leak(Box::<MSpan>::new_uninit())).cast();
        let base = ptr::without_provenance_mut(BASE);
        // SAFETY: the record is fresh memory of the right size; the made-up pages are nobody's.
        let span = unsafe {
            MSpan::init(record, base, 1, SizeClass::new(1), 0);
            record.as_ref()
        };
        Arc::new(Self {
            set: Mutex::new(SpanSet::new()),
            span,
            geometry: Geometry {
                slot_bytes: SLOT_BYTES as u32,
                span_pages: 1,
                slots: slots as u32,
                reciprocal: (1_u64 << 32).div_ceil(SLOT_BYTES as u64) as u32,
                bucket_scale: (1 << 19) / slots as u32,
            },
            live: core::array::from_fn(|_| GhostBool::new(false)),
            empty: GhostUsize::new(0),
        })
    }

    /// Takes a slot of the calling thread's private half, for the program.
    fn take(&self, private: &PrivateSlots) -> Option<usize> {
        let mut found = None;
        private.take(1, |slot, _| found = Some(slot));
        if let Some(slot) = found {
            let was_live = self.live[slot].swap(true, SeqCst);
            assert!(!was_live, "slot {slot} was handed out twice");
        }
        found
    }

    /// [`Self::take`], with a sweep under the lock when the private half is dry.
    fn take_or_sweep(&self, private: &PrivateSlots) -> Option<usize> {
        self.take(private).or_else(|| {
            let guard = self.set.lock();
            // SAFETY: the home lock is held; the private half is dry, and the calling thread's.
            let swept = unsafe { self.span.sweep(private) };
            drop(guard);
            assert_eq!(swept == 0, private.is_dry());
            let found = self.take(private);
            assert_eq!(swept > 0, found.is_some());
            found
        })
    }

    /// Frees slots that the program holds, as `mcentral::put` does.
    fn free(&self, slots: &[usize]) {
        if slots.is_empty() {
            return;
        }
        for slot in slots {
            let was_live = self.live[*slot].swap(false, SeqCst);
            assert!(was_live, "slot {slot} is not the program's");
        }
        assert_eq!(self.free_objects(slots), None, "slots {slots:?}");
    }

    /// The free itself, of slots that may be free already.
    fn free_objects(&self, slots: &[usize]) -> Option<Crime> {
        let mut set = self.set.lock();
        let object = |slot: &usize| ptr::without_provenance_mut(BASE + slot * SLOT_BYTES);
        let objects: Vec<*mut u8> = slots.iter().map(object).collect();
        let mut rest = &objects[..];
        while !rest.is_empty() {
            // One alone as the loop over objects that lie anywhere does it.
            if let [object] = *rest
                && let Some(slot) = self.span.slot_of(&self.geometry, object)
            {
                // SAFETY: the home lock is held.
                match unsafe { self.span.free_in_place(slot) } {
                    FreedInPlace::Done => {
                        set.add_freed(1);
                        break;
                    }
                    FreedInPlace::Twice => return Some(Crime::DoubleFree),
                    FreedInPlace::Moves => {}
                }
            }
            // SAFETY: the home lock is held.
            let (freed, crime) = unsafe { self.span.free_neighbours(&self.geometry, rest) };
            rest = &rest[freed..];
            if crime.is_some() {
                return crime;
            }
            // SAFETY: as above; the span is in the set or checked out: an object of it was live.
            if unsafe { set.update(self.span, &self.geometry, freed as u16) } {
                self.report_empty();
            }
        }
        None
    }

    /// Ends the check-out, as `mcentral::put_back` does.
    fn put_back(&self, private: &PrivateSlots) {
        let mut set = self.set.lock();
        // SAFETY: the home lock is held; the span is checked out to `private`, the calling
        // thread's, so it is in no list.
        let listed = unsafe {
            self.span.put_back(private);
            set.insert(self.span, &self.geometry)
        };
        if !listed {
            self.report_empty();
        }
        assert!(private.is_dry() && private.span().is_none());
    }

    /// Checks a partial span out, as `mcentral::take` does. False if there is none.
    fn check_out(&self, private: &PrivateSlots) -> bool {
        let mut set = self.set.lock();
        // SAFETY: the home lock is held; `private` is empty and becomes the calling thread's half.
        let swept = unsafe { set.pop_fullest().map(|span| span.sweep(private)) };
        drop(set);
        assert_ne!(swept, Some(0), "a partial span has a free slot");
        if swept.is_some() {
            private.set_span(self.span);
        }
        swept.is_some()
    }

    fn report_empty(&self) {
        for (slot, live) in self.live.iter().enumerate() {
            assert!(
                !live.load(SeqCst),
                "the span is reported empty, but slot {slot} is live"
            );
        }
        self.empty.fetch_add(1, SeqCst);
    }

    /// Asserts that the span was reported empty once, is in no list, and has all slots free.
    fn assert_gone(&self) {
        assert_eq!(self.empty.load(SeqCst), 1, "reports that the span is empty");
        let set = self.set.lock();
        assert_eq!(set.partial_spans(), 0);
        // SAFETY: the home lock is held.
        let shared = unsafe { self.span.shared() };
        assert_eq!(shared.set, Set::NONE);
        assert_eq!(u32::from(shared.free_slots), self.geometry.slots);
    }
}

/// Objects that the program hands from thread to thread: one bit a slot.
struct Mailbox(AtomicUsize);

impl Mailbox {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(0)))
    }

    fn send(&self, slot: usize) {
        self.0.fetch_or(1 << slot, AcqRel);
    }

    fn receive(&self) -> Vec<usize> {
        let slots = self.0.swap(0, AcqRel);
        (0..SLOTS_MAX)
            .filter(|slot| slots & 1 << slot != 0)
            .collect()
    }
}

#[test]
fn slots_freed_by_another_thread_come_back_to_the_owner_once() {
    check(|| {
        let (home, mailbox) = (Home::new(2), Mailbox::new());
        let private = PrivateSlots::new();
        private.adopt(home.span, 2);
        let other = {
            let (home, mailbox) = (Arc::clone(&home), Arc::clone(&mailbox));
            thread::spawn(move || {
                for _ in 0..2 {
                    home.free(&mailbox.receive());
                }
            })
        };
        for _ in 0..4 {
            // Beyond the span's two slots only what the other thread freed meanwhile.
            if let Some(slot) = home.take_or_sweep(&private) {
                mailbox.send(slot);
            }
        }
        other.join().unwrap();
        home.free(&mailbox.receive());
        home.put_back(&private);
        home.assert_gone();
    });
}

#[test]
fn two_threads_that_free_and_an_owner_that_sweeps_lose_no_slot() {
    check(|| {
        let home = Home::new(3);
        let private = PrivateSlots::new();
        private.adopt(home.span, 3);
        let taken: Vec<usize> = core::iter::from_fn(|| home.take(&private)).collect();
        assert_eq!(taken, [0, 1, 2]);
        let others: Vec<_> = (0..2)
            .map(|slot| {
                let home = Arc::clone(&home);
                thread::spawn(move || home.free(&[slot]))
            })
            .collect();
        let first = home.take_or_sweep(&private);
        let second = home.take_or_sweep(&private);
        for other in others {
            other.join().unwrap();
        }
        for slot in [first, second].into_iter().flatten() {
            home.free(&[slot]);
        }
        home.free(&[2]);
        home.put_back(&private);
        home.assert_gone();
    });
}

/// A private half on its way from one owner to the next. It does not move in memory.
struct Half(Box<PrivateSlots>);

// SAFETY: one thread at a time has the half; other threads read the words only, which are atomic.
unsafe impl Send for Half {}

#[test]
fn of_two_frees_of_one_slot_exactly_one_is_told_a_double_free_while_the_owner_sweeps() {
    check(|| {
        let home = Home::new(2);
        let half = Half(Box::new(PrivateSlots::new()));
        half.0.adopt(home.span, 2);
        let slot = home.take(&half.0).unwrap();
        let held = home.take(&half.0).unwrap();
        let other = {
            let home = Arc::clone(&home);
            thread::spawn(move || home.free_objects(&[slot]))
        };
        let sweeper = {
            let home = Arc::clone(&home);
            thread::spawn(move || {
                let half = half; // The whole of it, not the field that is used.
                let guard = home.set.lock();
                // SAFETY: the home lock is held, the half is dry, and this thread's.
                let swept = unsafe { home.span.sweep(&half.0) };
                drop(guard);
                (half, swept)
            })
        };
        let crimes = [home.free_objects(&[slot]), other.join().unwrap()];
        let (half, swept) = sweeper.join().unwrap();
        assert_eq!(
            crimes.iter().filter(|crime| crime.is_none()).count(),
            1,
            "{crimes:?}"
        );
        assert!(crimes.contains(&Some(Crime::DoubleFree)), "{crimes:?}");
        assert!(swept <= 1);
        assert_eq!(home.free_objects(&[slot]), Some(Crime::DoubleFree));
        {
            let _guard = home.set.lock();
            // SAFETY: the home lock is held.
            assert_eq!(unsafe { home.span.free_slot(slot) }, Freed::Twice);
        }
        home.live[slot].store(false, SeqCst);
        home.free(&[held]);
        home.put_back(&half.0);
        home.assert_gone();
    });
}

#[test]
fn a_double_free_is_seen_while_the_free_slot_goes_from_owner_to_owner() {
    check(|| {
        let home = Home::new(2);
        let (first, second) = (PrivateSlots::new(), PrivateSlots::new());
        first.adopt(home.span, 2);
        let slot = home.take(&first).unwrap();
        let held = home.take(&first).unwrap();
        home.free(&[slot]);
        let other = {
            let home = Arc::clone(&home);
            thread::spawn(move || home.free_objects(&[slot]))
        };
        home.put_back(&first);
        assert!(home.check_out(&second));
        assert_eq!(other.join().unwrap(), Some(Crime::DoubleFree));
        assert_eq!(home.free_objects(&[slot]), Some(Crime::DoubleFree));
        home.free(&[held]);
        home.put_back(&second);
        home.assert_gone();
    });
}

#[test]
fn a_span_put_back_during_a_late_free_is_reported_empty_once() {
    check(|| {
        let home = Home::new(2);
        let private = PrivateSlots::new();
        private.adopt(home.span, 2);
        let slot = home.take(&private).unwrap();
        let other = {
            let home = Arc::clone(&home);
            thread::spawn(move || home.free(&[slot]))
        };
        home.put_back(&private);
        other.join().unwrap();
        home.assert_gone();
    });
}

#[test]
fn a_full_span_put_back_during_two_late_frees_is_reported_empty_once() {
    check(|| {
        let home = Home::new(2);
        let private = PrivateSlots::new();
        private.adopt(home.span, 2);
        let others: Vec<_> = [home.take(&private).unwrap(), home.take(&private).unwrap()]
            .map(|slot| {
                let home = Arc::clone(&home);
                thread::spawn(move || home.free(&[slot]))
            })
            .into_iter()
            .collect();
        home.put_back(&private);
        for other in others {
            other.join().unwrap();
        }
        home.assert_gone();
    });
}

#[test]
fn a_span_put_back_and_checked_out_elsewhere_survives_a_late_free() {
    check(|| {
        let home = Home::new(3);
        let private = PrivateSlots::new();
        private.adopt(home.span, 3);
        let slot = home.take(&private).unwrap();
        let late = {
            let home = Arc::clone(&home);
            thread::spawn(move || home.free(&[slot]))
        };
        let next_owner = {
            let home = Arc::clone(&home);
            thread::spawn(move || {
                let private = PrivateSlots::new();
                if home.check_out(&private) {
                    let slot = home.take(&private).unwrap();
                    home.free(&[slot]);
                    home.put_back(&private);
                }
            })
        };
        let kept = home.take(&private).unwrap();
        home.put_back(&private);
        home.free(&[kept]);
        late.join().unwrap();
        next_owner.join().unwrap();
        home.assert_gone();
    });
}
