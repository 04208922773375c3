//! Taking samples: what the floors below call, and the profile that comes of it.
//!
//! An allocation that comes to its thread's sample point ([`sampling`]) is noted with its stack ([`stack`]) in
//! a table of bounded size ([`table`]). To see the free of a sample without a look at every free, an object
//! of a class that is sampled is placed at a multiple of [`SAMPLE_ALIGN`] (large ones are marked in their
//! span's record). Objects at such addresses never leave a magazine by the fast path, which tests the lowest
//! bits of what it pops instead of all of them. So who gets one asks whether a sample ended there; who frees
//! objects to a span that had a sample asks as well; and those that wait in magazines and depots are found
//! when a profile is taken.
//!
//! An aligned object for the next sample is kept for each class ([`slots`]), or made with a fresh span that
//! begins at such an address, whose other slots are used like all others.

#![allow(unsafe_code)]

use std::vec::Vec;

use super::snapshot::{Amount, Lifetime, Row, Snapshot};
use super::stack::{self, Stacks};
use super::{SAMPLE_ALIGN, print, sampling, slots, table};
use crate::arena::{Place, place_of};
use crate::base::size_class::SizeClass;
use crate::config::{self, PROFILE_RATE_DEFAULT, Report};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys::caller::Caller;
use crate::{mcache, mcentral, runtime, sys};

/// Counts an allocation that did not come by the fast path: `object`, of `class`, for a request of `size`
/// bytes. The object that the program gets; null if `object` is.
pub(crate) fn count(object: *mut u8, class: SizeClass, size: usize, caller: Caller) -> *mut u8 {
    let magazines = runtime::magazines();
    // A thread without an mcache has none to count with; its objects are few.
    if object.is_null() || magazines.mcache.get().is_none() || !magazines.counts_down(size) {
        return object;
    }
    sampled(object, class, size, caller)
}

/// Takes a sample, if the thread is not just beginning: `object`, of `class`, for a request of `size` bytes.
/// The object that the program gets instead.
#[cold]
#[inline(never)]
pub(crate) fn sampled(object: *mut u8, class: SizeClass, size: usize, caller: Caller) -> *mut u8 {
    let sampling = &runtime::magazines().sampling;
    let rate = rate();
    let start_ns = sys::now_ns();
    let Some(drawn_with) = sampling.begin(rate, start_ns ^ object.addr() as u64) else {
        return object;
    };
    STARTED_NS
        .compare_exchange(0, start_ns, Relaxed, Relaxed)
        .ok();
    let weight = sampling::weight(size, drawn_with);
    let placed = match class {
        SizeClass::NONE => mark_large(object),
        _ => slots::exchange(object, class).map(|place| (place, class.object_bytes())),
    };
    let (object, bytes) = placed.unwrap_or((object, 0));
    if bytes == 0 {
        table::dropped();
    } else {
        let amount = Amount {
            objects: weight,
            bytes: weight * bytes as f64,
        };
        let class_bytes = if class == SizeClass::NONE { 0 } else { bytes };
        let stack = stack::capture(caller, stacks());
        let name = sys::thread_name();
        table::add(object.addr(), amount, class_bytes, name, &stack, start_ns);
    }
    sampling.end(rate, is_paced(), start_ns, sys::now_ns());
    object
}

/// Marks a large object as a sample; it, and its bytes.
fn mark_large(object: *mut u8) -> Option<(*mut u8, usize)> {
    let Place::Live(span) = place_of(object.addr()) else {
        return None;
    };
    span.set_sampled(true);
    Some((object, span.bytes()))
}

/// The object is free, or handed out anew: if it was a sample, it is none any more.
#[inline]
pub(crate) fn freed(object: *mut u8) {
    if table::may_have(object.addr()) {
        table::remove(object.addr(), sys::now_ns(), u64::MAX);
    }
}

/// Of these objects, which were freed to a span that had samples, those are none any more that were.
#[cold]
pub(crate) fn freed_to_span(objects: &[*mut u8]) {
    for object in objects {
        if object.addr().is_multiple_of(SAMPLE_ALIGN) {
            freed(*object);
        }
    }
}

/// After the line about a crime at an address: the stack of the allocation, if that was sampled. Whoever calls
/// may hold any lock but those of this floor.
pub(crate) fn tell_of(address: usize) {
    let deadline_ns = sys::now_ns() + print::PATIENCE_NS;
    if let Some((frames, len)) = table::stack_of(address, deadline_ns) {
        let frames = frames.get(..len).unwrap_or_default();
        print::stack("allocated", None, frames, print::First::Returns);
    }
}

/// A large object that is a sample has another place and length.
pub(crate) fn resized(old: *mut u8, new: *mut u8, bytes: usize) {
    table::change(old.addr(), new.addr(), bytes);
}

/// When the first sample was due. **Any thread; atomic.**
static STARTED_NS: AtomicU64 = AtomicU64::new(0);

/// The profile now. Allocates, so the caller holds no lock.
pub(crate) fn snapshot() -> Snapshot {
    find_freed();
    let mut rows = Vec::new();
    table::for_each(|told| {
        let row = |lifetime, allocated, in_use, peak| Row {
            frames: told.frames[..told.len].to_vec(),
            stack: told.kind,
            thread: told
                .key
                .thread
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default()
                .to_vec(),
            class_bytes: told.key.class_bytes,
            lifetime,
            allocated,
            in_use,
            peak,
        };
        let none = Amount::default();
        let sums = &told.sums;
        if sums.live != none || sums.peak != none {
            rows.push(row(Lifetime::Live, sums.live, sums.live, sums.peak));
        }
        for (lifetime, freed) in Lifetime::OF_FREED.into_iter().zip(sums.freed) {
            if freed != none {
                rows.push(row(lifetime, freed, none, none));
            }
        }
    });
    let now_ns = sys::now_ns();
    Snapshot {
        rows,
        rate_bytes: rate() as usize,
        dropped: table::dropped_count(),
        taken_at_ns: sys::wall_clock_ns(),
        duration_ns: match STARTED_NS.load(Relaxed) {
            0 => 0,
            start_ns => now_ns.saturating_sub(start_ns) as i64,
        },
    }
}

/// Finds samples that were freed and wait in magazines or depots to be handed out again.
fn find_freed() {
    let begin_ns = sys::now_ns();
    let look = |address: usize| {
        if address.is_multiple_of(SAMPLE_ALIGN) && address != 0 && table::may_have(address) {
            // One that was handed out and sampled meanwhile is another one.
            table::remove(address, begin_ns, begin_ns);
        }
    };
    let mut copy = Vec::new();
    for mcache in mcache::all() {
        mcache.waiting(&mut copy);
        copy.iter().for_each(|address| look(*address));
    }
    mcentral::for_each_in_depots(|object| look(object.addr()));
}

pub(crate) use table::{lock_for_fork, locks_come_free};

/// For `fork`: gives the lock back.
///
/// # Safety
/// As for [`crate::sync::Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { table::unlock_after_fork() };
}

fn rate() -> u64 {
    config::profile_rate() as u64
}

/// A distance that somebody asked for is kept.
fn is_paced() -> bool {
    rate() == PROFILE_RATE_DEFAULT as u64
}

/// The unwinder is for those who have asked for a profile; a library that is preloaded everywhere must not meet
/// unwind tables that nobody has tried.
fn stacks() -> Stacks {
    let is_asked = cfg!(not(feature = "preload")) || config::triggers(Report::Profile).are_any();
    if is_asked {
        Stacks::Verified
    } else {
        Stacks::FramePointers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::malloc;
    use std::string::String;
    use std::thread;

    const RATE: u64 = 8 << 10;
    const SIZES: [usize; 6] = [16, 24, 600, 3000, 20_000, 200_000];

    #[inline(never)]
    fn alloc(size: usize) -> usize {
        let object = malloc::alloc(size, 8);
        assert!(!object.is_null());
        // SAFETY: the object has at least that byte.
        unsafe { object.write(1) };
        object.expose_provenance()
    }

    fn free(object: usize, size: usize) {
        // SAFETY: the tests free what they allocated with that size, once.
        unsafe { malloc::free(core::ptr::with_exposed_provenance_mut(object), size, 8) }
    }

    /// Of a thread: live objects and bytes, and those ever allocated.
    fn of(name: &str) -> (Amount, Amount) {
        let mut sums = (Amount::default(), Amount::default());
        for row in snapshot().rows {
            if String::from_utf8_lossy(&row.thread) == name {
                // Preloaded and not asked, it follows frame pointers alone, which optimised code has not.
                let follows = cfg!(debug_assertions) || cfg!(not(feature = "preload"));
                let least = 1 + usize::from(follows);
                assert!(row.frames.len() >= least, "{:x?}", row.frames);
                sums.0.objects += row.in_use.objects;
                sums.0.bytes += row.in_use.bytes;
                sums.1.objects += row.allocated.objects;
                sums.1.bytes += row.allocated.bytes;
            }
        }
        sums
    }

    fn assert_near(estimate: f64, truth: f64, most: f64, what: &str) {
        let error = (estimate - truth).abs() / truth;
        assert!(error <= most, "{what}: {estimate} instead of {truth}");
    }

    /// Allocates objects of skewed sizes, frees most of them in another order, and lets others live.
    fn work(name: &'static str, round: usize) {
        let mut live: Vec<(usize, usize)> = Vec::new();
        let mut allocated = 0;
        let mut random = 1_usize;
        for index in 0..60_000_usize {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(round);
            let size = SIZES[(random >> 60) % 4 + usize::from(random >> 33 & 63 == 0) * 2];
            allocated += bytes_of(size);
            live.push((alloc(size), size));
            // Half of the time what was just allocated goes at once.
            let freed = match index % 4 {
                0 => live.len() - 1,
                1 => continue,
                _ => random % live.len(),
            };
            let (object, size) = live.swap_remove(freed);
            free(object, size);
        }
        let truth: usize = live.iter().map(|(_, size)| bytes_of(*size)).sum();
        let (in_use, ever) = of(name);
        // 5 sigma: once in a million times, chance is further off.
        let sigma = |bytes: usize| (RATE as f64 / bytes as f64).sqrt();
        assert_near(in_use.bytes, truth as f64, 5.0 * sigma(truth), "live");
        assert_near(
            ever.bytes,
            allocated as f64,
            5.0 * sigma(allocated),
            "allocated",
        );
        for (object, size) in live {
            free(object, size);
        }
        let (in_use, _) = of(name);
        assert!(in_use.bytes < 1.0, "{} left", in_use.bytes);
    }

    fn bytes_of(size: usize) -> usize {
        match crate::base::size_class::class_for(size, 8) {
            SizeClass::NONE => size.next_multiple_of(crate::base::PAGE_BYTES),
            class => class.object_bytes(),
        }
    }

    #[test]
    fn a_profile_tells_what_lives_and_what_was_allocated() {
        alone(|| {
            config::set_profile_rate(RATE as usize);
            for (round, name) in ["prof-a", "prof-b", "prof-c"].into_iter().enumerate() {
                let thread = thread::Builder::new().name(name.into());
                thread
                    .spawn(move || work(name, round))
                    .unwrap()
                    .join()
                    .unwrap();
            }
        });
    }
}
