//! mimalloc's stress test.
//!
//! After "mstress" in Leijen, Zorn and de Moura, "Mimalloc: Free List Sharding in Action" (APLAS
//! 2019): threads allocate arrays of mixed sizes, a few of them large, keep some to their end, free
//! most others at random, and swap some with an array of slots that all threads share, so that
//! objects wander between threads. All threads end after a round, and others start.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::shared::together;
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

/// Slots that all threads share.
const SHARED: usize = 1000;
/// Rounds after which the shared slots are emptied.
const ROUNDS_SHARED: u64 = 10;
/// Arrays that a thread allocates in a round to free or swap them, times its weight.
const TEMPORARY: usize = 2000;
/// Arrays that a thread allocates in a round and keeps to its end, times its weight.
const KEPT: usize = TEMPORARY / 2;

const fn mstress(name: &'static str, threads: usize, run: fn(&Size, &mut Meter)) -> Workload {
    Workload {
        name,
        about: "threads free, keep and swap arrays of 8 B to 1.3 MB, and end after a round (mimalloc)",
        operation: "allocation and free of one array, all of it written and checked",
        threads,
        threads_can_be_chosen: false,
        run,
    }
}

pub const MSTRESS_2: Workload = mstress("mstress-2", 2, |size, meter| {
    stress(size.threads, size.of(600), meter);
});
pub const MSTRESS_16: Workload = mstress("mstress-16", 16, |size, meter| {
    stress(size.threads, size.of(40), meter);
});

fn stress(threads: usize, rounds: u64, meter: &mut Meter) {
    let shared = [const { AtomicPtr::new(ptr::null_mut()) }; SHARED];
    meter.run(|| {
        let mut operations = 0;
        for round in 1..=rounds {
            let states = (0..threads).map(|_| &shared).collect();
            operations += together(states, |number, shared| {
                let seed = round * 1000 + number as u64;
                // Threads have unequal parts, up to eight times that of the first.
                Thread::new(seed, shared).run(number % 8 + 1)
            });
            if round % ROUNDS_SHARED == 0 || round == rounds {
                for slot in &shared {
                    drop(swap(slot, None));
                }
            }
        }
        operations
    });
}

/// One thread in one round.
struct Thread<'a> {
    random: Random,
    shared: &'a [AtomicPtr<u64>; SHARED],
    temporary: Vec<Option<Words>>,
    kept: Vec<Words>,
}

impl<'a> Thread<'a> {
    fn new(seed: u64, shared: &'a [AtomicPtr<u64>; SHARED]) -> Self {
        Self {
            random: Random::new(seed),
            shared,
            temporary: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Returns the number of arrays that it allocated.
    fn run(mut self, weight: usize) -> u64 {
        let mut temporary_left = TEMPORARY * weight;
        let mut kept_left = KEPT * weight;
        while temporary_left + kept_left > 0 {
            let words = Words::new(self.len(), &mut self.random);
            if temporary_left > 0 && (kept_left == 0 || self.percent(50)) {
                self.temporary.push(Some(words));
                temporary_left -= 1;
            } else {
                self.kept.push(words);
                kept_left -= 1;
            }
            if self.temporary.is_empty() {
                continue;
            }
            if self.percent(66) {
                self.any_temporary().take();
            }
            if self.percent(25) {
                let slot = &self.shared[self.random.below(SHARED)];
                let place = self.any_temporary();
                *place = swap(slot, place.take());
            }
        }
        ((TEMPORARY + KEPT) * weight) as u64
    }

    /// Words of an array: 1 to 16, but for one of a hundred, which is 100 times as long, or, one in
    /// ten of these, 1,000 times, or, one in a hundred, 10,000 times.
    fn len(&mut self) -> usize {
        let len = 1 << self.random.below(5);
        match self.random.below(10_000) {
            0 => len * 10_000,
            1..=10 => len * 1000,
            11..=100 => len * 100,
            _ => len,
        }
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn any_temporary(&mut self) -> &mut Option<Words> {
        let index = self.random.below(self.temporary.len());
        &mut self.temporary[index]
    }
}

/// An array of zeroed memory, whose words are then its length and numbers that follow from the second
/// word. Checked when it is dropped.
struct Words(Box<[u64]>);

impl Words {
    fn new(len: usize, random: &mut Random) -> Self {
        let mut words = vec![0; len].into_boxed_slice();
        assert!(
            words.iter().all(|&word| word == 0),
            "zeroed memory is not zero"
        );
        let seed = random.next();
        words
            .iter_mut()
            .zip(0..)
            .for_each(|(word, index)| *word = seed.wrapping_add(index));
        words[0] = len as u64;
        Self(words)
    }

    /// Its first word, which is its length. The other one of the pair is [`Words::from_thin`].
    fn into_thin(mut self) -> *mut u64 {
        Box::into_raw(std::mem::take(&mut self.0)).cast()
    }

    /// # Safety
    ///
    /// * `first` is from [`Words::into_thin`].
    /// * It is given once.
    unsafe fn from_thin(first: *mut u64) -> Self {
        // SAFETY: `into_thin` made it of a boxed slice of as many words as the first one says, and
        // nothing else has that box.
        unsafe {
            let len = first.read() as usize;
            Self(Box::from_raw(ptr::slice_from_raw_parts_mut(first, len)))
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // `into_thin` leaves an empty slice.
        let Some((&len, rest)) = self.0.split_first() else {
            return;
        };
        let intact = len == 1 + rest.len() as u64
            && rest
                .windows(2)
                .all(|pair| pair[1] == pair[0].wrapping_add(1));
        assert!(intact, "an array was overwritten");
    }
}

/// Puts an array, or none, into a shared slot, and takes what was there.
fn swap(slot: &AtomicPtr<u64>, words: Option<Words>) -> Option<Words> {
    let new = words.map_or(ptr::null_mut(), Words::into_thin);
    // Pairs with the same swap by another thread: its writes to the array are visible with the pointer.
    let old = slot.swap(new, Ordering::AcqRel);
    if old.is_null() {
        return None;
    }
    // SAFETY: all pointers in the slots are from `into_thin`, and the swap gave this one to us alone.
    Some(unsafe { Words::from_thin(old) })
}
