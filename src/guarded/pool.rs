//! The places of guarded objects: which there are, what is in each, and which is used next.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::object::Trace;
use crate::base::fatal::Crime;
use crate::base::pace::Pace;
use crate::base::size_class::SizeClass;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Guard, Mutex};
use crate::{config, meta, sys};

/// Bytes of all places: address space, of which little has memory.
const POOL_BYTES: usize = 2 << 20;
/// Bytes from one place to the next, on systems with pages of 4 KiB: two pages without access, the page of the
/// object, and another one without. Larger pages have one before and one behind.
const PLACE_BYTES: usize = 16 << 10;
/// Most places.
const PLACES: usize = POOL_BYTES / PLACE_BYTES;
/// The largest page of a system: there is one without access behind the last place.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// Address space that is reserved.
const RESERVED_BYTES: usize = POOL_BYTES + PAGE_BYTES_MAX;
/// Most bytes of pages that objects lie in: 320 KiB, so that with the records it is less than half a MiB, and of
/// 128 places 48 hold only what was freed.
const LIVE_BYTES_MAX: usize = 320 << 10;
/// With less address space than that, none of it goes to guarded objects: 256 MiB.
const ADDRESS_SPACE_MIN: usize = 256 << 20;
/// One part of so many of a CPU's time may go to guarded objects, at the default rate.
const COST_DIVISOR: u64 = 400;
/// Of which so much may be saved up, and is there at the start: 0.1 ms, some ten objects, so that a program that
/// runs for 20 ms loses no larger part of its time.
const COST_SAVED_NS: i64 = 100_000;
/// What [`MINUS_BASE`] is before there is a base: no address of a program is near.
const NO_BASE: usize = 1 << 63;

const _: () = assert!(size_of::<[Place; PLACES]>() + LIVE_BYTES_MAX < 512 << 10);

/// Where the places begin, negated: an addition to the address needs no copy of it. **Written under the `POOL`
/// lock, read by anyone; atomic.** Set once. Relaxed: who has an object of a place got it after that.
static MINUS_BASE: AtomicUsize = AtomicUsize::new(NO_BASE);

static POOL: Mutex<Pool> = Mutex::new(Pool::NONE);

/// Whether an address is in the pool, in an object or beside one.
#[inline(always)] // Part of the fast paths of Rust's frees.
pub(crate) fn contains(address: usize) -> bool {
    address.wrapping_add(MINUS_BASE.load(Relaxed)) < RESERVED_BYTES
}

/// Whether there was a guarded object yet.
pub(super) fn has_begun() -> bool {
    MINUS_BASE.load(Relaxed) != NO_BASE
}

/// Takes the lock.
pub(super) fn lock() -> Guard<'static, Pool> {
    POOL.lock()
}

/// What became of a place. Zero is a valid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// No object was in it.
    Unused,
    /// An object is.
    Live,
    /// One was.
    Freed,
}

/// A place. Zero bytes are valid. **Under the `POOL` lock.**
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) state: State,
    /// The object that is or was there.
    pub(super) object: usize,
    pub(super) bytes: usize,
    pub(super) class: SizeClass,
    pub(super) allocated: Trace,
    pub(super) freed: Trace,
}

impl Place {
    /// How far an address is from the object.
    fn distance(&self, address: usize) -> usize {
        let last = self.object + (self.bytes - 1);
        match address {
            _ if address < self.object => self.object - address,
            _ => address.saturating_sub(last),
        }
    }

    /// What is wrong with a free of an address here, of an object of `bytes` if that is said.
    pub(super) fn crime(&self, address: usize, bytes: Option<usize>) -> Option<Crime> {
        let is_start = address == self.object;
        match self.state {
            State::Unused => Some(Crime::ForeignPointer),
            State::Freed if is_start => Some(Crime::DoubleFree),
            State::Freed => Some(Crime::FreeMemory),
            State::Live if !is_start => Some(Crime::InteriorPointer),
            State::Live if bytes.is_some_and(|bytes| bytes != self.bytes) => Some(Crime::WrongSize),
            State::Live => None,
        }
    }
}

/// A place that was taken, or an object's.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) index: usize,
    /// Its page, and the bytes of that.
    pub(super) page: NonNull<u8>,
    pub(super) page_bytes: usize,
    /// For whatever is decided by chance.
    pub(super) random: u64,
}

pub(super) struct Pool {
    /// Fixed once there are places.
    base: Option<NonNull<u8>>,
    places: Option<NonNull<[Place; PLACES]>>,
    /// Whether the system has refused to reserve the places.
    is_refused: bool,
    place_bytes: usize,
    count: usize,
    live_max: usize,
    /// The free places, the one that was freed first at `head`.
    queue: [u8; PLACES],
    head: usize,
    queued: usize,
    pace: Pace<COST_DIVISOR, COST_SAVED_NS>,
    random: u64,
}

// SAFETY: the places belong to the pool, and are reached under its lock.
unsafe impl Send for Pool {}

impl Pool {
    const NONE: Self = Self {
        base: None,
        places: None,
        is_refused: false,
        place_bytes: PLACE_BYTES,
        count: 0,
        live_max: 0,
        queue: [0; PLACES],
        head: 0,
        queued: 0,
        pace: Pace::new(),
        random: 0,
    };

    /// Takes the place that is free for the longest time. `None` if so many objects are guarded as may be, at the
    /// default rate if there is no time for it, and if the system refuses.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<Taken> {
        self.pace.earn(now_ns);
        if !config::guarded_is_asked() && !self.pace.has_time() {
            return None;
        }
        if self.base.is_none() {
            self.reserve(now_ns)?;
        }
        if self.count - self.queued >= self.live_max {
            return None;
        }
        let index = usize::from(*self.queue.get(self.head)?);
        self.head = (self.head + 1) % self.count;
        self.queued -= 1;
        self.taken(index)
    }

    /// Gives a place back, after work that took so long.
    pub(super) fn put(&mut self, index: usize, cost_ns: u64) {
        self.spend(cost_ns);
        if let Some(place) = self.queue.get_mut((self.head + self.queued) % self.count) {
            *place = index as u8;
            self.queued += 1;
        }
    }

    /// Accounts for work that took so long.
    pub(super) fn spend(&mut self, cost_ns: u64) {
        self.pace.spend(cost_ns);
    }

    #[cold]
    fn reserve(&mut self, now_ns: u64) -> Option<()> {
        if self.is_refused {
            return None;
        }
        self.is_refused = true;
        if sys::address_space_bytes().is_some_and(|bytes| bytes < ADDRESS_SPACE_MIN) {
            return None;
        }
        let page_bytes = sys::page_bytes();
        self.place_bytes = PLACE_BYTES.max(2 * page_bytes);
        self.count = POOL_BYTES / self.place_bytes;
        self.live_max = LIVE_BYTES_MAX / page_bytes;
        let base = sys::reserve(RESERVED_BYTES, page_bytes, false)?;
        let Some(places) = meta::alloc() else {
            // SAFETY: reserved just now, and nobody else knows it.
            unsafe { sys::unmap(base, RESERVED_BYTES) };
            return None;
        };
        meta::add_mapping(RESERVED_BYTES);
        for (index, place) in self.queue.iter_mut().enumerate() {
            *place = index as u8;
        }
        self.queued = self.count;
        self.random = now_ns ^ base.addr().get() as u64 | 1;
        (self.base, self.places) = (Some(base), Some(places));
        MINUS_BASE.store(base.addr().get().wrapping_neg(), Relaxed);
        Some(())
    }

    fn taken(&mut self, index: usize) -> Option<Taken> {
        // Xorshift (Marsaglia, "Xorshift RNGs", 2003), and a multiplication for the upper bits.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let offset = index * self.place_bytes + self.place_bytes / 2;
        Some(Taken {
            index,
            // SAFETY: less than `POOL_BYTES`, inside the reservation.
            page: unsafe { self.base?.add(offset) },
            page_bytes: sys::page_bytes(),
            random: self.random.wrapping_mul(0x2545_f491_4f6c_dd1d),
        })
    }

    pub(super) fn place(&mut self, index: usize) -> Option<&mut Place> {
        // SAFETY: records live for ever; the lock, whose guard this borrows, makes the reference unique.
        unsafe { self.places?.as_mut() }.get_mut(index)
    }

    /// The place whose page has an address, or the byte behind it.
    pub(super) fn at(&mut self, address: usize) -> Option<Taken> {
        let offset = address.wrapping_sub(self.base?.addr().get());
        self.taken(offset / self.place_bytes)
            .filter(|taken| taken.index < self.count)
    }

    /// The place whose object, live or freed, is nearest to an address in the pool.
    pub(super) fn nearest(&mut self, address: usize) -> Option<&Place> {
        let index = self
            .at(address)
            .map_or(self.count.saturating_sub(1), |taken| taken.index);
        let places = self.places?;
        // SAFETY: as in `place`.
        let places = unsafe { places.as_ref() };
        places
            .iter()
            .take((index + 2).min(self.count))
            .skip(index.saturating_sub(1))
            .filter(|place| place.state != State::Unused)
            .min_by_key(|place| place.distance(address))
    }
}

/// Whether the lock of this floor comes free in time: see [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    POOL.comes_free(deadline_ns)
}

/// For `fork`: the lock of this floor.
pub(crate) fn lock_for_fork() {
    POOL.lock_for_fork();
}

/// For `fork`: gives the lock back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { POOL.unlock_after_fork() };
}
