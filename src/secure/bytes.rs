//! What is written into objects that the program does not have, and behind those that it has.
//!
//! The *canary* is a word that depends on a secret of the process and on the address, none of whose bytes is
//! zero, so that the zero at the end of a string does not pass. It fills the words from the last byte of the
//! object to the end of the slot; of the first word, what the object leaves. A wrong byte passes with the
//! chance 1 in 255.

#![allow(unsafe_code)]

use core::ptr;

use crate::config::Secure;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys;

/// **Any thread; atomic.** Set once, before the first canary.
static SECRET: AtomicU64 = AtomicU64::new(0);

/// What freed objects are filled with: a word of it is an address that no program can have.
const FILLED: u8 = 0xd9;
/// Words that are verified at once: without a way out between they are compared as vectors.
const LANES: usize = 4;
/// As many of a canary.
const BLOCK_WORDS: usize = 8;
const WORD_BYTES: usize = size_of::<u64>();

// The lowest bytes of a word come first.
const _: () = assert!(cfg!(target_endian = "little"));

pub(super) fn draw_secret() {
    SECRET.store(sys::random(), Relaxed);
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
#[inline]
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
        if last > first + 1 {
            set_words(words.add(first + 1), last - first - 1, canary);
        }
    }
}

/// Writes the canary to so many words.
///
/// # Safety
/// They are the caller's.
#[inline(never)] // The common case, without a loop, stays short.
unsafe fn set_words(first: *mut u64, count: usize, canary: u64) {
    for index in 0..count {
        // SAFETY: the caller's promise.
        unsafe { first.add(index).write(canary) };
    }
}

/// Whether the canary behind `size` bytes is as it was written.
///
/// # Safety
/// As for [`set_canary`].
#[inline]
pub(super) unsafe fn canary_lives(object: *mut u8, size: usize, end_bytes: usize) -> bool {
    let canary = canary(object);
    let (first, end) = (size / WORD_BYTES, end_bytes / WORD_BYTES);
    let keeps = !(u64::MAX << (size % WORD_BYTES * 8));
    let words = object.cast::<u64>();
    // SAFETY: as in `set_canary`.
    unsafe {
        let differs = (words.add(first).read() ^ canary) & !keeps;
        differs == 0
            && (end == first + 1 || are_words(words.add(first + 1), end - first - 1, canary))
    }
}

/// Whether so many words, at least one, are all this one.
///
/// # Safety
/// They are the caller's.
#[inline]
unsafe fn are_words(first: *mut u64, count: usize, expected: u64) -> bool {
    // SAFETY: the caller's promise.
    let differs = unsafe { first.read() ^ expected };
    // SAFETY: as above.
    differs == 0 && (count == 1 || unsafe { are_many_words(first, count, expected) })
}

/// As [`are_words`].
///
/// # Safety
/// They are the caller's, and memory of the heap: initialised.
#[inline(never)] // As in `set_words`.
unsafe fn are_many_words(first: *mut u64, count: usize, expected: u64) -> bool {
    // SAFETY: the caller's promise.
    let words = unsafe { core::slice::from_raw_parts(first, count) };
    // Without a way out between, so that the compiler compares many at once.
    let differ = |words: &[u64]| {
        words
            .iter()
            .fold(0, |differ, word| differ | (word ^ expected))
    };
    let blocks = words.chunks_exact(BLOCK_WORDS);
    let rest = differ(blocks.remainder());
    rest == 0 && blocks.map(differ).all(|differ| differ == 0)
}

/// The byte that freed objects are filled with.
#[inline]
fn filling(mode: Secure) -> u8 {
    if mode.has(Secure::ZERO) { 0 } else { FILLED }
}

/// Fills a freed object.
///
/// # Safety
/// The object has that many bytes, and is the caller's.
#[inline]
pub(super) unsafe fn fill(mode: Secure, object: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { object.write_bytes(filling(mode), bytes) };
}

/// Whether a freed object is as it was filled. `bytes` is a multiple of a word, at least one.
///
/// # Safety
/// As for [`fill`]; the object begins at a word.
#[inline]
pub(super) unsafe fn is_filled(mode: Secure, object: *mut u8, bytes: usize) -> bool {
    let expected = u64::from_ne_bytes([filling(mode); WORD_BYTES]);
    let words = object.cast::<u64>();
    let count = bytes / WORD_BYTES;
    if count < LANES {
        // SAFETY: the caller's promise; memory of the heap is initialised.
        return unsafe { are_many_words(words, count, expected) };
    }
    // SAFETY: as above, below as well.
    let lanes_at = |word: usize| unsafe { words.add(word).cast::<[u64; LANES]>().read() };
    // The last lanes may overlap those before: no loop for a remainder.
    let mut differs = [0; LANES];
    let mut look = |word| {
        for (differs, word) in differs.iter_mut().zip(lanes_at(word)) {
            *differs |= word ^ expected;
        }
    };
    let mut word = 0;
    while word + LANES < count {
        look(word);
        word += LANES;
    }
    look(count - LANES);
    differs == [0; LANES]
}

/// Clears an object for the program.
///
/// # Safety
/// As for [`fill`].
#[inline]
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
