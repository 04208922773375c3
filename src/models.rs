//! Models of the protocols between threads, for the model checker `loom`.
//!
//! Each model runs the shipped code in every order of its threads' steps, with at most
//! [`PREEMPTIONS`] switches away from a thread that could go on, and with every value that the
//! memory model lets an atomic load return. The scenarios are small: spans of two or three slots,
//! whose base is a made-up address, since nothing below the page heap touches slot memory.
//!
//! What the checker can't know is kept beside the code under test in atomics of `std`, which are no
//! steps to it: which slots the program holds ([`Home::live`]), and how often a span was reported
//! empty.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib models
//! ```

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool as GhostBool, AtomicUsize as GhostUsize, Ordering::SeqCst};
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Relaxed},
    fence,
};
use loom::thread;

use crate::base::fatal::Crime;
use crate::base::size_class::{Geometry, SizeClass};
use crate::depot::{Batch, BatchRef, Depot};
use crate::mspan::{Freed, MSpan, PrivateSlots, Set};
use crate::span_set::SpanSet;
use crate::sync::busy::Busy;
use crate::sync::{Mutex, sleeps};

/// Switches away from a thread that could go on, in one execution. Three find every mutation that
/// was tried on these protocols.
const PREEMPTIONS: usize = 3;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

// --- The mutex ---

/// `threads` threads take the lock `rounds` times each, and find what the others wrote.
fn count_under_lock(threads: usize, rounds: usize) {
    let sleeps_before = sleeps();
    check(move || {
        let count = Arc::new(Mutex::new(0));
        let work = move |count: &Mutex<usize>| {
            for _ in 0..rounds {
                *count.lock() += 1;
            }
        };
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let count = Arc::clone(&count);
                thread::spawn(move || work(&count))
            })
            .collect();
        work(&count);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(*count.lock(), threads * rounds);
    });
    assert!(
        sleeps() > sleeps_before,
        "no execution gets as far as the kernel's queue"
    );
}

#[test]
fn two_threads_never_hold_the_mutex_at_once_and_none_sleeps_for_ever() {
    count_under_lock(2, 2);
}

#[test]
fn a_third_thread_is_woken_by_who_was_woken_itself() {
    count_under_lock(3, 1);
}

#[test]
fn a_try_never_enters_a_held_mutex() {
    check(|| {
        let count = Arc::new(Mutex::new(0));
        let other = {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                count.try_lock().is_some_and(|mut count| {
                    *count += 1;
                    true
                })
            })
        };
        *count.lock() += 1;
        let entered = other.join().unwrap();
        assert_eq!(*count.lock(), 1 + usize::from(entered));
    });
}

#[test]
fn a_lock_held_across_a_fork_keeps_others_out_until_given_back() {
    check(|| {
        let count = Arc::new(Mutex::new(0));
        let inside = Arc::new(GhostBool::new(false));
        let other = {
            let (count, inside) = (Arc::clone(&count), Arc::clone(&inside));
            thread::spawn(move || {
                let mut count = count.lock();
                assert!(!inside.load(SeqCst));
                *count += 1;
            })
        };
        count.lock_for_fork();
        inside.store(true, SeqCst);
        thread::yield_now();
        inside.store(false, SeqCst);
        // SAFETY: this thread took the lock by `lock_for_fork` just above.
        unsafe { count.unlock_after_fork() };
        other.join().unwrap();
        assert_eq!(*count.lock(), 1);
    });
}

// --- Spans ---

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

// --- The depot ---

/// Batches that the producer of the model makes, and its fresh records.
const BATCHES: usize = 3;
/// A class whose depot keeps two batches, so that the producer meets a full one too.
const DEPOT_CLASS: SizeClass = SizeClass::new(51);

fn object(number: usize) -> *mut u8 {
    ptr::without_provenance_mut(number)
}

/// Numbers of the objects in a batch.
fn numbers(batch: &mut BatchRef) -> Vec<usize> {
    batch
        .get()
        .objects()
        .iter()
        .map(|object| object.addr())
        .collect()
}

#[test]
fn a_depot_loses_and_doubles_neither_objects_nor_records() {
    assert_eq!(crate::depot::capacity(DEPOT_CLASS), 2);
    check(|| {
        let records: Vec<NonNull<Batch>> = (0..BATCHES)
            .map(|_| {
                // SAFETY: all-zero bytes are a valid, empty batch.
                let batch = unsafe { Box::<Batch>::new_zeroed().assume_init() };
                NonNull::from(Box::leak(batch))
            })
            .collect();
        // SAFETY: valid, alive to the end of the model, and each made into one `BatchRef`.
        let mut fresh: Vec<BatchRef> = records
            .iter()
            .map(|record| unsafe { BatchRef::new(*record) })
            .collect();
        let depot = Arc::new(Mutex::new(Depot::new()));

        let consumer = {
            let depot = Arc::clone(&depot);
            thread::spawn(move || {
                let (mut seen, mut spare) = (Vec::new(), None);
                for _ in 0..2 {
                    let batch = depot.lock().take(&mut spare); // The guard ends here.
                    if let Some(mut batch) = batch {
                        assert!(spare.is_none(), "the depot left the spare");
                        seen.extend(numbers(&mut batch));
                        spare = Some(batch);
                    }
                }
                (seen, spare)
            })
        };

        let (mut seen, mut kept) = (Vec::new(), None::<BatchRef>);
        for number in 0..BATCHES {
            let Some(mut batch) = kept.take().or_else(|| fresh.pop()) else {
                unreachable!("a record for each batch")
            };
            batch
                .get()
                .fill(&[object(2 * number + 1), object(2 * number + 2)]);
            match depot.lock().put(batch, DEPOT_CLASS) {
                Ok(empty) => kept = empty,
                Err(mut batch) => {
                    seen.extend(numbers(&mut batch)); // To their spans.
                    kept = Some(batch);
                }
            }
        }
        let (taken, spare) = consumer.join().unwrap();
        seen.extend(taken);

        let mut depot = depot.lock();
        let mut left: Vec<BatchRef> = fresh.into_iter().chain(kept).chain(spare).collect();
        assert!(depot.full_batches() <= 2);
        while let Some(mut batch) = depot.take(&mut None) {
            seen.extend(numbers(&mut batch));
            left.push(batch);
            assert!(left.len() <= BATCHES, "the depot hands out a record twice");
        }
        assert_eq!(depot.full_batches(), 0);
        seen.sort_unstable();
        assert_eq!(
            seen,
            (1..=2 * BATCHES).collect::<Vec<_>>(),
            "the objects, each once"
        );
        // A full batch buys an empty record out of the depot, and is taken back at once.
        while let Some(batch) = left.pop() {
            let Ok(empty) = depot.put(batch, DEPOT_CLASS) else {
                unreachable!("it is empty")
            };
            let batch = depot.take(&mut None).unwrap();
            if let Some(empty) = empty {
                left.extend([batch, empty]);
                continue;
            }
            left.push(batch);
            break;
        }
        let mut found: Vec<_> = left
            .iter_mut()
            .map(|batch| NonNull::from(batch.get()))
            .collect();
        found.sort_unstable();
        let mut made = records.clone();
        made.sort_unstable();
        assert_eq!(found, made, "the records, each once");
        drop(left);
        for record in records {
            // SAFETY: boxed above, and no `BatchRef` of it is left.
            drop(unsafe { Box::from_raw(record.as_ptr()) });
        }
    });
}

// --- The mcaches of idle threads ---

/// What a slot has: this thread's mcache, or nothing.
const OWN: usize = 1;
const EMPTY: usize = 0;

/// A thread's slot and mcache, and how often the mcache was used.
struct Attached {
    slot: AtomicUsize,
    busy: Busy,
    registry: Mutex<()>,
    uses: UnsafeCell<usize>,
}

// SAFETY: `uses` is reached by the thread that is busy with it, or by who has taken it away: what the model checks.
unsafe impl Sync for Attached {}
// SAFETY: as above.
unsafe impl Send for Attached {}

impl Attached {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            slot: AtomicUsize::new(OWN),
            busy: Busy::new(),
            registry: Mutex::new(()),
            uses: UnsafeCell::new(0),
        })
    }

    fn touch(&self) {
        // SAFETY: the caller is the only one to do this at a time; the checker would say if not.
        self.uses.with_mut(|uses| unsafe { *uses += 1 });
    }

    /// A slow call of the owner, as `runtime::mcache` has it.
    fn call(&self) {
        loop {
            if self.slot.load(Relaxed) == EMPTY {
                let _registry = self.registry.lock();
                self.slot.store(OWN, Relaxed);
                continue;
            }
            self.busy.enter();
            let has_it = self.slot.load(Relaxed) == OWN;
            if has_it {
                self.touch();
            }
            self.busy.leave();
            if has_it {
                return;
            }
        }
    }

    /// As `runtime::idle` empties an mcache; whether it did.
    fn empty(&self) -> bool {
        let _registry = self.registry.lock();
        let is_taken = self
            .slot
            .compare_exchange(OWN, EMPTY, Relaxed, Relaxed)
            .is_ok();
        // The barrier in all threads; the owner's half is in `Busy::enter`.
        fence(loom::sync::atomic::Ordering::SeqCst);
        let is_free = is_taken && !self.busy.is_now();
        if is_free {
            self.touch();
        }
        is_free
    }
}

#[test]
fn an_mcache_is_never_emptied_in_the_middle_of_a_call_of_its_owner() {
    let emptied = Arc::new(GhostUsize::new(0));
    let left_alone = Arc::new(GhostUsize::new(0));
    let (of_model, of_others) = (Arc::clone(&emptied), Arc::clone(&left_alone));
    check(move || {
        let attached = Attached::new();
        let owner = {
            let attached = Arc::clone(&attached);
            thread::spawn(move || (0..2).for_each(|_| attached.call()))
        };
        let was_emptied = attached.empty();
        owner.join().unwrap();
        // SAFETY: the owner has ended.
        let uses = attached.uses.with(|uses| unsafe { *uses });
        assert_eq!(uses, 2 + usize::from(was_emptied));
        let count = if was_emptied { &of_model } else { &of_others };
        count.fetch_add(1, SeqCst);
    });
    assert!(emptied.load(SeqCst) > 0 && left_alone.load(SeqCst) > 0);
}
