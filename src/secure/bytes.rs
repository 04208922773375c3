//! What is written into objects that the program does not have, and behind those that it has.
//!
//! The *canary* is a word that depends on a secret of the process and on the address, none of whose bytes is
//! zero, so that the zero at the end of a string does not pass. It fills the words from the last byte of the
//! object to the end of the slot; of the first word, what the object leaves. A wrong byte passes with the
//! chance 1 in 255.

#![allow(unsafe_code)]

use core::ptr;

use crate::config::Secure;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sys;

/// **Any thread; atomic.** Set once, before the first canary.
static SECRET: AtomicU64 = AtomicU64::new(0);

/// What freed objects are filled with: a word of it is an address that no program can have. Not a constant, of
/// which the compiler would make calls of the C library. **Any thread; atomic.** Set once, as the secret.
static FILLING: AtomicU64 = AtomicU64::new(0xd9d9_d9d9_d9d9_d9d9);
/// Words that are filled or verified at once, as vectors.
const LANES: usize = 4;
/// The same for many words: what keeps the processor's ports busy.
const MANY_LANES: usize = 16;
/// Largest objects that are filled here, by a few instructions; others by the C library.
pub(super) const SHORT_BYTES: usize = 512;
const WORD_BYTES: usize = size_of::<u64>();

// The lowest bytes of a word come first.
const _: () = assert!(cfg!(target_endian = "little"));

/// Whether the processor has vectors of 32 bytes. **Any thread; atomic.** Set once, as the secret.
#[cfg(target_arch = "x86_64")]
static HAS_AVX2: AtomicBool = AtomicBool::new(false);

/// Gets ready for a mode.
pub(super) fn begin(mode: Secure) {
    #[cfg(target_arch = "x86_64")]
    HAS_AVX2.store(std::arch::is_x86_feature_detected!("avx2"), Relaxed);
    SECRET.store(sys::random(), Relaxed);
    if mode.has(Secure::ZERO) {
        FILLING.store(0, Relaxed);
    }
}

/// The canary of an object.
fn canary(object: *mut u8) -> u64 {
    let mixed = (SECRET.load(Relaxed) ^ object.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32 | 0x0101_0101_0101_0101
}

/// Writes the canary behind `size` bytes of an object, up to `end_bytes`, a multiple of a word that is more.
///
/// # Safety
/// The object begins at a word, has `end_bytes`, and is the caller's.
#[inline(always)] // Of a few instructions where it is used.
pub(super) unsafe fn set_canary(object: *mut u8, size: usize, end_bytes: usize) {
    let canary = canary(object);
    let (first, last) = (size / WORD_BYTES, end_bytes / WORD_BYTES - 1);
    let keeps = !(u64::MAX << (size % WORD_BYTES * 8));
    let words = object.cast::<u64>();
    // SAFETY: the words from `first` to `last` lie in the object. Bytes of the program are written as they
    // were, and those of a fresh object may be anything: memory from the system is initialised.
    unsafe {
        let word = words.add(first);
        let there = word.read();
        words.add(last).write(canary); // Often the same word, or the next.
        word.write(there & keeps | canary & !keeps);
        for index in first + 1..last {
            words.add(index).write(canary);
        }
    }
}

/// Whether the canary behind `size` bytes is as it was written.
///
/// # Safety
/// As for [`set_canary`].
#[inline(always)] // Of a few instructions where it is used.
pub(super) unsafe fn canary_lives(object: *mut u8, size: usize, end_bytes: usize) -> bool {
    let canary = canary(object);
    let (first, end) = (size / WORD_BYTES, end_bytes / WORD_BYTES);
    let keeps = !(u64::MAX << (size % WORD_BYTES * 8));
    let words = object.cast::<u64>();
    // SAFETY: as in `set_canary`.
    unsafe {
        let mut differs = (words.add(first).read() ^ canary) & !keeps;
        for index in first + 1..end {
            differs |= words.add(index).read() ^ canary;
        }
        differs == 0
    }
}

/// Fills a freed object. `bytes` is a multiple of a word, at least one.
///
/// # Safety
/// The object begins at a word, has that many bytes, and is the caller's.
#[inline(always)] // Of a few instructions where it is used.
pub(super) unsafe fn fill(object: *mut u8, bytes: usize) {
    let filling = FILLING.load(Relaxed);
    let (words, count) = (object.cast::<u64>(), bytes / WORD_BYTES);
    if bytes > SHORT_BYTES {
        // SAFETY: the caller's promise; here and below. All bytes of the word are the same.
        return unsafe { object.write_bytes(filling as u8, bytes) };
    }
    if count < LANES {
        // SAFETY: as above: these are all.
        return unsafe {
            words.write(filling);
            words.add(count / 2).write(filling);
            words.add(count - 1).write(filling);
        };
    }
    // SAFETY: as above.
    let fill_at = |word| unsafe {
        words
            .add(word)
            .cast::<[u64; LANES]>()
            .write([filling; LANES])
    };
    let mut word = 0;
    while word + LANES < count {
        fill_at(word);
        word += LANES;
    }
    fill_at(count - LANES); // It may overlap those before: no loop for a remainder.
}

/// Whether a freed object is as it was filled. `bytes` is a multiple of a word, at least one.
///
/// # Safety
/// As for [`fill`].
#[inline(always)] // Of a few instructions where it is used.
pub(super) unsafe fn is_filled(object: *mut u8, bytes: usize) -> bool {
    let filling = FILLING.load(Relaxed);
    let (words, count) = (object.cast::<u64>(), bytes / WORD_BYTES);
    if bytes > SHORT_BYTES {
        // SAFETY: the caller's promise, here and below.
        return unsafe { are_many(words, count, filling) };
    }
    if count < LANES {
        // SAFETY: as above; memory of the heap is initialised.
        let differs = |word| unsafe { words.add(word).read() ^ filling };
        return differs(0) | differs(count / 2) | differs(count - 1) == 0;
    }
    // SAFETY: as above.
    unsafe { are::<LANES>(words, count, filling) }
}

/// Whether so many words, at least `N`, are all as expected. `N` at a time, without a way out between: so the
/// compiler makes vectors of them.
///
/// # Safety
/// They are the caller's, and memory of the heap: initialised.
#[inline(always)] // For the instructions that the caller has.
unsafe fn are<const N: usize>(words: *const u64, count: usize, expected: u64) -> bool {
    let mut differs = [0; N];
    let mut word = 0;
    while word + N < count {
        // SAFETY: the caller's promise, here and below.
        differs = unsafe { also_differs(differs, words.add(word), expected) };
        word += N;
    }
    // SAFETY: as above. They may overlap those before, as in `fill`.
    differs = unsafe { also_differs(differs, words.add(count - N), expected) };
    differs == [0; N]
}

/// Also the bits in which `N` words differ from the expected one.
///
/// # Safety
/// As for [`are`].
#[inline(always)] // As above.
unsafe fn also_differs<const N: usize>(
    mut differs: [u64; N],
    words: *const u64,
    expected: u64,
) -> [u64; N] {
    // SAFETY: the caller's promise.
    let words = unsafe { words.cast::<[u64; N]>().read() };
    for (differs, word) in differs.iter_mut().zip(words) {
        *differs |= word ^ expected;
    }
    differs
}

/// As [`are`], for many words.
///
/// # Safety
/// As for [`are`].
#[inline(never)]
unsafe fn are_many(words: *const u64, count: usize, expected: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if HAS_AVX2.load(Relaxed) {
        // SAFETY: the processor has it; the caller's promise.
        return unsafe { are_many_avx2(words, count, expected) };
    }
    // SAFETY: the caller's promise.
    unsafe { are::<MANY_LANES>(words, count, expected) }
}

/// As [`are_many`], with vectors of twice the length: half the time where the words are in a cache.
///
/// # Safety
/// As for [`are`]; the processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn are_many_avx2(words: *const u64, count: usize, expected: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { are::<MANY_LANES>(words, count, expected) }
}

/// Clears an object for the program.
///
/// # Safety
/// As for [`fill`].
#[inline(always)] // Of a few instructions where it is used.
pub(super) unsafe fn clear(object: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { object.write_bytes(0, bytes) };
}

/// Copies what an object has to a new one.
///
/// # Safety
/// Two different objects of at least that many bytes: the program gives up the first one, and does not know the
/// second yet.
pub(super) unsafe fn copy(from: *mut u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, bytes) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Every length of slots up to a few vectors beyond what is filled here, and some beyond.
    fn lengths() -> impl Iterator<Item = usize> {
        (1..=SHORT_BYTES / WORD_BYTES + 20).chain([120, 256])
    }

    fn bytes_of(words: &mut [u64]) -> (*mut u8, usize) {
        (words.as_mut_ptr().cast(), size_of_val(words))
    }

    #[test]
    fn all_words_are_filled_and_none_beside_them() {
        for count in lengths() {
            let mut words: Vec<u64> = (0..count as u64 + 2).collect();
            let (object, bytes) = bytes_of(&mut words[1..=count]);
            // SAFETY: the words are ours.
            unsafe { fill(object, bytes) };
            let filling = FILLING.load(Relaxed);
            assert!(words[1..=count].iter().all(|word| *word == filling));
            assert_eq!((words[0], words[count + 1]), (0, count as u64 + 1));
        }
    }

    #[test]
    fn a_change_of_any_byte_is_seen_by_each_way_to_look() {
        for count in lengths() {
            let mut words = std::vec![0; count];
            let (object, bytes) = bytes_of(&mut words);
            // SAFETY: the words are ours, here and below.
            let is_filled = || unsafe { is_filled(object, bytes) };
            // SAFETY: as above.
            unsafe { fill(object, bytes) };
            assert!(is_filled());
            for byte in 0..bytes {
                // SAFETY: as above.
                let byte = unsafe { &mut *object.add(byte) };
                *byte ^= 0x10;
                let is_seen = !is_filled();
                // What a processor without long vectors does.
                let filling = FILLING.load(Relaxed);
                // SAFETY: as above.
                let is_seen_without = count < MANY_LANES
                    || !unsafe { are::<MANY_LANES>(object.cast(), count, filling) };
                *byte ^= 0x10;
                assert!(is_seen && is_seen_without, "{count} words");
            }
        }
    }

    #[test]
    fn a_change_of_any_byte_behind_the_object_is_seen_and_none_of_the_object_is_changed() {
        for count in 1..20 {
            let mut words = std::vec![0x1111_1111_1111_1111_u64; count];
            let (object, bytes) = bytes_of(&mut words);
            for size in 0..bytes {
                // SAFETY: the words are ours, here and below.
                unsafe { object.write_bytes(0x11, bytes) };
                // SAFETY: as above.
                unsafe { set_canary(object, size, bytes) };
                // SAFETY: as above.
                let lives = || unsafe { canary_lives(object, size, bytes) };
                for byte in 0..bytes {
                    // SAFETY: as above.
                    let there = unsafe { &mut *object.add(byte) };
                    assert!(byte >= size || *there == 0x11);
                    assert!(byte < size || *there != 0);
                    *there ^= 1;
                    assert_eq!(lives(), byte < size, "byte {byte}, size {size} of {bytes}");
                    *there ^= 1;
                }
                assert!(lives());
            }
        }
    }
}
