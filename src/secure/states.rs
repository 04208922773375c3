//! A word for each slot of a span: what the program has, and of which size.
//!
//! The words lie in records of their own (`meta`), never beside objects. There are three lengths of tables;
//! one that is not used any more is kept for the next span.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::arena::SlotSpan;
use crate::base::size_class::{SLOTS_MAX, SizeClass};
use crate::meta;
use crate::mspan::MSpan;
use crate::sync::Mutex;
use crate::sync::atomic::{
    AtomicU16,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// The state of a slot. Its values:
///
/// | state | the object | its memory |
/// |---|---|---|
/// | [`UNKNOWN`](Self::UNKNOWN) | of a time before the mode was decided, or free | any |
/// | [`NEW`](Self::NEW) | never handed out | any |
/// | [`FREED`](Self::FREED) | freed | any |
/// | [`FILLED`](Self::FILLED) | freed | filled |
/// | live | the program's | with a canary behind it |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State(u16);

/// Set in the states of live objects; the bits below are what the object is shorter than its slot.
const LIVE: u16 = 1 << 15;

impl State {
    pub(super) const UNKNOWN: Self = Self(0);
    pub(super) const NEW: Self = Self(1);
    pub(super) const FREED: Self = Self(2);
    pub(super) const FILLED: Self = Self(3);

    /// An object that is so many bytes shorter than its slot: at most 8 KiB, the largest alignment.
    pub(super) fn live(slack_bytes: usize) -> Self {
        Self(LIVE | slack_bytes as u16)
    }

    /// By how many bytes a live object is shorter than its slot.
    pub(super) fn slack_bytes(self) -> Option<usize> {
        (self.0 & LIVE != 0).then_some(usize::from(self.0 & !LIVE))
    }
}

/// The states of a span's slots.
#[derive(Clone, Copy)]
pub(super) struct States {
    words: NonNull<AtomicU16>,
    slots: usize,
}

/// The state of one slot.
#[derive(Clone, Copy)]
pub(super) struct Word(&'static AtomicU16);

/// What lies at an offset in a span of slots.
pub(super) enum Spot {
    /// A slot, with its state.
    Slot(Word),
    /// A slot of a span that has no states.
    Stateless,
    /// The middle of a slot, or nothing.
    Inside,
}

impl Spot {
    /// What lies there.
    #[inline]
    pub(super) fn at(found: &SlotSpan, offset: u32) -> Self {
        let geometry = found.geometry;
        // Below is the remainder, times the reciprocal; see `arena::is_multiple`.
        let product = u64::from(offset) * u64::from(geometry.reciprocal);
        let slot = (product >> 32) as u32;
        if product as u32 >= geometry.reciprocal || slot >= geometry.slots {
            return Self::Inside;
        }
        // Acquire pairs with `States::make`: who has the table has what was written to it.
        match NonNull::new(found.span.table.load(Acquire)) {
            // SAFETY: the table of a span of this class has a word for each of its slots.
            Some(words) => Self::Slot(unsafe { Word::at(words, slot as usize) }),
            None => Self::Stateless,
        }
    }
}

impl Word {
    /// A word of a table.
    ///
    /// # Safety
    /// The table has that many words, and more.
    #[inline]
    unsafe fn at(words: NonNull<AtomicU16>, slot: usize) -> Self {
        // SAFETY: the caller's promise; tables live for ever (`meta`), and are only reached as atomics.
        Self(unsafe { words.add(slot).as_ref() })
    }

    /// Relaxed, as all here: who passes objects on between threads sees to the order.
    #[inline]
    pub(super) fn get(self) -> State {
        State(self.0.load(Relaxed))
    }

    /// Changes the state; the one before. By who is `alone` in the process, as far as it can tell: without a lock
    /// of the bus, which costs as much as all else that a free looks at. (A second thread that frees the same
    /// object in this moment, with its first call, may find it live as well; who allocates sees that.)
    #[inline]
    pub(super) fn replace(self, state: State, alone: bool) -> State {
        if alone {
            let before = self.get();
            self.set(state);
            return before;
        }
        State(self.0.swap(state.0, Relaxed))
    }

    /// Sets the state of a slot that is the caller's.
    #[inline]
    pub(super) fn set(self, state: State) {
        self.0.store(state.0, Relaxed);
    }
}

impl States {
    /// Those of a span of slots, not of tiny blocks, if it has any.
    #[inline]
    pub(super) fn of(span: &MSpan) -> Option<Self> {
        // Acquire pairs with `make`: who has the table has what was written to it.
        Some(Self {
            words: NonNull::new(span.table.load(Acquire))?,
            slots: span.class().geometry().slots as usize,
        })
    }

    /// Those of a span that has none, or had none: with all slots in this state. `None` if the system has no
    /// memory.
    #[cold]
    pub(super) fn make(span: &MSpan, state: State) -> Option<Self> {
        let size = TableSize::of(span.class());
        let table = size.take()?;
        let words = table.cast::<AtomicU16>();
        let states = Self {
            words,
            slots: span.class().geometry().slots as usize,
        };
        for word in states.all() {
            word.set(state);
        }
        let made = span
            .table
            .compare_exchange(ptr::null_mut(), words.as_ptr(), AcqRel, Acquire);
        if made.is_ok() {
            return Some(states);
        }
        size.put(table);
        Self::of(span)
    }

    /// Takes the table from a span that ends.
    pub(super) fn end(span: &MSpan) {
        let words = span.table.swap(ptr::null_mut(), Relaxed);
        if let Some(words) = NonNull::new(words) {
            TableSize::of(span.class()).put(words.cast());
        }
    }

    /// The state of a slot, if there is one with this number.
    pub(super) fn word(&self, slot: usize) -> Option<Word> {
        // SAFETY: the table has a word for each slot.
        (slot < self.slots).then(|| unsafe { Word::at(self.words, slot) })
    }

    /// The states of all slots.
    pub(super) fn all(&self) -> impl Iterator<Item = Word> {
        let states = *self;
        (0..states.slots).filter_map(move |slot| states.word(slot))
    }
}

/// Slots that tables have, and their number of lists.
const SLOTS: [usize; 3] = [64, 256, SLOTS_MAX];

/// Which of the lengths a table has.
#[derive(Clone, Copy)]
struct TableSize(usize);

/// A table that no span uses: the first bytes are the link to the next.
struct FreeTable(Option<NonNull<FreeTable>>);

/// Tables of one length that no span uses.
struct FreeTables(Option<NonNull<FreeTable>>);

// SAFETY: the tables in the list belong to the list alone.
unsafe impl Send for FreeTables {}

static FREE: [Mutex<FreeTables>; SLOTS.len()] =
    [const { Mutex::new(FreeTables(None)) }; SLOTS.len()];

/// A table as a record.
#[repr(C, align(64))]
struct Table<const N: usize>([u16; N]);

impl TableSize {
    fn of(class: SizeClass) -> Self {
        let slots = class.geometry().slots as usize;
        let longer = SLOTS.iter().position(|most| slots <= *most);
        Self(longer.unwrap_or(SLOTS.len() - 1))
    }

    /// A table with any contents.
    fn take(self) -> Option<NonNull<FreeTable>> {
        let mut free = FREE[self.0].lock();
        if let Some(table) = free.0 {
            // SAFETY: a table of the list, whose first bytes are its link.
            free.0 = unsafe { table.as_ref() }.0;
            return Some(table);
        }
        drop(free);
        match self.0 {
            0 => meta::alloc::<Table<{ SLOTS[0] }>>().map(NonNull::cast),
            1 => meta::alloc::<Table<{ SLOTS[1] }>>().map(NonNull::cast),
            _ => meta::alloc::<Table<{ SLOTS[2] }>>().map(NonNull::cast),
        }
    }

    fn put(self, table: NonNull<FreeTable>) {
        let mut free = FREE[self.0].lock();
        // SAFETY: nobody uses the table, which is long enough and aligned for the link.
        unsafe { table.write(FreeTable(free.0)) };
        free.0 = Some(table);
    }
}

pub(super) fn locks_come_free(deadline_ns: u64) -> bool {
    FREE.iter().all(|free| free.comes_free(deadline_ns))
}

pub(super) fn lock_for_fork() {
    for free in &FREE {
        free.lock_for_fork();
    }
}

/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(super) unsafe fn unlock_after_fork() {
    for free in &FREE {
        // SAFETY: the caller's contract.
        unsafe { free.unlock_after_fork() };
    }
}
